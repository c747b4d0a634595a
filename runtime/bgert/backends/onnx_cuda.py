"""ONNX Runtime on one NVIDIA GPU: packed fp16, pinned staging, copies beside compute, CUDA graphs for small batches.

Every CUDA call of a device is made by two threads of its own. The launcher queues work: ONNX Runtime keeps its CUDA
graphs and handles by thread, and `run` is called from threads that come and go. The waiter waits for results. Callers
lay out their batch in a slot of pinned memory meanwhile, so the launcher always finds the next one ready.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.backends import BackendInfo, cuda_check
from bgert.backends.cuda_memory import LOST_CODES, CudaRuntime
from bgert.backends.packed_layout import Bucket, InputPlan, bucket_of, fit, graph_buckets
from bgert.batching import slice_batch
from bgert.errors import (
    BgertError,
    DeviceLostError,
    DeviceMemoryError,
    DeviceUnavailableError,
    DeviceWarning,
    EngineError,
    InvalidOptionError,
    ModelFolderError,
)
from bgert.model_folder import verify_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.backends.cuda_memory import DeviceMemory, Event, PinnedMemory, Stream
    from bgert.batching import PackedBatch
    from bgert.model_folder import GraphEntry

__all__ = ["OnnxCudaBackend"]

TOKEN_BUDGET = 16_384
SLOTS = 3  # one computes, one is queued behind it, one is being filled
LEAST_TEXT = 4  # tokens; a batch of shorter texts on average is cut

_NO_MEMORY = re.compile(
    r"Failed to allocate memory|is smaller than requested bytes|out of memory|ALLOC_FAILED|CUDA failure 2:", re.I
)
_FAILURE = re.compile(r"CUDA failure (\d+)")


class _Captures:
    """Capturing a CUDA graph forbids other threads to allocate device memory, so it has the process for itself."""

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


@dataclass
class _Slot:
    """Staging of one batch: the same blocks on both sides of the bus."""

    host_in: PinnedMemory
    device_in: DeviceMemory
    device_out: DeviceMemory
    host_out: PinnedMemory
    uploaded: Event
    computed: Event
    done: Event

    def parts(self) -> list[Any]:
        return [*vars(self).values()]


@dataclass
class _Device:
    """What lives on the device; freed in the launcher's thread."""

    cuda: CudaRuntime
    upload: Stream
    compute: Stream
    download: Stream
    slots: list[_Slot]
    session: Any = None

    def settle(self) -> None:
        """Wait until nothing is at work."""
        for stream in (self.upload, self.compute, self.download):
            stream.synchronize()

    def close(self) -> None:
        try:
            self.settle()
            self.session = None
            for part in [
                *(part for slot in self.slots for part in slot.parts()),
                self.upload,
                self.compute,
                self.download,
            ]:
                part.close()
        except EngineError:
            self.session = None  # a lost device has nothing left to free


class OnnxCudaBackend:
    """A packed `cuda` graph on one GPU. `run` may be called from any number of threads.

    Args:
        folder: the model folder.
        graph: its entry for target `cuda`.
        device: number of the device.
        pad_token_id: as `bgert.backends.packed_layout.InputPlan`.
        max_tokens: longest text.
        memory_limit: bytes that ONNX Runtime may take on the device, weights included; None for no limit.
        graphs: capture CUDA graphs for small batches.
        token_budget: tokens of a batch.
        cuda: CUDA's runtime, or what stands for it; None loads it.
        onnxruntime: the module, or what stands for it; None imports it and checks what it needs.

    Raises:
        EngineNotInstalledError: a library is missing; the message names it and its pip package.
        DeviceUnavailableError: no driver, one too old, no such device, or one on which the graph does not run whole.
        DeviceMemoryError: the model, or one text of `max_tokens`, does not fit.
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
            onnxruntime = cuda_check.import_onnxruntime()
            major = cuda_check.cuda_major(onnxruntime)
            cuda_check.require_libraries(major)
            cuda = cuda or CudaRuntime(major)
        if cuda is None:
            raise TypeError("a stand-in for onnxruntime needs one for cuda")
        self._number = device
        self._ort = onnxruntime
        self._path = folder / graph.files[0].name
        verify_files(folder, graph.files)
        weights = sum(entry.size for entry in graph.files)
        if memory_limit is not None and memory_limit <= 1.05 * weights:
            # ONNX Runtime 1.31 subtracts weights from the limit without a sign: below them it has no limit at all.
            raise InvalidOptionError(
                f"the GPU memory limit is {memory_limit:,} bytes, and the weights alone take {weights:,}: raise it"
            )
        self._memory_limit = memory_limit
        try:
            self._plan = InputPlan(graph.inputs, pad_token_id=pad_token_id)
        except ValueError as error:
            raise ModelFolderError(
                f"{self._path} has an input {str(error)!r} that this bgert does not know: upgrade bgert"
            ) from None
        self._output = graph.output
        self._max_tokens = max_tokens
        self._lost: str | None = None
        self._pid = os.getpid()
        self._launcher = ThreadPoolExecutor(1, thread_name_prefix=f"bgert-cuda{device}-launch")
        self._waiter = ThreadPoolExecutor(1, thread_name_prefix=f"bgert-cuda{device}-wait")
        self._free: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        self._graph_slot: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        self._graphs: dict[Bucket, tuple[Any, Any]] = {}
        try:
            self._device = self._launcher.submit(self._open_device, cuda, token_budget).result()
            finalizer = weakref.finalize(self, _release, self._device, self._launcher, self._waiter, self._pid)
            finalizer.atexit = False  # the process gives everything back by ending
            self._waiter.submit(cuda.set_device, device).result()
            with _CAPTURES.capturing():
                budget = self._launcher.submit(self._start, token_budget, graphs).result()
        except BaseException:
            self._launcher.shutdown(wait=False)
            self._waiter.shutdown(wait=False)
            raise
        self._most_tokens = budget
        self.info = BackendInfo(
            device=f"cuda:{device}",
            precision=graph.precision,
            engine=f"onnxruntime-gpu {onnxruntime.__version__}",
            workers=SLOTS,
            token_budget=budget,
        )

    # Opening, all in the launcher's thread.

    def _open_device(self, cuda: CudaRuntime, token_budget: int) -> _Device:
        cuda.set_device(self._number)
        device = _Device(cuda, cuda.stream(), cuda.stream(), cuda.stream(), [])
        try:
            self._columns = self._open_session(device, graphs=True)
            tokens = max(token_budget, self._max_tokens)
            texts = max(16, tokens // LEAST_TEXT)
            # Room for both inputs of [B, S] at 2.5 slots a token.
            self._in_bytes = self._plan.nbytes(Bucket(tokens * 17 // 16 + 16, texts, max(1, 5 * tokens // 2 // texts)))
            self._out_bytes = 4 * self._columns * texts
            for spin in (True, *[False] * SLOTS):
                device.slots.append(
                    _Slot(
                        cuda.allocate_pinned(self._in_bytes),
                        cuda.allocate(self._in_bytes),
                        cuda.allocate(self._out_bytes),
                        cuda.allocate_pinned(self._out_bytes),
                        cuda.event(),
                        cuda.event(),
                        cuda.event(spin=spin),
                    )
                )
        except BaseException as error:
            device.close()
            if isinstance(error, DeviceMemoryError):
                free, total = cuda.memory_info()
                raise DeviceMemoryError(
                    f"{self._path.name} does not fit on cuda:{self._number}, where {free:,} of {total:,} bytes are "
                    f"free ({error}): free some, or choose another device"
                ) from None
            raise
        return device

    def _open_session(self, device: _Device, *, graphs: bool) -> int:
        """Load the model; returns the columns of its output."""
        ort = self._ort
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is written as it shall run
        options.enable_mem_pattern = False  # a pattern a shape would hold memory beside the arena's own reuse
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        provider = {
            "device_id": str(self._number),
            "user_compute_stream": str(device.compute.handle),
            "enable_cuda_graph": "1" if graphs else "0",
            "arena_extend_strategy": "kSameAsRequested",  # the first run is the largest there will be
            "use_tf32": "0",  # what is float32 is so on purpose
            "enable_cudnn": "0",  # no operator of the graph asks for it
        }
        if self._memory_limit is not None:
            provider["gpu_mem_limit"] = str(self._memory_limit)
        try:
            session = ort.InferenceSession(str(self._path), options, providers=[(cuda_check.PROVIDER, provider)])
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            found = self._translated(error)
            if isinstance(found, (DeviceMemoryError, DeviceLostError)):
                raise found from error
            raise DeviceUnavailableError(f"ONNX Runtime cannot load {self._path} for CUDA: {error}") from error
        if session.get_providers()[0] != cuda_check.PROVIDER:
            raise DeviceUnavailableError(
                f"ONNX Runtime {ort.__version__} did not start its CUDA provider and would use the CPU instead; run "
                '`python -c "import onnxruntime; onnxruntime.print_debug_info()"` to see why'
            )
        session.disable_fallback()  # by default an error in CUDA would open the model again on the CPU
        device.session = session
        return int(session.get_outputs()[0].shape[1])

    def _start(self, budget: int, graphs: bool) -> int:
        """Run the largest batch first, so that the arena has its size, then capture; returns the budget that fits."""
        while True:
            try:
                self._trial(budget)
                break
            except DeviceMemoryError:
                if budget <= self._max_tokens:
                    raise
                budget = max(budget // 2, self._max_tokens)
                self._say_short(budget)
        if graphs:
            try:
                self._capture()
            except (DeviceMemoryError, DeviceLostError):
                raise
            except EngineError as error:
                warnings.warn(
                    f"CUDA graphs are off, because capturing one failed, and single texts take longer: {error}",
                    DeviceWarning,
                    stacklevel=2,
                )
                graphs = False
        if not graphs:
            self._graphs.clear()
            self._device.session = None
            self._open_session(self._device, graphs=False)
            self._trial(budget)
        else:
            self._graph_slot.put(self._device.slots[0])
        for slot in self._device.slots[1:]:
            self._free.put(slot)
        return budget

    def _trial(self, tokens: int) -> None:
        """One batch of full-length texts."""
        from bgert.batching import PackedBatch

        longest = min(self._max_tokens, tokens)
        cuts = np.minimum(np.arange(0, tokens + longest, longest), tokens).astype(np.int32)
        batch = PackedBatch(np.zeros(tokens, np.int32), cuts, np.zeros(tokens, np.int32))
        slot, bucket = self._device.slots[1], bucket_of(np.diff(cuts))
        self._plan.fill(slot.host_in.array(), batch, bucket)
        self._launch(slot, bucket, self._bind(slot, bucket), self._run_options(-1), len(batch))
        slot.done.synchronize()

    def _capture(self) -> None:
        slot = self._device.slots[0]
        for number, bucket in enumerate(graph_buckets(self._max_tokens), 1):
            if self._plan.nbytes(bucket) > self._in_bytes or 4 * self._columns * bucket.texts > self._out_bytes:
                continue
            self._graphs[bucket] = self._bind(slot, bucket), self._run_options(number)
            from bgert.batching import PackedBatch

            one = np.array([0, 1], np.int32)
            self._plan.fill(slot.host_in.array(), PackedBatch(one[:1], one, one[:1]), bucket)
            for _ in range(2):  # the first run captures, the second is a replay
                self._launch(slot, bucket, *self._graphs[bucket], 1)
            slot.done.synchronize()

    # Running.

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
        if self._lost is not None:
            raise DeviceLostError(self._lost)
        bucket = bucket_of(np.diff(batch.cu_seqlens))
        if len(batch) > 1 and not self._has_room(bucket):
            return self._run_halves(batch)
        try:
            return self._run(batch, bucket)
        except DeviceMemoryError as error:
            if len(batch) == 1:
                raise DeviceMemoryError(
                    f"a text of {len(batch.input_ids)} tokens alone does not fit into the memory of "
                    f"{self.info.device} ({error}): free some there, or pass a smaller max_length"
                ) from error
            if bucket.tokens // 2 < self._most_tokens:
                self._most_tokens = max(bucket.tokens // 2, 1)
                self._say_short(self._most_tokens)
        return self._run_halves(batch)

    def _run_halves(self, batch: PackedBatch) -> NDArray[np.float32]:
        middle = len(batch) // 2
        halves = (slice_batch(batch, 0, middle), slice_batch(batch, middle, len(batch)))
        return np.concatenate([self.run(half) for half in halves])

    def _has_room(self, bucket: Bucket) -> bool:
        return (
            bucket.tokens <= max(self._most_tokens * 17 // 16, 16)
            and self._plan.nbytes(bucket) <= self._in_bytes
            and 4 * self._columns * bucket.texts <= self._out_bytes
        )

    def _run(self, batch: PackedBatch, bucket: Bucket) -> NDArray[np.float32]:
        small = fit(np.diff(batch.cu_seqlens), list(self._graphs))
        home, slot = self._take(small is not None)
        in_graph = small is not None and home is self._graph_slot
        try:
            with _CAPTURES.running():
                if in_graph and small is not None:
                    self._plan.fill(slot.host_in.array(), batch, small)
                    self._launcher.submit(self._launch_and_wait, slot, small, len(batch)).result()
                else:
                    self._plan.fill(slot.host_in.array(), batch, bucket)
                    launch = self._launcher.submit(self._launch_plain, slot, bucket, len(batch))
                    launch.result()
                    self._waiter.submit(self._wait, slot).result()
            rows = slot.host_out.array()[: 4 * self._columns * len(batch)].view(np.float32)
            return rows.reshape(len(batch), self._columns).copy()
        finally:
            home.put(slot)

    def _take(self, small: bool) -> tuple[queue.SimpleQueue[_Slot], _Slot]:
        """A slot and where to give it back; small batches take the one with CUDA graphs where it is free."""
        if small:
            try:
                return self._graph_slot, self._graph_slot.get_nowait()
            except queue.Empty:
                pass
        return self._free, self._free.get()

    def _launch_plain(self, slot: _Slot, bucket: Bucket, texts: int) -> None:
        self._launch(slot, bucket, self._bind(slot, bucket), self._run_options(-1), texts)

    def _launch_and_wait(self, slot: _Slot, bucket: Bucket, texts: int) -> None:
        self._launch(slot, bucket, *self._graphs[bucket], texts)
        self._wait(slot)

    def _launch(self, slot: _Slot, bucket: Bucket, binding: Any, options: Any, texts: int) -> None:
        """Queue a batch: up, through the model, down. Nothing here waits for the device."""
        device = self._device
        cuda = device.cuda
        try:
            cuda.upload(slot.device_in, slot.host_in, self._plan.nbytes(bucket), device.upload)
            slot.uploaded.record(device.upload)
            device.compute.wait(slot.uploaded)
            device.session.run_with_iobinding(binding, options)
            slot.computed.record(device.compute)
            device.download.wait(slot.computed)
            cuda.download(slot.host_out, slot.device_out, 4 * self._columns * texts, device.download)
            slot.done.record(device.download)
        except Exception as error:  # as in _open_session
            found = self._translated(error)
            if not isinstance(found, DeviceLostError):
                device.settle()  # what was queued before the failure still reads the slot
            raise found from error

    def _wait(self, slot: _Slot) -> None:
        try:
            slot.done.synchronize()
        except BgertError as error:
            raise self._translated(error) from error

    def _bind(self, slot: _Slot, bucket: Bucket) -> Any:
        """An IO binding of every input and the output to addresses in a slot."""
        binding = self._device.session.io_binding()
        for name, dtype, shape, offset in self._plan.places(bucket):
            binding.bind_input(name, "cuda", self._number, dtype, shape, slot.device_in.pointer + offset)
        shape = (bucket.texts, self._columns)
        binding.bind_output(self._output, "cuda", self._number, np.float32, shape, slot.device_out.pointer)
        return binding

    def _run_options(self, graph: int) -> Any:
        options = self._ort.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        options.add_run_config_entry("gpu_graph_id", str(graph))
        return options

    def _translated(self, error: Exception) -> BgertError:
        """What ONNX Runtime or CUDA raised, as an error of bgert's; notes when the device is lost."""
        text = str(error)
        failure = _FAILURE.search(text)
        if isinstance(error, DeviceLostError) or (failure and int(failure[1]) in LOST_CODES):
            self._lost = f"cuda:{self._number} is lost to this process, start it again: {text}"
            return DeviceLostError(self._lost)
        if isinstance(error, BgertError):
            return error
        if _NO_MEMORY.search(text):
            return DeviceMemoryError(text)
        return EngineError(f"onnxruntime-gpu {self._ort.__version__} failed on {self._path}: {text}")

    def _say_short(self, tokens: int) -> None:
        warnings.warn(
            f"the memory of cuda:{self._number} is short: batches have {tokens:,} tokens from now on, which is slower",
            DeviceWarning,
            stacklevel=3,
        )


def _release(device: _Device, launcher: ThreadPoolExecutor, waiter: ThreadPoolExecutor, pid: int) -> None:
    if os.getpid() != pid:
        return  # a forked child: the device's memory and threads belong to the parent
    launcher.submit(device.close)
    launcher.shutdown(wait=False)
    waiter.shutdown(wait=False)
