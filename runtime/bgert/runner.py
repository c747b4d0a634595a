"""The loop between tokenizer and backend, shared by Encoder and Reranker.

A window of texts is tokenized while the one before it runs; within a window batches go to as many threads as the
backend has workers, longest first.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from bgert.batching import PackedBatch, Plan, plan_batches, plan_buckets, reorder, slice_batch
from bgert.cpu_count import CoreLimit, available_cpus
from bgert.errors import InvalidOptionError, ModelFolderError, NonFiniteOutputError
from bgert.lifecycle import NativeCall, interpreter_ends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from bgert.backends.protocol import Backend
    from bgert.progress import Advance
    from bgert.tokenizer import TokenBatch

    Store = Callable[[NDArray[np.intp], NDArray[np.float32]], None]

__all__ = ["Runner", "Window", "check_rows"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Window:
    """Tokenized texts in the order in which they run."""

    batch: PackedBatch
    plan: Plan
    truncated: NDArray[np.bool_]
    """bool[n], in the caller's order."""
    first: int
    """Number of texts before this window, for messages."""
    tokenize_seconds: float = 0.0
    """Wall time of tokenizing them."""

    def __len__(self) -> int:
        return len(self.truncated)

    @property
    def tokens(self) -> int:
        """Tokens of all texts, special tokens counted."""
        return len(self.batch.input_ids)


class Runner:
    """Feeds one backend; rows of its output have `columns` numbers.

    Args:
        backend: what runs the batches.
        columns: numbers in a row.
        max_tokens: the longest text that the graph takes; None where nothing is known.
        threads: cores that all calls together may use; None for all that the process may use.
    """

    def __init__(
        self, backend: Backend, *, columns: int, max_tokens: int | None = None, threads: int | None = None
    ) -> None:
        self.backend = backend
        self.columns = columns
        self._max_tokens = max_tokens
        self._cores = CoreLimit(threads or available_cpus())

    @property
    def cores(self) -> int:
        """How many cores all calls together may use."""
        return self._cores.cores

    def windows(
        self, lists: Iterator[list[Item]], tokenize: Callable[[list[Item], int, int], TokenBatch]
    ) -> Iterator[Window]:
        """Tokenize lists of texts or pairs one ahead of the caller.

        Args:
            lists: the texts of each window.
            tokenize: called with a list, the number of texts before it, and how many cores to use.
        """

        def prepare(items: list[Item], first: int) -> Window:
            with self._cores.take(1, self._cores.cores) as cores:
                start = perf_counter()
                encoded = tokenize(items, first, cores)
                seconds = perf_counter() - start
            batch = PackedBatch(encoded.ids, encoded.cu_seqlens, encoded.type_ids, encoded.seen)
            return replace(self._window(batch, encoded.truncated, first), tokenize_seconds=seconds)

        first = 0
        items = next(lists, None)
        if items is None:
            return
        following = next(lists, None)
        if following is None:  # the common case needs no second thread
            yield prepare(items, first)
            return
        pending = _Ahead(prepare, items, first)
        try:
            while True:
                window = pending.result()
                first += len(window)
                if following is not None:
                    pending = _Ahead(prepare, following, first)
                yield window
                if following is None:
                    return
                following = next(lists, None)
        finally:
            pending.wait()

    def _window(self, batch: PackedBatch, truncated: NDArray[np.bool_], first: int) -> Window:
        """Plan the batches of tokenized texts and lay them in that order."""
        info, lengths = self.backend.info, np.diff(batch.cu_seqlens)
        if self._max_tokens is not None and len(lengths) and lengths.max() > self._max_tokens:
            # Beyond the table of positions an engine may read other memory and say nothing.
            raise InvalidOptionError(
                f"input {first + int(lengths.argmax())} has {lengths.max()} tokens and the model takes "
                f"{self._max_tokens}: let longer ones be cut"
            )
        plan = plan_buckets(lengths, info.buckets) if info.buckets else plan_batches(lengths, info.token_budget)
        return Window(reorder(batch, plan.order), plan, truncated, first)

    def run(self, window: Window, store: Store, advance: Advance | None = None, units: int | None = None) -> None:
        """Run every batch and hand its rows to `store` with their indices in the window; more as in `each`.

        Raises:
            NonFiniteOutputError: a row holds NaN or infinity.
        """

        def keep(batch: PackedBatch, index: NDArray[np.intp], rows: NDArray[np.float32]) -> None:  # noqa: ARG001
            check_rows(rows, index, self.columns, window.first)
            store(index, rows)

        self.each(window, self.backend.run, keep, advance, units)

    def each(
        self,
        window: Window,
        run: Callable[[PackedBatch], Result],
        keep: Callable[[PackedBatch, NDArray[np.intp], Result], None],
        advance: Advance | None = None,
        units: int | None = None,
    ) -> None:
        """Call `run` for every batch, and `keep` with it, the indices of its texts in the window, and the result.

        `advance` gets `units`, or the window's texts, in shares by tokens: long texts run first, and a bar that counted
        them as the short ones would promise a far later end.
        """
        plan = window.plan
        info = self.backend.info
        units = len(window) if units is None else units
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
                batch = slice_batch(window.batch, start, stop)
                with self._cores.take(info.cores), NativeCall():
                    found = run(batch)
                keep(batch, plan.order[start:stop], found)
                if advance is not None:
                    with lock:
                        ran += int(window.batch.cu_seqlens[stop] - window.batch.cu_seqlens[start])
                        share = ran * units // window.tokens
                        advance(share - told)
                        told = share

        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        helpers: list[threading.Thread] = []
        try:
            for number in range(1, min(info.workers, len(plan))):
                helper = threading.Thread(target=guarded, name=f"bgert-worker-{number}", daemon=True)
                helpers.append(helper)
                if not _start(helper):
                    break  # those there are do the work
            guarded()  # the caller's thread is the first worker
        except BaseException as error:  # Ctrl-C: the others stop after the batch they are in
            failures.append(error)
        try:
            for helper in helpers:
                if helper.is_alive():
                    helper.join()
        except BaseException as error:  # Ctrl-C while they finish
            failures.append(error)
            raise
        if failures:
            raise failures[0]


class _Ahead(Generic[Result]):
    """One call in a thread beside this one; made here, when its result is wanted, where there is no such thread."""

    def __init__(self, function: Callable[..., Result], *arguments: object) -> None:
        self._function, self._arguments = function, arguments
        self._outcome: list[Result] = []
        self._failure: list[BaseException] = []
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="bgert-tokenizer", daemon=True)
        self._started = _start(self._thread)

    def _run(self) -> None:
        try:
            self._outcome.append(self._function(*self._arguments))
        except BaseException as error:
            self._failure.append(error)

    def wait(self) -> None:
        """Wait until the thread has ended."""
        if self._started and self._process == os.getpid():  # a fork copies no thread
            self._thread.join()

    def result(self) -> Result:
        """What the call returned, or raise what it raised."""
        self.wait()
        if not self._outcome and not self._failure:
            return self._function(*self._arguments)
        if self._failure:
            raise self._failure[0]
        return self._outcome[0]


def _start(thread: threading.Thread) -> bool:
    """Start a thread unless the system gives none, or the interpreter is about to end it."""
    if interpreter_ends():
        return False
    try:
        thread.start()
    except RuntimeError:
        return False
    return True


def check_rows(rows: NDArray[np.float32], index: NDArray[np.intp], columns: int, first: int) -> None:
    """Refuse an output that has the wrong shape or is not finite, of the inputs `first + index`."""
    if rows.shape != (len(index), columns):
        raise ModelFolderError(f"the graph returned shape {rows.shape}, the manifest says {(len(index), columns)}")
    finite = np.isfinite(rows)
    if not finite.all():
        bad = int(np.flatnonzero(~finite.all(axis=1))[0])
        raise NonFiniteOutputError(
            f"the model returned NaN or infinity for input {first + int(index[bad])}; nothing was served. "
            "Run `bgert verify` on the model folder"
        )
