"""CUDA through cuda-bindings: device, memory, streams, events and graphs, with every return value checked.

`Cuda.open` is the only way in and asks the driver first, because TensorRT without a driver ends the process instead
of raising. Whatever a `Cuda` object allocates it frees again, newest first, in `close`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.errors import DeviceUnavailableError, EngineError, EngineNotInstalledError, install_extra

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Cuda", "Gpu", "Pinned"]

_FREE = {
    "stream": "cudaStreamDestroy",
    "event": "cudaEventDestroy",
    "graph": "cudaGraphExecDestroy",
    "device memory": "cudaFree",
    "pinned memory": "cudaFreeHost",
}


@dataclass(frozen=True)
class Gpu:
    """The device that CUDA shows as number 0; `CUDA_VISIBLE_DEVICES` chooses which that is."""

    name: str
    compute_capability: str
    multiprocessors: int
    driver: int
    """Latest CUDA version that the driver supports, as `cudaDriverGetVersion` gives it: 13020 for 13.2."""


@dataclass(frozen=True)
class Pinned:
    """Page-locked host memory, which copies to and from the device without waiting."""

    address: int
    array: NDArray[Any]


class Cuda:
    """One device, and what was allocated on it."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._held: list[tuple[str, Any]] = []
        count = self._first("cudaGetDeviceCount")
        if not count:
            raise DeviceUnavailableError("TensorRT needs an NVIDIA GPU, and the driver shows none")
        self.call("cudaSetDevice", 0)
        properties = self.call("cudaGetDeviceProperties", 0)
        name = properties.name
        self.gpu = Gpu(
            name=(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)).rstrip("\0"),
            compute_capability=f"{int(properties.major)}.{int(properties.minor)}",
            multiprocessors=int(properties.multiProcessorCount),
            driver=int(self.call("cudaDriverGetVersion")),
        )

    @classmethod
    def open(cls) -> Cuda:
        """Find the driver and its first GPU.

        Raises:
            EngineNotInstalledError: cuda-bindings is not installed.
            DeviceUnavailableError: there is no driver, an old one, or no GPU.
        """
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise EngineNotInstalledError(
                f"TensorRT needs cuda-bindings, which cannot be imported ({error}): {install_extra('tensorrt')}"
            ) from None
        return cls(runtime)

    def _first(self, name: str) -> Any:
        """The first call, where a missing driver shows."""
        try:
            return self.call(name)
        except Exception as error:  # cuda-bindings raises classes of its own where a library is missing
            raise DeviceUnavailableError(f"TensorRT needs an NVIDIA GPU and its driver: {error}") from None

    def call(self, name: str, *arguments: Any) -> Any:
        """One function of the runtime API; its only result, or None.

        Raises:
            EngineError: it returned an error.
        """
        error, *values = getattr(self._runtime, name)(*arguments)
        if error:
            raise EngineError(f"{name}: {self._describe(error)}")
        return values[0] if values else None

    def _describe(self, error: Any) -> str:
        texts = []
        for name in ("cudaGetErrorName", "cudaGetErrorString"):
            status, text = getattr(self._runtime, name)(error)
            texts.append(str(error) if status else text.decode() if isinstance(text, bytes) else str(text))
        return ": ".join(texts)

    def _hold(self, kind: str, handle: Any) -> Any:
        self._held.append((kind, handle))
        return handle

    def device_memory(self, size: int, purpose: str) -> int:
        """Address of `size` bytes on the device, aligned to 256 bytes at least.

        Raises:
            EngineError: there is not enough; the message says how much there is.
        """
        try:
            return int(self._hold("device memory", self.call("cudaMalloc", max(size, 1))))
        except EngineError as error:
            raise EngineError(
                f"no device memory for {purpose}: {size / 1e6:.0f} MB asked for, {self.free_memory() / 1e6:.0f} MB "
                f"free ({error}): build the engine with fewer --tokens-per-batch"
            ) from error

    def free_memory(self) -> int:
        """Bytes of device memory that are free; 0 where even that cannot be asked."""
        error, free, _ = self._runtime.cudaMemGetInfo()
        return 0 if error else int(free)

    def pinned(self, count: int, dtype: type[Any]) -> Pinned:
        """A page-locked array of `count` elements."""
        size = count * np.dtype(dtype).itemsize
        address = int(self._hold("pinned memory", self.call("cudaHostAlloc", size, self._runtime.cudaHostAllocDefault)))
        memory = (ctypes.c_byte * size).from_address(address)
        return Pinned(address, np.frombuffer(memoryview(memory).cast("B"), dtype))

    def stream(self) -> int:
        """A stream that does not wait for the default stream."""
        return int(self._hold("stream", self.call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)))

    def event(self, *, blocking: bool) -> int:
        """An event without times; with `blocking`, a thread that waits for it sleeps instead of spinning."""
        flags = self._runtime.cudaEventDisableTiming | (self._runtime.cudaEventBlockingSync if blocking else 0)
        return int(self._hold("event", self.call("cudaEventCreateWithFlags", flags)))

    def to_device(self, device: int, host: int, size: int, stream: int) -> None:
        """Queue a copy of `size` bytes."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.call("cudaMemcpyAsync", device, host, size, kind, stream)

    def to_host(self, host: int, device: int, size: int, stream: int) -> None:
        """Queue a copy of `size` bytes."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.call("cudaMemcpyAsync", host, device, size, kind, stream)

    def begin_capture(self, stream: int) -> None:
        """Record what this thread queues on the stream instead of running it."""
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> Any:
        """The recorded graph, ready to launch."""
        try:
            graph = self.call("cudaStreamEndCapture", stream)
        except EngineError:
            self._runtime.cudaGetLastError()  # or the next call of somebody else would find it
            raise
        try:
            executable = self._hold("graph", self.call("cudaGraphInstantiate", graph, 0))
        finally:
            self.call("cudaGraphDestroy", graph)
        self.call("cudaGraphUpload", executable, stream)
        return executable

    def abandon_capture(self, stream: int) -> None:
        """End a capture that failed, and forget its error."""
        error, graph = self._runtime.cudaStreamEndCapture(stream)
        if not error and graph is not None:
            self._runtime.cudaGraphDestroy(graph)
        self._runtime.cudaGetLastError()

    def close(self) -> None:
        """Free everything; errors are of no use any more."""
        while self._held:
            kind, handle = self._held.pop()
            getattr(self._runtime, _FREE[kind])(handle)
