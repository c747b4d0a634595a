"""The engines. A backend turns packed token ids into rows of numbers and knows nothing of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bgert.backends import choose
from bgert.errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bgert.batching import Bucket, PackedBatch
    from bgert.model_folder import Manifest

__all__ = ["Backend", "BackendInfo", "open_backend"]


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
    folder: Path,
    manifest: Manifest,
    *,
    device: str | Sequence[str],
    precision: str,
    threads: int | None,
    mode: str,
    gpu_memory_limit: int | None = None,
) -> Backend:
    """Load the graph of a model folder that fits the device.

    Args:
        folder: the model folder.
        manifest: its manifest.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `cuda:all`, a list of CUDA devices, or `tensorrt`.
        precision: of the graph; `auto` takes the first of the device.
        threads: cores of the CPU backend.
        mode: `throughput` or `latency`, on the CPU; a GPU serves both at once.
        gpu_memory_limit: bytes an engine may take on each GPU.

    Raises:
        InvalidOptionError: unknown device or mode, or a number below one.
        DeviceUnavailableError: the device is not there, or the folder has no graph for it with this precision.
        DeviceMemoryError: the model does not fit on the device.
        EngineNotInstalledError: the engine's library is missing; the message says which extra brings it.
        EngineNotBuiltError: TensorRT has no engine of this model for this GPU yet.
        IntegrityError: a file of the graph is not the one that export wrote.
    """
    if mode not in ("throughput", "latency"):
        raise InvalidOptionError(f"unknown mode {mode!r}: use throughput or latency")
    for name, value in (("threads", threads), ("gpu_memory_limit", gpu_memory_limit)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise InvalidOptionError(f"{name} is {value!r}: use a whole number from 1, or None for all there is")
    names = choose.parse_devices(device)
    if names == ["auto"]:
        return choose.open_auto(folder, manifest, precision, threads, mode, gpu_memory_limit)
    if names == ["cpu"]:
        if gpu_memory_limit is not None:
            raise InvalidOptionError("gpu_memory_limit is for a GPU, and device is 'cpu'")
        return choose.open_cpu(folder, manifest, precision, threads, mode)
    if names == ["tensorrt"]:
        return choose.open_tensorrt(folder, manifest, precision, mode)
    return choose.open_cuda(folder, manifest, names, precision, gpu_memory_limit)
