"""One model on one GPU through ONNX Runtime: its session, streams, staging slots and CUDA graphs.

ONNX Runtime ties handles to threads, so everything here that calls it runs in one. `wait`, `launch_graph` and
`translated` are for any thread.
"""

from __future__ import annotations

import re
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from bgert.backends.cuda.graph_lane import Lane
from bgert.backends.cuda.open_session import PROVIDER, open_on_device
from bgert.backends.cuda.packed_layout import Bucket, bucket_of, graph_buckets
from bgert.backends.cuda_runtime import LOST_CODES
from bgert.batching import PackedBatch
from bgert.errors import (
    BgertError,
    DeviceLostError,
    DeviceMemoryError,
    DeviceUnavailableError,
    EngineError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.backends.cuda.packed_layout import InputPlan
    from bgert.backends.cuda_runtime import CudaRuntime, DeviceMemory, Event, PinnedMemory

__all__ = ["CudaSession", "Slot"]

LEAST_TEXT = 4  # tokens; of a batch of shorter texts on average only a part fits a slot
SLOTS_A_TOKEN = 5 / 2  # room for inputs of [B, S], whose texts are not all of one length

_NO_MEMORY = re.compile(
    r"Failed to allocate memory|is smaller than requested bytes|out of memory|ALLOC_FAILED|CUDA failure 2:", re.I
)
_FAILURE = re.compile(r"CUDA failure (\d+): [^;]*")


_Part = TypeVar("_Part", "PinnedMemory", "DeviceMemory", "Event")


@dataclass
class Slot:
    """Staging of one batch: the same blocks on both sides of the bus, and how far it is."""

    host_in: PinnedMemory
    device_in: DeviceMemory
    device_out: DeviceMemory
    host_out: PinnedMemory
    uploaded: Event
    computed: Event
    done: Event

    def close(self) -> None:
        """Free it."""
        for part in vars(self).values():
            part.close()


class CudaSession:
    """Opens the model, with `ring` slots for plain runs.

    Args:
        onnxruntime: the module.
        cuda: the CUDA runtime.
        path: the graph.
        output: name of its output.
        plan: its inputs.
        device: number of the device.
        max_tokens: longest text.
        tokens: most tokens of a batch.
        ring: slots for plain runs.
        memory_limit: bytes for ONNX Runtime, None for no limit.
        operators: library of the operators that the graph has beside ONNX Runtime's; None where it has none.

    Raises:
        DeviceUnavailableError: the graph does not run whole on the device.
        DeviceMemoryError: it does not fit.
        DeviceLostError: the device failed.
    """

    def __init__(
        self,
        onnxruntime: Any,
        cuda: CudaRuntime,
        *,
        path: Path,
        output: str,
        plan: InputPlan,
        device: int,
        max_tokens: int,
        tokens: int,
        ring: int,
        memory_limit: int | None,
        operators: Path | None = None,
    ) -> None:
        self.name = f"cuda:{device}"
        self.lost: str | None = None
        self.queueing = threading.Lock()
        """Held while a batch is queued on the device: two that got between each other would share activations."""
        self._ort, self._cuda = onnxruntime, cuda
        self._path, self._output, self._plan, self._device = path, output, plan, device
        self._max_tokens, self._memory_limit, self._operators = max_tokens, memory_limit, operators
        self._session: Any = None
        self._options = self._run_options()
        self.ring: list[Slot] = []
        self.lanes: list[Lane] = []
        cuda.set_device(device)
        self._upload, self._compute, self._download = cuda.stream(), cuda.stream(), cuda.stream()
        try:
            self._columns = self._open()
            tokens = max(tokens, max_tokens)
            texts = max(16, tokens // LEAST_TEXT)
            room = Bucket(tokens * 17 // 16 + 16, texts, max(1, int(SLOTS_A_TOKEN * tokens) // texts))
            self._in_bytes, self._out_bytes = plan.nbytes(room), 4 * self._columns * texts
            for _ in range(ring):
                self.ring.append(self._allocate())
        except BaseException as error:
            free, total = cuda.memory_info() if isinstance(error, DeviceMemoryError) else (0, 0)
            self.close()
            if isinstance(error, DeviceMemoryError):
                raise DeviceMemoryError(
                    f"{path.name} does not fit on {self.name}, where {free:,} of {total:,} bytes are free ({error}): "
                    "free some, or choose another device"
                ) from error
            raise

    def has_room(self, bucket: Bucket) -> bool:
        """Whether a slot holds the inputs and outputs of a bucket."""
        return self._plan.nbytes(bucket) <= self._in_bytes and 4 * self._columns * bucket.texts <= self._out_bytes

    def trial(self, tokens: int) -> None:
        """Run one batch of full-length texts, as the largest there will be: afterwards the arena has its size.

        Raises:
            DeviceMemoryError: it does not fit.
            EngineError: the engine failed otherwise.
        """
        longest = min(self._max_tokens, tokens)
        cuts = np.minimum(np.arange(0, tokens + longest, longest), tokens).astype(np.int32)
        zeros = np.zeros(tokens, np.int32)
        batch, bucket, slot = PackedBatch(zeros, cuts, zeros), bucket_of(np.diff(cuts)), self.ring[0]
        self._plan.fill(slot.host_in.array(), batch, bucket)
        self.launch(slot, bucket, len(batch))
        self.wait(slot.done)

    def open_lanes(self, count: int, most: int) -> None:
        """Make lanes and capture their graphs, of batches of up to `most` tokens.

        Raises:
            EngineError: CUDA or ONNX Runtime refused. There are no lanes, and plain runs go on.
        """
        buckets = graph_buckets(self._max_tokens, most)
        try:
            for _ in range(count if buckets else 0):
                lane = Lane(self._cuda, self._plan, buckets, self._columns, self._compute)
                self.lanes.append(lane)
                for bucket in buckets:
                    binding = self._bind(lane, bucket)
                    run = partial(self._session.run_with_iobinding, binding, self._options)
                    lane.capture(bucket, min(bucket.longest, self._max_tokens), run)
        except Exception as error:
            found = self._settled(error)
            while not isinstance(found, DeviceLostError) and self.lanes:
                self.lanes.pop().close()
            raise found from error

    def launch(self, slot: Slot, bucket: Bucket, texts: int) -> None:
        """Queue a batch that lies in a slot: up, through the model, down. Nothing here waits for the device.

        Raises:
            DeviceMemoryError: the engine's memory is full; nothing is at work any more.
            DeviceLostError: the device failed for good.
            EngineError: the engine failed otherwise.
        """
        binding = self._bind(slot, bucket)
        try:
            self._cuda.upload(slot.device_in, slot.host_in, self._plan.nbytes(bucket), self._upload)
            slot.uploaded.record(self._upload)
            with self.queueing:
                self._compute.wait(slot.uploaded)
                self._session.run_with_iobinding(binding, self._options)
                slot.computed.record(self._compute)
            self._download.wait(slot.computed)
            self._cuda.download(slot.host_out, slot.device_out, 4 * self._columns * texts, self._download)
            slot.done.record(self._download)
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            raise self._settled(error) from error

    def launch_graph(self, lane: Lane, bucket: Bucket, *, spin: bool) -> Event:
        """Queue a batch that lies in a lane, as its graph; what to `wait` for. `queueing` must be held.

        Raises:
            DeviceLostError: the device failed for good.
            EngineError: CUDA failed otherwise; nothing of it is at work any more.
        """
        try:
            return lane.launch(bucket, spin=spin)
        except BgertError as error:
            raise self._settled(error) from error

    def wait(self, done: Event) -> None:
        """Wait for results, in any thread whose device this is."""
        try:
            done.synchronize()
        except BgertError as error:
            raise self.translated(error) from error

    def rows(self, slot: Slot, texts: int) -> NDArray[np.float32]:
        """A copy of a slot's results, float32[texts, columns]."""
        rows = slot.host_out.array()[: 4 * self._columns * texts].view(np.float32)
        return rows.reshape(texts, self._columns).copy()

    def translated(self, error: Exception) -> BgertError:
        """What ONNX Runtime or CUDA raised, as an error of bgert's; notes when the device is lost."""
        text = " ".join(str(error).split())
        failure = _FAILURE.search(text)
        if failure:  # between C++ signatures and the line of code
            text = failure[0].strip()
        if isinstance(error, DeviceLostError) or (failure and int(failure[1]) in LOST_CODES):
            self.lost = f"{self.name} is lost to this process, start it again: {text}"
            return DeviceLostError(self.lost)
        if isinstance(error, BgertError):
            return error
        if _NO_MEMORY.search(text):
            return DeviceMemoryError(text)
        return EngineError(f"onnxruntime-gpu {self._ort.__version__} failed on {self._path}: {text}")

    def close(self) -> None:
        """Wait for the device and free everything on it; a lost device has nothing left to free."""
        try:
            if self.lost is None:
                self.settle()
                self._session = None
                for lane in self.lanes:
                    lane.close()
                for slot in self.ring:
                    slot.close()
                for stream in (self._upload, self._compute, self._download):
                    stream.close()
        except EngineError as error:
            self.translated(error)
        self._session = None

    def _settled(self, error: Exception) -> BgertError:
        """What a failed launch is to raise, when nothing that was queued before it uses its buffers any more."""
        found = self.translated(error)
        if not isinstance(found, DeviceLostError):
            self.settle()
        return found

    def settle(self) -> None:
        """Wait until the device has nothing left to do."""
        for stream in (self._upload, self._compute, self._download):
            stream.synchronize()

    def _allocate(self) -> Slot:
        cuda, size, out = self._cuda, self._in_bytes, self._out_bytes
        with ExitStack() as undo:

            def kept(part: _Part) -> _Part:
                undo.callback(part.close)
                return part

            slot = Slot(
                host_in=kept(cuda.allocate_pinned(size)),
                device_in=kept(cuda.allocate(size)),
                device_out=kept(cuda.allocate(out)),
                host_out=kept(cuda.allocate_pinned(out)),
                uploaded=kept(cuda.event()),
                computed=kept(cuda.event()),
                done=kept(cuda.event()),
            )
            undo.pop_all()
        return slot

    def _open(self) -> int:
        """Load the model; returns the columns of its output."""
        ort = self._ort
        options = ort.SessionOptions()
        options.log_severity_level = 4  # errors are raised, with the same words
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is written as it shall run
        options.enable_mem_pattern = False  # a pattern a shape would hold memory beside the arena's own reuse
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        provider = {
            "user_compute_stream": str(self._compute.address),
            "arena_extend_strategy": "kSameAsRequested",  # the first run is the largest there will be
            "use_tf32": "0",  # what is float32 is so on purpose
            "enable_cudnn": "0",  # no operator of the graph asks for it
        }
        if self._memory_limit is not None:
            provider["gpu_mem_limit"] = str(self._memory_limit)
        try:
            if self._operators is not None:
                options.register_custom_ops_library(str(self._operators))
            session = open_on_device(ort, self._path, options, self._device, provider)
        except Exception as error:  # as in launch
            found = self.translated(error)
            if isinstance(found, (DeviceMemoryError, DeviceLostError)):
                raise found from error
            raise DeviceUnavailableError(f"ONNX Runtime cannot load {self._path} for CUDA: {found}") from error
        if PROVIDER not in session.get_providers():
            raise DeviceUnavailableError(
                f"ONNX Runtime {ort.__version__} did not start its CUDA provider and would use the CPU instead: "
                'python -c "import onnxruntime; onnxruntime.print_debug_info()" says more'
            )
        session.disable_fallback()  # by default an error in CUDA would open the model again on the CPU
        self._session = session
        return int(session.get_outputs()[0].shape[1])

    def _bind(self, slot: Slot | Lane, bucket: Bucket) -> Any:
        """An IO binding of every input and the output to addresses in a slot."""
        binding = self._session.io_binding()
        for name, dtype, shape, offset in self._plan.places(bucket):
            binding.bind_input(name, "cuda", self._device, dtype, shape, slot.device_in.pointer + offset)
        shape = (bucket.texts, self._columns)
        binding.bind_output(self._output, "cuda", self._device, np.float32, shape, slot.device_out.pointer)
        return binding

    def _run_options(self) -> Any:
        options = self._ort.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        return options
