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

__all__ = ["Admission", "queue_limit", "retry_after"]

QUEUE_SECONDS = 10.0  # of work that may wait in a lane
LEAST_LIMIT = 8192  # tokens, on an engine of any speed
MOST_BYTES = 128 << 20  # of bodies held at one time
SMALL_BODY = 64 << 10  # a larger body is bulk, seen from outside


def queue_limit(engine: Engine, settings: Settings) -> int:
    """Tokens of a lane from which nothing more is taken into it."""
    return settings.max_queue_tokens or max(LEAST_LIMIT, int(QUEUE_SECONDS * engine.tokens_per_second))


def request_limit(engine: Engine, settings: Settings) -> int:
    """Tokens that one request may have: more would not be done in the time it is given."""
    if settings.max_queue_tokens is not None:
        return settings.max_queue_tokens
    return max(LEAST_LIMIT, int(settings.request_timeout * engine.tokens_per_second))


def retry_after(engine: Engine, lane: int) -> float:
    """Seconds until what waits in a lane should be done, spread so that clients do not all come back at once."""
    share = WEIGHTS[lane] / (WEIGHTS[INTERACTIVE] + WEIGHTS[BULK])
    both = all(engine.open_tokens[other] for other in (INTERACTIVE, BULK))
    speed = max(engine.tokens_per_second * (share if both else 1.0), 1.0)
    wait = engine.open_tokens[lane] / speed * random.uniform(1.0, 1.25)  # noqa: S311 - no secret
    return min(max(wait, 1.0), 30.0)


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
        lane = INTERACTIVE if length is None or length <= SMALL_BODY else BULK
        if engines and all(engine.open_tokens[lane] >= queue_limit(engine, self._settings) for engine in engines):
            wait = min(retry_after(engine, lane) for engine in engines)
            raise Refusal("overloaded", "the queue is full: come again later", retry_after=wait)
        if self.requests >= self._settings.max_concurrent_requests:
            wait = min((retry_after(engine, lane) for engine in engines), default=1.0)
            raise Refusal(
                "overloaded", f"{self.requests} requests are being served: come again later", retry_after=wait
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

    def before_queue(self, engine: Engine, work: Work) -> None:
        """Let a tokenized request into the queue, or not.

        What is larger than the room that is left waits in the queue like the rest: refusing it until the queue is
        empty would refuse it for ever. So a lane holds its limit and one request more at most.

        Raises:
            Refusal: `too_large` for a request that could never be served, or `overloaded`.
        """
        if work.tokens > (most := request_limit(engine, self._settings)):
            raise Refusal(
                "too_large",
                f"the request has {work.tokens} tokens and this server takes {most} at one time: send fewer texts a "
                "request",
            )
        if engine.open_tokens[work.lane] >= queue_limit(engine, self._settings):
            raise Refusal(
                "overloaded", "the queue is full: come again later", retry_after=retry_after(engine, work.lane)
            )

    def _too_large(self) -> Refusal:
        most = self._settings.max_body
        return Refusal("too_large", f"the body is larger than {most} bytes (--max-body): send fewer texts a request")
