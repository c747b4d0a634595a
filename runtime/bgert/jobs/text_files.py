"""Lines of text and of JSON: `.txt`, `.jsonl` and stdin."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bgert.errors import InputFileError, InvalidOptionError, InvalidTextError
from bgert.paths import user_path

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["checked_text", "count_records", "read_lines", "read_records", "read_texts", "reading"]


def read_texts(name: str, field: str = "text") -> Iterator[str]:
    """Texts of a file: a line each of `.txt` or of stdin (`-`), or one field a line of `.jsonl`.

    Raises:
        InputFileError: the file cannot be opened, or is not UTF-8.
        InvalidOptionError: the file's ending is neither.
        InvalidTextError: a JSON line is broken, has no such field or a lone surrogate in it; names the line.
    """
    if name != "-" and Path(name).suffix.lower() not in (".txt", ".jsonl"):
        raise InvalidOptionError(f"{name}: input must end in .txt or .jsonl, or be - for lines of stdin")
    if not name.lower().endswith(".jsonl"):
        return (text for text, _ in read_lines(name))
    return (checked_text(record, field, where) for record, where, _ in read_records(name))


def read_lines(name: str, skip: int = 0) -> Iterator[tuple[str, str]]:
    """Lines of a file or of stdin with their places, as `notes.txt:3`; empty ones count.

    Raises:
        InputFileError: the file cannot be opened, or is not UTF-8.
    """
    for number, line in _numbered(name, skip):
        yield _decoded(line, name, number).removesuffix("\r"), f"{name}:{number}"


def read_records(name: str, skip: int = 0) -> Iterator[tuple[dict[str, Any], str, int]]:
    """JSON objects of a file or of stdin, a line each, with their places and bytes; empty lines are none.

    Args:
        name: the file, or `-`.
        skip: objects to pass over unread.

    Raises:
        InputFileError: the file cannot be opened, or is not UTF-8.
        InvalidTextError: a line is no JSON object.
    """
    for number, line in _numbered(name):
        if _is_blank(line):
            continue
        if skip:
            skip -= 1
            continue
        where = f"{name}:{number}"
        text = _decoded(line, name, number)
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidTextError(f"{where}: not JSON: {error}") from None
        if not isinstance(record, dict):
            raise InvalidTextError(f"{where}: not a JSON object but a {type(record).__name__}")
        yield record, where, len(line)


def count_records(name: str) -> int:
    """Rows that `read_lines`, or of `.jsonl` `read_records`, gives."""
    as_json = name.lower().endswith(".jsonl")
    return sum(1 for _, line in _numbered(name) if not as_json or not _is_blank(line))


def checked_text(record: dict[str, Any], field: str, where: str) -> str:
    """The text in a field of an object.

    Raises:
        InvalidTextError: there is none, it is no string, or it has a lone surrogate in it.
    """
    text = record.get(field)
    if not isinstance(text, str):
        raise InvalidTextError(f"{where}: no text in field {field!r} (--text-column names another)")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        place = f"at position {error.start} of field {field!r}"
        raise InvalidTextError(f"{where}: a lone surrogate {place}, which no UTF-8 text can hold") from None
    return text


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Say in an InputFileError why a file cannot be read."""
    try:
        yield
    except FileNotFoundError:
        raise InputFileError(f"{name[:200]}: no such file") from None
    except IsADirectoryError:
        raise InputFileError(f"{name}: is a folder") from None
    except PermissionError:
        raise InputFileError(f"{name}: permission denied") from None
    except OSError as error:
        if isinstance(error, InputFileError):
            raise
        raise InputFileError(f"{name[:200]}: {error.strerror or error}") from None


def _numbered(name: str, skip: int = 0) -> Iterator[tuple[int, bytes]]:
    with reading(name), _open_lines(name) as lines:
        yield from islice(enumerate(lines, 1), skip, None)


def _is_blank(line: bytes) -> bool:
    return line.strip() in (b"", b"\xef\xbb\xbf")


def _decoded(line: bytes, name: str, number: int) -> str:
    try:
        # A mark of the byte order is no text.
        return line.removesuffix(b"\n").decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InputFileError(f"{name}:{number}: not UTF-8: {error.reason} at byte {error.start + 1}") from None


@contextmanager
def _open_lines(name: str) -> Iterator[IO[bytes]]:
    if name == "-":
        yield sys.stdin.buffer
        return
    with user_path(name, "input").open("rb") as file:
        yield file
