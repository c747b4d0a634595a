"""How fast an engine is: tokens that it really gets done in a second of the clock while it has all it can do."""

from __future__ import annotations

import math

__all__ = ["Speed"]

MEMORIES = (1.0, 5.0)  # seconds after which what was measured counts a third
FIRST_SECONDS = 1.0  # that the measurement at the start counts for


class Speed:
    """Tokens per second, measured between the ends of batches where more was waiting at the first.

    Counted so, everything that comes between batches is in it: HTTP, tokenizing, other models, other processes. The
    time that a batch takes, by itself, promises more than the server keeps. Of a short and a long memory the lower
    counts, so that a slower machine is noticed at once, and a lucky second promises nothing.
    """

    def __init__(self) -> None:
        self._done = [(0.0, 0.0) for _ in MEMORIES]
        """Tokens and seconds by memory."""
        self._since: float | None = None
        self.first = 0.0
        """What was measured before the server was ready."""

    @property
    def tokens_per_second(self) -> float:
        """The lower of the two means; 0 while nothing was measured."""
        return min(tokens / seconds if seconds else 0.0 for tokens, seconds in self._done)

    def begin(self, tokens_per_second: float) -> None:
        """Take a first estimate, which the first seconds under load replace."""
        self.first = tokens_per_second
        self._done = [(FIRST_SECONDS * tokens_per_second, FIRST_SECONDS) for _ in MEMORIES]

    def batch(self, ended: float, tokens: int, more: bool) -> None:
        """Count a batch.

        Args:
            ended: when it ended, on any clock that goes on.
            tokens: that ran in it; 0 where it failed.
            more: whether other rows were waiting then.
        """
        if self._since is not None and tokens:
            seconds = max(0.0, ended - self._since)
            for number, (had, over) in enumerate(self._done):
                kept = math.exp(-seconds / MEMORIES[number])
                self._done[number] = kept * had + tokens, kept * over + seconds
        self._since = ended if more and tokens else None
