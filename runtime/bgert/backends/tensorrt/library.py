"""Import of TensorRT, or of its lean runtime, and what both halves of bgert need of it: versions and the log."""

from __future__ import annotations

import importlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from bgert.backends.tensorrt.engine_cache import Environment
from bgert.errors import EngineNotInstalledError, install_extra

if TYPE_CHECKING:
    from bgert.backends.cuda_driver import Gpu

__all__ = ["OLDEST", "OLDEST_WITH_PROFILES", "Log", "environment", "import_builder", "import_runtime", "version_of"]

OLDEST = (10, 3)
OLDEST_WITH_PROFILES = (10, 8)  # before it, engines of several profiles gave wrong results (NVIDIA/TensorRT#4250)
_FIRST_UNKNOWN = (12,)


def import_builder() -> Any:
    """The module `tensorrt`.

    Raises:
        EngineNotInstalledError: it is not installed, or of a version that bgert does not know.
    """
    return _import("tensorrt")


def import_runtime() -> Any:
    """The module `tensorrt`, or where that is not installed `tensorrt_lean`.

    Raises:
        EngineNotInstalledError: neither is installed, or of a version that bgert does not know.
    """
    try:
        return _import("tensorrt")
    except EngineNotInstalledError as error:
        try:
            return _import("tensorrt_lean")
        except EngineNotInstalledError:
            raise error from None


def _import(name: str) -> Any:
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:  # a missing library shows as any of them
        raise EngineNotInstalledError(
            f"{name} cannot be imported ({error}): {install_extra('tensorrt')}, on a Jetson use JetPack's"
        ) from None
    version = version_of(module)
    if not OLDEST <= version < _FIRST_UNKNOWN:
        raise EngineNotInstalledError(
            f"{name} {module.__version__} is installed; bgert knows {OLDEST[0]}.{OLDEST[1]} to 11.x"
        )
    return module


def version_of(module: Any) -> tuple[int, ...]:
    """(major, minor)."""
    return tuple(int(part) for part in str(module.__version__).split(".")[:2])


def environment(module: Any, gpu: Gpu) -> Environment:
    """What an engine is tied to."""
    return Environment(
        library=module.__name__,
        tensorrt=str(module.__version__),
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        multiprocessors=gpu.multiprocessors,
        driver=gpu.driver,
    )


class Log:
    """TensorRT's log: errors are kept for the exception, warnings too if asked for; TensorRT writes from any thread."""

    def __init__(self, module: Any) -> None:
        kept: deque[str] = deque(maxlen=8)
        lock = threading.Lock()
        severe = (module.ILogger.INTERNAL_ERROR, module.ILogger.ERROR)

        class Logger(module.ILogger):  # type: ignore[misc]  # a class of a module without types
            def __init__(self) -> None:
                module.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                if severity in severe:
                    with lock:
                        kept.append(" ".join(msg.split()))

        self._kept = kept
        self._lock = lock
        self.logger: Any = Logger()

    def take(self) -> str:
        """What was logged since the last call, as the end of a sentence."""
        with self._lock:
            lines = list(self._kept)
            self._kept.clear()
        return ": " + "; ".join(lines) if lines else " (TensorRT logged no reason)"
