"""bgert's operators for ONNX Runtime, each against float64, with every kind of kernel that this processor has.

`pytest tests/runtime/test_kernels.py`; runtime/fuzz/fuzz_kernels.cpp does the same under sanitizers.
"""

import math
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from onnx import TensorProto, helper

from bgert.backends.onnx_cpu import KERNELS

SETS = ("baseline", "avx2", "avx512")


def run(op_type, inputs, **attributes):
    """One operator on arrays by name; the session has two threads."""
    import onnxruntime

    kinds = {
        name: TensorProto.INT32 if array.dtype == np.int32 else TensorProto.FLOAT for name, array in inputs.items()
    }
    graph = helper.make_graph(
        [helper.make_node(op_type, list(inputs), ["out"], domain="bgert", **attributes)],
        "one",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("bgert", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    options.register_custom_ops_library(str(KERNELS))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


@pytest.fixture(params=SETS)
def kernels(request, monkeypatch):
    """Kernels for a session that a test opens; skipped where the processor lacks them."""
    import onnxruntime

    monkeypatch.setenv("BGERT_KERNELS", request.param)
    try:
        onnxruntime.SessionOptions().register_custom_ops_library(str(KERNELS))
    except Exception as error:
        if "BGERT_KERNELS" not in str(error):
            raise
        pytest.skip(f"no {request.param} here")
    return request.param


def draw(seed):
    print("seed", seed)
    return np.random.default_rng(seed)


def packed(rng, lengths, hidden):
    cuts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    rows = [rng.standard_normal((cuts[-1], hidden)).astype(np.float32) * spread for spread in (2, 2, 1)]
    return dict(zip(("query", "key", "value"), rows, strict=True)) | {"cu_seqlens": cuts}


def attention64(query, key, value, cu_seqlens, heads, one_each=False):
    size = key.shape[1] // heads
    out = np.zeros(query.shape)
    for text, (first, last) in enumerate(pairwise(cu_seqlens)):
        asking = slice(text, text + 1) if one_each else slice(first, last)
        for column in range(0, key.shape[1], size):
            part = np.s_[:, column : column + size]
            scores = query[asking][part].astype(np.float64) @ key[first:last][part].T / math.sqrt(size)
            weights = np.exp(scores - scores.max(1, keepdims=True))
            out[asking, column : column + size] = weights / weights.sum(1, keepdims=True) @ value[first:last][part]
    return out


@pytest.mark.parametrize(("heads", "size"), [(12, 32), (3, 64), (2, 16), (5, 20), (1, 7), (2, 100)])
def test_attention(kernels, heads, size):
    inputs = packed(draw(heads * size), [1, 15, 16, 17, 100, 2, 33, 8, 300], heads * size)
    found = run("PackedAttention", inputs, num_heads=heads)
    assert np.abs(found - attention64(**inputs, heads=heads)).max() < 2e-5
    first = {**inputs, "query": inputs["query"][inputs["cu_seqlens"][:-1]].copy()}
    found = run("PackedAttention", first, num_heads=heads)
    assert np.abs(found - attention64(**first, heads=heads, one_each=True)).max() < 2e-5


def test_attention_of_a_text_alone_has_the_same_bits(kernels):
    lengths = [9, 40, 3, 128]
    inputs = packed(draw(1), lengths, 96)
    together = run("PackedAttention", inputs, num_heads=3)
    for first, last in pairwise(inputs["cu_seqlens"]):
        alone = {name: inputs[name][first:last].copy() for name in ("query", "key", "value")}
        alone["cu_seqlens"] = np.array([0, last - first], np.int32)
        assert np.array_equal(run("PackedAttention", alone, num_heads=3), together[first:last])


@pytest.mark.parametrize("where", ["query", "key", "value"])
def test_attention_hands_nan_on(kernels, where):
    inputs = packed(draw(2), [20, 5], 64)
    inputs[where][3, 10] = np.nan
    found = run("PackedAttention", inputs, num_heads=2)
    assert np.isnan(found[3, 10])
    assert not np.isnan(found[20:]).any()


def test_attention_of_scores_that_are_far_apart(kernels):
    inputs = packed(draw(3), [30], 32)
    inputs["query"] *= 1e4
    assert np.abs(run("PackedAttention", inputs, num_heads=1) - attention64(**inputs, heads=1)).max() < 1e-3


@pytest.mark.parametrize("cuts", [[0, 3, 3, 8], [0, 5], [1, 8], [0, 9, 8], [8]])
def test_attention_refuses_bounds_that_do_not_fit(cuts):
    inputs = packed(draw(4), [8], 32) | {"cu_seqlens": np.array(cuts, np.int32)}
    with pytest.raises(Exception, match="cu_seqlens does not rise"):
        run("PackedAttention", inputs, num_heads=2)


@pytest.mark.parametrize(
    ("change", "heads"),
    [({"value": np.zeros((7, 32), np.float32)}, 2), ({"query": np.zeros((8, 16), np.float32)}, 2), ({}, 5), ({}, 0)],
)
def test_attention_refuses_what_does_not_fit(change, heads):
    with pytest.raises(Exception, match=r"do not fit|num_heads"):
        run("PackedAttention", packed(draw(5), [8], 32) | change, num_heads=heads)


@pytest.mark.parametrize("size", [1, 5, 16, 33, 384, 1024])
def test_add_layer_norm(kernels, size):
    rng = draw(size)
    x, residual = (rng.standard_normal((37, size)).astype(np.float32) * 3 for _ in range(2))
    gamma, beta = (rng.standard_normal(size).astype(np.float32) for _ in range(2))
    x[5, 0] = 1000  # an outlier channel
    inputs = {"x": x, "residual": residual, "gamma": gamma, "beta": beta}
    total = x.astype(np.float64) + residual
    centred = total - total.mean(1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-12) * gamma + beta
    assert np.abs(run("AddLayerNorm", inputs, epsilon=1e-12) - expected).max() < 2e-5


def test_gelu(kernels):
    x = np.concatenate([np.linspace(-9, 9, 100_003), [-1e30, 1e30, 0, 1e-30]]).astype(np.float32)[None]
    expected = [0.5 * value * math.erfc(-value / math.sqrt(2)) for value in x[0].astype(float)]
    found = run("Gelu", {"x": x})
    assert (np.abs(found - expected) / np.maximum(1, np.abs(expected))).max() < 1.2e-6
    assert np.isnan(run("Gelu", {"x": np.full((1, 40), np.nan, np.float32)})).all()


@pytest.mark.parametrize("hidden", [3, 16, 70])
def test_mean_pool(kernels, hidden):
    inputs = packed(draw(hidden), [1, 500, 16, 7], hidden)
    cuts, rows = inputs["cu_seqlens"], inputs["value"]
    found = run("MeanPool", {"rows": rows, "cu_seqlens": cuts})
    expected = [rows[a:b].astype(np.float64).mean(0) for a, b in pairwise(cuts)]
    assert np.abs(found - expected).max() < 1e-6


def test_unknown_kernels_are_refused():
    program = "import sys, onnxruntime; onnxruntime.SessionOptions().register_custom_ops_library(sys.argv[1])"
    environment = {**os.environ, "BGERT_KERNELS": "avx1024"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(KERNELS)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "BGERT_KERNELS names kernels" in done.stderr


def test_the_library_needs_neither_python_nor_onnxruntime():
    if not sys.platform.startswith("linux"):
        pytest.skip("ldd is Linux's")
    needed = subprocess.run(["ldd", str(KERNELS)], capture_output=True, text=True, check=True).stdout
    assert "python" not in needed
    assert "onnxruntime" not in needed
