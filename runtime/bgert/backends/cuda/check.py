"""Why CUDA does not work here, in words: libraries, driver and devices, each asked for before an engine needs it."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgert.backends import onnxruntime_import
from bgert.backends.cuda.open_session import PROVIDER
from bgert.backends.cuda_runtime import CudaRuntime
from bgert.errors import DeviceUnavailableError, EngineNotInstalledError, install_extra

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "count_devices",
    "import_onnxruntime",
    "installed",
    "load_library",
    "nvidia_device_present",
    "parse_cuda_devices",
    "require_libraries",
]


MINIMUM = (1, 31)
# What libonnxruntime_providers_cuda.so needs, by CUDA's major version, with the pip packages that hold it. In the
# order in which they load: each needs those before it.
LIBRARIES = {
    13: [
        ("libcudart.so.13", "nvidia-cuda-runtime>=13,<14"),
        ("libcublasLt.so.13", "nvidia-cublas>=13,<14"),
        ("libcublas.so.13", "nvidia-cublas>=13,<14"),
        ("libcurand.so.10", "nvidia-curand>=10,<11"),
    ],
    12: [
        ("libcudart.so.12", "nvidia-cuda-runtime-cu12"),
        ("libcublasLt.so.12", "nvidia-cublas-cu12"),
        ("libcublas.so.12", "nvidia-cublas-cu12"),
        ("libcurand.so.10", "nvidia-curand-cu12"),
    ],
}


def installed(name: str) -> str | None:
    """Version of a pip package, None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def nvidia_device_present() -> bool:
    """Whether the system shows an NVIDIA device. Looks at files alone: starting CUDA would forbid to fork later."""
    devices = any(re.fullmatch(r"nvidia\d+", path.name) for path in Path("/dev").glob("nvidia*"))
    return devices or Path("/dev/dxg").exists()


def import_onnxruntime() -> Any:
    """ONNX Runtime with its CUDA provider built in.

    Raises:
        EngineNotInstalledError: it is missing, too old, built without CUDA, or hidden by the package `onnxruntime`.
    """
    onnxruntime = onnxruntime_import.import_onnxruntime("gpu")
    plain, gpu = installed("onnxruntime"), installed("onnxruntime-gpu")
    if PROVIDER not in onnxruntime.get_available_providers():
        if plain is not None and gpu is not None:
            raise EngineNotInstalledError(
                f"onnxruntime {plain} and onnxruntime-gpu {gpu} are both installed, in one folder, and the one without "
                f"CUDA won: pip uninstall onnxruntime onnxruntime-gpu, then {install_extra('gpu')}"
            )
        raise EngineNotInstalledError(
            f"onnxruntime {onnxruntime.__version__} is built without CUDA: pip uninstall onnxruntime, then "
            + install_extra("gpu")
        )
    version = tuple(int(part) for part in re.findall(r"\d+", onnxruntime.__version__)[:2])
    if version < MINIMUM:
        raise EngineNotInstalledError(
            f"onnxruntime-gpu {onnxruntime.__version__} is older than {MINIMUM[0]}.{MINIMUM[1]}, which the cuda graph "
            f"needs: {install_extra('gpu')} again, with pip's -U"
        )
    return onnxruntime


def cuda_major(onnxruntime: Any) -> int:
    """The major version of CUDA that ONNX Runtime was built for.

    Raises:
        EngineNotInstalledError: it does not say, or it is one that bgert does not know.
    """
    try:
        from onnxruntime.capi.build_and_package_info import cuda_version
    except ImportError:
        cuda_version = getattr(onnxruntime, "cuda_version", "")
    major = int(found[0]) if (found := re.match(r"\d+", str(cuda_version))) else 0
    if major not in LIBRARIES:
        raise EngineNotInstalledError(
            f"onnxruntime-gpu {onnxruntime.__version__} was built for CUDA {cuda_version or 'of an unknown version'}; "
            f"bgert knows {' and '.join(map(str, sorted(LIBRARIES)))}: {install_extra('gpu')}"
        )
    return major


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


def require_libraries(major: int) -> None:
    """Load what ONNX Runtime's CUDA provider needs, so that it is there when the provider asks for it.

    Raises:
        EngineNotInstalledError: libraries are missing; the message names each with its pip package.
        DeviceUnavailableError: there is no driver.
    """
    missing = []
    for soname, package in LIBRARIES[major]:
        try:
            load_library(soname, package)
        except EngineNotInstalledError:  # noqa: PERF203
            missing.append((soname, package))
    if missing:
        names = ", ".join(soname for soname, _ in missing)
        packages = " ".join(f"'{package}'" for package in dict.fromkeys(package for _, package in missing))
        raise EngineNotInstalledError(
            f"ONNX Runtime's CUDA provider needs {names}, not found: {install_extra('gpu')}, or pip install {packages}"
        )
    try:
        load_library("libcuda.so.1", "the NVIDIA driver")
    except EngineNotInstalledError as error:
        reason = str(error).split("(", 1)[1].split(")", 1)[0]
        raise DeviceUnavailableError(
            f"there is no NVIDIA driver here ({reason}): install one, or use device='cpu'; a container needs --gpus all"
        ) from None


def count_devices() -> int:
    """How many devices CUDA shows to this process, at least 1.

    Raises:
        EngineNotInstalledError: as `import_onnxruntime` and `require_libraries`.
        DeviceUnavailableError: there is no driver, one too old, or no device.
    """
    if sys.platform != "linux":
        raise DeviceUnavailableError("device='cuda' needs Linux: use device='cpu'")
    major = cuda_major(import_onnxruntime())
    require_libraries(major)
    return CudaRuntime().device_count(cuda=major)


def parse_cuda_devices(device: str, count: int) -> list[int]:
    """Device numbers of `cuda` (the first), `cuda:1`, or `cuda:all`, of `count` devices.

    Raises:
        DeviceUnavailableError: there is no such device.
    """
    if device == "cuda:all":
        return list(range(count))
    number = int(device.partition(":")[2] or 0)
    if number >= count:
        have = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise DeviceUnavailableError(f"there is no device {device}: CUDA shows {have}")
    return [number]
