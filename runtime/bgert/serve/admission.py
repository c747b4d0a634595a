"""Who is let in: limits on what costs, checked before a body is read and again when its tokens are counted."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from bgert.serve.queue import BULK, INTERACTIVE, WEIGHTS
from bgert.serve.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bgert.serve.settings import Settings
    from bgert.serve.worker import Engine, Work

__all__ = ["Admission", "queue_limit", "wait"]

LEAST_LIMIT = 8192  # tokens, on an engine of any speed
MOST_BYTES = 128 << 20  # of bodies held at one time
# Seen from outside, before the texts are counted: a smaller body is of short requests, a larger one of bulk.
SURELY_SHORT, SURELY_BULK = 8 << 10, 64 << 10


def wait(engine: Engine, lane: int) -> float:
    """Seconds until what a lane holds is done, with what the other lane may run meanwhile by its weight."""
    other = BULK if lane == INTERACTIVE else INTERACTIVE
    own = engine.open_tokens[lane]
    beside = min(engine.open_tokens[other], own * WEIGHTS[other] / WEIGHTS[lane])
    return (own + beside) / max(engine.tokens_per_second, 1.0)


def longest_wait(lane: int, settings: Settings) -> float:
    """Seconds that a request of a lane may have to wait. Bulk has a quarter of the weight, and four times as long."""
    return settings.max_wait * WEIGHTS[INTERACTIVE] / WEIGHTS[lane]


def queue_limit(engine: Engine, lane: int, settings: Settings) -> int:
    """Tokens that a lane may hold while the other is empty."""
    if settings.max_queue_tokens is not None:
        return settings.max_queue_tokens
    return max(LEAST_LIMIT, int(longest_wait(lane, settings) * engine.tokens_per_second))


def full(engine: Engine, lane: int, settings: Settings) -> bool:
    """Whether a lane takes nothing more for now."""
    if settings.max_queue_tokens is not None:
        return engine.open_tokens[lane] >= settings.max_queue_tokens
    return engine.open_tokens[lane] >= LEAST_LIMIT and wait(engine, lane) >= longest_wait(lane, settings)


def request_limit(engine: Engine, settings: Settings) -> int:
    """Tokens that one request may have: more would not be done in the time it is given, by the speed at the best."""
    if settings.max_queue_tokens is not None:
        return settings.max_queue_tokens
    return max(LEAST_LIMIT, int(settings.request_timeout * max(engine.tokens_per_second, engine.speed.first)))


def retry_after(engine: Engine, lane: int) -> float:
    """Seconds until what waits in a lane should be done, spread so that clients do not all come back at once."""
    return min(max(wait(engine, lane) * random.uniform(1.0, 1.25), 1.0), 30.0)  # noqa: S311 - no secret


class Admission:
    """Counts what is held, and refuses what would be too much."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.requests = 0
        """Requests let in and not answered."""
        self.body_bytes = 0
        """Bytes of their bodies."""

    def before_body(self, length: int | None, engines: Sequence[Engine]) -> None:
        """Let a request in, or not, by its headers.

        Args:
            length: announced bytes of the body; None if it is chunked.
            engines: those that could serve it.

        Raises:
            Refusal: `too_large`, or `overloaded` with the time after which to come again.
        """
        if length is not None and length > self._settings.max_body:
            raise self._too_large()
        lanes = [INTERACTIVE] if length is None or length < SURELY_BULK else []
        lanes += [BULK] if length is None or length >= SURELY_SHORT else []
        times = [retry_after(engine, lane) for engine in engines for lane in lanes]
        if engines and all(full(engine, lane, self._settings) for engine in engines for lane in lanes):
            raise Refusal("overloaded", "the queue is full: come again later", retry_after=min(times))
        if self.requests >= self._settings.max_concurrent_requests:
            raise Refusal(
                "overloaded",
                f"{self.requests} requests are being served: come again later",
                retry_after=min(times, default=1.0),
            )
        self._check_bytes(length or 0)

    def while_body(self, received: int) -> None:
        """Let more of a body in, or not.

        Args:
            received: bytes of it so far, which are counted in `body_bytes`.

        Raises:
            Refusal: as `before_body`.
        """
        if received > self._settings.max_body:
            raise self._too_large()
        self._check_bytes(0)

    def _check_bytes(self, more: int) -> None:
        if self.body_bytes + more > MOST_BYTES:
            raise Refusal("overloaded", "too many large requests at one time: come again later", retry_after=1)

    def before_queue(self, engine: Engine, work: Work, seconds: float) -> None:
        """Let a tokenized request into the queue, or not.

        What is larger than the room that is left waits in the queue like the rest: refusing it until the queue is
        empty would refuse it for ever. So a lane holds its limit and one request more at most.

        Args:
            engine: where it is to wait.
            work: the request.
            seconds: until its deadline. One that others would keep until then is told at once.

        Raises:
            Refusal: `too_large` for a request that could never be served, or `overloaded`.
        """
        if work.tokens > (most := request_limit(engine, self._settings)):
            raise Refusal(
                "too_large",
                f"the request has {work.tokens} tokens and this server takes {most} at one time: send fewer texts a "
                "request",
            )
        if full(engine, work.lane, self._settings):
            raise Refusal(
                "overloaded", "the queue is full: come again later", retry_after=retry_after(engine, work.lane)
            )
        if (long := wait(engine, work.lane)) > seconds:
            raise Refusal(
                "overloaded",
                f"the request would wait about {long:.0f} s and has {seconds:.0f} s left: come again later",
                retry_after=retry_after(engine, work.lane),
            )

    def _too_large(self) -> Refusal:
        most = self._settings.max_body
        return Refusal("too_large", f"the body is larger than {most} bytes (--max-body): send fewer texts a request")
