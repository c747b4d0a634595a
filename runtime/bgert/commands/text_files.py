"""Files of the command line: texts in (.txt, .jsonl, stdin), embeddings out (.npy, .jsonl), written atomically."""

from __future__ import annotations

import json
import os
import secrets
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from bgert.errors import InputFileError, InvalidOptionError, InvalidTextError
from bgert.paths import user_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    Each = Callable[[dict[str, Any], str], object]

__all__ = ["atomic_file", "read_texts", "write_embeddings"]


def read_texts(name: str, field: str = "text", each: Each | None = None) -> Iterator[str]:
    """Texts of a file: a line each of `.txt` or of stdin (`-`), or one field a line of `.jsonl`.

    `each` is called with the object of each line of `.jsonl` and its place, before its text is given out.

    Raises:
        InputFileError: the file cannot be opened, or is not UTF-8.
        InvalidOptionError: the file's ending is neither.
        InvalidTextError: a JSON line is broken, has no such field or a lone surrogate in it; names the line.
    """
    if name != "-" and Path(name).suffix.lower() not in (".txt", ".jsonl"):
        raise InvalidOptionError(f"{name}: input must end in .txt or .jsonl, or be - for lines of stdin")
    return _read_texts(name, field, each)


def _read_texts(name: str, field: str, each: Each | None) -> Iterator[str]:
    as_json = name.lower().endswith(".jsonl")
    number = 0
    try:
        with _open_lines(name) as lines:
            for number, line in enumerate(lines, 1):
                # A mark of the byte order is no text.
                text = line.removesuffix(b"\n").decode("utf-8-sig" if number == 1 else "utf-8")
                if not as_json:
                    yield text.removesuffix("\r")
                elif text.strip():
                    yield _field_of(text, field, f"{name}:{number}", each)
    except UnicodeDecodeError as error:
        raise InputFileError(f"{name}:{number}: not UTF-8: {error.reason} at byte {error.start + 1}") from None
    except FileNotFoundError:
        raise InputFileError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise InputFileError(f"{name}: is a folder") from None
    except PermissionError:
        raise InputFileError(f"{name}: permission denied") from None
    except OSError as error:
        raise InputFileError(f"{name[:200]}: {error.strerror}") from None


def _field_of(line: str, field: str, where: str, each: Each | None) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidTextError(f"{where}: not JSON: {error}") from None
    if not isinstance(record, dict) or not isinstance(record.get(field), str):
        raise InvalidTextError(f"{where}: no text in field {field!r} (--field names another)")
    if each is not None:
        each(record, where)
    text: str = record[field]
    try:
        text.encode()
    except UnicodeEncodeError as error:
        place = f"at position {error.start} of field {field!r}"
        raise InvalidTextError(f"{where}: a lone surrogate {place}, which no UTF-8 text can hold") from None
    return text


@contextmanager
def _open_lines(name: str) -> Iterator[IO[bytes]]:
    if name == "-":
        yield sys.stdin.buffer
        return
    with user_path(name, "input").open("rb") as file:
        yield file


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of `path` when the block ends well; else the old file stays."""
    # Named before it exists: a signal may come at any time after.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            file = temporary.open("x+b")
        except OSError as error:
            raise InvalidOptionError(f"cannot write into {path.parent}: {error.strerror}") from None
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_embeddings(
    name: str,
    blocks: Iterable[NDArray[Any]],
    columns: int,
    dtype: type[Any],
    line_of: Callable[[list[float]], object] = list,
) -> int:
    """Write blocks of rows to `.npy`, `.jsonl` or stdout (`-`, as .jsonl) as they come; returns the number of rows.

    `line_of` makes of a row what its line of JSON holds.

    Raises:
        InvalidOptionError: the file's ending is neither, or the folder is not writable.
    """
    if name == "-":
        return _write_lines(sys.stdout.buffer, blocks, line_of)
    path = user_path(name, "output")
    if path.suffix.lower() not in (".npy", ".jsonl"):
        raise InvalidOptionError(f"{name}: output must end in .npy or .jsonl, or be - for .jsonl on stdout")
    with atomic_file(path) as file:
        if path.suffix.lower() == ".jsonl":
            return _write_lines(file, blocks, line_of)
        rows, body = 0, _npy_header(file, 0, columns, dtype)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype).data)
            rows += len(block)
        file.seek(0)
        if _npy_header(file, rows, columns, dtype) != body:
            raise AssertionError("numpy changed the size of its header")
    return rows


def _write_lines(file: IO[bytes], blocks: Iterable[NDArray[Any]], line_of: Callable[[list[float]], object]) -> int:
    rows = 0
    for block in blocks:
        for row in block:
            file.write(json.dumps(line_of(row.tolist())).encode() + b"\n")
        rows += len(block)
        file.flush()
    return rows


def _npy_header(file: IO[bytes], rows: int, columns: int, dtype: type[Any]) -> int:
    """Write the header of an array; numpy leaves room in it for the number of rows to grow."""
    description = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": description, "fortran_order": False, "shape": (rows, columns)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()
