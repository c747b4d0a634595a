"""Weights of a checkpoint, read one at a time and in blocks, always as float32.

Safetensors files are read with numpy alone (format: 8 bytes little-endian header length, a JSON header, raw data,
https://github.com/huggingface/safetensors#format); `pytorch_model.bin` through torch with `weights_only=True`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bgert.errors import install_extra
from bgert_export.errors import CheckpointError, ExtraNotInstalledError, UnsupportedCheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["SAFETENSORS", "SAFETENSORS_INDEX", "TORCH", "Weights", "open_weights"]

SAFETENSORS = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"
TORCH = "pytorch_model.bin"

_BLOCK_BYTES = 1 << 24
_MAX_HEADER = 100_000_000  # the limit of the reference implementation
# The unsigned view of bfloat16 is widened by hand: numpy has no such type.
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_OTHER_SIZES = {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


class Weights(Protocol):
    """Named weights. What is read is float32 and C-contiguous."""

    files: list[Path]
    """The files that hold the weights."""
    shapes: dict[str, tuple[int, ...]]

    def blocks(self, name: str) -> Iterator[NDArray[np.float32]]:
        """The weight in order, cut along its first axis into blocks of about 16 MiB."""
        ...


def read_whole(weights: Weights, name: str) -> NDArray[np.float32]:
    """One weight as one array."""
    blocks = list(weights.blocks(name))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def open_weights(folder: Path) -> Weights:
    """Open the weights of a checkpoint folder: safetensors, sharded safetensors, or PyTorch's pickle.

    Raises:
        CheckpointError: there are no weights, or a file is damaged.
        ExtraNotInstalledError: only `pytorch_model.bin` is there and torch is not installed.
    """
    if (folder / SAFETENSORS).is_file():
        return _Safetensors([folder / SAFETENSORS])
    if (folder / SAFETENSORS_INDEX).is_file():
        return _open_shards(folder)
    if (folder / TORCH).is_file():
        return _Torch(folder / TORCH)
    raise CheckpointError(f"{folder} has no weights: none of {SAFETENSORS}, {SAFETENSORS_INDEX}, {TORCH}")


@dataclass(frozen=True)
class _Place:
    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]


class _Safetensors:
    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self._places: dict[str, _Place] = {}
        for path in files:
            for name, place in _read_header(path).items():
                if name in self._places:
                    raise CheckpointError(f"the weight {name} is in {self._places[name].path.name} and {path.name}")
                self._places[name] = place
        self.shapes = {name: place.shape for name, place in self._places.items()}

    def blocks(self, name: str) -> Iterator[NDArray[np.float32]]:
        place = self._places[name]
        if place.dtype not in _DTYPES:
            raise UnsupportedCheckpointError(f"the weight {name} has type {place.dtype}, not a floating-point type")
        dtype = np.dtype(_DTYPES[place.dtype])
        rows, inner = place.shape[0] if place.shape else 1, place.shape[1:]
        width = math.prod(inner)
        step = max(1, _BLOCK_BYTES // max(1, 4 * width))
        with place.path.open("rb") as file:
            file.seek(place.offset)
            for start in range(0, rows, step):
                count = min(step, rows - start)
                raw = np.fromfile(file, dtype, count * width)
                if len(raw) != count * width:
                    raise CheckpointError(f"{place.path} ends inside the weight {name}: download it again")
                if place.dtype == "BF16":
                    raw = (raw.astype(np.uint32) << 16).view(np.float32)
                yield raw.astype(np.float32, copy=False).reshape(count, *inner)


def _read_header(path: Path) -> dict[str, _Place]:
    damaged = f"{path} is no safetensors file, or a damaged one: download it again"
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length > min(_MAX_HEADER, size - 8):
            raise CheckpointError(f"{damaged} (its header does not fit)")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            raise CheckpointError(f"{damaged} (its header is not JSON)") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{damaged} (its header is not an object)")
    header.pop("__metadata__", None)
    places: dict[str, _Place] = {}
    for name, entry in header.items():
        try:
            dtype, shape = str(entry["dtype"]), tuple(int(n) for n in entry["shape"])
            first, last = (int(n) for n in entry["data_offsets"])
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"{damaged} (the entry of {name})") from None
        item = np.dtype(_DTYPES[dtype]).itemsize if dtype in _DTYPES else _OTHER_SIZES.get(dtype)
        if min(shape, default=0) < 0 or not 0 <= first <= last:
            raise CheckpointError(f"{damaged} (the place of {name})")
        if 8 + length + last > size:
            raise CheckpointError(f"{path} ends before the weight {name}: it is truncated, download it again")
        if item is not None and last - first != item * math.prod(shape):
            raise CheckpointError(f"{damaged} (the size of {name})")
        places[name] = _Place(path, 8 + length + first, dtype, shape)
    return places


def _open_shards(folder: Path) -> _Safetensors:
    index = folder / SAFETENSORS_INDEX
    try:
        where = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(where.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{index} has no weight_map: download it again") from None
    files: list[Path] = []
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise CheckpointError(f"{index} names the file {name!r}, which is not in the folder: refused")
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} has no {name}, which {SAFETENSORS_INDEX} names: download it again")
        files.append(folder / name)
    weights = _Safetensors(files)
    for weight in where:
        if weight not in weights.shapes:
            raise CheckpointError(f"{where[weight]} has no weight {weight}, which {SAFETENSORS_INDEX} says it has")
    return weights


class _Torch:
    def __init__(self, path: Path) -> None:
        try:
            import torch
        except ImportError:
            raise ExtraNotInstalledError(
                f"reading {path.name} needs PyTorch: {install_extra('verify')} (or find a {SAFETENSORS})"
            ) from None
        self.files = [path]
        try:
            state: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as first:  # torch raises many types; files of before torch 1.6 cannot be mapped
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
            except Exception:
                reason = str(first).strip().splitlines()[0] if str(first).strip() else type(first).__name__
                raise CheckpointError(f"{path} cannot be read as weights alone: {reason}") from None
        if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise CheckpointError(f"{path} is not a dictionary of weights")
        self._state: dict[str, Any] = state
        self.shapes = {name: tuple(value.shape) for name, value in state.items()}

    def blocks(self, name: str) -> Iterator[NDArray[np.float32]]:
        weight = self._state[name].detach()
        if not weight.is_floating_point():
            raise UnsupportedCheckpointError(f"the weight {name} has type {weight.dtype}, not a floating-point type")
        if weight.dim() == 0:
            weight = weight.reshape(1)
        step = max(1, _BLOCK_BYTES // max(1, 4 * math.prod(weight.shape[1:])))
        for start in range(0, weight.shape[0], step):
            block: NDArray[np.float32] = weight[start : start + step].float().contiguous().numpy()
            yield block
