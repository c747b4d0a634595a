"""Calls that come by a clock to one model, which serves them in order: what it is to wait for it at a given load.

A call's latency counts from when it was due, so a slow call is in the figures of all that had to wait behind it.
"""

from __future__ import annotations

import bisect
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bgert.latency.calls import Calls, Points, percentiles
from bgert.latency.closed_loop import warm_up
from bgert.loadtest.arrivals import arrivals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bgert.encoder import Encoder
    from bgert.energy import Meter
    from bgert.reranker import Reranker

__all__ = ["Served", "moments_due", "open_loop", "serve_in_order"]


@dataclass(frozen=True)
class Served:
    """When calls were due, began and ended, in seconds from the start; in order."""

    due: Sequence[float]
    begun: Sequence[float]
    ended: Sequence[float]

    @property
    def latencies(self) -> list[float]:
        """Seconds from when each call was due to its result."""
        return [end - due for due, end in zip(self.due, self.ended, strict=True)]

    @property
    def services(self) -> list[float]:
        """Seconds that each call itself took."""
        return [end - begun for begun, end in zip(self.begun, self.ended, strict=True)]

    @property
    def longest_queue(self) -> int:
        """The most calls that were due and had not ended, the one that ran among them."""
        return max(number + 1 - bisect.bisect_right(self.ended, due) for number, due in enumerate(self.due))

    @property
    def late(self) -> float:
        """The longest that the clock itself let a call wait which had nothing before it."""
        free = zip(self.due, self.begun, (0.0, *self.ended), strict=False)
        return max(begun - max(due, before) for due, begun, before in free)

    def facts(self, rate: float) -> dict[str, Any]:
        """Its figures at a nominal rate, for JSON.

        Above capacity (more calls a second than the model ends when it does nothing else) there is no latency to
        speak of: it grows as long as calls come.
        """
        count = len(self.due)
        capacity = count / sum(self.services)
        return {
            "calls": count,
            "latency": percentiles(self.latencies),
            "service": percentiles(self.services),
            "achieved_per_second": round(count / self.ended[-1], 3),
            "capacity_per_second": round(capacity, 3),
            "above_capacity": rate >= capacity,
            "longest_queue": self.longest_queue,
            "clock_late_ms": round(1e3 * self.late, 3),
        }


def moments_due(calls: int, rate: float, seed: int) -> list[float]:
    """Poisson arrivals, of which the last is due when at this rate it should be: few calls vary a lot otherwise."""
    drawn = list(itertools.islice(arrivals(rate, seed=seed), calls))
    stretch = calls / rate / drawn[-1]
    return [moment * stretch for moment in drawn]


def serve_in_order(
    prepared: Callable[[int], Callable[[], object]],
    due: Sequence[float],
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> Served:
    """Make each call when it is due, or when the one before it has ended.

    Args:
        prepared: number to call; the inputs are made while there is time.
        due: seconds from now, in order.
        clock: seconds.
        sleep: waits so many seconds.
    """
    start = clock()
    begun, ended = [], []
    for number, moment in enumerate(due):
        call = prepared(number)
        if (wait := moment - (clock() - start)) > 0:
            sleep(wait)
        begun.append(clock() - start)
        call()
        ended.append(clock() - start)
    return Served(due, begun, ended)


def open_loop(
    model: Encoder | Reranker,
    batch: int,
    length: int,
    rate: float,
    points: Points,
    meter: Meter,
    advance: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Time `points.calls` calls of one shape that come at `rate` a second as from independent users (Poisson).

    Returns:
        The shape, `rate` and `seed`, what `Served.facts` tells, and `energy`, waiting included.
    """
    calls = Calls(model, batch, length)
    warm_up(calls, points.warm_up, batch * length, advance)
    tokens = 0

    def prepared(number: int) -> Callable[[], object]:
        call = calls.prepared(points.warm_up + number)

        def run() -> None:
            nonlocal tokens
            tokens += call().info.tokens

        if advance is not None and number:
            advance(batch * length)
        return run

    due = moments_due(points.calls, rate, points.seed)
    with meter.watch() as watched:
        served = serve_in_order(prepared, due)
    if advance is not None:
        advance(batch * length)
    return {
        "batch": batch,
        "length": length,
        "tokens_a_call": tokens / points.calls,
        "rate": rate,
        "seed": points.seed,
        **served.facts(rate),
        "energy": watched.facts(points.calls, tokens),
    }
