"""The engines. A backend turns packed token ids into rows of numbers and knows nothing of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bgert.errors import DeviceUnavailableError, InvalidOptionError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bgert.batching import Bucket, PackedBatch
    from bgert.model_folder import Manifest

__all__ = ["Backend", "BackendInfo", "open_backend"]

DEVICES = ("auto", "cpu", "tensorrt")


@dataclass(frozen=True)
class BackendInfo:
    """What runs the model, and how it likes to be fed."""

    device: str
    precision: str
    engine: str
    """Library and version."""
    workers: int
    """How many batches may run at the same time."""
    token_budget: int
    """Tokens a batch should have."""
    buckets: tuple[Bucket, ...] = ()
    """The shapes that an engine takes, shortest first; empty where any will do."""


class Backend(Protocol):
    """One model loaded on one engine. `run` may be called from `info.workers` threads at once."""

    info: BackendInfo

    def run(self, batch: PackedBatch) -> NDArray[np.float32]:
        """Packed texts to float32[B, columns]: embeddings, or the logits of pairs."""
        ...


def open_backend(
    folder: Path, manifest: Manifest, *, device: str, precision: str, threads: int | None, mode: str
) -> Backend:
    """Load the graph of a model folder that fits the device.

    Raises:
        InvalidOptionError: unknown device or mode, or a thread count below one.
        DeviceUnavailableError: the folder has no graph for this device and precision.
        EngineNotInstalledError: the engine's library is missing; the message says which extra brings it.
        EngineNotBuiltError: TensorRT has no engine of this model for this GPU yet.
        IntegrityError: a file of the graph is not the one that export wrote.
    """
    if device not in DEVICES:
        raise InvalidOptionError(f"unknown device {device!r}: use one of {', '.join(DEVICES)}")
    if mode not in ("throughput", "latency"):
        raise InvalidOptionError(f"unknown mode {mode!r}: use throughput or latency")
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise InvalidOptionError(f"threads is {threads!r}: use a whole number from 1, or None for all cores")
    target = "tensorrt" if device == "tensorrt" else "cpu"
    graph = manifest.graph(target, None if precision == "auto" else precision)
    if graph is None:
        have = ", ".join(f"{entry.target} {entry.precision}" for entry in manifest.graphs) or "none"
        raise DeviceUnavailableError(
            f"{folder} has no graph for device {device!r} with precision {precision!r} (it has: {have})"
        )
    if target == "tensorrt":
        from bgert.backends.tensorrt import TensorRtBackend

        return TensorRtBackend(folder, manifest, graph, mode=mode)
    from bgert.backends.onnx_cpu import OnnxCpuBackend

    return OnnxCpuBackend(folder, graph, threads=threads, mode=mode)
