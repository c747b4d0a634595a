"""Cuts a long text into parts that a model can read whole."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bgert.errors import InvalidTextError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Chunk", "Chunker"]


class Chunk(NamedTuple):
    """A part of a text: `text[start:stop]`."""

    start: int
    """First character, in Unicode code points as Python counts them."""
    stop: int
    """The character after the last."""
    tokens: int
    """How many tokens this part has by itself, special tokens counted."""


class Chunker:
    """Where one text may be cut.

    A part need not have the tokens that the text has there: a word that is cut in two has others. So each part is
    counted as it is, and made shorter until it fits.
    """

    def __init__(self, text: str, offsets: NDArray[np.int32], count: Callable[[str], int]) -> None:
        """Take a text, the character offsets int32[T, 2] of its tokens, and what counts the tokens of a part."""
        self._text = text
        self._count = count
        self._starts = offsets[:, 0]
        self._stops = np.maximum.accumulate(offsets[:, 1])
        self._size = len(offsets)
        # Tokens that come out of one character cannot be parted.
        free = np.flatnonzero(self._starts[1:] >= self._stops[:-1]) + 1
        self._cuts = [0, *free.tolist(), self._size]
        self._words = [cut for cut in self._cuts if self._begins_word(cut)]

    def chunks(self, room: int, limit: int, overlap: int) -> list[Chunk]:
        """Parts of at most `room` tokens of the text and `limit` of their own, with about `overlap` tokens in common.

        Raises:
            InvalidTextError: what cannot be cut has more tokens.
        """
        found: list[Chunk] = []
        begin = end = 0
        while end < self._size:
            chunk, reached = self._longest(begin, end, room, limit)
            if chunk.tokens <= limit:
                found.append(chunk)
                begin, end = self._overlapping(begin, reached, overlap), reached
            elif begin < end:  # with what it shares with the last part nothing new fits
                begin = self._next(begin)
            else:
                raise InvalidTextError(
                    f"text[{chunk.start}:{chunk.stop}] cannot be cut and has {chunk.tokens} tokens, special tokens "
                    f"counted, where max_tokens allows {limit}: raise max_tokens"
                )
        return found

    def _longest(self, begin: int, done: int, room: int, limit: int) -> tuple[Chunk, int]:
        """The longest part from a token on that has a token beyond `done`, and where it ends; too long if none fits."""
        least = self._next(done)
        end = max(self._last(self._cuts, begin + room), least)
        if end < self._size and (word := self._last(self._words, end)) > max(done, begin + room // 2):
            end = word
        while True:
            start, stop = int(self._starts[begin]), self._stop(end)
            chunk = Chunk(start, stop, self._count(self._text[start:stop]))
            if chunk.tokens <= limit or end == least:
                return chunk, end
            end = max(self._last(self._cuts, max(end - (chunk.tokens - limit), 0)), least)

    def _overlapping(self, begin: int, end: int, overlap: int) -> int:
        """The token that the next part begins with: at the beginning of a word if there is one in reach."""
        least = max(end - overlap, begin + 1)
        for cuts in (self._words, self._cuts):
            index = bisect_left(cuts, least)
            if index < len(cuts) and cuts[index] < end:
                return cuts[index]
        return end

    def _stop(self, end: int) -> int:
        """Where a part ends that has the tokens before `end`; characters of no token stay with what they follow."""
        stop = int(self._stops[end - 1])
        most = int(self._starts[end]) if end < self._size else len(self._text)
        while stop < most and not self._text[stop].isspace():
            stop += 1
        return stop

    def _begins_word(self, cut: int) -> bool:
        """Whether whitespace stands before a token."""
        if cut in (0, self._size):
            return True
        return any(map(str.isspace, self._text[int(self._stops[cut - 1]) : int(self._starts[cut])]))

    def _next(self, token: int) -> int:
        """The first cut after a token."""
        return self._cuts[bisect_right(self._cuts, token)]

    @staticmethod
    def _last(cuts: list[int], most: int) -> int:
        """The last cut that is not after `most`; the first of all is 0."""
        return cuts[bisect_right(cuts, most) - 1]
