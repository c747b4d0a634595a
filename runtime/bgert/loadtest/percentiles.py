"""Percentiles by the nearest rank, so each is a value that was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["nearest_rank"]


def nearest_rank(ordered: Sequence[float], percent: int) -> float:
    """The least of some values, in order, that so many per cent of them do not exceed."""
    return ordered[-(-percent * len(ordered) // 100) - 1]
