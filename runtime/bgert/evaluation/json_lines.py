"""JSON Lines and other files of strangers, line by line, with errors that name the file and the line."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from bgert.errors import BgertError, InputFileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["CollectionError", "decode", "open_file", "parse", "records", "string_field", "strings_field"]


class CollectionError(BgertError, ValueError):
    """A file of a collection is damaged or does not fit the others; the message names the file and the line."""


@contextmanager
def open_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to read; InputFileError where it is not there or cannot be opened."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise InputFileError(f"{path}: no such file") from None
    except OSError as error:
        raise InputFileError(f"{path}: {error.strerror}") from None
    with file:
        yield file


def records(path: Path) -> Iterator[tuple[dict[str, Any], str, int]]:
    """The objects of a .jsonl file, each with `file:line` and the offset of its line; blank lines are left out."""
    with open_file(path) as file:
        offset = 0
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path}:{number}"
                yield parse(line, where), where, offset
            offset += len(line)


def parse(line: bytes, where: str) -> dict[str, Any]:
    """The object of a line; CollectionError where it is none, InputFileError where it is not UTF-8."""
    try:
        record = json.loads(decode(line, where))
    except (ValueError, RecursionError) as error:
        raise CollectionError(f"{where}: not JSON: {error}") from None
    if not isinstance(record, dict):
        raise CollectionError(f"{where}: not a JSON object")
    return record


def decode(line: bytes, where: str) -> str:
    """The text of a line; InputFileError where it is not UTF-8."""
    try:
        return line.decode("utf-8-sig")  # a mark of the byte order is no text
    except UnicodeDecodeError as error:
        raise InputFileError(f"{where}: not UTF-8: {error.reason}") from None


def string_field(record: dict[str, Any], field: str, where: str) -> str:
    """A field that holds a text, an id not an empty one; else a CollectionError."""
    value = record.get(field)
    if not isinstance(value, str) or (field == "_id" and not value):
        raise CollectionError(f"{where}: no string in field {field!r}")
    return _with_utf8_form(value, field, where)


def strings_field(record: dict[str, Any], field: str, where: str) -> list[str]:
    """A field that holds a list of texts, which may be empty; else a CollectionError."""
    values = record.get(field)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise CollectionError(f"{where}: no list of strings in field {field!r}")
    return [_with_utf8_form(value, field, where) for value in values]


def _with_utf8_form(value: str, field: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise CollectionError(f"{where}: a lone surrogate in field {field!r}, which no UTF-8 text can hold") from None
    return value
