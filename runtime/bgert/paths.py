"""Paths as users give them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bgert.errors import InvalidOptionError, ModelFolderError, ModelNotFoundError

__all__ = ["existing_folder", "user_path"]


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
