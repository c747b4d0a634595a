"""What a job writes: arrays of numpy and JSON Lines; Parquet has a file of its own."""

from __future__ import annotations

import json
import shutil
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from bgert.jobs.parquet import finite, json_value

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    Results = Iterable[tuple[NDArray[Any], list[Any]]]
    """Blocks: vectors [n, dim] or scores [n], and pieces of what is kept of these rows."""

__all__ = ["Format", "JsonLinesFormat", "NpyFormat"]


class Format(Protocol):
    """One way to write results. A file of many blocks has the same bytes as the files of each, joined."""

    def write(self, file: IO[bytes], blocks: Results) -> int:
        """Write blocks as they come; returns the number of rows."""

    def join(self, file: IO[bytes], parts: Iterable[Path]) -> int:
        """Write what other such files hold, in bounded memory; returns the number of rows."""


class NpyFormat:
    """An array of numpy: a row of it a row of results.

    Args:
        width: numbers in a row; None for an array of numbers.
        dtype: numpy type.
    """

    def __init__(self, width: int | None, dtype: type[Any]) -> None:
        self._shape = () if width is None else (width,)
        self._dtype = np.dtype(dtype)

    def write(self, file: IO[bytes], blocks: Results) -> int:
        """Write blocks as they come; returns the number of rows."""
        rows, body = 0, self._header(file, 0)
        for results, _ in blocks:
            file.write(np.ascontiguousarray(results, self._dtype).data)
            rows += len(results)
        return self._finish(file, rows, body)

    def join(self, file: IO[bytes], parts: Iterable[Path]) -> int:
        """Write what other such files hold; returns the number of rows."""
        rows, body = 0, self._header(file, 0)
        for path in parts:
            with path.open("rb") as part:
                np.lib.format.read_magic(part)
                rows += np.lib.format.read_array_header_1_0(part)[0][0]
                shutil.copyfileobj(part, file, 1 << 20)
        return self._finish(file, rows, body)

    def _finish(self, file: IO[bytes], rows: int, body: int) -> int:
        file.seek(0)
        if self._header(file, rows) != body:
            raise AssertionError("numpy changed the size of its header")
        return rows

    def _header(self, file: IO[bytes], rows: int) -> int:
        """Write the header; numpy leaves room in it for the number of rows to grow."""
        description = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": description, "fortran_order": False, "shape": (rows, *self._shape)}
        np.lib.format.write_array_header_1_0(file, header)
        return file.tell()


class JsonLinesFormat:
    """A line a row: its numbers alone, or an object of what is kept and them.

    Args:
        name: the field of the numbers; None for them alone.
    """

    def __init__(self, name: str | None) -> None:
        self._name = name

    def write(self, file: IO[bytes], blocks: Results) -> int:
        """Write blocks as they come; returns the number of rows."""
        rows = 0
        for results, kept in blocks:
            values = results.tolist()
            if self._name is None:
                for value in values:
                    file.write(json.dumps(value).encode() + b"\n")
            else:
                for record, value in zip(_records(kept), values, strict=True):
                    file.write(_line({**record, self._name: value}))
            rows += len(results)
            file.flush()
        return rows

    def join(self, file: IO[bytes], parts: Iterable[Path]) -> int:
        """Write what other such files hold; returns the number of rows."""
        rows = 0
        for path in parts:
            with path.open("rb") as part:
                while block := part.read(1 << 20):
                    rows += block.count(b"\n")
                    file.write(block)
        return rows


def _records(kept: list[Any]) -> Iterable[dict[str, Any]]:
    for piece in kept:
        yield from piece if isinstance(piece, list) else piece.to_pylist()


def _line(record: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(record, default=json_value, allow_nan=False)
    except ValueError:
        text = json.dumps(finite(record), default=json_value)
    return text.encode() + b"\n"
