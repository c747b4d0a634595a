"""Which texts run together: pure functions over lengths, with the way back to the caller's order.

Texts are sorted by length, longest first, so that a batch holds texts of nearly one length and the last batches
are the short ones, which lets several workers finish together. Nothing here knows of text, models or devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bgert.errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Bucket", "PackedBatch", "Plan", "bucket_rows", "plan_batches", "plan_buckets"]


@dataclass(frozen=True)
class PackedBatch:
    """Texts laid end to end, without padding."""

    input_ids: NDArray[np.int32]
    """int32[T]"""
    cu_seqlens: NDArray[np.int32]
    """int32[B+1]: text b is `input_ids[cu_seqlens[b]:cu_seqlens[b+1]]`."""
    type_ids: NDArray[np.int32]
    """int32[T]"""
    seen: NDArray[np.int32] | None = None
    """int32[B]: how many tokens of each text, from its first, attention sees; None for all."""

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1


@dataclass(frozen=True)
class Plan:
    """An order of texts and where to cut it."""

    order: NDArray[np.intp]
    """intp[n]: caller's index of each text, longest text first; equal lengths stay in the caller's order."""
    cuts: list[int]
    """Batch k is `order[cuts[k]:cuts[k+1]]`; starts with 0 and ends with n."""
    padding: int = 0
    """Slots that the engine computes beside the tokens; 0 where it takes packed texts."""

    def __len__(self) -> int:
        return len(self.cuts) - 1


def plan_batches(lengths: NDArray[np.int32], token_budget: int, max_texts: int = 1 << 16) -> Plan:
    """Sort by length and cut so that no batch is larger than the budget.

    A batch counts as its longest text times its number of texts, which is what attention sees; the sort keeps
    that close to its number of tokens.

    Args:
        lengths: int32[n], tokens in each text.
        token_budget: most tokens a batch; a text longer than that runs alone.
        max_texts: most texts a batch.
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    cuts = [0]
    n = len(order)
    while cuts[-1] < n:
        start = cuts[-1]
        longest = max(int(lengths[order[start]]), 1)
        cuts.append(min(n, start + max(1, min(token_budget // longest, max_texts))))
    return Plan(order=order, cuts=cuts)


@dataclass(frozen=True)
class Bucket:
    """A shape that an engine was built for: texts padded to `length`, from one to `texts` of them."""

    length: int
    texts: int


def bucket_rows(texts: int, most: int) -> int:
    """Rows that a batch runs with: the next power of two, so that few shapes occur, and at most `most`."""
    return min(1 << (texts - 1).bit_length(), most)


def plan_buckets(lengths: NDArray[np.int32], buckets: Sequence[Bucket]) -> Plan:
    """Sort by length, give each text the shortest bucket that holds it, and cut into what a bucket takes.

    Rows that a batch would leave empty are filled with the longest texts of the next bucket: they cost nothing.

    Args:
        lengths: int32[n], tokens in each text.
        buckets: by length, shortest first.

    Raises:
        InvalidOptionError: a text is longer than every bucket.
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    ordered = lengths[order]
    n = len(order)
    if n and ordered[0] > buckets[-1].length:
        raise InvalidOptionError(
            f"an input has {ordered[0]} tokens and the engine was built for {buckets[-1].length}: pass max_length="
            f"{buckets[-1].length}, or build an engine for longer texts with `bgert build`"
        )
    sizes = [bucket.length for bucket in buckets]
    number_of = np.searchsorted(sizes, ordered)
    cuts = [0]
    slots = 0
    while cuts[-1] < n:
        start = cuts[-1]
        bucket = buckets[number_of[start]]
        # The order is by length, longest first, and so are the bucket numbers.
        own = int(np.searchsorted(-number_of[start:], -number_of[start], side="right"))
        rows = bucket_rows(min(own, bucket.texts), bucket.texts)
        cuts.append(min(n, start + rows))
        slots += rows * bucket.length
    return Plan(order=order, cuts=cuts, padding=slots - int(lengths.sum()))


def reorder(batch: PackedBatch, order: NDArray[np.intp]) -> PackedBatch:
    """The same texts in another order, still packed; each batch of a plan is then one slice."""
    lengths = np.diff(batch.cu_seqlens)[order]
    cu_seqlens = np.zeros(len(order) + 1, np.int32)
    np.cumsum(lengths, out=cu_seqlens[1:])
    rows = np.repeat(batch.cu_seqlens[:-1][order] - cu_seqlens[:-1], lengths)
    rows += np.arange(len(rows), dtype=np.int32)
    seen = None if batch.seen is None else batch.seen[order]
    return PackedBatch(batch.input_ids[rows], cu_seqlens, batch.type_ids[rows], seen)


def slice_batch(batch: PackedBatch, start: int, stop: int) -> PackedBatch:
    """Texts `start` to `stop` as a batch of their own; the ids are a view."""
    cu_seqlens = batch.cu_seqlens[start : stop + 1]
    first, last = int(cu_seqlens[0]), int(cu_seqlens[-1])
    seen = None if batch.seen is None else batch.seen[start:stop]
    return PackedBatch(batch.input_ids[first:last], cu_seqlens - cu_seqlens[0], batch.type_ids[first:last], seen)
