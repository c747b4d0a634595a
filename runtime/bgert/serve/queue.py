"""Which rows run next: pure decisions over lengths, without threads, HTTP or models.

A request's rows lie longest first, so what is left of it is always one slice. A batch takes the oldest request of a
lane and then whatever of the following fits beside it. Lanes share the engine by tokens, four for short requests to
one for bulk, so that neither waits for the other to end.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bgert.batching import Bucket

__all__ = ["BULK", "INTERACTIVE", "LANES", "PROBE", "BatchShape", "Part", "WorkQueue", "fill"]

PROBE, INTERACTIVE, BULK = range(3)
LANES = ("probe", "interactive", "bulk")
WEIGHTS = (1.0, 4.0, 1.0)
# Requests that are looked at for rows that fit; packed graphs gain little from more.
LOOK_AHEAD = 64
MOST_TEXTS = 1 << 12


class Rows(Protocol):
    """What the queue needs to know of a request."""

    taken: int
    """Rows handed out so far."""
    lane: int

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each row, longest first."""
        ...


AnyRows = TypeVar("AnyRows", bound=Rows)


class Part(NamedTuple):
    """Rows `start` to `stop` of a request."""

    work: Any  # what was added to the queue; Python 3.10 has no generic named tuples
    start: int
    stop: int


class BatchShape(NamedTuple):
    """How large a batch may be."""

    token_budget: int
    """Most tokens, counted as the longest row times the number of rows; a longer row runs alone."""
    buckets: tuple[Bucket, ...] = ()
    """The shapes that an engine takes, shortest first; empty where any will do."""

    def capacity(self, longest: int) -> tuple[int, int]:
        """The longest row and the most rows of a batch that begins with a row of `longest` tokens.

        Without buckets the second number holds for rows of that length; `fits` counts mixed ones.
        """
        for bucket in self.buckets:
            if longest <= bucket.length:
                return bucket.length, bucket.texts
        return max(longest, 1), max(1, self.token_budget // max(longest, 1))


def fill(works: Iterable[AnyRows], shape: BatchShape) -> list[Part]:
    """The next batch: the first request's longest rows, then rows of the following requests that fit beside them.

    Args:
        works: requests with rows left, oldest first. Nothing is changed in them.
        shape: how large a batch may be.

    Returns:
        Slices, at most one a request and never empty; no slices if there are no works.
    """
    parts: list[Part] = []
    longest, texts = 0, 0
    for work in islice(works, LOOK_AHEAD):
        length = work.lengths[work.taken]
        if not parts:
            longest, _ = shape.capacity(length)
        elif shape.buckets and length > longest:
            continue
        most = _most_texts(max(longest, length), shape)
        count = min(most - texts, len(work.lengths) - work.taken)
        if count <= 0:
            continue
        longest = max(longest, length)
        texts += count
        parts.append(Part(work, work.taken, work.taken + count))
    return parts


def _most_texts(longest: int, shape: BatchShape) -> int:
    return min(shape.capacity(longest)[1], MOST_TEXTS)


class WorkQueue(Generic[AnyRows]):
    """Requests by lane, oldest first. Not safe to share between threads: the engine holds a lock.

    The share of a lane is counted as start-time fair queueing does: the lane that got least for its weight is next,
    and one that comes back from idle neither owes nor is owed anything.
    """

    def __init__(self, shape: BatchShape) -> None:
        self.shape = shape
        self.tokens = [0] * len(LANES)
        """Tokens of each lane that no batch has taken."""
        self._lanes: tuple[dict[AnyRows, None], ...] = tuple({} for _ in LANES)
        self._served = [0.0] * len(LANES)
        self._clock = 0.0

    def __len__(self) -> int:
        """Requests with rows left."""
        return sum(map(len, self._lanes))

    def add(self, work: AnyRows) -> None:
        """Queue a request behind the others of its lane."""
        lane = self._lanes[work.lane]
        if not lane:
            self._served[work.lane] = max(self._served[work.lane], self._clock)
        lane[work] = None
        self.tokens[work.lane] += sum(work.lengths[work.taken :])

    def discard(self, work: AnyRows) -> bool:
        """Forget the rows of a request that no batch has taken; False if there are none."""
        if work not in self._lanes[work.lane]:
            return False
        del self._lanes[work.lane][work]
        self.tokens[work.lane] -= sum(work.lengths[work.taken :])
        return True

    def take(self) -> list[Part]:
        """The next batch, taken out of the queue; empty if there is nothing."""
        waiting = [number for number, lane in enumerate(self._lanes) if lane]
        if not waiting:
            return []
        number = PROBE if self._lanes[PROBE] else min(waiting, key=lambda lane: (self._served[lane], lane))
        lane = self._lanes[number]
        parts = fill(lane, self.shape)
        tokens = 0
        for work, start, stop in parts:
            tokens += sum(work.lengths[start:stop])
            work.taken = stop
            if stop == len(work.lengths):
                del lane[work]
        self.tokens[number] -= tokens
        self._clock = self._served[number]
        self._served[number] += tokens / WEIGHTS[number]
        return parts
