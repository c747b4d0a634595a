"""The CUDA kernels of E4M3 on a CPU, beside bgert_export.fp8.arithmetic bit for bit and numpy in float64."""

import ctypes

import numpy as np
import pytest

from bgert_export.fp8.arithmetic import decode, encode, quantize_rows
from cuda_arrays import error, halves

ROUNDED = 2.6e-4  # to float16 once, of the norm of random numbers
EPSILON = 1e-12

WIDTHS = [(1, 16), (1, 256), (2, 384), (3, 768), (4, 1024), (6, 1536), (8, 2048), (12, 3072), (16, 4096)]


def outputs(rows, columns):
    """Operand and scales, filled with what nobody writes."""
    return np.full((rows, columns), 0xA5, np.uint8), np.full(rows, -7, np.float32)


def expected_of(rows):
    numbers, scales = quantize_rows(rows.astype(np.float32))
    return encode(numbers), scales


@pytest.mark.parametrize(("vectors", "columns"), WIDTHS)
def test_quantised_rows_have_the_bits_of_numpy(emulator, draw, vectors, columns):
    count = 6  # the last block has idle warps
    rows = halves((count, columns), draw)
    rows[1] *= np.float16(1e-4)  # subnormal in float16
    rows[2] *= np.float16(9000)
    rows[3] = 0
    rows[4, 0] = -60000
    operand, scales = outputs(count + 1, columns)
    emulator(f"quantize_fp8_v{vectors}", (2, 1), 128, 0, rows, operand, scales, count, columns)
    bits, factors = expected_of(rows)
    np.testing.assert_array_equal(operand[:count], bits)
    np.testing.assert_array_equal(scales[:count], factors)
    assert (operand[count:] == 0xA5).all()
    assert scales[count] == -7


@pytest.mark.parametrize(("vectors", "columns"), WIDTHS)
def test_gelu_quantised_is_gelu_rounded_then_quantised(emulator, draw, vectors, columns):
    count = 5
    rows, gelu = halves((count, columns), draw, 3.0), halves((count, columns), draw)
    emulator("gelu_rows", (2, 1), 256, 0, rows, gelu, ctypes.c_longlong(rows.size // 8))
    again = rows.copy()
    in_place = halves(rows.shape, draw)
    in_place[...] = again
    emulator("gelu", (2, 1), 256, 0, in_place, ctypes.c_longlong(rows.size // 8))
    np.testing.assert_array_equal(gelu, in_place)
    operand, scales = outputs(count, columns)
    emulator(f"gelu_fp8_v{vectors}", (2, 1), 128, 0, rows, operand, scales, count, columns)
    bits, factors = expected_of(gelu)
    np.testing.assert_array_equal(operand, bits)
    np.testing.assert_array_equal(scales, factors)


@pytest.mark.parametrize(("vectors", "columns"), [(1, 64), (2, 384), (3, 768), (4, 1024)])
def test_layer_norm_gives_rows_and_the_same_rows_quantised(emulator, draw, vectors, columns):
    count = 7
    x, residual = halves((count, columns), draw), halves((count, columns), draw, 3.0)
    gamma, beta, y = halves(columns, draw), halves(columns, draw), halves((count, columns), draw)
    operand, scales = outputs(count, columns)
    arguments = (x, residual, gamma, beta, y, operand, scales, count, columns, EPSILON)
    emulator(f"add_layer_norm_fp8_v{vectors}", (2, 1), 128, 0, *arguments)
    centred = x.astype(np.float64) + residual
    centred -= centred.mean(-1, keepdims=True)
    assert error(y, centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON) * gamma + beta) < ROUNDED
    bits, factors = expected_of(y)
    np.testing.assert_array_equal(operand, bits)
    np.testing.assert_array_equal(scales, factors)


def test_a_row_does_not_know_the_others(emulator, draw):
    rows = halves((4, 384), draw)
    found = []
    for factor in (1, 200):
        rows[1:] *= np.float16(factor)
        operand, scales = outputs(4, 384)
        emulator("quantize_fp8_v2", (1, 1), 128, 0, rows, operand, scales, 4, 384)
        found.append((operand[0].copy(), scales[0]))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_a_product_without_scales_gets_them_afterwards(emulator, draw):
    count, columns, inputs = 5, 48, 64
    x, _ = quantize_rows(draw.standard_normal((count, inputs)).astype(np.float32))
    weights, _ = quantize_rows(draw.standard_normal((columns, inputs)).astype(np.float32))
    scales, weight_scales = (draw.uniform(1e-3, 1e-2, n).astype(np.float32) for n in (count, columns))
    unit = float(np.exp2(np.ceil(np.log2(448 * 448 * inputs / 65504))))
    sums = x.astype(np.float64) @ weights.T
    assert np.abs(sums / unit).max() < 65504
    y, bias = halves((count, columns), draw), halves(columns, draw)
    y[...] = sums / unit
    emulator("scale_product", (1, 1), 256, 0, y, scales, weight_scales, bias, count, columns, unit)
    exact = sums * scales[:, None] * weight_scales + bias
    assert error(y, exact) < 2 * ROUNDED
    np.testing.assert_array_equal(decode(encode(x)), x)
