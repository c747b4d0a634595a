"""When requests or calls of an open loop are due."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["arrivals"]


def arrivals(rate: float, *, fixed: bool = False, seed: int = 0) -> Iterator[float]:
    """Seconds from the start, without end.

    Args:
        rate: how many a second.
        fixed: the same time between all; otherwise they come as from independent clients (Poisson).
        seed: of the times between.
    """
    draw = random.Random(seed)  # noqa: S311 - arrivals, not secrets
    due = 0.0
    while True:
        due += 1 / rate if fixed else draw.expovariate(rate)
        yield due
