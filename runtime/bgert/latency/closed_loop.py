"""One call after the other: how long each takes alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bgert.latency.calls import Calls, Points, percentiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from bgert.encoder import Encoder
    from bgert.energy import Meter
    from bgert.reranker import Reranker

__all__ = ["closed_loop", "warm_up"]


def closed_loop(
    model: Encoder | Reranker,
    batch: int,
    length: int,
    points: Points,
    meter: Meter,
    advance: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Time `points.calls` calls of one shape after those that warm it up.

    Returns:
        The shape, `calls`, percentiles of their milliseconds, `texts_per_second`, `tokens_per_second`, `energy`.
    """
    calls = Calls(model, batch, length)
    warm_up(calls, points.warm_up, batch * length, advance)
    seconds, tokens = [], 0
    with meter.watch() as watched:
        for number in range(points.warm_up, points.warm_up + points.calls):
            call = calls.prepared(number)
            begun = time.perf_counter()
            result = call()
            seconds.append(time.perf_counter() - begun)
            tokens += result.info.tokens
            if advance is not None:
                advance(batch * length)
    return {
        "batch": batch,
        "length": length,
        "tokens_a_call": tokens / points.calls,
        "calls": points.calls,
        **percentiles(seconds),
        "texts_per_second": round(batch * points.calls / sum(seconds), 1),
        "tokens_per_second": round(tokens / sum(seconds)),
        "energy": watched.facts(points.calls, tokens),
    }


def warm_up(calls: Calls, count: int, tokens: int, advance: Callable[[int], object] | None) -> None:
    """Calls that are not counted, the first of all."""
    for number in range(count):
        calls.prepared(number)()
        if advance is not None:
            advance(tokens)
