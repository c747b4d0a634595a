"""Threads that run batches across requests: rows in, rows out, one wake-up of the event loop a batch.

On the CPU a row has the same bits whatever runs beside it, so who else is being served shows in no reply.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.batching import PackedBatch, reorder, slice_batch
from bgert.errors import DeviceLostError, DeviceMemoryError, EngineError, NonFiniteOutputError
from bgert.lifecycle import NativeCall
from bgert.serve.progress import Progress
from bgert.serve.queue import BULK, INTERACTIVE, BatchShape, WorkQueue
from bgert.serve.speed import Speed

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from bgert.backends.protocol import Backend
    from bgert.serve.cores import Cores
    from bgert.serve.queue import Part

__all__ = ["Engine", "EngineDeadError", "Work"]

INTERACTIVE_TEXTS = 8


class EngineDeadError(EngineError):
    """The engine's threads are gone or hang; only a new process mends that."""


class Work:
    """The tokenized rows of one request, and where their results go."""

    __slots__ = (
        "batch",
        "done",
        "error",
        "future",
        "lane",
        "lengths",
        "order",
        "queue_seconds",
        "rows",
        "run_seconds",
        "submitted",
        "taken",
        "tokens",
    )

    def __init__(self, batch: PackedBatch, columns: int, *, lane: int | None = None) -> None:
        lengths = np.diff(batch.cu_seqlens)
        count = len(lengths)
        self.order: NDArray[np.intp] | None = None
        if count > 1 and (lengths[1:] > lengths[:-1]).any():
            self.order = np.argsort(-lengths, kind="stable")
            batch, lengths = reorder(batch, self.order), lengths[self.order]
        self.batch = batch
        self.lengths: list[int] = lengths.tolist()
        self.tokens = len(batch.input_ids)
        self.lane = (INTERACTIVE if count <= INTERACTIVE_TEXTS else BULK) if lane is None else lane
        self.taken = 0
        self.done = 0
        self.rows = np.empty((count, columns), np.float32)
        self.error: BaseException | None = None
        self.future: Future[NDArray[np.float32]] | None = None
        self.submitted = 0.0
        self.queue_seconds = 0.0
        """Sum over the rows of the time from submission to the start of their batch."""
        self.run_seconds = 0.0
        """Sum over the rows of the time their batch ran."""

    def __len__(self) -> int:
        return len(self.lengths)

    def store(self, start: int, stop: int, rows: NDArray[np.float32]) -> None:
        """Put rows `start` to `stop` in their places in the caller's order."""
        if self.order is None:
            self.rows[start:stop] = rows
        else:
            self.rows[self.order[start:stop]] = rows


class Engine:
    """One model's queue and the threads that empty it.

    `submit` and `cancel` are called in the event loop, and futures are resolved there.

    Args:
        backend: the model.
        columns: numbers it gives a row.
        name: for messages and the threads.
        cores: what the models of a server share; not asked for on a device of its own.
    """

    def __init__(self, backend: Backend, columns: int, name: str = "model", cores: Cores | None = None) -> None:
        self.backend = backend
        self.columns = columns
        self.name = name
        info = backend.info
        self._cores = cores if info.cores else None
        self._queue: WorkQueue[Work] = WorkQueue(BatchShape(info.token_budget, info.buckets))
        self._changed = threading.Condition()
        self._stopping = False
        self._loop: AbstractEventLoop | None = None
        self._threads: list[threading.Thread] = []
        self._progress = [Progress() for _ in range(info.workers)]
        self._open: set[Work] = set()
        """Requests whose future is not resolved."""
        self.open_tokens = [0, 0, 0]
        """Tokens of those requests by lane, from admission until their last row is there."""
        self.speed = Speed()
        self.last_success = 0.0
        self.failures = 0
        """Batches that failed, one after the other, until now."""
        self.died: str | None = None
        self.on_batch: Callable[[list[Part], float, int], object] = lambda _parts, _seconds, _failed: None

    def start(self, loop: AbstractEventLoop) -> None:
        """Start the threads."""
        self._loop = loop
        for number in range(self.backend.info.workers):
            name = f"bgert-{self.name}-{number}"
            self._threads.append(threading.Thread(target=self._thread, args=(number,), name=name, daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let the threads end after their batch; what is queued is not run."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def join(self, seconds: float) -> bool:
        """Wait for the threads to end after `stop`; whether they did."""
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def queued_tokens(self) -> int:
        """Tokens that no batch has taken."""
        return sum(self._queue.tokens)

    @property
    def token_budget(self) -> int:
        """Most tokens of a batch, as of now."""
        return self._queue.shape.token_budget

    @property
    def queued_requests(self) -> int:
        """Requests with rows that no batch has taken."""
        return len(self._queue)

    def submit(self, work: Work) -> Future[NDArray[np.float32]]:
        """Queue a request; the future gives float32[n, columns] in the caller's order.

        The future raises what the backend raised, `NonFiniteOutputError` or `EngineDeadError`. Cancelling it
        frees the rows that have not run.
        """
        assert self._loop is not None  # noqa: S101 - started
        future = self._loop.create_future()
        if self.died is not None:
            future.set_exception(EngineDeadError(self.died))
            return future
        work.future = future
        work.submitted = time.perf_counter()
        self._open.add(work)
        self.open_tokens[work.lane] += work.tokens
        with self._changed:
            self._queue.add(work)
            # One batch wakes one thread; only more of them have something for the others.
            batches = -(-work.tokens // self._queue.shape.token_budget)
            self._changed.notify(max(1, batches))
        return future

    def cancel(self, work: Work) -> int:
        """Drop the rows that no batch has taken, and say how many those were."""
        with self._changed:
            dropped = len(work) - work.taken if self._queue.discard(work) else 0
        self._close(work)
        return dropped

    def _close(self, work: Work) -> None:
        if work in self._open:
            self._open.remove(work)
            self.open_tokens[work.lane] -= work.tokens

    @property
    def tokens_per_second(self) -> float:
        """Of the whole engine while it has all it can do."""
        return self.speed.tokens_per_second

    def stuck(self) -> float:
        """How long the batch that gets on worst has taken, see `Progress.stuck`. For one caller, now and then."""
        now = time.monotonic()
        return max(progress.stuck(now) for progress in self._progress)

    def die(self, reason: str) -> None:
        """Give the engine up: every request fails, none is taken any more. Called in the event loop."""
        if self.died is not None:
            return
        self.died = reason
        self.stop()
        for work in list(self._open):
            self._discard(work)
            self._resolve(work, EngineDeadError(reason))

    def _discard(self, work: Work) -> None:
        """A request of which a row failed has failed: its other rows need not run."""
        with self._changed:
            self._queue.discard(work)

    # In the engine's threads.

    def _thread(self, number: int) -> None:
        reason, progress = "an engine thread ended", self._progress[number]
        progress.attach()
        try:
            while self._wait():
                with self._cores.place(self) if self._cores else contextlib.nullcontext():
                    # What runs is chosen when it can run: the core may have been waited for.
                    with self._changed:
                        parts = [] if self._stopping else self._queue.take()
                    if parts:
                        progress.begin()
                        self._run(parts)
                        progress.end()
        except BaseException as error:  # whatever ends a thread ends the engine
            reason = f"an engine thread ended: {type(error).__name__}: {error}"
        finally:
            if not self._stopping:
                self._tell(self.die, reason)

    def _wait(self) -> bool:
        """Whether there are rows to run; comes back as soon as there are, or False to end."""
        with self._changed:
            while not self._stopping:
                if len(self._queue):
                    return True
                self._changed.wait()
        return False

    def _run(self, parts: list[Part]) -> None:
        begun = time.perf_counter()
        failed = self._attempt(parts)
        ended = time.perf_counter()
        for work in failed:
            self._discard(work)
        more = bool(len(self._queue))
        for work, start, stop in parts:
            work.queue_seconds += (begun - work.submitted) * (stop - start)
            work.run_seconds += (ended - begun) * (stop - start)
        self._tell(self._finished, parts, failed, begun, ended, more)

    def _attempt(self, parts: list[Part]) -> dict[Work, Exception]:
        """Run a batch. Where it fails, each request by itself, so that only what cannot run fails."""
        try:
            batch = assemble(parts)
            with NativeCall():
                rows = self.backend.run(batch)
        except DeviceLostError:
            raise
        except DeviceMemoryError as error:
            return self._in_halves(parts, error)
        except Exception as error:  # whatever an engine raises is of its requests
            if len(parts) == 1:
                return {parts[0].work: error}
            return {work: error for part in parts for work, error in self._attempt([part]).items()}
        return store(parts, rows, self.columns)

    def _in_halves(self, parts: list[Part], error: DeviceMemoryError) -> dict[Work, Exception]:
        """Run a batch that the memory was too small for as two, and have smaller ones from now on."""
        with self._changed:
            shape = self._queue.shape
            tokens = sum(part.work.lengths[part.start] * (part.stop - part.start) for part in parts)
            self._queue.shape = shape._replace(token_budget=max(1, min(shape.token_budget, tokens // 2)))
        if len(parts) > 1:
            middle = len(parts) // 2
            return self._attempt(parts[:middle]) | self._attempt(parts[middle:])
        work, start, stop = parts[0]
        if stop - start == 1:
            return {work: error}
        middle = (start + stop) // 2
        return self._attempt([parts[0]._replace(stop=middle)]) | self._attempt([parts[0]._replace(start=middle)])

    def _tell(self, call: Callable[..., None], *args: Any) -> None:
        try:
            assert self._loop is not None  # noqa: S101 - started
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the loop is closed: the process ends
            pass

    # In the event loop.

    def _finished(
        self, parts: list[Part], failed: dict[Work, Exception], begun: float, ended: float, more: bool
    ) -> None:
        if len(failed) < len(parts):
            self.last_success = time.monotonic()
            self.failures = 0
            self.speed.batch(ended, sum(sum(work.lengths[start:stop]) for work, start, stop in parts), more)
        else:
            self.failures += 1
            self.speed.batch(ended, 0, more)
        for work, start, stop in parts:
            work.done += stop - start
            error = failed.get(work)
            if error is not None:
                self._resolve(work, error)
            elif work.done == len(work):
                self._resolve(work, None)
        self.on_batch(parts, ended - begun, len(failed))

    def _resolve(self, work: Work, error: Exception | None) -> None:
        self._close(work)
        future = work.future
        if future is None or future.done():
            return
        if error is None:
            future.set_result(work.rows)
        else:
            future.set_exception(error)


def assemble(parts: Sequence[Part]) -> PackedBatch:
    """The rows of the parts as one packed batch."""
    slices = [
        work.batch if start == 0 and stop == len(work) else slice_batch(work.batch, start, stop)
        for work, start, stop in parts
    ]
    if len(slices) == 1:
        return slices[0]
    lengths = np.concatenate([np.diff(part.cu_seqlens) for part in slices])
    cu_seqlens = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=cu_seqlens[1:])
    return PackedBatch(
        np.concatenate([part.input_ids for part in slices]),
        cu_seqlens,
        np.concatenate([part.type_ids for part in slices]),
    )


def store(parts: Sequence[Part], rows: NDArray[np.float32], columns: int) -> dict[Work, Exception]:
    """Hand rows to their requests. A request gets nothing from a row that is not finite, but an error.

    Raises:
        EngineError: the rows are not as many or not as wide as they must be.
    """
    count = sum(stop - start for _, start, stop in parts)
    if rows.shape != (count, columns):
        raise EngineError(f"the engine returned shape {rows.shape} for {count} inputs of {columns} columns")
    finite = bool(np.isfinite(rows).all())
    failed: dict[Work, Exception] = {}
    first = 0
    for work, start, stop in parts:
        own = rows[first : first + stop - start]
        first += stop - start
        if finite or np.isfinite(own).all():
            work.store(start, stop, own)
        else:
            failed[work] = NonFiniteOutputError("the model returned NaN or infinity: nothing of this request is served")
    return failed
