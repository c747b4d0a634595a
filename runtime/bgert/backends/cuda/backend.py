"""ONNX Runtime on one NVIDIA GPU: packed fp16, pinned staging, copies beside compute, CUDA graphs for small batches.

A batch is laid out in pinned memory and waited for by the thread that has it. In between, a thread of the device calls
ONNX Runtime, which keeps handles by thread; so the next batches are laid out and queued while one computes. A
small batch is a CUDA graph, which any thread may launch: where nothing else is being queued its own does, for to hand
it over and to be woken takes longer than the launch.
"""

from __future__ import annotations

import os
import queue
import weakref
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from bgert import _native
from bgert.backends.cuda import check
from bgert.backends.cuda.device_thread import DeviceThread
from bgert.backends.cuda.packed_layout import InputPlan, bucket_of
from bgert.backends.cuda.session import CudaSession
from bgert.backends.cuda_runtime import CudaRuntime
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
    warn_caller,
)
from bgert.lifecycle import keep_for_ever, on_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from bgert.backends.cuda.graph_lane import Lane
    from bgert.backends.cuda.packed_layout import Bucket
    from bgert.backends.cuda.session import Slot
    from bgert.backends.cuda_runtime import Event
    from bgert.batching import PackedBatch
    from bgert.model_folder import GraphEntry

__all__ = ["OnnxCudaBackend"]

OPERATORS = Path(_native.__file__).with_name("_cuda_ops.so")
"""bgert's own operators (runtime/src/cuda_ops), built beside the tokenizer."""
LEAST_TIMED = 1024
"""Tokens: smaller batches run as CUDA graphs, and algorithms for their products are timed when these are captured."""
Result = TypeVar("Result")
Buffers = TypeVar("Buffers")

TOKEN_BUDGET = 16_384
RING = 3  # one batch computes, one is queued behind it, one is being laid out
LANES = 2  # as many small batches are queued at once
GRAPH_TOKENS = 2048  # the largest batch that is a graph
# Beyond, a plain run is queued faster than it computes, and its bucket has fewer tokens to fill: the graph wins only
# where nothing else keeps the device at work.
BUSY_GRAPH_TOKENS = 512


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
            cuda = CudaRuntime()
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
        self._cuda, self._device = cuda, device
        self._pid = os.getpid()
        self._launcher = DeviceThread(f"bgert-cuda{device}-launcher")
        self._ring: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        self._lanes: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        finalizer = weakref.finalize(self, _release, None, self._launcher, self._pid)
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
            finalizer = weakref.finalize(self, _release, self._session, self._launcher, self._pid)
            finalizer.atexit = False
            self._most_tokens = max(token_budget, max_tokens)
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
                self._launch(self._session.open_lanes, LANES, min(GRAPH_TOKENS, self._most_tokens))
            except DeviceLostError:
                raise
            except EngineError as error:
                self._say(f"CUDA graphs are off and single texts take longer, because capturing one failed: {error}")
        for lane in self._session.lanes:
            self._lanes.put(lane)
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
        if len(batch.input_ids) <= GRAPH_TOKENS and (rows := self._run_graph(batch)) is not None:
            return rows
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

    def _run_graph(self, batch: PackedBatch) -> NDArray[np.float32] | None:
        """A small batch as its CUDA graph; None where there is none for it, or none is free."""
        session = self._session
        try:
            lane = self._lanes.get_nowait()
        except queue.Empty:
            return None
        with self._lent(lane, self._lanes):
            alone = self._lanes.qsize() == LANES - 1 and self._ring.qsize() == RING
            bucket = lane.bucket_for(batch)
            if bucket is None or (bucket.tokens > BUSY_GRAPH_TOKENS and not alone):
                return None
            lane.fill(batch, bucket)
            with self._cuda.on(self._device):
                if session.queueing.acquire(blocking=False):
                    try:
                        done = session.launch_graph(lane, bucket, spin=alone)
                    finally:
                        session.queueing.release()
                else:
                    done = self._launch(self._launch_graph, lane, bucket)
                session.wait(done)
            return lane.rows(len(batch))

    def _launch_graph(self, lane: Lane, bucket: Bucket) -> Event:
        with self._session.queueing:
            return self._session.launch_graph(lane, bucket, spin=False)

    def _run(self, batch: PackedBatch, bucket: Bucket) -> NDArray[np.float32]:
        session, texts = self._session, len(batch)
        slot = self._ring.get()
        with self._lent(slot, self._ring):
            self._plan.fill(slot.host_in.array(), batch, bucket)
            self._launch(session.launch, slot, bucket, texts)
            with self._cuda.on(self._device):
                session.wait(slot.done)
            return session.rows(slot, texts)

    @contextmanager
    def _lent(self, buffers: Buffers, home: queue.SimpleQueue[Buffers]) -> Iterator[None]:
        """Give buffers back when the device no longer uses them."""
        try:
            yield
        except EngineError:  # raised when nothing of the batch is at work any more
            home.put(buffers)
            raise
        except BaseException:  # Ctrl-C between launch and end
            self._launcher.submit(_give_back, self._session, buffers, home)
            raise
        home.put(buffers)

    def _launch(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return self._launcher.submit(function, *arguments).result()

    def _shrink(self, tokens: int) -> None:
        """Split larger batches from now on."""
        if tokens < self._most_tokens:
            self._most_tokens = tokens
            self._say(f"memory is short: batches have at most {tokens:,} tokens from now on, which is slower")

    def _say(self, what: str) -> None:
        warn_caller(f"{self._session.name}: {what}", DeviceWarning)


def _release(session: CudaSession | None, launcher: DeviceThread, pid: int) -> None:
    if os.getpid() == pid:  # in a forked child the thread is gone, and the memory is the parent's
        launcher.end(_nothing if session is None else session.close)


def _give_back(session: CudaSession, buffers: Buffers, home: queue.SimpleQueue[Buffers]) -> None:
    """In the launcher, behind whatever the batch still had there."""
    try:
        session.settle()
    except EngineError as error:
        session.translated(error)  # notes where the device is lost
    home.put(buffers)


def _nothing() -> None:
    pass
