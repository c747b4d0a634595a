"""A file that is there whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from bgert.errors import InvalidOptionError, OutputFileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["atomic_file"]


@contextmanager
def atomic_file(path: Path, beside: Path | None = None) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of `path` when the block ends well; else the old file stays.

    Args:
        path: the file.
        beside: what the unfinished file lies beside and is named after, on the same file system; None for `path`.

    Raises:
        InvalidOptionError: no file can be made there.
        OutputFileError: it cannot be written to its end.
    """
    # Named before it exists: a signal may come at any time after.
    near = beside or path
    temporary = near.with_name(f".{near.name}.{secrets.token_hex(4)}")
    try:
        try:
            file = temporary.open("x+b")
        except OSError as error:
            raise InvalidOptionError(f"cannot write into {near.parent}: {error.strerror}") from None
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            # What the block read, say, is not this file's; a write to it has an errno and no file name.
            if error.errno is None or (error.filename is not None and error.filename != os.fspath(temporary)):
                raise
            raise OutputFileError(f"cannot write {path}: {os.strerror(error.errno)}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
