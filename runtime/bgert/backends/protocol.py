"""What every engine is to the rest of bgert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bgert.batching import Bucket, PackedBatch
    from bgert.model_folder import TokenOutput

__all__ = ["Backend", "BackendInfo", "TokenBackend"]


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
    cores: int = 0
    """Cores of this machine that a batch keeps busy; 0 on a device of its own."""


class Backend(Protocol):
    """One model loaded on one engine. `run` may be called from `info.workers` threads at once."""

    info: BackendInfo

    def run(self, batch: PackedBatch) -> NDArray[np.float32]:
        """Packed texts to float32[B, columns]: embeddings, or the logits of pairs."""
        ...


class TokenBackend(Backend, Protocol):
    """One that can give something for every token besides."""

    token_outputs: Mapping[str, TokenOutput]
    """What it can give, by name."""

    def run_tokens(self, batch: PackedBatch, names: Sequence[str]) -> list[NDArray[np.float32]]:
        """What `run` gives, and float32[T, columns] for each of the `token_outputs` that are named."""
        ...
