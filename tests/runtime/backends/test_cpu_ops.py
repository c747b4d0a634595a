"""bgert's operators for ONNX Runtime, each against float64, with every kind of kernel that this processor has.

`pytest tests/runtime/backends/test_cpu_ops.py`; runtime/fuzz/fuzz_kernels.cpp does the same under sanitizers.
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
from cpu_operators import SETS, packed, panels, run, run_nodes


def draw(seed):
    print("seed", seed)
    return np.random.default_rng(seed)


def attention64(query, key, value, cu_seqlens, heads, one_each=False, bias=None):
    size = key.shape[1] // heads
    out = np.zeros(query.shape)
    for text, (first, last) in enumerate(pairwise(cu_seqlens)):
        asking = slice(text, text + 1) if one_each else slice(first, last)
        for column in range(0, key.shape[1], size):
            part = np.s_[:, column : column + size]
            scores = query[asking][part].astype(np.float64) @ key[first:last][part].T / math.sqrt(size)
            if bias is not None:
                rows, columns = np.indices(scores.shape)
                scores += bias[column // size, bias.shape[1] // 2 + columns - rows]
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


@pytest.mark.parametrize(("heads", "size"), [(12, 32), (3, 64), (5, 20)])
def test_relative_attention(kernels, heads, size):
    """The table is as long as the longest text and no longer, then longer."""
    rng = draw(heads * size)
    inputs = packed(rng, [1, 15, 16, 17, 100, 2, 33, 8, 300], heads * size)
    for most in (300, 512):
        bias = rng.standard_normal((heads, 2 * most - 1)).astype(np.float32) * 3
        found = run("PackedRelativeAttention", inputs | {"bias": bias}, num_heads=heads)
        assert np.abs(found - attention64(**inputs, heads=heads, bias=bias)).max() < 2e-5
        first = {**inputs, "query": inputs["query"][inputs["cu_seqlens"][:-1]].copy()}
        found = run("PackedRelativeAttention", first | {"bias": bias}, num_heads=heads)
        assert np.abs(found - attention64(**first, heads=heads, one_each=True, bias=bias)).max() < 2e-5
    short = np.zeros((heads, 2 * 299 - 1), np.float32)
    with pytest.raises(Exception, match="too short for the longest text"):
        run("PackedRelativeAttention", inputs | {"bias": short}, num_heads=heads)


def seen_of(inputs, rng):
    """How many tokens of each text are keys: all of the first one's."""
    lengths = np.diff(inputs["cu_seqlens"])
    some = np.array([rng.integers(1, length + 1) for length in lengths], np.int32)
    some[0] = lengths[0]
    return some


def attention_seen64(inputs, seen, heads):
    """Of queries that see the first tokens of their text alone."""
    query, key, value, bounds = (inputs[name] for name in ("query", "key", "value", "cu_seqlens"))
    parts = []
    for (first, last), count in zip(pairwise(bounds), seen, strict=True):
        keys, values = (rows[first : first + count] for rows in (key, value))
        asked = query[first:last]
        repeated = np.arange(len(asked) + 1) * count  # a text of its own for every query
        keys, values = np.tile(keys, (len(asked), 1)), np.tile(values, (len(asked), 1))
        parts.append(attention64(asked, keys, values, repeated, heads, one_each=True))
    return np.concatenate(parts)


@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize(("heads", "size"), [(12, 32), (5, 20)])
def test_attention_that_sees_the_first_tokens(kernels, heads, size, window):
    rng = draw(heads * size)
    inputs = packed(rng, [1, 15, 16, 17, 2, 33, 8, 41], heads * size)
    seen = seen_of(inputs, rng)
    name, more = ("PackedSeenAttention", {}) if window is None else ("PackedLocalSeenAttention", {"window": window})
    found = run(name, inputs | {"seen": seen}, num_heads=heads, **more)
    assert np.abs(found - attention_seen64(inputs, seen, heads)).max() < 2e-5
    whole = np.diff(inputs["cu_seqlens"]).astype(np.int32)
    every = run("PackedAttention", inputs, num_heads=heads)
    assert np.array_equal(run(name, inputs | {"seen": whole}, num_heads=heads, **more), every)
    bounds = inputs["cu_seqlens"]
    for text, (first, last) in enumerate(pairwise(bounds)):
        alone = {part: inputs[part][first:last].copy() for part in ("query", "key", "value")}
        alone |= {"cu_seqlens": np.array([0, last - first], np.int32), "seen": seen[text : text + 1].copy()}
        assert np.array_equal(run(name, alone, num_heads=heads, **more), found[first:last])


def test_keys_that_a_text_does_not_have_are_refused():
    inputs = packed(draw(1), [9, 3], 32)
    for wrong in ([0, 3], [10, 3], [9, -1], [2**31 - 1, 3]):
        with pytest.raises(Exception, match="counts keys that a text does not have"):
            run("PackedSeenAttention", inputs | {"seen": np.array(wrong, np.int32)}, num_heads=2)
    some = inputs | {"seen": np.array([8, 3], np.int32)}
    run("PackedLocalSeenAttention", some, num_heads=2, window=8)
    with pytest.raises(Exception, match="that a window hides"):
        run("PackedLocalSeenAttention", some, num_heads=2, window=7)
    one_each = {**some, "query": inputs["query"][:2].copy()}
    with pytest.raises(Exception, match="has not a query for each key"):
        run("PackedSeenAttention", one_each, num_heads=2)


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


def bf16_attention(inputs, operator="PackedAttentionBf16", **attributes):
    """What matrices of bfloat16 read, as float32."""
    nodes = [
        helper.make_node(operator, list(inputs), ["half"], domain="bgert", **attributes),
        helper.make_node("Cast", ["half"], ["out"], to=TensorProto.FLOAT),
    ]
    return run_nodes(nodes, inputs)


@pytest.mark.parametrize(("heads", "size"), [(12, 32), (3, 64), (2, 16), (5, 20), (1, 7), (2, 100)])
def test_attention_in_bfloat16(kernels, heads, size):
    """Products of numbers with 8 bits: of the same in float64, where all that is left is the rounding of weights."""
    inputs = packed(draw(heads * size), [1, 15, 16, 17, 100, 2, 33, 8, 300], heads * size)
    for name in ("query", "key", "value"):
        inputs[name] = (inputs[name].view(np.uint32) & 0xFFFF0000).view(np.float32)
    expected = attention64(**inputs, heads=heads)
    found = bf16_attention(inputs, num_heads=heads)
    assert np.abs(found - expected).max() < 2e-2
    assert np.sqrt(np.square(found - expected).mean()) < 2e-3 * np.sqrt(np.square(expected).mean())
    first = {**inputs, "query": inputs["query"][inputs["cu_seqlens"][:-1]].copy()}
    assert np.array_equal(bf16_attention(first, num_heads=heads), found[inputs["cu_seqlens"][:-1]])
    bias = draw(1).standard_normal((heads, 2 * 300 - 1)).astype(np.float32) * 3
    found = bf16_attention(inputs | {"bias": bias}, "PackedRelativeAttentionBf16", num_heads=heads)
    assert np.abs(found - attention64(**inputs, heads=heads, bias=bias)).max() < 2e-2


def test_attention_in_bfloat16_of_a_text_alone_has_the_same_bits(kernels):
    inputs = packed(draw(1), [9, 40, 3, 128, 513], 96)
    together = bf16_attention(inputs, num_heads=3)
    for first, last in pairwise(inputs["cu_seqlens"]):
        alone = {name: inputs[name][first:last].copy() for name in ("query", "key", "value")}
        alone["cu_seqlens"] = np.array([0, last - first], np.int32)
        assert np.array_equal(bf16_attention(alone, num_heads=3), together[first:last])


@pytest.mark.parametrize("where", ["query", "key", "value"])
@pytest.mark.parametrize("what", [np.nan, np.inf])
def test_attention_in_bfloat16_hands_nan_on(kernels, where, what):
    inputs = packed(draw(2), [20, 5], 64)
    inputs[where][3, 10] = what
    found = bf16_attention(inputs, num_heads=2)
    assert not np.isfinite(found[3, 10]) or (where != "value" and what == np.inf)
    assert np.isfinite(found[20:]).all()


def test_attention_in_bfloat16_of_scores_that_are_far_apart(kernels):
    inputs = packed(draw(3), [30], 32)
    for name in ("query", "key", "value"):
        inputs[name] = (inputs[name].view(np.uint32) & 0xFFFF0000).view(np.float32)
    inputs["query"] *= 4096
    assert np.abs(bf16_attention(inputs, num_heads=1) - attention64(**inputs, heads=1)).max() < 2e-2


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


@pytest.mark.parametrize("hidden", [3, 16, 70])
def test_max_pool(hidden):
    inputs = packed(draw(hidden), [1, 500, 16, 7], hidden)
    cuts, rows = inputs["cu_seqlens"], inputs["value"]
    found = run("MaxPool", {"rows": rows, "cu_seqlens": cuts})
    assert np.array_equal(found, [rows[a:b].max(0) for a, b in pairwise(cuts)])
    for broken in (1, 200, 500):  # the first, one between and the last row of the second text
        rows[broken, 2] = np.nan
        found = run("MaxPool", {"rows": rows, "cu_seqlens": cuts})
        assert np.isnan(found[1, 2])
        assert np.isfinite(found).sum() == found.size - 1
        rows[broken, 2] = 0


def gelu64(x):
    return np.array([0.5 * value * math.erfc(-value / math.sqrt(2)) for value in x.ravel()]).reshape(x.shape)


def bf16(x):
    """float32 rounded to bfloat16, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


SHAPES = [(1, 32, 32), (13, 64, 96), (250, 128, 64), (7, 384, 32)]


@pytest.mark.parametrize(("rows", "depth", "columns"), SHAPES)
@pytest.mark.parametrize("with_gelu", [False, True])
def test_linear_fp32(kernels, rows, depth, columns, with_gelu):
    rng = draw(rows)
    x, weights = (rng.standard_normal(shape).astype(np.float32) for shape in ((rows, depth), (columns, depth)))
    bias = rng.standard_normal(columns).astype(np.float32)
    found = run("LinearGeluFp32" if with_gelu else "LinearFp32", {"x": x, "weights": panels(weights, 1), "bias": bias})
    expected = x.astype(np.float64) @ weights.T + bias
    assert np.abs(found - (gelu64(expected) if with_gelu else expected)).max() < 1e-4


@pytest.mark.parametrize(("rows", "depth", "columns"), SHAPES)
def test_linear_bf16(kernels, rows, depth, columns):
    """From rows over LayerNorm, a matrix with GELU and a matrix, with numpy's rounding in between."""
    rng = draw(rows)
    x, residual = (rng.standard_normal((rows, depth)).astype(np.float32) for _ in range(2))
    inner, outer = (rng.standard_normal(shape).astype(np.float32) for shape in ((columns, depth), (depth, columns)))
    inputs = {"x": x, "residual": residual, "gamma": np.ones(depth, np.float32), "beta": np.zeros(depth, np.float32)}
    biases = {
        "b1": rng.standard_normal(columns).astype(np.float32),
        "b2": rng.standard_normal(depth).astype(np.float32),
    }
    weights = []
    for name, matrix in (("w1", inner), ("w2", outer)):
        data = (panels(bf16(matrix), 2).view(np.uint32) >> 16).astype(np.uint16)
        weights.append(helper.make_tensor(name, TensorProto.BFLOAT16, data.shape, data.tobytes(), raw=True))
    nodes = [
        helper.make_node("AddLayerNormBf16", list(inputs), ["rows", "operand"], domain="bgert", epsilon=1e-5),
        helper.make_node("LinearGeluBf16", ["operand", "w1", "b1"], ["wide"], domain="bgert"),
        helper.make_node("LinearBf16", ["wide", "w2", "b2"], ["out"], domain="bgert"),
    ]
    found = run_nodes(nodes, inputs | biases, weights)
    total = x.astype(np.float64) + residual
    centred = total - total.mean(1, keepdims=True)
    operand = bf16(centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5))
    wide = gelu64(operand.astype(np.float64) @ bf16(inner).T + biases["b1"])
    exact = wide @ bf16(outer).T + biases["b2"]
    rounded = bf16(wide).astype(np.float64) @ bf16(outer).T + biases["b2"]
    # Sums that fall beside a rounding point may round the other way, so: as near as rounding itself is to no rounding.
    assert np.abs(found - rounded).max() <= max(0.5 * np.abs(rounded - exact).max(), 1e-3)


def quantized(rows):
    """Bytes, scales and zeros of rows, each by itself."""
    high, low = np.maximum(rows.max(1), 0), np.minimum(rows.min(1), 0)
    scales = (high - low) / np.float32(255)
    inverse = np.divide(255, high - low, out=np.zeros_like(high), where=high > low)
    zeros = np.rint(-low * inverse)
    return np.clip(np.rint(rows * inverse[:, None] + zeros[:, None]), 0, 255), scales, zeros


@pytest.mark.parametrize(("rows", "depth", "columns"), SHAPES)
@pytest.mark.parametrize("with_gelu", [False, True])
def test_linear_int8(kernels, rows, depth, columns, with_gelu):
    """Rows are quantised by LayerNorm; extremes of weights would saturate where pairs are summed in 16 bits."""
    rng = draw(rows)
    x = rng.standard_normal((rows, depth)).astype(np.float32)
    weights = rng.choice(np.array([-127, 127, 3], np.int8), (columns, depth))
    scales, bias = (rng.random(columns).astype(np.float32) / 100 for _ in range(2))
    factors = np.exp2(rng.integers(-2, 3, depth)).astype(np.float32)
    inputs = {
        "x": x,
        "residual": np.zeros_like(x),
        "gamma": np.ones(depth, np.float32),
        "beta": np.zeros(depth, np.float32),
        "factors": factors,
        "weights": panels(weights, 4),
        "scales": scales,
        "sums": weights.sum(1, dtype=np.int32),
        "bias": bias,
    }
    nodes = [
        helper.make_node("AddLayerNormInt8", list(inputs)[:5], ["rows", "operand"], domain="bgert", epsilon=1e-5),
        helper.make_node("LinearInt8", ["operand", *list(inputs)[5:]], ["out"], domain="bgert"),
    ]
    if with_gelu:
        inputs["out_factors"] = np.ones(columns, np.float32)
        nodes[1] = helper.make_node("LinearGeluInt8", ["operand", *list(inputs)[5:]], ["out"], domain="bgert")
    found = run_nodes(nodes, inputs, kind=TensorProto.UINT8 if with_gelu else TensorProto.FLOAT)
    centred = x - x.mean(1, keepdims=True)
    normal = centred / np.sqrt((centred.astype(np.float64) ** 2).mean(1, keepdims=True) + 1e-5)
    q, row_scales, zeros = quantized((normal * factors).astype(np.float32))
    expected = (q - zeros[:, None]) @ weights.T.astype(np.float64) * row_scales[:, None] * scales + bias
    if with_gelu:
        ends = np.ascontiguousarray(found[:, -8:])
        step, zero = ends[:, :4].copy().view(np.float32), ends[:, 4:].copy().view(np.int32)
        expected = gelu64(expected)
        found = (found[:, :-8].astype(np.float64) - zero) * step
        assert np.abs(found - expected).max() <= 0.51 * step.max() + 0.01 * np.abs(expected).max()
    else:  # a value beside a rounding point may become the next byte
        assert np.abs(found - expected).max() <= 2.1 * 127 * (row_scales.max() * scales.max()) + 1e-4


def test_every_set_of_kernels_has_the_same_integers():
    """Sums of bytes are exact, so int8 graphs differ between processors only by the rounding of float32."""
    rng = draw(6)
    x = rng.integers(0, 256, (20, 64 + 8)).astype(np.uint8)
    x[:, 64:68] = np.frombuffer(np.float32(1).tobytes(), np.uint8)
    x[:, 68:] = 0
    weights = rng.integers(-127, 128, (32, 64)).astype(np.int8)
    ones, nothing = np.ones(32, np.float32), np.zeros(32, np.float32)
    inputs = {"x": x, "w": panels(weights, 4), "s": ones, "sums": weights.sum(1, dtype=np.int32), "b": nothing}
    expected = x[:, :64].astype(np.int64) @ weights.T
    found = {}
    for name in SETS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BGERT_KERNELS", name)
            try:
                found[name] = run("LinearInt8", inputs)
            except Exception as error:
                assert "BGERT_KERNELS" in str(error)  # noqa: PT017
    assert found
    for values in found.values():
        assert np.array_equal(values, expected)


def test_nan_and_infinity_are_not_lost_in_bytes(kernels):
    for bad in (np.nan, np.inf, -np.inf):
        x = np.ones((2, 32), np.float32)
        x[0, 5] = bad
        inputs = {"x": x, "residual": x, "gamma": x[1], "beta": x[1], "factors": x[1]}
        weights = {"w": np.ones((1, 32 * 32), np.int8), "s": x[1], "sums": np.full(32, 32, np.int32), "b": x[1]}
        nodes = [
            helper.make_node("AddLayerNormInt8", list(inputs), ["rows", "operand"], domain="bgert", epsilon=1e-5),
            helper.make_node("LinearInt8", ["operand", *weights], ["out"], domain="bgert"),
        ]
        found = run_nodes(nodes, inputs | weights)
        assert np.isnan(found[0]).all()
        assert np.isfinite(found[1]).all()


def test_linear_refuses_what_does_not_fit():
    x, bias = np.zeros((2, 32), np.float32), np.zeros(32, np.float32)
    with pytest.raises(Exception, match="do not fit"):
        run("LinearFp32", {"x": x, "weights": np.zeros((1, 31 * 32), np.float32), "bias": bias})
    with pytest.raises(Exception, match="do not fit"):
        run("LinearFp32", {"x": x, "weights": np.zeros((1, 32 * 16), np.float32), "bias": bias[:16]})


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
