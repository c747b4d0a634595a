"""Weights in safetensors files, read with numpy alone.

Format: 8 bytes little-endian header length, a JSON header, raw data (https://github.com/huggingface/safetensors#format).
As in the reference implementation the weights fill the data from end to end, with no gap and no byte twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.checked_file import decode_json, open_regular
from bgert_export.errors import CheckpointError, UnsupportedCheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["BLOCK_BYTES", "SafetensorsWeights", "wrong_type"]

BLOCK_BYTES = 1 << 24
_MAX_HEADER = 100_000_000  # the limit of the reference implementation
# The unsigned view of bfloat16 is widened by hand: numpy has no such type.
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_BITS = {
    "C64": 64, "I64": 64, "U64": 64, "F64": 64, "I32": 32, "U32": 32, "F32": 32, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


@dataclass(frozen=True)
class _Place:
    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]


class SafetensorsWeights:
    """The weights of one or several files, see `bgert_export.weights.Weights`.

    Raises:
        CheckpointError: a file is damaged, or a weight is in two of them.
    """

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
        """See `bgert_export.weights.Weights`."""
        place = self._places[name]
        if place.dtype not in _DTYPES:
            raise wrong_type(name, place.dtype)
        dtype = np.dtype(_DTYPES[place.dtype])
        rows, inner = place.shape[0] if place.shape else 1, place.shape[1:]
        width = math.prod(inner)
        step = max(1, BLOCK_BYTES // max(1, 4 * width))
        with open_regular(place.path, CheckpointError) as file:
            file.seek(place.offset)
            for start in range(0, rows, step):
                count = min(step, rows - start)
                raw = np.fromfile(file, dtype, count * width)
                if len(raw) != count * width:
                    raise CheckpointError(f"{place.path} ends inside the weight {name}: download it again")
                if place.dtype == "BF16":
                    raw = (raw.astype(np.uint32) << 16).view(np.float32)
                with np.errstate(over="ignore"):  # float64 may hold what is infinite in float32
                    yield raw.astype(np.float32, copy=False).reshape(count, *inner)


def wrong_type(name: str, dtype: str) -> UnsupportedCheckpointError:
    """The exception to raise about a weight of another type than bgert reads."""
    return UnsupportedCheckpointError(
        f"the weight {name} has type {dtype}: bgert reads float32, float16, bfloat16 and float64; "
        "save the checkpoint in one of them"
    )


def _read_header(path: Path) -> dict[str, _Place]:
    damaged = f"{path} is no safetensors file, or a damaged one: download it again"
    with open_regular(path, CheckpointError) as file:
        size = path.stat().st_size
        head = file.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length > min(_MAX_HEADER, size - 8):
            raise CheckpointError(f"{damaged} (its header does not fit)")
        try:
            header = decode_json(file.read(length))
        except ValueError:
            raise CheckpointError(f"{damaged} (its header is not JSON)") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{damaged} (its header is not an object)")
    header.pop("__metadata__", None)
    found: list[tuple[int, int, str, _Place]] = []
    for name, entry in header.items():
        dtype, shape, first, last = _entry(entry, f"{damaged} (the entry of {name})")
        if min(shape, default=0) < 0 or not 0 <= first <= last:
            raise CheckpointError(f"{damaged} (the place of {name})")
        if 8 + length + last > size:
            raise CheckpointError(f"{path} ends before the weight {name}: it is truncated, download it again")
        if dtype in _BITS and 8 * (last - first) != _BITS[dtype] * math.prod(shape):
            raise CheckpointError(f"{damaged} (the size of {name})")
        found.append((first, last, name, _Place(path, 8 + length + first, dtype, shape)))
    end = 0
    for first, last, name, _ in sorted(found, key=lambda item: item[:3]):
        if first != end:
            raise CheckpointError(f"{damaged} (the place of {name} {'overlaps' if first < end else 'leaves a gap'})")
        end = last
    if 8 + length + end != size:
        raise CheckpointError(f"{damaged} (it goes on after its last weight)")
    return {name: place for _, _, name, place in found}


def _entry(entry: Any, damaged: str) -> tuple[str, tuple[int, ...], int, int]:
    """Type, shape and place of a weight. Python reads `Infinity` and 2.0 where JSON or a whole number should be."""
    try:
        dtype, shape, (first, last) = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = isinstance(dtype, str) and all(type(number) is int for number in [*shape, first, last])
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise CheckpointError(damaged)
    return dtype, tuple(shape), first, last
