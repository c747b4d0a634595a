"""The loop between tokenizer and backend, shared by Encoder and Reranker.

A window of texts is tokenized while the one before it runs; within a window batches go to as many threads as the
backend has workers, longest first.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from bgert.batching import PackedBatch, Plan, plan_batches, plan_buckets, reorder, slice_batch
from bgert.errors import ModelFolderError, NonFiniteOutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from bgert.backends.protocol import Backend
    from bgert.progress import Advance
    from bgert.tokenizer import TokenBatch

    Store = Callable[[NDArray[np.intp], NDArray[np.float32]], None]

__all__ = ["Runner", "Window"]

Item = TypeVar("Item")


@dataclass(frozen=True)
class Window:
    """Tokenized texts in the order in which they run."""

    batch: PackedBatch
    plan: Plan
    truncated: NDArray[np.bool_]
    """bool[n], in the caller's order."""
    first: int
    """Number of texts before this window, for messages."""

    def __len__(self) -> int:
        return len(self.truncated)

    @property
    def tokens(self) -> int:
        """Tokens of all texts, special tokens counted."""
        return len(self.batch.input_ids)


class Runner:
    """Feeds one backend; rows of its output have `columns` numbers."""

    def __init__(self, backend: Backend, *, columns: int) -> None:
        self.backend = backend
        self.columns = columns

    def windows(self, lists: Iterator[list[Item]], tokenize: Callable[[list[Item]], TokenBatch]) -> Iterator[Window]:
        """Tokenize lists of texts or pairs one ahead of the caller."""

        def prepare(items: list[Item], first: int) -> Window:
            encoded = tokenize(items)
            batch = PackedBatch(encoded.ids, encoded.cu_seqlens, encoded.type_ids)
            return self._window(batch, encoded.truncated, first)

        first = 0
        items = next(lists, None)
        if items is None:
            return
        following = next(lists, None)
        if following is None:  # the common case needs no second thread
            yield prepare(items, first)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="bgert-tokenizer") as pool:
            pending = pool.submit(prepare, items, first)
            while True:
                window = pending.result()
                first += len(window)
                if following is not None:
                    pending = pool.submit(prepare, following, first)
                yield window
                if following is None:
                    return
                following = next(lists, None)

    def _window(self, batch: PackedBatch, truncated: NDArray[np.bool_], first: int) -> Window:
        """Plan the batches of tokenized texts and lay them in that order."""
        info, lengths = self.backend.info, np.diff(batch.cu_seqlens)
        plan = plan_buckets(lengths, info.buckets) if info.buckets else plan_batches(lengths, info.token_budget)
        return Window(reorder(batch, plan.order), plan, truncated, first)

    def run(self, window: Window, store: Store, advance: Advance | None = None) -> None:
        """Run every batch and hand its rows to `store` with their indices in the window.

        `advance` gets the window's texts in shares by tokens: long ones run first, and a bar that counted them as the
        short ones would promise a far later end.

        Raises:
            NonFiniteOutputError: a row holds NaN or infinity.
        """
        plan = window.plan
        batches = iter(range(len(plan)))
        lock = threading.Lock()
        failures: list[BaseException] = []
        ran = told = 0

        def work() -> None:
            nonlocal ran, told
            while not failures:
                with lock:
                    number = next(batches, None)
                if number is None:
                    return
                start, stop = plan.cuts[number], plan.cuts[number + 1]
                rows = self.backend.run(slice_batch(window.batch, start, stop))
                index = plan.order[start:stop]
                _check(rows, index, self.columns, window.first)
                store(index, rows)
                if advance is not None:
                    with lock:
                        ran += int(window.batch.cu_seqlens[stop] - window.batch.cu_seqlens[start])
                        share = ran * len(window) // window.tokens
                        advance(share - told)
                        told = share

        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        helpers = [
            threading.Thread(target=guarded, name=f"bgert-worker-{number}", daemon=True)
            for number in range(1, min(self.backend.info.workers, len(plan)))
        ]
        for helper in helpers:
            helper.start()
        guarded()  # the caller's thread is the first worker
        try:
            for helper in helpers:
                helper.join()
        except BaseException as error:  # Ctrl-C: the others stop after the batch they are in
            failures.append(error)
            raise
        if failures:
            raise failures[0]


def _check(rows: NDArray[np.float32], index: NDArray[np.intp], columns: int, first: int) -> None:
    """Refuse an output that has the wrong shape or is not finite."""
    if rows.shape != (len(index), columns):
        raise ModelFolderError(f"the graph returned shape {rows.shape}, the manifest says {(len(index), columns)}")
    finite = np.isfinite(rows)
    if not finite.all():
        bad = int(np.flatnonzero(~finite.all(axis=1))[0])
        raise NonFiniteOutputError(
            f"the model returned NaN or infinity for input {first + int(index[bad])}; nothing was served. "
            "Run `bgert verify` on the model folder"
        )
