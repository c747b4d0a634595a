"""TensorRT: an engine from the cache, padded batches in its buckets, replayed as CUDA graphs.

A lane is one shape, (bucket, rows): an execution context with its profile, shapes and addresses set once, and the CUDA
graph captured from it. A captured graph freezes all of these, so each lane has a context of its own. All lanes run on
one stream, one after the other, and so share one block of scratch memory and one set of device buffers, both at the
maximum over the profiles. Host buffers are page-locked and there are two sets: one thread fills one while the device
works for the other.
"""

from __future__ import annotations

import os
import queue
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from bgert.backends.cuda_runtime import CudaRuntime
from bgert.backends.graph_file import verify_graph
from bgert.backends.padded_layout import PaddedLayout
from bgert.backends.protocol import BackendInfo
from bgert.backends.tensorrt.engine_cache import EngineCache
from bgert.backends.tensorrt.library import Log, environment, import_runtime
from bgert.backends.tensorrt.recipe import graph_digest
from bgert.backends.tensorrt.rtx import RtxContexts, check_gpu
from bgert.batching import Bucket, bucket_rows, slice_batch
from bgert.errors import DeviceMemoryError, EngineError, warn_caller
from bgert.lifecycle import keep_for_ever, on_fork

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.backends.cuda_runtime import DeviceMemory, Event, Graph, PinnedMemory, Stream
    from bgert.backends.tensorrt.recipe import EngineRecord
    from bgert.batching import PackedBatch
    from bgert.model_folder import GraphEntry, Manifest

__all__ = ["TensorRtBackend"]

INT32_BYTES = FLOAT32_BYTES = 4
_Part = TypeVar("_Part", "Stream", "Event", "Graph", "DeviceMemory", "PinnedMemory")


@dataclass(frozen=True)
class _Slot:
    """Host buffers of one batch in flight."""

    inputs: dict[str, PinnedMemory]
    output: PinnedMemory
    done: Event
    """Event after the last copy."""


@dataclass
class _Lane:
    """One shape, ready to run."""

    context: Any
    graph: Graph | None = None
    """Executable CUDA graph; None where capture failed."""


class TensorRtBackend:
    """An engine that `bgert build` made for this GPU, driver and TensorRT.

    Args:
        folder: the model folder.
        manifest: its manifest.
        graph: an entry of target `tensorrt`.
        mode: `throughput` keeps two batches in flight and sleeps while it waits; `latency` runs one and spins.
        device: `tensorrt`, or `tensorrt-rtx` for TensorRT for RTX.

    Raises:
        EngineNotInstalledError: TensorRT or cuda-bindings is missing.
        DeviceUnavailableError: there is no GPU or no driver.
        EngineNotBuiltError: there is no engine for this GPU; it says why, and what to run.
        IntegrityError: the engine or the graph is damaged, or others could have written the engine.
        DeviceMemoryError: there is too little memory.
        EngineError: TensorRT refuses the engine.
    """

    def __init__(self, folder: Path, manifest: Manifest, graph: GraphEntry, *, mode: str, device: str) -> None:
        cuda = CudaRuntime(device)
        cuda.device_count()  # before any object of TensorRT exists, which without a driver would end the process
        cuda.set_device(0)
        gpu = cuda.gpu()
        trt = import_runtime(device.replace("-", "_"))
        if device == "tensorrt-rtx":
            check_gpu(gpu)
        verify_graph(folder, graph)
        cache = EngineCache()
        here = environment(trt, gpu)
        record = cache.find(graph_digest(graph), graph.precision, here)
        self._trt, self._cuda = trt, cuda
        self._log = Log(trt)
        self._name = f"{trt.__name__} {trt.__version__}"
        self._layout = PaddedLayout.of(graph.inputs, manifest.architecture)
        self._output = graph.output
        self._columns = manifest.columns
        self._buckets = tuple(Bucket(profile.length, profile.texts) for profile in record.recipe.profiles)
        self._lanes: dict[tuple[int, int], _Lane] = {}
        # Released from its end: engine, runtime, log. Nothing else may hold the engine, or the runtime would go first.
        self._owned: list[Any] = [self._log]
        self._parts: list[Stream | Event | Graph | DeviceMemory | PinnedMemory] = []  # closed from its end
        self._rtx = RtxContexts(trt, cache, record, here) if device == "tensorrt-rtx" else None
        self._finalizer = weakref.finalize(self, _close, self._lanes, self._rtx, self._owned, self._parts)
        self._load(cache.load(record), record)
        workers = 1 if mode == "latency" else 2
        self._allocate(workers, spin=mode == "latency")
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self.info = BackendInfo(
            device=device,
            precision=graph.precision,
            engine=self._name,
            workers=workers,
            token_budget=max(bucket.length * bucket.texts for bucket in self._buckets),
            buckets=self._buckets,
        )
        on_fork(self)

    def forked(self) -> None:
        """In a forked child: what is on the device is the parent's, and nothing here may give it back."""
        self._finalizer.detach()
        keep_for_ever(self)

    @property
    def _engine(self) -> Any:
        return self._owned[-1]

    def run(self, batch: PackedBatch) -> NDArray[np.float32]:
        """Packed texts to float32[B, columns]."""
        if self._pid != os.getpid():
            raise EngineError("a GPU does not survive a fork: load the model in the process that uses it")
        longest = int(np.diff(batch.cu_seqlens).max())
        number = next((n for n, bucket in enumerate(self._buckets) if longest <= bucket.length), None)
        if number is None:
            raise EngineError(
                f"a text has {longest} tokens and the engine has no profile beyond {self._buckets[-1].length}: pass "
                "max_length, or build an engine for longer texts with `bgert build`"
            )
        most = self._buckets[number].texts
        parts = [
            self._run(slice_batch(batch, start, min(start + most, len(batch))), number)
            for start in range(0, len(batch), most)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, batch: PackedBatch, number: int) -> NDArray[np.float32]:
        bucket = self._buckets[number]
        rows = bucket_rows(len(batch), bucket.texts)
        slot = self._slots.get()
        try:
            count = rows * bucket.length
            nbytes = count * INT32_BYTES
            arrays = {
                name: pinned.array()[:nbytes].view(np.int32).reshape(rows, bucket.length)
                for name, pinned in slot.inputs.items()
            }
            self._layout.fill(batch, arrays)
            size = rows * self._columns * FLOAT32_BYTES
            with self._lock:
                try:
                    for name, pinned in slot.inputs.items():
                        self._cuda.upload(self._device[name], pinned, nbytes, self._stream)
                    self._launch(number, rows)
                    self._cuda.download(slot.output, self._device[self._output], size, self._stream)
                    slot.done.record(self._stream)
                except BaseException:
                    self._drain()
                    raise
            slot.done.synchronize()
            found = slot.output.array()[:size].view(np.float32)
            result: NDArray[np.float32] = found.reshape(rows, -1)[: len(batch)].copy()
            return result
        finally:
            self._slots.put(slot)

    def _drain(self) -> None:
        """Wait until the device no longer touches the host buffers; what failed is already being raised."""
        try:
            self._stream.synchronize()
        except EngineError:
            return

    def _launch(self, number: int, rows: int) -> None:
        """Queue the engine for one shape."""
        lane = self._lanes.get((number, rows))
        if lane is None:
            lane = self._open_lane(number, rows)
            self._enqueue(lane)
            # The first run settles what the context put off; it must be over before a capture.
            self._stream.synchronize()
            lane.graph = self._capture(lane)
            self._lanes[number, rows] = lane
        elif lane.graph is not None:
            lane.graph.launch(self._stream)
        else:
            self._enqueue(lane)

    def _enqueue(self, lane: _Lane) -> None:
        self._require(lane.context.execute_async_v3(self._stream.address), "could not queue a batch")

    def _open_lane(self, number: int, rows: int) -> _Lane:
        trt, bucket = self._trt, self._buckets[number]
        if self._rtx is None:
            context = self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        else:
            context = self._rtx.make(self._engine)
        self._require(context is not None, "could not make an execution context")
        context.nvtx_verbosity = trt.ProfilingVerbosity.NONE
        try:
            switched = context.set_optimization_profile_async(number, self._stream.address)
        except RuntimeError as error:
            raise EngineError(f"{self._name} has no profile {number}: {error}{self._log.take()}") from error
        self._require(switched, f"could not use profile {number}")
        context.set_device_memory(self._scratch.pointer, self._scratch.nbytes)
        shape = (rows, bucket.length)
        for name in self._layout.inputs:
            self._require(context.set_input_shape(name, shape), f"refused the shape {shape} of {name}")
        missing = context.infer_shapes()
        self._require(not missing, f"cannot infer shapes for {missing}")
        found = tuple(context.get_tensor_shape(self._output))
        self._require(found == (rows, self._columns), f"gives {found} for {self._output}, not {(rows, self._columns)}")
        for name, memory in self._device.items():
            self._require(context.set_tensor_address(name, memory.pointer), f"refused the address of {name}")
        return _Lane(context)

    def _capture(self, lane: _Lane) -> Graph | None:
        """The lane's CUDA graph; None, with a warning, where TensorRT or CUDA will not be captured."""
        if self._rtx is not None and not self._rtx.capturable(lane.context, self._stream.address):
            warn_caller(f"no CUDA graph, batches are queued one by one: {self._name} allows none", RuntimeWarning)
            return None
        try:
            return self._kept(self._cuda.capture(self._stream, lambda: self._enqueue(lane)))
        except EngineError as error:
            warn_caller(f"no CUDA graph, batches are queued one by one: {error}", RuntimeWarning)
            return None

    def _load(self, plan: bytes, record: EngineRecord) -> None:
        trt = self._trt
        try:
            runtime = trt.Runtime(self._log.logger)
        except (TypeError, RuntimeError) as error:  # TypeError where the library returns no object
            raise EngineError(f"{self._name} makes no runtime: {error}{self._log.take()}") from error
        self._owned.append(runtime)
        if self._rtx is not None:
            self._rtx.check(runtime, plan)
        engine = runtime.deserialize_cuda_engine(plan)
        self._require(engine is not None, f"refuses the engine {record.plan}, run `bgert build --force`")
        self._owned.append(engine)
        expected = dict.fromkeys(self._layout.inputs, (trt.TensorIOMode.INPUT, trt.int32))
        expected[self._output] = (trt.TensorIOMode.OUTPUT, trt.float32)
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        found = {name: (engine.get_tensor_mode(name), engine.get_tensor_dtype(name)) for name in names}
        self._require(found == expected, f"has an engine with tensors {found}, not {expected}")
        profiles = engine.num_optimization_profiles
        self._require(profiles == len(self._buckets), f"has an engine of {profiles} profiles, not {len(self._buckets)}")
        first = self._layout.inputs[0]
        for number, bucket in enumerate(self._buckets):
            largest = tuple(engine.get_tensor_profile_shape(first, number)[2])
            self._require(largest == (bucket.texts, bucket.length), f"has {largest} in profile {number}, not {bucket}")
        if self._rtx is not None:
            self._rtx.open(engine)

    def _allocate(self, workers: int, *, spin: bool) -> None:
        cuda, engine = self._cuda, self._engine
        slots = max(bucket.length * bucket.texts for bucket in self._buckets)
        rows = max(bucket.texts for bucket in self._buckets)
        inputs, in_bytes, out_bytes = self._layout.inputs, slots * INT32_BYTES, rows * self._columns * FLOAT32_BYTES
        self._stream = self._kept(cuda.stream())
        scratch = max(int(engine.get_device_memory_size_for_profile_v2(number)) for number in range(len(self._buckets)))
        self._scratch = self._device_memory(scratch, "the engine's activations")
        self._device = {name: self._device_memory(in_bytes, f"the input {name}") for name in inputs}
        self._device[self._output] = self._device_memory(out_bytes, "the output")
        self._slots: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        for _ in range(workers):
            pinned = {name: self._kept(cuda.allocate_pinned(in_bytes)) for name in inputs}
            output = self._kept(cuda.allocate_pinned(out_bytes))
            self._slots.put(_Slot(pinned, output, self._kept(cuda.event(spin=spin))))

    def _device_memory(self, size: int, purpose: str) -> DeviceMemory:
        try:
            return self._kept(self._cuda.allocate(max(size, 1)))
        except DeviceMemoryError as error:
            free, _ = self._cuda.memory_info()
            raise DeviceMemoryError(
                f"no device memory for {purpose}: {size / 1e6:.0f} MB asked for, {free / 1e6:.0f} MB free ({error}): "
                "build the engine with fewer --tokens-per-batch"
            ) from error

    def _kept(self, part: _Part) -> _Part:
        self._parts.append(part)
        return part

    def _require(self, condition: object, what: str) -> None:
        if not condition:
            raise EngineError(f"{self._name} {what}{self._log.take()}")


def _close(lanes: dict[tuple[int, int], _Lane], rtx: RtxContexts | None, owned: list[Any], parts: list[Any]) -> None:
    """Release in the order that CUDA and TensorRT ask for: contexts, engine, runtime, then memory."""
    lanes.clear()
    if rtx is not None:
        rtx.close()
    while owned:
        owned.pop()
    while parts:
        try:
            parts.pop().close()
        except EngineError:  # noqa: PERF203  # what failed before has been raised
            continue
