"""Import of TensorRT, its lean runtime or TensorRT for RTX, and what both halves of bgert need: version and log."""

from __future__ import annotations

import importlib
import re
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bgert.backends.tensorrt.recipe import LEAN, RTX, TENSORRT, Environment
from bgert.errors import EngineNotInstalledError, install_extra

if TYPE_CHECKING:
    from bgert.backends.cuda_runtime import Gpu

__all__ = [
    "OLDEST_WITH_PROFILES",
    "Log",
    "environment",
    "import_builder",
    "import_runtime",
    "version_of",
    "without_gpu",
]

OLDEST_WITH_PROFILES = (10, 8)  # before it, engines of several profiles gave wrong results (NVIDIA/TensorRT#4250)


@dataclass(frozen=True)
class _Known:
    """The versions of a library whose interface bgert was written against."""

    oldest: tuple[int, int]
    first_unknown: int
    """Major version."""
    install: str


_FULL = _Known((10, 3), 12, f"{install_extra('tensorrt')}, on a Jetson use JetPack's")
_KNOWN = {
    TENSORRT: _FULL,
    LEAN: _FULL,
    RTX: _Known((1, 6), 2, install_extra("tensorrt-rtx")),
}


def import_builder(name: str = TENSORRT) -> Any:
    """The module `tensorrt`, or `tensorrt_rtx`.

    Raises:
        EngineNotInstalledError: it is not installed, or of a version that bgert does not know.
    """
    return _import(name)


def import_runtime(name: str = TENSORRT) -> Any:
    """The module `tensorrt`, or where that is not installed `tensorrt_lean`; `tensorrt_rtx` has no other.

    Raises:
        EngineNotInstalledError: neither is installed, or of a version that bgert does not know.
    """
    try:
        return _import(name)
    except EngineNotInstalledError as error:
        if name != TENSORRT:
            raise
        try:
            return _import(LEAN)
        except EngineNotInstalledError:
            raise error from None


def _import(name: str) -> Any:
    known = _KNOWN[name]
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:  # a missing library shows as any of them
        raise EngineNotInstalledError(f"{name} cannot be imported ({error}): {known.install}") from None
    if not known.oldest <= version_of(module) < (known.first_unknown,):
        raise EngineNotInstalledError(
            f"{name} {module.__version__} is installed; bgert knows {known.oldest[0]}.{known.oldest[1]} to "
            f"{known.first_unknown - 1}.x"
        )
    return module


def version_of(module: Any) -> tuple[int, ...]:
    """(major, minor)."""
    return tuple(int(part) for part in str(module.__version__).split(".")[:2])


def environment(module: Any, gpu: Gpu) -> Environment:
    """What an engine that was built on a GPU is tied to, and what this machine has to run one."""
    return Environment(
        library=module.__name__,
        tensorrt=str(module.__version__),
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        multiprocessors=gpu.multiprocessors,
        driver=gpu.driver,
    )


def without_gpu(module: Any, targets: str) -> Environment:
    """What an engine of TensorRT for RTX is tied to: it is built for targets, and on any machine."""
    return Environment(module.__name__, str(module.__version__), "", "", 0, 0, targets)


# Lines of the log that say what was built; numbers in bytes, one line a profile for activations.
_LAYERS = "Layers:"
_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+) bytes")
_WEIGHTS = re.compile(r"Total Weights Memory: (\d+) bytes")
_DRIVER_NOISE = "catchCudaError"  # a second line under every error on a machine without a driver


class Log:
    """TensorRT's log: errors are kept for the exception, and the few lines that say what was built.

    TensorRT writes from any thread. The list of layers comes where the engine is built with DETAILED verbosity.

    Attributes:
        layers: the list of all layers of all profiles, empty where the library does not write it.
        activations: bytes of activations by profile.
        weights: bytes of weights, None where the library does not say.
    """

    def __init__(self, module: Any) -> None:
        kept: deque[str] = deque(maxlen=8)
        lock = threading.Lock()
        severe = (module.ILogger.INTERNAL_ERROR, module.ILogger.ERROR)
        self.layers = ""
        self.activations: list[int] = []
        self.weights: int | None = None
        note = self._note

        class Logger(module.ILogger):  # type: ignore[misc]  # a class of a module without types
            def __init__(self) -> None:
                module.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                with lock:
                    if severity not in severe:
                        note(msg)
                    elif _DRIVER_NOISE not in msg:
                        kept.append(" ".join(msg.split()))

        self._kept = kept
        self._lock = lock
        self.logger: Any = Logger()

    def _note(self, message: str) -> None:
        if message.startswith(_LAYERS):
            self.layers = message
        elif found := _ACTIVATIONS.search(message):
            self.activations.append(int(found.group(1)))
        elif found := _WEIGHTS.search(message):
            self.weights = int(found.group(1))

    def take(self) -> str:
        """What was logged since the last call, as the end of a sentence."""
        with self._lock:
            lines = list(self._kept)
            self._kept.clear()
        return ": " + "; ".join(lines) if lines else " (TensorRT logged no reason)"
