"""Reading of files that somebody else made: regular files alone, of a bounded size, JSON of a bounded depth.

A FIFO would block for ever, a link to /dev/zero never ends, a deep document exhausts the interpreter's stack, and a
Git LFS pointer is a file of three lines where the real one should be.
"""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

    from bgert.errors import BgertError

__all__ = ["MAX_DEPTH", "decode_json", "open_regular", "read_bytes", "read_json"]

MAX_BYTES = 1 << 29
"""No vocabulary or configuration is as large; weights are not read whole."""
MAX_DEPTH = 100
"""Levels of a JSON document."""
_LFS = b"version https://git-lfs"  # https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md


def open_regular(path: Path, error: type[BgertError]) -> BinaryIO:
    """Open a regular file, or a link to one, to read it.

    Raises:
        FileNotFoundError: there is no such file.
        error: it is something else than a regular file, a Git LFS pointer, or cannot be opened.
    """
    try:
        # A FIFO without a writer is waited for, but for this flag; Windows has neither.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as problem:
        raise error(f"cannot read {path}: {getattr(problem, 'strerror', None) or problem}") from None
    file = os.fdopen(handle, "rb") if stat.S_ISREG(os.fstat(handle).st_mode) else None
    if file is None:
        os.close(handle)
        raise error(f"cannot read {path}: it is not a regular file")
    if file.read(len(_LFS)) == _LFS:
        file.close()
        raise error(
            f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder, or download it again"
        )
    file.seek(0)
    return file


def read_bytes(path: Path, error: type[BgertError], *, limit: int = MAX_BYTES) -> bytes:
    """The content of a regular file.

    Raises:
        FileNotFoundError: there is no such file.
        error: as `open_regular`; or it has more than `limit` bytes.
    """
    with open_regular(path, error) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise error(f"{path} has {size} bytes, more than any such file needs: refused")
        try:
            return file.read(limit)
        except OSError as problem:
            raise error(f"cannot read {path}: {problem.strerror}") from None


def read_json(path: Path, error: type[BgertError]) -> Any:
    """What a JSON file holds.

    Raises:
        FileNotFoundError: there is no such file.
        error: as `read_bytes`; or it is not JSON, or nested deeper than `MAX_DEPTH`.
    """
    try:
        return decode_json(read_bytes(path, error))
    except ValueError as problem:
        if isinstance(problem, error):
            raise
        raise error(f"{path} is not valid JSON: {problem}") from None


def decode_json(text: bytes, **options: Any) -> Any:
    """Decode a JSON document; `options` are those of `json.loads`.

    Raises:
        ValueError: it is not JSON, or nested deeper than `MAX_DEPTH`: its repr would end in a RecursionError later.
    """
    deep = f"it is nested deeper than {MAX_DEPTH} levels"
    try:
        value = json.loads(text, **options)
    except RecursionError:
        raise ValueError(deep) from None
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return value
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for holder in level for item in _items(holder) if isinstance(item, (dict, list))]
        if not level:
            return value
    raise ValueError(deep)


def _items(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
