"""Pinned host memory, device memory, streams and events of one process, by ctypes on the CUDA runtime library.

Every return value is checked; a failure is a `CudaError` with the runtime's own text. Nothing here knows of models or
engines. Memory and handles are freed by `close`, never by the garbage collector: a stream may still be at work on
them, and which device is current depends on the thread.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from pathlib import Path
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
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["LOST_CODES", "CudaError", "CudaRuntime", "DeviceMemory", "Event", "PinnedMemory", "Stream", "load_library"]

_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2
_NON_BLOCKING = 1  # of streams: no implicit order with the legacy default stream
_BLOCKING_SYNC, _DISABLE_TIMING = 1, 2  # of events

_OUT_OF_MEMORY = 2
_NOT_INITIALIZED = 3
_INSUFFICIENT_DRIVER = 35
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


def load_library(soname: str, package: str) -> ctypes.CDLL:
    """A shared library of NVIDIA's: by the system's search path, else from the pip package that holds it.

    Raises:
        EngineNotInstalledError: it is in neither; the message names the package.
    """
    reasons = []
    for name in (soname, *(str(path) for path in _in_pip_packages(soname))):
        try:
            return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:  # noqa: PERF203
            reasons.append(str(error))
    raise EngineNotInstalledError(
        f"{soname} cannot be loaded ({reasons[-1]}): {install_extra('gpu')}, which brings {package}"
    )


def _in_pip_packages(soname: str) -> Iterator[Path]:
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        yield from sorted(Path(folder).glob(f"*/lib/{soname}"))


class CudaRuntime:
    """The runtime library. Calls concern the thread's current device, see `set_device`.

    Args:
        major: major version of CUDA, which is in the library's name.
        library: a loaded library, or what stands for one in tests; None loads it.

    Raises:
        EngineNotInstalledError: the library is missing.
    """

    def __init__(self, major: int = 13, *, library: Any = None) -> None:
        self._library = library or load_library(f"libcudart.so.{major}", f"nvidia-cuda-runtime>={major},<{major + 1}")
        self._library.cudaGetErrorName.restype = ctypes.c_char_p
        self._library.cudaGetErrorString.restype = ctypes.c_char_p

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code == 0:
            return
        self._library.cudaGetLastError()  # else the next call of anyone in this thread would report it
        what = self._library.cudaGetErrorName(code).decode(), self._library.cudaGetErrorString(code).decode()
        message = f"{name} failed: {what[0]} ({code}): {what[1]}"
        if code == _OUT_OF_MEMORY:
            raise CudaMemoryError(message, code)
        if code in LOST_CODES:
            raise CudaLostError(f"{message}. The device is lost to this process: start it again", code)
        raise CudaError(message, code)

    def device_count(self) -> int:
        """Devices that CUDA_VISIBLE_DEVICES leaves visible, at least 1.

        Raises:
            DeviceUnavailableError: there is none, or no driver that serves this runtime; the message says which.
        """
        count = ctypes.c_int()
        try:
            self._call("cudaGetDeviceCount", ctypes.byref(count))
        except CudaError as error:
            raise DeviceUnavailableError(self._why_no_device(error.code, str(error))) from None
        if count.value < 1:
            raise DeviceUnavailableError(self._why_no_device(_NO_DEVICE, "cudaGetDeviceCount found 0"))
        return count.value

    def _why_no_device(self, code: int, message: str) -> str:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        driver, runtime = self.versions()
        if code == _NOT_INITIALIZED:
            return (
                f"{message}. This process was forked after CUDA was started, which CUDA does not survive: start "
                "workers with the multiprocessing method 'spawn', or open the model in them before anything uses CUDA"
            )
        if driver == 0:
            return f"{message}. There is no NVIDIA driver here (libcuda.so.1): install one, or use device='cpu'"
        if driver // 1000 < runtime // 1000:
            have, need = (f"{version // 1000}.{version % 1000 // 10}" for version in (driver, runtime))
            return f"{message}. The NVIDIA driver serves CUDA up to {have}, this needs {need}: install a newer driver"
        if visible is not None:
            return f"{message}. CUDA_VISIBLE_DEVICES is {visible!r}, which leaves no device: unset it or name one"
        return f"{message}. The driver shows no device: see nvidia-smi; a container needs --gpus all"

    def versions(self) -> tuple[int, int]:
        """Driver's and runtime's version as 1000 * major + 10 * minor; the driver's is 0 where there is none."""
        driver, runtime = ctypes.c_int(), ctypes.c_int()
        self._call("cudaDriverGetVersion", ctypes.byref(driver))
        self._call("cudaRuntimeGetVersion", ctypes.byref(runtime))
        return driver.value, runtime.value

    def set_device(self, device: int) -> None:
        """Make a device the current one of the calling thread."""
        self._call("cudaSetDevice", device)

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes of the current device."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def allocate(self, nbytes: int) -> DeviceMemory:
        """Device memory, aligned to 256 bytes, its contents undefined."""
        pointer = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(nbytes))
        return DeviceMemory(self, pointer.value or 0, nbytes)

    def allocate_pinned(self, nbytes: int) -> PinnedMemory:
        """Page-locked host memory, which copies to and from without the driver's own staging."""
        pointer = ctypes.c_void_p()
        self._call("cudaHostAlloc", ctypes.byref(pointer), ctypes.c_size_t(nbytes), 0)
        return PinnedMemory(self, pointer.value or 0, nbytes)

    def stream(self) -> Stream:
        """A stream that does not wait for the legacy default stream."""
        handle = ctypes.c_void_p()
        self._call("cudaStreamCreateWithFlags", ctypes.byref(handle), _NON_BLOCKING)
        return Stream(self, handle.value or 0)

    def event(self, *, timing: bool = False, spin: bool = False) -> Event:
        """An event. `spin` waits faster and takes a core while it waits."""
        handle = ctypes.c_void_p()
        flags = (0 if timing else _DISABLE_TIMING) | (0 if spin else _BLOCKING_SYNC)
        self._call("cudaEventCreateWithFlags", ctypes.byref(handle), flags)
        return Event(self, handle.value or 0)

    def upload(self, target: DeviceMemory, source: PinnedMemory, nbytes: int, stream: Stream) -> None:
        """Queue a copy of the first bytes; neither side may be touched until the stream is past it."""
        self._copy(target, source, nbytes, _HOST_TO_DEVICE, stream)

    def download(self, target: PinnedMemory, source: DeviceMemory, nbytes: int, stream: Stream) -> None:
        """As `upload`, the other way."""
        self._copy(target, source, nbytes, _DEVICE_TO_HOST, stream)

    def _copy(self, target: _Memory, source: _Memory, nbytes: int, kind: int, stream: Stream) -> None:
        if not 0 <= nbytes <= min(target.nbytes, source.nbytes):
            raise ValueError(f"a copy of {nbytes} bytes between {source.nbytes} and {target.nbytes}")
        self._call(
            "cudaMemcpyAsync", ctypes.c_void_p(target.pointer), ctypes.c_void_p(source.pointer),
            ctypes.c_size_t(nbytes), kind, ctypes.c_void_p(stream.handle),
        )  # fmt: skip


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
            self._cuda._call(self._free, ctypes.c_void_p(pointer))


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


class Stream:
    """A queue of work on a device."""

    def __init__(self, cuda: CudaRuntime, handle: int) -> None:
        self._cuda = cuda
        self.handle = handle
        """The cudaStream_t."""

    def wait(self, event: Event) -> None:
        """Work queued from now on waits for what the event recorded."""
        self._cuda._call("cudaStreamWaitEvent", ctypes.c_void_p(self.handle), ctypes.c_void_p(event.handle), 0)

    def synchronize(self) -> None:
        """Wait in this thread until the stream has nothing left to do."""
        self._cuda._call("cudaStreamSynchronize", ctypes.c_void_p(self.handle))

    def close(self) -> None:
        """Destroy it; a second call does nothing."""
        handle, self.handle = self.handle, 0
        if handle:
            self._cuda._call("cudaStreamDestroy", ctypes.c_void_p(handle))


class Event:
    """A mark in a stream."""

    def __init__(self, cuda: CudaRuntime, handle: int) -> None:
        self._cuda = cuda
        self.handle = handle
        """The cudaEvent_t."""

    def record(self, stream: Stream) -> None:
        """Mark what the stream has been given so far."""
        self._cuda._call("cudaEventRecord", ctypes.c_void_p(self.handle), ctypes.c_void_p(stream.handle))

    def synchronize(self) -> None:
        """Wait in this thread until what was marked is done; one that was never recorded is done."""
        self._cuda._call("cudaEventSynchronize", ctypes.c_void_p(self.handle))

    def milliseconds_since(self, earlier: Event) -> float:
        """Device time between two events made with `timing` that are both done."""
        elapsed = ctypes.c_float()
        self._cuda._call(
            "cudaEventElapsedTime", ctypes.byref(elapsed), ctypes.c_void_p(earlier.handle), ctypes.c_void_p(self.handle)
        )
        return elapsed.value

    def close(self) -> None:
        """Destroy it; a second call does nothing."""
        handle, self.handle = self.handle, 0
        if handle:
            self._cuda._call("cudaEventDestroy", ctypes.c_void_p(handle))
