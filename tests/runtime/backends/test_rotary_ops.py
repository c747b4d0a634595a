"""Rotary positions, gated matrices and attention to neighbours against float64, with every kind of kernel."""

import math
from itertools import pairwise

import numpy as np
import pytest
from onnx import TensorProto, helper

from cpu_operators import packed, panels, run, run_nodes


def draw(seed):
    print("seed", seed)
    return np.random.default_rng(seed)


def bf16(x):
    """float32 rounded to bfloat16, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def activated(x, kind):
    x = np.asarray(x, np.float64)
    if kind == "Swiglu":
        return x / (1 + np.exp(-x))
    return np.array([0.5 * value * math.erfc(-value / math.sqrt(2)) for value in x.ravel()]).reshape(x.shape)


@pytest.mark.parametrize(("heads", "size"), [(12, 64), (3, 32), (2, 20), (1, 2), (2, 128)])
def test_rotary(kernels, heads, size):
    """As multiplication of complex numbers."""
    rng = draw(heads * size)
    x = rng.standard_normal((77, heads * size)).astype(np.float32)
    positions = rng.integers(0, 50, 77).astype(np.int32)
    angles = rng.random((50, size // 2)) * 6.3
    turns = np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = run("Rotary", {"x": x, "positions": positions, "turns": turns})
    halves = x.reshape(77, heads, 2, size // 2).astype(np.float64)
    turned = (halves[:, :, 0] + 1j * halves[:, :, 1]) * np.exp(1j * angles)[positions][:, None]
    expected = np.stack([turned.real, turned.imag], axis=2).reshape(77, -1)
    assert np.abs(found - expected).max() < 2e-6


@pytest.mark.parametrize("positions", [[0, 1, 4], [0, 1, -1], [0, 1]])
def test_rotary_refuses_positions_without_a_row(positions):
    inputs = {"x": np.zeros((3, 8), np.float32), "positions": np.array(positions, np.int32)}
    with pytest.raises(Exception, match="the inputs do not fit together"):
        run("Rotary", inputs | {"turns": np.zeros((4, 4), np.float32)})


@pytest.mark.parametrize("size", [3, 5, 16])
def test_rotary_refuses_heads_that_do_not_fit(size):
    inputs = {"x": np.zeros((1, 8), np.float32), "positions": np.zeros(1, np.int32)}
    with pytest.raises(Exception, match="is not as wide as a head"):
        run("Rotary", inputs | {"turns": np.zeros((4, size), np.float32)})


SHAPES = [(1, 32, 32), (13, 64, 96), (250, 128, 64), (97, 384, 32)]


@pytest.mark.parametrize(("rows", "depth", "columns"), SHAPES)
@pytest.mark.parametrize("kind", ["Geglu", "Swiglu"])
def test_gated_fp32(kernels, rows, depth, columns, kind):
    rng = draw(rows)
    x = rng.standard_normal((rows, depth)).astype(np.float32)
    weights = rng.standard_normal((2 * columns, depth)).astype(np.float32)
    bias = rng.standard_normal(2 * columns).astype(np.float32)
    found = run(f"Linear{kind}Fp32", {"x": x, "weights": panels(weights, 1), "bias": bias})
    gate, up = np.split(x.astype(np.float64) @ weights.T + bias, 2, axis=1)
    expected = activated(gate, kind) * up
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max() + 1e-4


@pytest.mark.parametrize(("rows", "depth", "columns"), SHAPES)
@pytest.mark.parametrize("kind", ["Geglu", "Swiglu"])
def test_gated_bf16(kernels, rows, depth, columns, kind):
    """Beside the matrix without a gate, whose rows numpy gates and rounds; a matrix of ones shows what comes out."""
    rng = draw(rows)
    inputs = {
        "x": rng.standard_normal((rows, depth)).astype(np.float32),
        "residual": np.zeros((rows, depth), np.float32),
        "gamma": np.ones(depth, np.float32),
        "beta": np.zeros(depth, np.float32),
    }
    biases = {"bias": rng.standard_normal(2 * columns).astype(np.float32), "none": np.zeros(columns, np.float32)}
    weights = []
    matrix = rng.standard_normal((2 * columns, depth)).astype(np.float32)
    for name, value in (("weights", matrix), ("ones", np.eye(columns, dtype=np.float32))):
        data = (panels(bf16(value), 2).view(np.uint32) >> 16).astype(np.uint16)
        weights.append(helper.make_tensor(name, TensorProto.BFLOAT16, data.shape, data.tobytes(), raw=True))
    norm = helper.make_node("AddLayerNormBf16", list(inputs), ["rows", "operand"], domain="bgert", epsilon=1e-5)
    plain = helper.make_node("LinearBf16", ["operand", "weights", "bias"], ["out"], domain="bgert")
    gated = [
        helper.make_node(f"Linear{kind}Bf16", ["operand", "weights", "bias"], ["wide"], domain="bgert"),
        helper.make_node("LinearBf16", ["wide", "ones", "none"], ["out"], domain="bgert"),
    ]
    gate, up = np.split(run_nodes([norm, plain], inputs | biases, weights).astype(np.float64), 2, axis=1)
    found = run_nodes([norm, *gated], inputs | biases, weights)
    expected = activated(gate, kind) * up
    assert np.array_equal(found, bf16(found))
    # Half of the last bit, and what float32 rounds in a GELU of nearly nothing.
    assert (np.abs(found - expected) <= np.abs(expected) * 2**-8 * 1.01 + 1e-6 * np.abs(expected).max()).all()


@pytest.mark.parametrize(("rows", "depth", "columns"), SHAPES)
@pytest.mark.parametrize("kind", ["Geglu", "Swiglu"])
def test_gated_int8(kernels, rows, depth, columns, kind):
    """Beside the matrix without a gate, with few rows and with many, which are quantised in two ways."""
    rng = draw(rows)
    weights = rng.integers(-127, 128, (2 * columns, depth)).astype(np.int8)
    factors = np.exp2(rng.integers(-2, 3, columns)).astype(np.float32)
    inputs = {
        "x": rng.standard_normal((rows, depth)).astype(np.float32),
        "residual": np.zeros((rows, depth), np.float32),
        "gamma": np.ones(depth, np.float32),
        "beta": np.zeros(depth, np.float32),
        "in_factors": np.ones(depth, np.float32),
        "weights": panels(weights, 4),
        "scales": rng.random(2 * columns).astype(np.float32) / 100,
        "sums": weights.sum(1, dtype=np.int32),
        "bias": rng.standard_normal(2 * columns).astype(np.float32),
    }
    norm = helper.make_node("AddLayerNormInt8", list(inputs)[:5], ["rows", "operand"], domain="bgert", epsilon=1e-5)
    matrix = ["operand", *list(inputs)[5:]]
    plain = helper.make_node("LinearInt8", matrix, ["out"], domain="bgert")
    gated = helper.make_node(f"Linear{kind}Int8", [*matrix, "factors"], ["out"], domain="bgert")
    gate, up = np.split(run_nodes([norm, plain], inputs).astype(np.float64), 2, axis=1)
    found = run_nodes([norm, gated], inputs | {"factors": factors}, kind=TensorProto.UINT8)
    ends = np.ascontiguousarray(found[:, -8:])
    step, zero = ends[:, :4].copy().view(np.float32), ends[:, 4:].copy().view(np.int32)
    expected = activated(gate, kind) * up * factors
    assert (np.abs((found[:, :-8].astype(np.float64) - zero) * step - expected) <= 0.51 * step + 1e-5).all()


@pytest.mark.parametrize("name", ["LinearGegluFp32", "LinearSwigluFp32"])
def test_a_gate_of_half_a_panel_is_refused(name):
    inputs = {"x": np.zeros((2, 32), np.float32), "weights": np.zeros((3, 1024), np.float32)}
    with pytest.raises(Exception, match="even number of panels"):
        run(name, inputs | {"bias": np.zeros(96, np.float32)})


@pytest.mark.parametrize("window", [1, 7, 64, 65, 500])
@pytest.mark.parametrize(("heads", "size"), [(3, 64), (5, 20)])
def test_local_attention(kernels, heads, size, window):
    """Texts shorter than the window, of one block of queries and of several."""
    inputs = packed(draw(window), [1, 8, 9, 63, 64, 65, 66, 300, 129, 2], heads * size)
    found = run("PackedLocalAttention", inputs, num_heads=heads, window=window)
    query, key, value = (inputs[name].astype(np.float64) for name in ("query", "key", "value"))
    expected = np.zeros_like(query)
    for first, last in pairwise(inputs["cu_seqlens"]):
        places = np.arange(last - first)
        seen = np.abs(places[:, None] - places) <= window
        for column in range(0, heads * size, size):
            part = np.s_[first:last, column : column + size]
            scores = np.where(seen, query[part] @ key[part].T / math.sqrt(size), -np.inf)
            weights = np.exp(scores - scores.max(1, keepdims=True))
            expected[part] = weights / weights.sum(1, keepdims=True) @ value[part]
    assert np.abs(found - expected).max() < 2e-5
    for first, last in pairwise(inputs["cu_seqlens"]):
        alone = {name: inputs[name][first:last].copy() for name in ("query", "key", "value")}
        alone["cu_seqlens"] = np.array([0, last - first], np.int32)
        again = run("PackedLocalAttention", alone, num_heads=heads, window=window)
        assert np.array_equal(again, found[first:last])


@pytest.mark.parametrize("window", [0, -1, 1 << 21])
def test_windows_that_are_none_are_refused(window):
    inputs = packed(draw(1), [4], 32)
    with pytest.raises(Exception, match="window must be from 1"):
        run("PackedLocalAttention", inputs, num_heads=1, window=window)


def test_local_attention_is_asked_for_every_token():
    inputs = packed(draw(1), [4, 3], 32)
    inputs["query"] = inputs["query"][:2].copy()
    with pytest.raises(Exception, match="has not a query for each key"):
        run("PackedLocalAttention", inputs, num_heads=1, window=2)
