"""Arrays for the CUDA kernels' tests."""

import numpy as np


def halves(shape, draw, scale=1.0):
    """Random float16 at an address of 16 bytes, as the device's allocator gives it."""
    size = int(np.prod(shape))
    block = np.zeros(size + 8, np.float16)
    start = -block.ctypes.data % 16 // 2
    found = block[start : start + size].reshape(shape)
    found[...] = draw.standard_normal(shape) * scale
    return found


def error(found, expected):
    """Distance in units of the expected array's norm."""
    return np.linalg.norm(found.astype(np.float64) - expected) / np.linalg.norm(expected)
