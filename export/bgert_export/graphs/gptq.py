"""Weights rounded so that what they compute moves little, not so that each is nearest (GPTQ, arXiv:2210.17323).

What one rounded weight adds to a product is taken away again by those that are rounded after it, as far as their
inputs go together. With `products = M.T @ M` and M triangular, from a Cholesky decomposition, a column's error is
|M (w - q)|, and weight by weight q is the number that makes the next term least: the same numbers as the paper's, whose
form inverts the matrix first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float32]

__all__ = ["round_together"]

_BLOCK = 64
DAMPING = 0.01  # of the mean diagonal, so that inputs which hardly occur decide nothing
_LEAST = 1e-12


def round_together(weights: Array, products: Array, nearest: Callable[[Array], Array]) -> Array:
    """Numbers for weights, float32[N, K], each one that `nearest` gives.

    Args:
        weights: [out, in], in the unit of the numbers.
        products: [K, K], `x.T @ x` of rows that the matrix reads.
        nearest: rounds float32[N].
    """
    # From the last to the first: inputs that are largest decide first, while all others can still make up for them.
    order = np.argsort(np.diag(products), kind="stable")
    damped = products[np.ix_(order, order)].astype(np.float64)
    damped[np.diag_indices(len(order))] += max(DAMPING * float(np.diag(damped).mean()), _LEAST)
    factor = np.linalg.cholesky(damped)  # lower; M is its transpose
    # [j, i]: how much of an error in input j input i is to take over.
    shares = (factor / np.diag(factor)).astype(np.float32)
    del damped, factor
    left = np.ascontiguousarray(weights.T[order])
    numbers = np.empty_like(left)
    taken = np.zeros_like(left)
    for stop in range(len(order), 0, -_BLOCK):
        start = max(stop - _BLOCK, 0)
        errors = left[start:stop]
        for j in range(stop - 1, start - 1, -1):
            numbers[j] = nearest(left[j] + taken[j])
            left[j] -= numbers[j]
            taken[start:j] += np.multiply.outer(shares[j, start:j], left[j])
        taken[:start] += shares[start:stop, :start].T @ errors
    found = np.empty_like(weights)
    found[:, order] = numbers.T
    return found
