"""bgert's operators in graphs by somebody who wants to do harm, and at the ends of what floats can hold.

Shapes of every kind, under sanitizers: runtime/fuzz/fuzz_operators.cpp.
"""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from bgert.backends.onnx_cpu import KERNELS
from cpu_operators import packed, panels, run, run_nodes

ROWS = {
    "x": np.ones((2, 32), np.float32),
    "residual": np.ones((2, 32), np.float32),
    "gamma": np.ones(32, np.float32),
    "beta": np.ones(32, np.float32),
}
LINEAR = {"x": np.ones((2, 32), np.float32), "weights": np.ones((1, 1024), np.float32), "bias": np.ones(32, np.float32)}
BYTES = {
    "x": np.zeros((2, 40), np.uint8),
    "weights": np.zeros((1, 1024), np.int8),
    "scales": np.ones(32, np.float32),
    "sums": np.zeros(32, np.int32),
    "bias": np.ones(32, np.float32),
}
ATTENTION = {
    "query": np.ones((2, 32), np.float32),
    "key": np.ones((2, 32), np.float32),
    "value": np.ones((2, 32), np.float32),
    "cu_seqlens": np.array([0, 2], np.int32),
}
SEEN = ATTENTION | {"seen": np.array([1], np.int32)}
RELATIVE = ATTENTION | {"bias": np.ones((2, 3), np.float32)}
OPERATORS = {
    "AddLayerNorm": (ROWS, {"epsilon": 1e-5}),
    "AddLayerNormInt8": (ROWS | {"factors": np.ones(32, np.float32)}, {"epsilon": 1e-5}),
    "LinearFp32": (LINEAR, {}),
    "LinearGeluFp32": (LINEAR, {}),
    "LinearInt8": (BYTES, {}),
    "LinearGeluInt8": (BYTES | {"factors": np.ones(32, np.float32)}, {}),
    "PackedAttention": (ATTENTION, {"num_heads": 2}),
    "PackedAttentionInt8": (ATTENTION, {"num_heads": 2}),
    "PackedRelativeAttention": (RELATIVE, {"num_heads": 2}),
    "PackedRelativeAttentionInt8": (RELATIVE, {"num_heads": 2}),
    "PackedSeenAttention": (SEEN, {"num_heads": 2}),
    "PackedSeenAttentionInt8": (SEEN, {"num_heads": 2}),
    "PackedLocalSeenAttention": (SEEN, {"num_heads": 2, "window": 3}),
    "MeanPool": ({"rows": np.ones((2, 32), np.float32), "cu_seqlens": np.array([0, 2], np.int32)}, {}),
    "MaxPool": ({"rows": np.ones((2, 32), np.float32), "cu_seqlens": np.array([0, 2], np.int32)}, {}),
    "Gelu": ({"x": np.ones((2, 32), np.float32)}, {}),
}
CASES = [(operator, name) for operator, (inputs, _) in OPERATORS.items() for name in inputs]


def call(operator, inputs, attributes):
    outputs = ["rows", "out"] if operator == "AddLayerNormInt8" else ["out"]
    node = helper.make_node(operator, list(inputs), outputs, domain="bgert", **attributes)
    gives_bytes = operator.endswith("Int8") and operator != "LinearInt8"
    return run_nodes([node], inputs, kind=TensorProto.UINT8 if gives_bytes else TensorProto.FLOAT)


@pytest.mark.parametrize(("operator", "name"), CASES)
def test_an_input_of_another_shape_is_refused(operator, name):
    """[N, 0] holds nothing, however large N is; one more or less, another rank, rows for columns."""
    inputs, attributes = OPERATORS[operator]
    call(operator, inputs, attributes)
    good = inputs[name]
    longer = np.zeros([size + 1 for size in good.shape], good.dtype)
    for bad in (
        np.zeros((*good.shape, 0), good.dtype),
        good.reshape(*good.shape, 1),
        good.reshape(1, *good.shape),
        longer,
    ):
        if operator == "Gelu" and bad.ndim == 2:
            continue  # any matrix will do
        with pytest.raises(Exception, match=r"do not fit together|cu_seqlens does not rise"):
            call(operator, inputs | {name: bad}, attributes)


@pytest.mark.parametrize("operator", OPERATORS)
def test_no_columns_are_refused(operator):
    """A product of dimensions is 0 then, and no loop over rows would end."""
    inputs, attributes = OPERATORS[operator]
    empty = {name: value[..., :0] if value.ndim == 2 else value for name, value in inputs.items()}
    with pytest.raises(Exception, match="do not fit together"):
        call(operator, empty, attributes)


@pytest.mark.parametrize("operator", ["LinearFp32", "LinearInt8", "LinearGeluInt8", "AddLayerNormInt8"])
def test_no_rows_are_no_work(operator):
    inputs, attributes = OPERATORS[operator]
    empty = {name: value[:0] if name in ("x", "residual") else value for name, value in inputs.items()}
    assert call(operator, empty, attributes).shape[0] == 0


def test_bytes_whose_sums_would_overflow_are_refused():
    depth = 65536 + 4
    inputs = BYTES | {"x": np.zeros((1, depth + 8), np.uint8), "weights": np.zeros((1, 32 * depth), np.int8)}
    with pytest.raises(Exception, match="do not fit together"):
        run("LinearInt8", inputs)


@pytest.mark.parametrize("epsilon", [math.nan, math.inf, -1.0])
def test_an_epsilon_that_is_none_is_refused(epsilon):
    with pytest.raises(Exception, match="epsilon must be"):
        run("AddLayerNorm", ROWS, epsilon=epsilon)


STARVED = """
import resource, sys
import numpy as np, onnxruntime
from onnx import TensorProto, helper
kinds = {"query": 1, "key": 1, "value": 1, "cu_seqlens": TensorProto.INT32}
node = helper.make_node("PackedAttention", list(kinds), ["out"], domain="bgert", num_heads=1)
infos = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
graph = helper.make_graph([node], "g", infos, [helper.make_tensor_value_info("out", 1, None)])
opsets = [helper.make_opsetid("", 17), helper.make_opsetid("bgert", 1)]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 4
options.register_custom_ops_library(sys.argv[1])
model = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
length = 1 << 20
rows = np.zeros((8 * length, 1), np.float32)
feeds = dict.fromkeys(["query", "key", "value"], rows) | {"cu_seqlens": np.arange(9, dtype=np.int32) * length}
with open("/proc/self/statm") as statm:
    held = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + rows.nbytes + (40 << 20),) * 2)  # room for the output, not for a task
in_a_task = 0
for _ in range(100):
    try:
        session.run(None, feeds)
    except Exception as error:
        in_a_task += "out of memory" in str(error)
        # As memory lies it is at times the engine that gets none for the output.
        assert "out of memory" in str(error) or "Failed to allocate memory" in str(error), error
    else:
        raise AssertionError("memory did not run out")
assert in_a_task > 0
"""


def test_memory_that_runs_out_in_a_task_is_an_error_and_no_crash():
    if not sys.platform.startswith("linux"):
        pytest.skip("RLIMIT_AS is Linux's")
    done = subprocess.run([sys.executable, "-c", STARVED, str(KERNELS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("size", [7, 64, 384])
@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4, -1e6])
def test_layer_norm_of_an_offset(kernels, size, offset):
    """The mean of a row is not lost in its size: as float64 has it, and never worse than torch."""
    rng = np.random.default_rng(size)
    x, residual = (rng.standard_normal((40, size)).astype(np.float32) for _ in range(2))
    x += np.float32(offset)
    gamma, beta = (rng.standard_normal(size).astype(np.float32) for _ in range(2))
    found = run("AddLayerNorm", {"x": x, "residual": residual, "gamma": gamma, "beta": beta}, epsilon=1e-12)
    total = (x + residual).astype(np.float64)
    centred = total - total.mean(1, keepdims=True)
    exact = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-12) * gamma + beta
    theirs = torch.nn.functional.layer_norm(
        torch.from_numpy(x + residual), (size,), torch.from_numpy(gamma), torch.from_numpy(beta), 1e-12
    ).numpy()
    error = np.abs(found - exact).max()
    assert error < 1e-5
    assert error <= np.abs(theirs - exact).max() + 2e-6


def test_layer_norm_of_rows_that_are_all_alike(kernels):
    x = np.full((3, 100), 12345.678, np.float32)
    inputs = {"x": x, "residual": x, "gamma": np.ones(100, np.float32), "beta": np.full(100, 0.5, np.float32)}
    found = run("AddLayerNorm", inputs, epsilon=1e-12)
    assert np.abs(found - 0.5).max() < 1e-3


@pytest.mark.parametrize("size", [8, 100, 384])
def test_layer_norm_of_what_floats_cannot_square_is_nan(kernels, size):
    rng = np.random.default_rng(size)
    inputs = {"gamma": np.ones(size, np.float32), "beta": np.full(size, 0.5, np.float32)}
    for scale in 10.0 ** np.arange(0, 39, 0.5):
        x = (rng.standard_normal((4, size)) * min(scale, 5e37)).astype(np.float32)
        total = x.astype(np.float64)
        centred = total - total.mean(1, keepdims=True)
        exact = centred / np.sqrt((centred**2).mean(1, keepdims=True)) + 0.5
        found = run("AddLayerNorm", {"x": x, "residual": np.zeros_like(x), **inputs}, epsilon=1e-12)
        right = np.abs(found - exact).max(1) < 1e-4
        assert (right | np.isnan(found).all(1)).all(), scale
        assert right.all() or scale > 1e17


@pytest.mark.parametrize("length", [1, 5, 17])
def test_attention_of_scores_below_all_bounds(kernels, length):
    """Scores of -1e31 and less are still told apart from what lies behind the end of a text."""
    inputs = packed(np.random.default_rng(length), [length], 8)
    inputs["query"][:], inputs["key"][:] = 1e17, -1e17
    found = run("PackedAttention", inputs, num_heads=1)
    assert np.abs(found - inputs["value"].mean(0)).max() < 1e-5


def test_bytes_of_rows_that_nobody_quantised(kernels):
    """Scales and zeros of any bits: a row that is NaN stays so, the others keep their values."""
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (5, 40), np.uint8)
    x[0, 32:36] = np.frombuffer(np.float32(np.nan).tobytes(), np.uint8)
    x[1:, 32:36] = np.frombuffer(np.float32(0.5).tobytes(), np.uint8)
    x[0, 36:] = x[1, 36:] = 255
    x[2:, 36:] = 0
    weights = rng.integers(-127, 128, (32, 32)).astype(np.int8)
    inputs = BYTES | {"x": x, "weights": panels(weights, 4), "sums": weights.sum(1, dtype=np.int32)}
    found = run("LinearInt8", inputs)
    assert np.isnan(found[0]).all()
    zeros = np.array([-1, 0, 0, 0])[:, None]
    assert np.array_equal(found[1:], ((x[1:, :32].astype(np.int64) - zeros) @ weights.T * 0.5 + 1).astype(np.float32))
