"""What is timed: calls of one shape, each with other texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bgert.errors import InvalidOptionError
from bgert.evaluation.sample_texts import sample_texts
from bgert.loadtest.percentiles import nearest_rank
from bgert.reranker import Reranker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bgert.encoder import Encoder

__all__ = ["SHARES", "Calls", "Points", "percentiles", "texts_of"]

QUERY = "how to copy a folder"  # of a reranker's pairs
SHARES = {"p50": (50, 1), "p90": (90, 10), "p95": (95, 20), "p99": (99, 100)}
"""Percentile: its per cents, and how many calls it takes for one of them to lie above it (p50: one is enough)."""


@dataclass(frozen=True)
class Points:
    """What is timed: every batch size with every length, and by the clock at every rate.

    Raises:
        InvalidOptionError: a number that is too small, or none.
    """

    batches: Sequence[int]
    lengths: Sequence[int] | None
    """Tokens of a text (of a pair), special tokens counted; None for 16, 128 and 512, or the model's limit."""
    calls: int
    warm_up: int
    """Calls before, which are not counted; at least one."""
    rates: Sequence[float] = ()
    """Calls a second of the open loop; none for one call after the other."""
    seed: int = 0
    """Of the times between the open loop's calls."""

    def __post_init__(self) -> None:
        least = min((*self.batches, *(self.lengths or ()), self.calls, self.warm_up))
        if not self.batches or self.lengths == [] or least < 1:
            raise InvalidOptionError("--batch, --length, --calls and --warm-up take whole numbers from 1")
        if not all(1e-3 <= rate <= 1e6 for rate in self.rates):
            raise InvalidOptionError("--rate takes calls a second, from 0.001 to 1000000")


class Calls:
    """Calls of one model with so many texts or pairs of so many tokens, numbered: each has the next of 64 texts."""

    def __init__(self, model: Encoder | Reranker, batch: int, length: int) -> None:
        self._model, self._batch, self._length = model, batch, length
        self._texts = texts_of(length)

    def prepared(self, number: int) -> Callable[[], Any]:
        """A call whose inputs are at hand; it returns the model's result."""
        first = number * self._batch
        texts = [self._texts[place % len(self._texts)] for place in range(first, first + self._batch)]
        model, length = self._model, self._length
        if isinstance(model, Reranker):
            pairs = [(QUERY, text) for text in texts]
            return lambda: model.score(pairs, max_length=length, show_progress=False)
        return lambda: model.encode(texts, max_length=length, show_progress=False)


def texts_of(length: int, count: int = 64) -> list[str]:
    """Texts of words enough for `length` tokens and not many more; the model cuts them."""
    words = " ".join(sample_texts(500)).split()
    step = len(words) // count
    doubled = words * (2 + length // len(words))
    return [" ".join(doubled[number * step : number * step + length]) for number in range(count)]


def percentiles(seconds: Sequence[float]) -> dict[str, float | None]:
    """Milliseconds by the nearest rank, the least and the largest; None for what so few calls cannot say."""
    ordered = [round(1e3 * value, 4) for value in sorted(seconds)]
    ranks = {
        f"{name}_ms": nearest_rank(ordered, percent) if len(ordered) >= least else None
        for name, (percent, least) in SHARES.items()
    }
    return {"min_ms": ordered[0], **ranks, "max_ms": ordered[-1]}
