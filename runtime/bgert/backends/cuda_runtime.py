"""CUDA's runtime API through cuda-bindings: devices, memory, streams, events and graphs, for every backend on a GPU.

Every return value is checked; a failure is a `CudaError` with CUDA's own text. Nothing here knows of models or engines.
Memory and handles are freed by `close`, never by the garbage collector: a stream may still be at work on them, and
which device is current depends on the thread. cuda-bindings hold a runtime of their own; what is made with it is the
driver's, and so serves ONNX Runtime and TensorRT, which each bring another.
"""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.errors import (
    DeviceLostError,
    DeviceMemoryError,
    DeviceUnavailableError,
    EngineError,
    EngineNotInstalledError,
    install_extra,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = [
    "LOST_CODES",
    "CudaError",
    "CudaRuntime",
    "DeviceMemory",
    "Event",
    "Gpu",
    "Graph",
    "PinnedMemory",
    "Stream",
]

_OLDEST = (12, 9, 1)  # before it, who waits for the device keeps every other thread of Python waiting
_OUT_OF_MEMORY = 2
_NOT_INITIALIZED = 3
_NO_DEVICE = 100
# After these the context is gone: no call of this process on this device will work again.
LOST_CODES = frozenset({214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719})


class CudaError(EngineError):
    """A CUDA runtime call failed. `code` is its cudaError_t."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class CudaMemoryError(CudaError, DeviceMemoryError):
    """cudaErrorMemoryAllocation: the device, or what of it may be pinned, is full."""


class CudaLostError(CudaError, DeviceLostError):
    """A fault after which the device does nothing more in this process."""


@dataclass(frozen=True)
class Gpu:
    """What engines are tied to."""

    name: str
    compute_capability: str
    multiprocessors: int
    driver: int
    """Latest CUDA version that the driver supports, as `cudaDriverGetVersion` gives it: 13020 for 13.2."""


def _bindings(extra: str) -> Any:
    try:
        import cuda.bindings
        from cuda.bindings import runtime
    except ImportError as error:
        raise EngineNotInstalledError(f"cuda-bindings cannot be imported ({error}): {install_extra(extra)}") from None
    if tuple(int(part) for part in re.findall(r"\d+", cuda.bindings.__version__)[:3]) < _OLDEST:
        raise EngineNotInstalledError(
            f"cuda-bindings {cuda.bindings.__version__} is older than {'.'.join(map(str, _OLDEST))}: "
            f"{install_extra(extra)} again, with pip's -U"
        )
    return runtime


class CudaRuntime:
    """The runtime API. Calls concern the thread's current device, see `set_device` and `on`.

    Args:
        extra: the extra of bgert that brings cuda-bindings, for the message.
        module: `cuda.bindings.runtime`, or what stands for it in tests; None imports it.

    Raises:
        EngineNotInstalledError: cuda-bindings is missing or too old.
    """

    def __init__(self, extra: str = "gpu", *, module: Any = None) -> None:
        self._runtime = _bindings(extra) if module is None else module
        kinds = self._runtime.cudaMemcpyKind
        self._up, self._down = kinds.cudaMemcpyHostToDevice, kinds.cudaMemcpyDeviceToHost

    def call(self, name: str, *arguments: Any) -> Any:
        """One function; its result, a tuple of several, or None.

        Raises:
            CudaError: it returned an error.
        """
        error, *values = getattr(self._runtime, name)(*arguments)
        if error:
            raise self._failure(name, error)
        return values[0] if len(values) == 1 else tuple(values) or None

    def _failure(self, name: str, error: Any) -> CudaError:
        self._runtime.cudaGetLastError()  # else the next call of anyone in this thread would report it
        words = []
        for function in (self._runtime.cudaGetErrorName, self._runtime.cudaGetErrorString):
            status, text = function(error)
            words.append(str(error) if status else text.decode() if isinstance(text, bytes) else str(text))
        code = int(error)
        message = f"{name} failed: {words[0]} ({code}): {words[1]}"
        if code == _OUT_OF_MEMORY:
            return CudaMemoryError(message, code)
        if code in LOST_CODES:
            return CudaLostError(f"{message}. The device is lost to this process: start it again", code)
        return CudaError(message, code)

    def device_count(self, *, cuda: int = 0) -> int:
        """Devices that CUDA_VISIBLE_DEVICES leaves visible, at least 1.

        Args:
            cuda: major version of CUDA that the driver has to serve besides the bindings' own.

        Raises:
            DeviceUnavailableError: there is none, or no driver that serves this; the message says which.
        """
        try:
            count = int(self.call("cudaGetDeviceCount"))
        except CudaError as error:
            raise DeviceUnavailableError(self._why_no_device(error.code, str(error), cuda)) from None
        except Exception as error:  # cuda-bindings raises classes of its own where it misses a library
            raise DeviceUnavailableError(f"CUDA cannot be used here: {error}") from None
        if count < 1:
            raise DeviceUnavailableError(self._why_no_device(_NO_DEVICE, "cudaGetDeviceCount found 0", cuda))
        if self.versions()[0] // 1000 < cuda:
            raise DeviceUnavailableError(self._why_no_device(0, "the driver is too old", cuda))
        return count

    def _why_no_device(self, code: int, message: str, cuda: int) -> str:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        driver, needed = self.versions()
        needed = max(needed, 1000 * cuda)
        if code == _NOT_INITIALIZED:
            return (
                f"{message}. This process was forked after CUDA was started, which CUDA does not survive: start "
                "workers with the multiprocessing method 'spawn', or open the model in them before anything uses CUDA"
            )
        if driver == 0:
            return f"{message}. There is no NVIDIA driver here (libcuda.so.1): install one, or use device='cpu'"
        if driver // 1000 < needed // 1000:
            have, need = (f"{version // 1000}.{version % 1000 // 10}" for version in (driver, needed))
            return f"{message}. The NVIDIA driver serves CUDA up to {have}, this needs {need}: install a newer driver"
        if visible is not None:
            return f"{message}. CUDA_VISIBLE_DEVICES is {visible!r}, which leaves no device: unset it or name one"
        return f"{message}. The driver shows no device: see nvidia-smi; a container needs --gpus all"

    def versions(self) -> tuple[int, int]:
        """Driver's and runtime's version as 1000 * major + 10 * minor; the driver's is 0 where there is none."""
        return int(self.call("cudaDriverGetVersion")), int(self.call("cudaRuntimeGetVersion"))

    def gpu(self, device: int = 0) -> Gpu:
        """What a device is."""
        properties = self.call("cudaGetDeviceProperties", device)
        name = properties.name
        return Gpu(
            name=(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)).rstrip("\0"),
            compute_capability=f"{int(properties.major)}.{int(properties.minor)}",
            multiprocessors=int(properties.multiProcessorCount),
            driver=self.versions()[0],
        )

    def set_device(self, device: int) -> None:
        """Make a device the current one of the calling thread."""
        self.call("cudaSetDevice", device)

    def on(self, device: int) -> _OnDevice:
        """For a `with`: a device is the calling thread's current one, and afterwards the one that was."""
        return _OnDevice(self, device)

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes of the current device."""
        free, total = self.call("cudaMemGetInfo")
        return int(free), int(total)

    def allocate(self, nbytes: int) -> DeviceMemory:
        """Device memory, aligned to 256 bytes, its contents undefined."""
        return DeviceMemory(self, int(self.call("cudaMalloc", nbytes)), nbytes)

    def allocate_pinned(self, nbytes: int) -> PinnedMemory:
        """Page-locked host memory, which copies to and from without the driver's own staging."""
        flags = self._runtime.cudaHostAllocDefault
        return PinnedMemory(self, int(self.call("cudaHostAlloc", nbytes, flags)), nbytes)

    def stream(self) -> Stream:
        """A stream that does not wait for the legacy default stream."""
        return Stream(self, self.call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking))

    def event(self, *, timing: bool = False, spin: bool = False) -> Event:
        """An event. `spin` waits faster and takes a core while it waits."""
        flags = 0 if timing else self._runtime.cudaEventDisableTiming
        flags |= 0 if spin else self._runtime.cudaEventBlockingSync
        return Event(self, self.call("cudaEventCreateWithFlags", flags))

    def upload(self, target: DeviceMemory, source: PinnedMemory, nbytes: int, stream: Stream) -> None:
        """Queue a copy of the first bytes; neither side may be touched until the stream is past it."""
        self._copy(target, source, nbytes, self._up, stream)

    def download(self, target: PinnedMemory, source: DeviceMemory, nbytes: int, stream: Stream) -> None:
        """As `upload`, the other way."""
        self._copy(target, source, nbytes, self._down, stream)

    def _copy(self, target: _Memory, source: _Memory, nbytes: int, kind: Any, stream: Stream) -> None:
        if not 0 <= nbytes <= min(target.nbytes, source.nbytes):
            raise ValueError(f"a copy of {nbytes} bytes between {source.nbytes} and {target.nbytes}")
        self.call("cudaMemcpyAsync", target.pointer, source.pointer, nbytes, kind, stream.handle)

    def capture(self, stream: Stream, work: Callable[[], object]) -> Graph:
        """What `work` queues on a stream, in this thread, as a graph; nothing of it is done.

        Other threads may do what they like meanwhile. `work` may neither wait nor allocate.

        Raises:
            CudaError: it did, or CUDA makes no graph of it.
        """
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", stream.handle, mode)
        try:
            work()
        except BaseException:
            error, graph = self._runtime.cudaStreamEndCapture(stream.handle)
            if not error and graph is not None:
                self._runtime.cudaGraphDestroy(graph)
            self._runtime.cudaGetLastError()
            raise
        graph = self.call("cudaStreamEndCapture", stream.handle)
        try:
            executable = Graph(self, self.call("cudaGraphInstantiate", graph, 0))
        finally:
            self.call("cudaGraphDestroy", graph)
        try:
            self.call("cudaGraphUpload", executable.handle, stream.handle)
        except CudaError:
            executable.close()
            raise
        return executable


class _OnDevice:
    def __init__(self, cuda: CudaRuntime, device: int) -> None:
        self._cuda, self._device = cuda, device

    def __enter__(self) -> None:
        self._before = self._cuda.call("cudaGetDevice")
        if self._before != self._device:
            self._cuda.set_device(self._device)

    def __exit__(self, *_: object) -> None:
        if self._before != self._device:
            self._cuda.set_device(self._before)


class _Memory:
    _free = ""

    def __init__(self, cuda: CudaRuntime, pointer: int, nbytes: int) -> None:
        self._cuda = cuda
        self.pointer = pointer
        self.nbytes = nbytes

    def close(self) -> None:
        """Free it; a second call does nothing."""
        pointer, self.pointer, self.nbytes = self.pointer, 0, 0
        if pointer:
            self._cuda.call(self._free, pointer)


class DeviceMemory(_Memory):
    """A block of device memory at address `pointer`."""

    _free = "cudaFree"


class PinnedMemory(_Memory):
    """A block of page-locked host memory at address `pointer`."""

    _free = "cudaFreeHost"

    def array(self) -> NDArray[np.uint8]:
        """The block as uint8[nbytes]; it must not be used after `close`."""
        if not self.pointer:
            raise ValueError("the memory is closed")
        return np.ctypeslib.as_array((ctypes.c_uint8 * self.nbytes).from_address(self.pointer))


class _Handle:
    _destroy = ""

    def __init__(self, cuda: CudaRuntime, handle: Any) -> None:
        self._cuda = cuda
        self.handle = handle
        """CUDA's, as cuda-bindings gives it."""

    def close(self) -> None:
        """Destroy it; a second call does nothing."""
        handle, self.handle = self.handle, None
        if handle is not None:
            self._cuda.call(self._destroy, handle)


class Stream(_Handle):
    """A queue of work on a device."""

    _destroy = "cudaStreamDestroy"

    @property
    def address(self) -> int:
        """The cudaStream_t as a number, which engines take."""
        return int(self.handle)

    def wait(self, event: Event) -> None:
        """Work queued from now on waits for what the event recorded."""
        self._cuda.call("cudaStreamWaitEvent", self.handle, event.handle, 0)

    def synchronize(self) -> None:
        """Wait in this thread until the stream has nothing left to do."""
        self._cuda.call("cudaStreamSynchronize", self.handle)


class Event(_Handle):
    """A mark in a stream."""

    _destroy = "cudaEventDestroy"

    def record(self, stream: Stream) -> None:
        """Mark what the stream has been given so far."""
        self._cuda.call("cudaEventRecord", self.handle, stream.handle)

    def synchronize(self) -> None:
        """Wait in this thread until what was marked is done; one that was never recorded is done."""
        self._cuda.call("cudaEventSynchronize", self.handle)

    def milliseconds_since(self, earlier: Event) -> float:
        """Device time between two events made with `timing` that are both done."""
        return float(self._cuda.call("cudaEventElapsedTime", earlier.handle, self.handle))


class Graph(_Handle):
    """Work of a stream that is launched as one."""

    _destroy = "cudaGraphExecDestroy"

    def launch(self, stream: Stream) -> None:
        """Queue it; any thread may."""
        self._cuda.call("cudaGraphLaunch", self.handle, stream.handle)
