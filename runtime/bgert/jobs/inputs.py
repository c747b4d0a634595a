"""Which files a job reads: names, patterns and folders to one list in one order."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from bgert.errors import InputFileError, InvalidOptionError
from bgert.jobs.text_files import reading
from bgert.paths import user_path

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ENDINGS", "InputFile", "find_inputs"]

ENDINGS = (".parquet", ".jsonl", ".txt")
STDIN = "-"
_BLOCK = 1 << 20
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass
class InputFile:
    """One file of a job, or stdin."""

    name: str
    """As it is opened, and named in messages."""
    kind: str
    """`parquet`, `jsonl` or `txt`."""
    keys: dict[str, str | None] = field(default_factory=dict)
    """What the folders that it was found in say about its rows: `date=2026-11-27/` is {"date": "2026-11-27"}."""
    _state: tuple[int, int, int] | None = None

    def digest(self) -> str:
        """Hex SHA-256 of the file, which `check_unchanged` then holds it to.

        Raises:
            InputFileError: it cannot be read, or can be read only once.
        """
        with reading(self.name):
            if self.name == STDIN or not stat.S_ISREG(Path(self.name).stat().st_mode):
                raise InputFileError(f"{self.name} can be read only once: --resume needs files")
            sum_ = hashlib.sha256()
            with Path(self.name).open("rb") as file:
                self._state = _state_of(os.fstat(file.fileno()))
                while block := file.read(_BLOCK):
                    sum_.update(block)
        return sum_.hexdigest()

    def check_unchanged(self) -> None:
        """Raise InputFileError if the file is another than the one that `digest` read."""
        with reading(self.name):
            if self._state is not None and _state_of(Path(self.name).stat()) != self._state:
                raise InputFileError(f"{self.name} has changed while it was read: run the job again")


def _state_of(about: os.stat_result) -> tuple[int, int, int]:
    return about.st_ino, about.st_size, about.st_mtime_ns


def find_inputs(names: Sequence[str], *, stdin: str = "txt") -> list[InputFile]:
    """The files of a job in order: that of `names`, and by name within a pattern or a folder.

    Args:
        names: files; patterns such as `part-*.parquet`; folders, for all files in and below them whose ending is one of
            ENDINGS and that do not begin with `.` or `_`; or `-` alone.
        stdin: what `-` is, `txt` or `jsonl`.

    Raises:
        InputFileError: there is no such file, or none that fits.
        InvalidOptionError: a file has another ending, comes twice, or is of another kind than the rest.
    """
    found: list[InputFile] = []
    for name in names:
        if name == STDIN:
            if len(names) > 1:
                raise InvalidOptionError("input - is stdin, which goes with no other input")
            return [InputFile(STDIN, stdin)]
        path = user_path(name, "input")
        if path.is_dir():
            found += _in_folder(path, path)
        elif not os.path.lexists(path) and glob.has_magic(str(path)):
            matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  (it may be absolute)
            if not matches:
                raise InputFileError(f"{name}: no file has such a name")
            for match in map(Path, matches):
                found += _in_folder(match, match) if match.is_dir() else [_one(match)]
        else:
            found.append(_one(path))
    seen: dict[str, str] = {}
    for file in found:
        real = os.path.realpath(file.name)
        if real in seen:
            raise InvalidOptionError(f"{file.name} is among the inputs twice: name it once")
        seen[real] = file.name
    first = found[0]
    for file in found:
        if file.kind != first.kind:
            raise InvalidOptionError(f"inputs of two kinds, {first.name} and {file.name}: make two jobs of them")
        if file.keys.keys() != first.keys.keys():
            raise InvalidOptionError(f"{file.name} and {first.name} lie in folders with different keys")
    return found


def _one(path: Path, keys: dict[str, str | None] | None = None) -> InputFile:
    if path.suffix.lower() not in ENDINGS:
        raise InvalidOptionError(f"{path}: input must end in {', '.join(ENDINGS)}, or be - for stdin, or a folder")
    return InputFile(str(path), path.suffix.lower()[1:], keys or {})


def _in_folder(path: Path, root: Path) -> list[InputFile]:
    """The files of a folder in the order of their names, folders among them, keys of `root` left out."""
    found = []
    with reading(str(path)):
        for entry in sorted(path.iterdir()):
            if entry.name.startswith((".", "_")):
                continue
            if entry.is_dir():
                found += _in_folder(entry, root)
            elif entry.suffix.lower() in ENDINGS:
                found.append(_one(entry, _keys(entry.relative_to(root))))
    if path == root and not found:
        raise InputFileError(f"{path}: no file in it ends in {', '.join(ENDINGS)}")
    return found


def _keys(path: Path) -> dict[str, str | None]:
    """The keys of Hive's partitions in a path."""
    pairs = [part.split("=", 1) for part in path.parts[:-1] if "=" in part]
    return {name: None if value == _HIVE_NULL else unquote(value) for name, value in pairs}
