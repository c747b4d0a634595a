"""Figures of repeated timings."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["percentiles", "ratios", "rounded", "spread"]


def rounded(value: float) -> float:
    """Four significant digits, so that the committed JSON stays readable."""
    return float(f"{value:.4g}")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and largest."""
    return {
        "median": rounded(statistics.median(values)),
        "min": rounded(min(values)),
        "max": rounded(max(values)),
    }


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How many times as long they took as we did, round by round: rounds pair, so that a slow minute meets both.

    Raises:
        ValueError: different numbers of rounds.
    """
    return spread([their / our for our, their in zip(ours, theirs, strict=True)])


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds by the nearest rank (so a measured value), and the number of calls."""
    ordered = sorted(seconds)
    ranks = {name: ordered[math.ceil(share * len(ordered)) - 1] for name, share in PERCENTILES.items()}
    return {name: rounded(1e3 * value) for name, value in ranks.items()} | {"calls": len(ordered)}


PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
