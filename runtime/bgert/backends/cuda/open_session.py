"""A session of ONNX Runtime on a CUDA device, without the warning that it prints at every such opening.

From 1.26 on it looks for a device of that number among plugin providers first, which its built-in CUDA provider is
none of, and warns of not having found one. It looks only where the options name a device. So the first device, which
is the default, is not named. Another one has to be, and the warning comes from the logger of the process, which then
writes errors alone for as long as the session is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PROVIDER", "open_on_device"]

PROVIDER = "CUDAExecutionProvider"
_WARNING, _ERROR = 2, 3  # severities; a process starts with the first, and what it is cannot be asked


def open_on_device(onnxruntime: Any, path: Path, options: Any, device: int, provider: dict[str, str]) -> Any:
    """An `InferenceSession` on that device, or on the CPU alone where the provider does not start.

    Why it does not start is a warning too, and is written.

    Args:
        onnxruntime: the module.
        path: the graph.
        options: a `SessionOptions`.
        device: number of the device.
        provider: options of the CUDA provider but `device_id`.
    """

    def opened(named: dict[str, str]) -> Any:
        return onnxruntime.InferenceSession(str(path), options, providers=[(PROVIDER, named | provider)])

    if device == 0:
        return opened({})
    named = {"device_id": str(device)}
    onnxruntime.set_default_logger_severity(_ERROR)
    try:
        session = opened(named)
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
    return session if PROVIDER in session.get_providers() else opened(named)
