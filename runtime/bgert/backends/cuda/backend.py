"""ONNX Runtime on one NVIDIA GPU: packed fp16, pinned staging, copies beside compute, CUDA graphs for small batches.

Every CUDA call of a device is made by two threads of its own. The launcher queues work, and `run` is called from
threads that come and go; the waiter waits for results. Callers lay out their batch in a slot of pinned memory
meanwhile, so that the launcher finds the next one ready.
"""

from __future__ import annotations

import os
import queue
import threading
import warnings
import weakref
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert import _native
from bgert.backends.cuda import check
from bgert.backends.cuda.device_thread import DeviceThread
from bgert.backends.cuda.packed_layout import InputPlan, bucket_of, fit
from bgert.backends.cuda.session import CudaSession
from bgert.backends.cuda_memory import CudaRuntime
from bgert.backends.graph_file import verify_graph
from bgert.backends.protocol import BackendInfo
from bgert.batching import slice_batch
from bgert.errors import (
    DeviceLostError,
    DeviceMemoryError,
    DeviceUnavailableError,
    DeviceWarning,
    EngineError,
    InvalidOptionError,
    ModelFolderError,
)
from bgert.lifecycle import keep_for_ever, on_fork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bgert.backends.cuda.packed_layout import Bucket
    from bgert.backends.cuda.session import Slot
    from bgert.batching import PackedBatch
    from bgert.model_folder import GraphEntry

__all__ = ["OnnxCudaBackend"]

OPERATORS = Path(_native.__file__).with_name("_cuda_ops.so")
"""bgert's own operators (runtime/src/cuda_ops), built beside the tokenizer."""
LEAST_TIMED = 1024
"""Tokens: smaller batches run as CUDA graphs, and algorithms for their products are timed when these are captured."""
TOKEN_BUDGET = 16_384
RING = 3  # one batch computes, one is queued behind it, one is being laid out


class _Captures:
    """Capturing a CUDA graph forbids every thread to allocate device memory, so it has the process for itself."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._capturing = False

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._capturing)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextmanager
    def capturing(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._capturing)
            self._capturing = True
            self._changed.wait_for(lambda: not self._running)
        try:
            yield
        finally:
            with self._changed:
                self._capturing = False
                self._changed.notify_all()


_CAPTURES = _Captures()


class OnnxCudaBackend:
    """A packed `cuda` graph on one GPU. `run` may be called from any number of threads.

    Args:
        folder: the model folder.
        graph: its entry for target `cuda`.
        device: number of the device.
        pad_token_id: as in `bgert.backends.cuda.packed_layout.InputPlan`.
        max_tokens: longest text.
        memory_limit: bytes that ONNX Runtime may take on the device, weights included; None for no limit.
        graphs: capture CUDA graphs for small batches.
        token_budget: tokens of a batch.
        cuda: CUDA's runtime, or what stands for it; None loads it.
        onnxruntime: the module, or what stands for it; None imports it and checks what it needs.

    Raises:
        EngineNotInstalledError: a library is missing; the message names it and its pip package.
        DeviceUnavailableError: no driver, one too old, no such device, or one on which the graph does not run whole.
        DeviceMemoryError: the model, or a batch of one text of `max_tokens`, does not fit.
        InvalidOptionError: `memory_limit` leaves no room beside the weights.
        IntegrityError: a file of the graph is not the one that export wrote.
    """

    def __init__(
        self,
        folder: Path,
        graph: GraphEntry,
        *,
        device: int,
        pad_token_id: int,
        max_tokens: int,
        memory_limit: int | None = None,
        graphs: bool = True,
        token_budget: int = TOKEN_BUDGET,
        cuda: CudaRuntime | None = None,
        onnxruntime: Any = None,
    ) -> None:
        if onnxruntime is None:
            onnxruntime = check.import_onnxruntime()
            major = check.cuda_major(onnxruntime)
            check.require_libraries(major)
            cuda = CudaRuntime(major)
        if cuda is None:
            raise TypeError("a stand-in for onnxruntime needs one for cuda")
        path = verify_graph(folder, graph)
        weights = sum(entry.size for entry in graph.files)
        if memory_limit is not None and memory_limit <= weights:
            # ONNX Runtime 1.31 subtracts the weights from it without a sign: a limit below them is none at all.
            raise InvalidOptionError(
                f"the GPU memory limit is {memory_limit:,} bytes, and the weights alone take {weights:,}: raise it"
            )
        try:
            self._plan = InputPlan(graph.inputs, pad_token_id=pad_token_id)
        except ValueError as error:
            raise ModelFolderError(
                f"{path} has an input {str(error)!r} that this bgert does not know: export the model again"
            ) from None
        self._own = "bgert" in graph.opset
        self._max_tokens = max_tokens
        self._pid = os.getpid()
        self._launcher = DeviceThread(f"bgert-cuda{device}-launcher")
        self._waiter = DeviceThread(f"bgert-cuda{device}-waiter")
        self._ring: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        self._graph_slot: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        finalizer = weakref.finalize(self, _release, None, self._launcher, self._waiter, self._pid)
        finalizer.atexit = False  # the process gives everything back by ending
        try:
            opening = partial(
                CudaSession,
                onnxruntime,
                cuda,
                path=path,
                output=graph.output,
                plan=self._plan,
                device=device,
                max_tokens=max_tokens,
                tokens=token_budget,
                ring=RING,
                memory_limit=memory_limit,
                operators=OPERATORS if self._own else None,
            )
            self._session = self._launcher.submit(opening).result()
            finalizer.detach()
            finalizer = weakref.finalize(self, _release, self._session, self._launcher, self._waiter, self._pid)
            finalizer.atexit = False
            self._waiter.submit(cuda.set_device, device).result()
            self._most_tokens = max(token_budget, max_tokens)
            with _CAPTURES.capturing():
                self._start(graphs)
        except BaseException:
            finalizer()
            raise
        self.info = BackendInfo(
            device=f"cuda:{device}",
            precision=graph.precision,
            engine=f"onnxruntime-gpu {onnxruntime.__version__}" + (", bgert operators" if self._own else ""),
            workers=RING,
            token_budget=min(token_budget, self._most_tokens),
        )
        on_fork(self)

    def forked(self) -> None:
        """In a forked child: what is on the device is the parent's, and nothing here may give it back."""
        keep_for_ever(self)

    def _start(self, graphs: bool) -> None:
        """Give the arena its size, capture, and hand out the slots."""
        while True:
            try:
                self._launch(self._session.trial, self._most_tokens)
                break
            except DeviceMemoryError:
                if self._most_tokens <= self._max_tokens:
                    raise
                self._shrink(max(self._most_tokens // 2, self._max_tokens))
        if self._own:  # the first batch of a size times what its products may use, which no caller shall wait for
            tokens = LEAST_TIMED
            while tokens < self._most_tokens:
                self._launch(self._session.trial, tokens)
                tokens *= 2
        if graphs:
            try:
                self._launch(self._session.capture)
            except (DeviceMemoryError, DeviceLostError):
                raise
            except EngineError as error:
                self._say(f"CUDA graphs are off and single texts take longer, because capturing one failed: {error}")
                graphs = False
        if graphs:
            self._graph_slot.put(self._session.graph_slot)
        else:
            self._launch(self._session.without_graphs)
            self._launch(self._session.trial, self._most_tokens)
        for slot in self._session.ring:
            self._ring.put(slot)

    def run(self, batch: PackedBatch) -> NDArray[np.float32]:
        """Packed texts to float32[B, columns].

        Raises:
            DeviceMemoryError: one text alone does not fit. Batches that do not fit are split.
            DeviceLostError: the device failed for good.
            DeviceUnavailableError: this process was forked from the one that opened the model.
            EngineError: the engine failed otherwise.
        """
        if os.getpid() != self._pid:
            raise DeviceUnavailableError(
                "this process was forked from the one that opened the model on CUDA, which CUDA does not survive: "
                "open the model after the fork, or start workers with the multiprocessing method 'spawn'"
            )
        if self._session.lost is not None:
            raise DeviceLostError(self._session.lost)
        bucket = bucket_of(np.diff(batch.cu_seqlens))
        if len(batch) > 1 and (len(batch.input_ids) > self._most_tokens or not self._session.has_room(bucket)):
            return self._run_halves(batch)
        try:
            return self._run(batch, bucket)
        except DeviceMemoryError as error:
            if len(batch) == 1:
                raise DeviceMemoryError(
                    f"a text of {len(batch.input_ids)} tokens alone does not fit into the memory of "
                    f"{self.info.device} ({error}): free some there, or pass a smaller max_length"
                ) from error
        self._shrink(max(len(batch.input_ids) // 2, 1))
        return self._run_halves(batch)

    def _run_halves(self, batch: PackedBatch) -> NDArray[np.float32]:
        middle = len(batch) // 2
        halves = (slice_batch(batch, 0, middle), slice_batch(batch, middle, len(batch)))
        return np.concatenate([self.run(half) for half in halves])

    def _run(self, batch: PackedBatch, bucket: Bucket) -> NDArray[np.float32]:
        session, texts = self._session, len(batch)
        small = fit(np.diff(batch.cu_seqlens), list(session.graphs))
        home = self._ring
        if small is not None:
            try:  # a small batch does not wait for another one: there is the ring
                slot, home = self._graph_slot.get_nowait(), self._graph_slot
            except queue.Empty:
                small = None
        if small is None:
            slot = self._ring.get()
        try:
            with _CAPTURES.running():
                self._plan.fill(slot.host_in.array(), batch, small or bucket)
                if small is not None:
                    self._launch(self._launch_and_wait, slot, small, texts)
                else:
                    self._launch(session.launch, slot, bucket, texts)
                    self._waiter.submit(session.wait, slot).result()
            return session.rows(slot, texts)
        finally:
            home.put(slot)

    def _launch_and_wait(self, slot: Slot, bucket: Bucket, texts: int) -> None:
        """One hand-over between threads in place of two."""
        self._session.launch(slot, bucket, texts, graph=True)
        self._session.wait(slot)

    def _launch(self, function: Any, *arguments: Any) -> None:
        self._launcher.submit(function, *arguments).result()

    def _shrink(self, tokens: int) -> None:
        """Split larger batches from now on."""
        if tokens < self._most_tokens:
            self._most_tokens = tokens
            self._say(f"memory is short: batches have at most {tokens:,} tokens from now on, which is slower")

    def _say(self, what: str) -> None:
        warnings.warn(f"{self._session.name}: {what}", DeviceWarning, stacklevel=4)


def _release(session: CudaSession | None, launcher: DeviceThread, waiter: DeviceThread, pid: int) -> None:
    if os.getpid() == pid:  # in a forked child the threads are gone, and the memory is the parent's
        waiter.end(_nothing)
        launcher.end(_nothing if session is None else session.close)


def _nothing() -> None:
    pass
