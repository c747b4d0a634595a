"""Paths as users give them, and files that a stranger may have made: opening one never blocks, reading one ends."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO

from bgert.errors import InvalidOptionError, ModelFolderError, ModelNotFoundError

__all__ = ["existing_folder", "open_regular", "read_regular", "user_path"]


def user_path(path: object, what: str = "path") -> Path:
    """A path that a user gave, with `~` expanded.

    Raises:
        InvalidOptionError: it is no path at all: empty, of another type, with a NUL, or `~` of nobody.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(text := os.fspath(path), str):
        raise InvalidOptionError(f"{what} is {type(path).__name__}: pass a str or a pathlib.Path")
    if not text:
        raise InvalidOptionError(f"{what} is an empty string: name a file or folder ('.' is the current one)")
    try:
        if b"\0" in os.fsencode(text):
            raise InvalidOptionError(f"{what} {text!r} holds a NUL, which no path can")
        return Path(text).expanduser()
    except UnicodeEncodeError:
        raise InvalidOptionError(f"{what} {text!r} holds a lone surrogate, which no path can") from None
    except RuntimeError:
        raise InvalidOptionError(f"{what} {text!r}: there is no such home folder; write the path in full") from None


def existing_folder(path: str | Path, what: str = "folder") -> Path:
    """The folder as a path, with `~` expanded.

    Raises:
        InvalidOptionError: it is no path.
        ModelNotFoundError: there is none, or it cannot be reached.
        ModelFolderError: it is a file.
    """
    folder = user_path(path)
    try:
        mode = folder.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise ModelNotFoundError(f"no such {what}: {folder}") from None
    except OSError as error:
        name = str(folder)
        shown = name if len(name) < 200 else f"{name[:100]}... ({len(name)} letters)"
        raise ModelNotFoundError(f"no such {what}: {shown}: {error.strerror}") from None
    if not stat.S_ISDIR(mode):
        raise ModelFolderError(f"{folder} is a file; pass the folder that holds it")
    return folder


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file for reading.

    Raises:
        OSError: it cannot be opened, or is a FIFO, a device, a socket or a folder.
    """
    _require_regular(path.stat().st_mode)  # before opening, which some devices notice
    flags = os.O_RDONLY
    for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    handle = os.open(path, flags)
    try:
        _require_regular(os.fstat(handle).st_mode)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        OSError: it cannot be read, is no regular file, is larger, or changes meanwhile.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, and at most {most:,} are read")
        content = file.read(size + 1)
    if len(content) != size:
        raise OSError(errno.EIO, "its size changed while it was read")
    return content


def _require_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a pipe, a device or a socket, not a file")
