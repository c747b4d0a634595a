"""Weights of a checkpoint, read one at a time and in blocks, always as float32."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bgert.checked_file import read_json
from bgert_export.errors import CheckpointError
from bgert_export.safetensors_file import SafetensorsWeights
from bgert_export.torch_file import TorchWeights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

__all__ = ["FORMS", "Weights", "open_weights", "read_whole"]


class Weights(Protocol):
    """Named weights. What is read is float32 and C-contiguous."""

    files: list[Path]
    """The files that hold the weights."""
    shapes: dict[str, tuple[int, ...]]

    def blocks(self, name: str) -> Iterator[NDArray[np.float32]]:
        """The weight in order, cut along its first axis into blocks of about 16 MiB."""
        ...


_OPENERS: dict[str, Callable[[list[Path]], Weights]] = {
    "model.safetensors": SafetensorsWeights,
    "pytorch_model.bin": TorchWeights,
}
# In the order in which transformers looks for them; an index names the files that hold the parts.
FORMS = tuple(name for file in _OPENERS for name in (file, f"{file}.index.json"))


def read_whole(weights: Weights, name: str) -> NDArray[np.float32]:
    """One weight as one array."""
    blocks = list(weights.blocks(name))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def open_weights(folder: Path) -> Weights:
    """Open the weights of a checkpoint folder: safetensors or PyTorch's pickle, whole or in parts.

    Raises:
        CheckpointError: there are no weights, or a file is damaged.
        ExtraNotInstalledError: only PyTorch's pickle is there and torch is not installed.
    """
    for name in FORMS:
        path = folder / name
        if not os.path.lexists(path):
            continue
        opener = _OPENERS[name.removesuffix(".index.json")]
        try:
            if name in _OPENERS:
                return opener([path])
            return _open_parts(path, opener)
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{error.filename} is a link to a file that is not there: download it again"
            ) from None
    raise CheckpointError(f"{folder} has no weights: none of {', '.join(FORMS)}")


def _open_parts(index: Path, opener: Callable[[list[Path]], Weights]) -> Weights:
    raw = read_json(index, CheckpointError)
    where = raw.get("weight_map") if isinstance(raw, dict) else None
    if not isinstance(where, dict) or not where:
        raise CheckpointError(f"{index} has no weight_map: download it again")
    files: list[Path] = []
    for name in sorted(set(map(str, where.values()))):
        if Path(name).name != name or name in ("", ".", "..") or "\\" in name or "\0" in name:
            raise CheckpointError(f"{index} names the file {name!r}, which is not in the folder: refused")
        if not os.path.lexists(index.parent / name):
            raise CheckpointError(f"{index.parent} has no {name}, which {index.name} names: download it again")
        files.append(index.parent / name)
    weights = opener(files)
    for weight, name in where.items():
        if weight not in weights.shapes:
            raise CheckpointError(f"{name} has no weight {weight}, which {index.name} says it has")
    return weights
