"""Which texts run together: pure functions over lengths, with the way back to the caller's order.

Texts are sorted by length, longest first, so that a batch holds texts of nearly one length and the last batches
are the short ones, which lets several workers finish together. Nothing here knows of text, models or devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PackedBatch", "Plan", "plan_batches"]


@dataclass(frozen=True)
class PackedBatch:
    """Texts laid end to end, without padding."""

    input_ids: NDArray[np.int32]
    """int32[T]"""
    cu_seqlens: NDArray[np.int32]
    """int32[B+1]: text b is `input_ids[cu_seqlens[b]:cu_seqlens[b+1]]`."""
    type_ids: NDArray[np.int32]
    """int32[T]"""

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1


@dataclass(frozen=True)
class Plan:
    """An order of texts and where to cut it."""

    order: NDArray[np.intp]
    """intp[n]: caller's index of each text, longest text first; equal lengths stay in the caller's order."""
    cuts: list[int]
    """Batch k is `order[cuts[k]:cuts[k+1]]`; starts with 0 and ends with n."""

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


def reorder(batch: PackedBatch, order: NDArray[np.intp]) -> PackedBatch:
    """The same texts in another order, still packed; each batch of a plan is then one slice."""
    lengths = np.diff(batch.cu_seqlens)[order]
    cu_seqlens = np.zeros(len(order) + 1, np.int32)
    np.cumsum(lengths, out=cu_seqlens[1:])
    rows = np.repeat(batch.cu_seqlens[:-1][order] - cu_seqlens[:-1], lengths)
    rows += np.arange(len(rows), dtype=np.int32)
    return PackedBatch(batch.input_ids[rows], cu_seqlens, batch.type_ids[rows])


def slice_batch(batch: PackedBatch, start: int, stop: int) -> PackedBatch:
    """Texts `start` to `stop` as a batch of their own; the ids are a view."""
    cu_seqlens = batch.cu_seqlens[start : stop + 1]
    first, last = int(cu_seqlens[0]), int(cu_seqlens[-1])
    return PackedBatch(batch.input_ids[first:last], cu_seqlens - cu_seqlens[0], batch.type_ids[first:last])
