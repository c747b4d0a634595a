"""The one place that imports ONNX Runtime."""

from __future__ import annotations

import os
from typing import Any

from bgert.errors import EngineNotInstalledError, install_extra

__all__ = ["import_onnxruntime"]


def import_onnxruntime(extra: str = "cpu") -> Any:
    """ONNX Runtime without its telemetry.

    From 1.32 on it writes a device id and a database below the user's cache folder when it is imported, starts threads,
    and sends what it collects to its maker. Only the environment forbids that from the start, so the variable is set,
    for this process and those it starts; whoever imported onnxruntime first gets what can still be switched off.

    Args:
        extra: the extra of bgert that brings it, for the message.

    Raises:
        EngineNotInstalledError: it cannot be imported.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError as error:
        if (stop := _behind(error)) is not None:
            raise stop from None
        raise EngineNotInstalledError(f"ONNX Runtime cannot be imported ({error}): {install_extra(extra)}") from None
    if (disable := getattr(onnxruntime, "disable_telemetry_events", None)) is not None:
        disable()
    return onnxruntime


def _behind(error: BaseException) -> BaseException | None:
    """The Ctrl-C or the exit that C++ made an ImportError of, if that is what happened."""
    seen: BaseException | None = error
    while seen is not None:
        if not isinstance(seen, Exception):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
