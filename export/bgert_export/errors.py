"""Every error that export raises on purpose, beside those of `bgert.errors`. Messages say what to do."""

from __future__ import annotations

from bgert.errors import BgertError, EngineNotInstalledError

__all__ = [
    "CheckpointError",
    "DestinationError",
    "DownloadError",
    "ExtraNotInstalledError",
    "GraphRuleError",
    "PlatformError",
    "QuantizationError",
    "UndecidedError",
    "UnsupportedCheckpointError",
    "VerificationError",
    "WriteError",
]


class CheckpointError(BgertError, ValueError):
    """A file of the checkpoint is damaged, or a weight is missing, unexpected or of the wrong shape."""


class UnsupportedCheckpointError(CheckpointError):
    """The checkpoint is sound, but of an architecture or with a setting that bgert does not export."""


class UndecidedError(BgertError, ValueError):
    """The checkpoint does not say something that changes the vectors; the message names the flag to pass."""


class DestinationError(BgertError, FileExistsError):
    """The destination exists already, or another export is writing it."""


class WriteError(BgertError, OSError):
    """The destination cannot be written, for example because the disk is full."""


class DownloadError(BgertError, ConnectionError):
    """The checkpoint cannot be fetched from the hub."""


class ExtraNotInstalledError(EngineNotInstalledError):
    """A library that export or verification needs is missing; the message names the extra that brings it."""


class PlatformError(BgertError, NotImplementedError):
    """Export does not run on this operating system."""


class QuantizationError(BgertError, ArithmeticError):
    """An int8 graph would be further from float32 than the floor allows."""


class VerificationError(BgertError, ArithmeticError):
    """The exported graph does not compute what the PyTorch checkpoint computes."""


class GraphRuleError(BgertError, ValueError):
    """A written graph breaks a rule by which its engine reads and fuses it: a defect of bgert, please report it."""
