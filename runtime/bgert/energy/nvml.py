"""NVML: energy that an NVIDIA GPU's board counts itself (Volta and later), by the library that the driver brings."""

from __future__ import annotations

import ctypes
import re
from typing import Any

__all__ = ["Nvml", "uuid_of"]


class Nvml:
    """The GPUs that a model runs on, by their UUIDs: NVML numbers all of a machine, CUDA those that are visible.

    Args:
        device: as a model names its own: `cuda:1`, `cuda:0,cuda:1`, or `tensorrt`, which is on CUDA's first.
        nvml: NVML, or what stands for it in tests; None loads it.
        cuda: CUDA's driver, likewise.

    Raises:
        OSError: there is no driver, or the GPU does not count; the message says which.
    """

    covers = "the GPU's board"
    shortest = 2.0
    """Seconds below which it says too little: it is brought up to date some ten times a second, less on some boards."""
    period = 3600.0

    def __init__(self, device: str, *, nvml: Any = None, cuda: Any = None) -> None:
        cuda = _library("libcuda.so.1") if cuda is None else cuda
        self._nvml = _library("libnvidia-ml.so.1") if nvml is None else nvml
        self._nvml.nvmlErrorString.restype = ctypes.c_char_p
        self._check("nvmlInit_v2")
        numbers = [int(number) for number in re.findall(r"\bcuda:(\d+)", device)] or [0]
        uuids = [uuid_of(number, cuda) for number in numbers]
        self._handles = [self._handle(uuid) for uuid in uuids]
        self.name = "NVML " + " + ".join(uuids)
        if len(uuids) > 1:
            self.covers = "the GPUs' boards"
        self._first = self._millijoules()

    def read(self) -> float:
        """Joules since it was opened.

        Raises:
            OSError: it cannot be read any more.
        """
        return (self._millijoules() - self._first) / 1e3

    def _handle(self, uuid: str) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._check("nvmlDeviceGetHandleByUUID", uuid.encode(), ctypes.byref(handle))
        return handle

    def _millijoules(self) -> int:
        total = 0
        for handle in self._handles:
            value = ctypes.c_ulonglong()
            self._check("nvmlDeviceGetTotalEnergyConsumption", handle, ctypes.byref(value))
            total += value.value
        return total

    def _check(self, name: str, *arguments: Any) -> None:
        function = getattr(self._nvml, name, None)
        if function is None:
            raise OSError(f"NVML: this driver has no {name}")
        if code := function(*arguments):
            words = self._nvml.nvmlErrorString(code)
            raise OSError(f"NVML: {name}: {words.decode('utf-8', 'replace') if words else code}")


def uuid_of(number: int, cuda: Any) -> str:
    """UUID of the GPU that CUDA has under a number in this process, as NVML writes it.

    Raises:
        OSError: CUDA has none.
    """
    device, raw = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    # The second of its name gives a MIG instance's own UUID; drivers before it know of no such.
    name = "cuDeviceGetUuid_v2" if hasattr(cuda, "cuDeviceGetUuid_v2") else "cuDeviceGetUuid"
    for function, arguments in (
        ("cuInit", (0,)),
        ("cuDeviceGet", (ctypes.byref(device), number)),
        (name, (ctypes.byref(raw), device)),
    ):
        if code := getattr(cuda, function)(*arguments):
            raise OSError(f"CUDA: {function} of device {number} failed ({code})")
    digits = bytes(raw).hex()
    return "GPU-" + "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _library(name: str) -> Any:
    try:
        return ctypes.CDLL(name)
    except OSError:
        raise OSError(f"no NVIDIA driver: {name} is not there") from None
