"""What this machine has, read from the system's files: processor, memory, NVIDIA GPUs. Nothing is started."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sysconfig
from pathlib import Path
from typing import Any

from bgert.cpu_count import available_cpus, omp_threads

__all__ = ["gpus", "memory", "processor", "system"]

# Those that kernels are written for, or could be.
_INSTRUCTIONS = (
    *("sse4_2", "avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "amx_bf16", "amx_int8", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)


def system() -> dict[str, Any]:
    """Operating system, C library and Python."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    }


def processor() -> dict[str, Any]:
    """Name, instructions that matter here, cores of the machine and those that this process may use."""
    text = _read(Path("/proc/cpuinfo"))
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    have = set(flags[1].split()) if flags else set()
    name = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    return {
        "name": name[1].strip() if name else platform.processor() or platform.machine(),
        "instructions": [one for one in _INSTRUCTIONS if one in have],
        "cores": os.cpu_count() or 1,
        "usable_cores": available_cpus(),
        "omp_num_threads": omp_threads(),
        "threads": omp_threads() or available_cpus(),
    }


def memory() -> dict[str, int | None]:
    """Bytes: of the machine, free for new programs, and what the process's cgroup allows; None where unknown."""
    text = _read(Path("/proc/meminfo"))
    found = {name: re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE) for name in ("MemTotal", "MemAvailable")}
    total, available = (int(match[1]) * 1024 if match else None for match in found.values())
    return {"total": total, "available": available, "limit": memory_limit(Path("/sys/fs/cgroup"), total)}


def memory_limit(mount: Path, total: int | None) -> int | None:
    """The least limit of the process's cgroups in bytes; None without one below the machine's memory."""
    limits = []
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            base, name = mount, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = mount / "memory", "memory.limit_in_bytes"
        else:
            continue
        own = Path(path.strip("/"))
        limits += [_read(base / folder / name).strip() for folder in (own, *own.parents) if ".." not in folder.parts]
    numbers = [int(limit) for limit in limits if limit.isdigit() and (total is None or int(limit) < total)]
    return min(numbers, default=None)


def gpus(library: Any = None) -> dict[str, Any]:
    """NVIDIA's GPUs by its management library, which starts no CUDA.

    Args:
        library: what stands for it in tests; None loads it.

    Returns:
        `driver` (None without one), `error` (None or why nothing is listed) and `list`: name, bytes of memory, compute
        capability.
    """
    nothing: dict[str, Any] = {"driver": None, "list": []}
    try:
        nvml = library or ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return {**nothing, "error": "no NVIDIA driver: libnvidia-ml.so.1 is not there"}
    nvml.nvmlErrorString.restype = ctypes.c_char_p
    if code := nvml.nvmlInit_v2():
        return {**nothing, "error": f"NVML: {nvml.nvmlErrorString(code).decode('utf-8', 'replace')}"}
    try:
        text = ctypes.create_string_buffer(96)
        driver = None if nvml.nvmlSystemGetDriverVersion(text, 96) else text.value.decode("utf-8", "replace")
        count = ctypes.c_uint()
        if code := nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            error = f"NVML: {nvml.nvmlErrorString(code).decode('utf-8', 'replace')}"
            return {"driver": driver, "list": [], "error": error}
        return {"driver": driver, "list": [_gpu(nvml, number) for number in range(count.value)], "error": None}
    finally:
        nvml.nvmlShutdown()


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


def _gpu(nvml: Any, number: int) -> dict[str, Any]:
    handle, text, bytes_ = ctypes.c_void_p(), ctypes.create_string_buffer(96), _Memory()
    major, minor = ctypes.c_int(), ctypes.c_int()
    if nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)):
        return {"name": None, "memory": None, "free_memory": None, "compute_capability": None}
    named = not nvml.nvmlDeviceGetName(handle, text, 96)
    sized = not nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(bytes_))
    rated = not nvml.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor))
    return {
        "name": text.value.decode("utf-8", "replace") if named else None,
        "memory": bytes_.total if sized else None,
        "free_memory": bytes_.free if sized else None,
        "compute_capability": f"{major.value}.{minor.value}" if rated else None,
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
