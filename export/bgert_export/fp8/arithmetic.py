"""What the kernels of the target `cuda-fp8` do to numbers, in numpy, bit for bit.

E4M3 ("FN" of the OCP's OFP8): a sign, 4 bits of exponent with bias 7, 3 of fraction; subnormal below 2**-6, largest
448, no infinities, NaN where all other bits are set. Conversion rounds to nearest, ties to even, and saturates, as the
instruction `cvt.rn.satfinite.e4m3x2.f32`.

A row of activations has a scale of its own, and so has a row of weights [out, in], which is an output channel. Nothing
is calibrated, and no row knows its batch mates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]
    Bits = NDArray[np.uint8]

__all__ = ["LARGEST", "decode", "encode", "quantize_rows", "rounded", "to_half"]

LARGEST = 448.0
LEAST = 2.0**-100  # of a row's largest magnitude: a row of zeros has a scale too
_LEAST_NORMAL = np.float32(2.0**-6)


def rounded(values: Array) -> Array:
    """float32 to the E4M3 numbers next to them, as float32 of the same shape. NaN stays NaN."""
    return _nearest(np.clip(values, np.float32(-LARGEST), np.float32(LARGEST)), 3, _LEAST_NORMAL)


def encode(values: Array) -> Bits:
    """float32 to the bits of the E4M3 numbers next to them."""
    near = rounded(values)
    bits = near.view(np.uint32)
    normal = (bits >> np.uint32(20) & np.uint32(0x7FF)).astype(np.int32) - (127 - 7) * 8
    magnitude = np.abs(near)
    small = np.where(magnitude < _LEAST_NORMAL, magnitude, 0) * np.float32(512)
    code = np.where(magnitude < _LEAST_NORMAL, small.astype(np.int32), normal)
    code = np.where(np.isnan(near), 0x7F, code)
    result: Bits = (code | (bits >> np.uint32(31) << np.uint32(7)).astype(np.int32)).astype(np.uint8)
    return result


def decode(bits: Bits) -> Array:
    """The E4M3 numbers that bits stand for, as float32."""
    values: Array = _VALUES[bits]
    return values


def quantize_rows(rows: Array) -> tuple[Array, Array]:
    """float32[R, K] to E4M3 numbers, as float32[R, K], and scales float32[R]; `rows` is about their product.

    Every step is one rounding in float32, in the kernels too: largest magnitude / 448, 448 / largest magnitude, and the
    product of a number with that.
    """
    largest = np.maximum(np.abs(rows).max(axis=1), np.float32(LEAST))
    scales = largest / np.float32(LARGEST)
    inverse = np.float32(LARGEST) / largest
    return rounded(rows * inverse[:, None]), scales


def to_half(values: Array) -> Array:
    """float32 rounded to float16, as float32; what is too large becomes infinite."""
    near = _nearest(np.clip(values, np.float32(-(2.0**17)), np.float32(2.0**17)), 10, np.float32(2.0**-14))
    too_large = np.abs(near) > np.float32(65504)
    if too_large.any():
        near[too_large] = np.copysign(np.float32(np.inf), near[too_large])
    return near


def _nearest(values: Array, fraction: int, least_normal: np.float32) -> Array:
    """Rounded to numbers with so many bits of fraction, ties to even. `values` are changed, and far from overflow."""
    powers = (values.view(np.uint32) & np.uint32(0x7F800000)).view(np.float32)
    np.maximum(powers, least_normal, out=powers)
    # Beside 1.5 * 2**(e + 23 - fraction) the last bit of a float32 is 2**(e - fraction): the sum rounds to it.
    powers *= np.float32(1.5 * 2.0 ** (23 - fraction))
    signs = values.copy()
    values += powers
    values -= powers
    np.copysign(values, signs, out=values)
    return values


def _all_values() -> Array:
    codes = np.arange(256)
    exponents, fractions = codes >> 3 & 15, codes & 7
    magnitudes = np.where(exponents > 0, np.ldexp(8.0 + fractions, exponents - 10), np.ldexp(fractions, -9))
    magnitudes[codes & 0x7F == 0x7F] = np.nan
    values: Array = np.where(codes & 0x80, -magnitudes, magnitudes).astype(np.float32)
    return values


_VALUES = _all_values()
