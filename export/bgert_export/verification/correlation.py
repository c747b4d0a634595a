"""How alike two sets of scores are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["least_correlation"]


def least_correlation(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """Of scores [n, labels], by label: one that is right does not make up for another."""
    labels = zip(expected.T, found.T, strict=True)
    return min(float(np.corrcoef(one, other)[0, 1]) for one, other in labels)
