"""The part of `cuda.bindings.runtime` that bgert uses, by ctypes on the stand-in for libcudart."""

from __future__ import annotations

import ctypes
import enum
from types import SimpleNamespace
from typing import Any

_LIBRARY = ctypes.CDLL("libcudart.so.13", mode=ctypes.RTLD_GLOBAL)
_LIBRARY.cudaGetErrorName.restype = _LIBRARY.cudaGetErrorString.restype = ctypes.c_char_p
cudaHostAllocDefault, cudaStreamNonBlocking, cudaEventBlockingSync, cudaEventDisableTiming = 0, 1, 1, 2  # noqa: N816


cudaMemcpyKind = enum.IntEnum("cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})  # noqa: N816
cudaStreamCaptureMode = enum.IntEnum("cudaStreamCaptureMode", {"cudaStreamCaptureModeThreadLocal": 1})  # noqa: N816


def _call(name: str, *arguments: Any) -> tuple[int]:
    return (getattr(_LIBRARY, name)(*arguments),)


def _got(kind: type[Any], name: str, *arguments: Any) -> tuple[int, Any]:
    out = kind()
    return getattr(_LIBRARY, name)(ctypes.byref(out), *arguments), out.value


def cudaGetErrorName(error: int) -> tuple[int, bytes]:  # noqa: N802
    """As CUDA's."""
    return 0, _LIBRARY.cudaGetErrorName(error)


def cudaGetErrorString(error: int) -> tuple[int, bytes]:  # noqa: N802
    """As CUDA's."""
    return 0, _LIBRARY.cudaGetErrorString(error)


def cudaGetDeviceProperties(device: int) -> tuple[int, Any]:  # noqa: N802
    """What the stand-in in C says it is."""
    del device
    return 0, SimpleNamespace(name=b"fake H100", major=9, minor=0, multiProcessorCount=132)


def cudaMemGetInfo() -> tuple[int, int, int]:  # noqa: N802
    """As CUDA's."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    return _LIBRARY.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)), free.value, total.value


def _handle(value: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(value)


def _defined() -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name in ("cudaGetDeviceCount", "cudaGetDevice", "cudaDriverGetVersion", "cudaRuntimeGetVersion"):
        made[name] = lambda name=name: _got(ctypes.c_int, name)
    for name in ("cudaStreamCreateWithFlags", "cudaEventCreateWithFlags"):
        made[name] = lambda flags, name=name: _got(ctypes.c_void_p, name, flags)
    for name in (
        *("cudaFree", "cudaFreeHost", "cudaStreamDestroy", "cudaEventDestroy", "cudaGraphDestroy"),
        *("cudaGraphExecDestroy", "cudaStreamSynchronize", "cudaEventSynchronize"),
    ):
        made[name] = lambda handle, name=name: _call(name, _handle(handle))
    for name in ("cudaEventRecord", "cudaGraphLaunch", "cudaGraphUpload"):
        made[name] = lambda first, second, name=name: _call(name, _handle(first), _handle(second))
    return made | {
        "cudaGetLastError": lambda: _call("cudaGetLastError"),
        "cudaSetDevice": lambda device: _call("cudaSetDevice", device),
        "cudaMalloc": lambda size: _got(ctypes.c_void_p, "cudaMalloc", ctypes.c_size_t(size)),
        "cudaHostAlloc": lambda size, flags: _got(ctypes.c_void_p, "cudaHostAlloc", ctypes.c_size_t(size), flags),
        "cudaMemcpyAsync": lambda dst, src, count, kind, stream: _call(
            "cudaMemcpyAsync", _handle(dst), _handle(src), ctypes.c_size_t(count), int(kind), _handle(stream)
        ),
        "cudaStreamWaitEvent": lambda stream, event, flags: _call(
            "cudaStreamWaitEvent", _handle(stream), _handle(event), flags
        ),
        "cudaStreamBeginCapture": lambda stream, mode: _call("cudaStreamBeginCapture", _handle(stream), int(mode)),
        "cudaStreamEndCapture": lambda stream: _end(stream),
        "cudaGraphInstantiate": lambda graph, flags: _got(
            ctypes.c_void_p, "cudaGraphInstantiate", _handle(graph), ctypes.c_ulonglong(flags)
        ),
        "cudaEventElapsedTime": lambda first, last: _got(
            ctypes.c_float, "cudaEventElapsedTime", _handle(first), _handle(last)
        ),
    }


def _end(stream: int) -> tuple[int, Any]:
    graph = ctypes.c_void_p()
    return _LIBRARY.cudaStreamEndCapture(_handle(stream), ctypes.byref(graph)), graph.value


globals().update(_defined())
