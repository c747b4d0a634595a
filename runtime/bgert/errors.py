"""Every error that bgert raises on purpose. Each subclasses a builtin, and its message says what to do."""

from __future__ import annotations

import sys
import warnings

__all__ = [
    "BgertError",
    "DeviceLostError",
    "DeviceMemoryError",
    "DeviceUnavailableError",
    "DeviceWarning",
    "EngineError",
    "EngineNotBuiltError",
    "EngineNotInstalledError",
    "InputFileError",
    "InstructionWarning",
    "IntegrityError",
    "InvalidOptionError",
    "InvalidTextError",
    "ModelFolderError",
    "ModelNotFoundError",
    "NonFiniteOutputError",
    "OutputFileError",
    "TruncationWarning",
    "UnverifiedWarning",
    "install_extra",
    "warn_caller",
]


def install_extra(name: str) -> str:
    """What a message tells a user to do who lacks an extra's libraries; the page says how, from where."""
    return f"install the extra `{name}` (README, Install)"


class BgertError(Exception):
    """Base of every error that bgert raises on purpose."""


class InvalidTextError(BgertError, TypeError, ValueError):
    """A text is not a `str`, or holds a lone surrogate and so has no UTF-8 form."""


class InputFileError(BgertError, OSError):
    """A file of texts or of judgments cannot be read."""


class OutputFileError(BgertError, OSError):
    """A file of results cannot be written, on a full disk for example."""


class InvalidOptionError(BgertError, ValueError):
    """An option has a value that bgert does not know or the model does not allow."""


class ModelNotFoundError(BgertError, FileNotFoundError):
    """There is no model folder or checkpoint at this path."""


class ModelFolderError(BgertError, ValueError):
    """The folder is not a model folder that this version can read."""


class IntegrityError(ModelFolderError):
    """A file of the model folder is missing, truncated or not the one that export wrote."""


class EngineNotInstalledError(BgertError, ImportError):
    """The library of an engine is not installed; the message names the extra that brings it."""


class DeviceUnavailableError(BgertError, RuntimeError):
    """The device that was asked for cannot run this model here."""


class EngineError(BgertError, RuntimeError):
    """The engine failed while it ran the model; the message holds the engine's own."""


class EngineNotBuiltError(BgertError, FileNotFoundError):
    """There is no TensorRT engine of this model for this GPU, driver and TensorRT; `bgert build` makes one."""


class DeviceMemoryError(EngineError, MemoryError):
    """The device's memory is full."""


class DeviceLostError(EngineError):
    """The device failed in a way that only a new process mends."""


class NonFiniteOutputError(BgertError, ArithmeticError):
    """The engine returned NaN or infinity; nothing of the batch is served."""


class TruncationWarning(UserWarning):
    """Texts were longer than `max_length` and were cut."""


class InstructionWarning(UserWarning):
    """An instruction that the caller gave is not the one that the model was trained with."""


class UnverifiedWarning(UserWarning):
    """A checkpoint was exported on first use without a comparison with PyTorch, which is not installed."""


class DeviceWarning(UserWarning):
    """A device is there and does not do what one would expect; the message says why and what to do."""


def warn_caller(message: str, category: type[Warning], libraries: tuple[str, ...] = ("bgert",)) -> None:
    """Warn at the line of the first caller outside bgert, or outside those libraries."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in libraries:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
