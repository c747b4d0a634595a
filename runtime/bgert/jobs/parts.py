"""The folder of a job that can go on after it was stopped: a file for each block of rows that is done.

A part's name says which rows of the input it covers, and it gets its name when it is whole. What is missing between the
parts is what is left to do. `_job.json` says whose they are; names with `_` or `.` before them are passed over by who
reads such folders.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bgert.errors import InvalidOptionError, OutputFileError
from bgert.jobs.atomic_file import atomic_file
from bgert.jobs.text_files import reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Parts", "open_parts"]

JOB_NAME = "_job.json"
_VERSION = 1
_NAME = re.compile(r"rows-(\d{12,})-(\d{12,})(\.[a-z]+)")


class Parts:
    """Parts of one job. Made by `open_parts`, which holds the folder for this process alone.

    Args:
        folder: where they lie.
        ending: of their names.
    """

    def __init__(self, folder: Path, ending: str) -> None:
        self.folder, self._ending = folder, ending
        self._spans: dict[tuple[int, int], Path] = {}
        for path in folder.iterdir():
            if match := _NAME.fullmatch(path.name):
                self._spans[int(match[1]), int(match[2])] = path
        stop = 0
        for start, end in sorted(self._spans):
            if start < stop:
                raise InvalidOptionError(f"{folder} has two parts with row {start}: remove the folder to begin anew")
            stop = end

    def __len__(self) -> int:
        return len(self._spans)

    @property
    def rows(self) -> int:
        """Rows of the input that are done."""
        return sum(stop - start for start, stop in self._spans)

    def holes(self) -> list[tuple[int, int | None]]:
        """Rows of the input that are to be done, from a row to before another; the last hole has no end."""
        holes: list[tuple[int, int | None]] = []
        row = 0
        for start, stop in sorted(self._spans):
            if row < start:
                holes.append((row, start))
            row = stop
        return [*holes, (row, None)]

    def path(self, start: int, stop: int) -> Path:
        """Where the part of these rows belongs."""
        return self.folder / f"rows-{start:012}-{stop:012}{self._ending}"

    def add(self, start: int, stop: int) -> None:
        """Count a part that was put there."""
        self._spans[start, stop] = self.path(start, stop)

    def paths(self) -> list[Path]:
        """All parts in the order of their rows."""
        return [path for _, path in sorted(self._spans.items())]

    def remove(self) -> None:
        """Remove the folder with what this job put there; what else lies there stays."""
        for path in [*self._spans.values(), self.folder / JOB_NAME]:
            path.unlink(missing_ok=True)
        try:
            self.folder.rmdir()
        except OSError:
            return


@contextmanager
def open_parts(folder: Path, ending: str, job: dict[str, Any]) -> Iterator[Parts]:
    """The parts of a job, of this run or of earlier ones.

    Args:
        folder: made if it is not there.
        ending: of the parts' names.
        job: all that the results depend on, as JSON; what only has to be readable is in its `about`.

    Raises:
        InvalidOptionError: the folder holds something else, or parts of another job; another process works on them.
        OutputFileError: it cannot be written.
    """
    job = json.loads(json.dumps({"version": _VERSION, **job}))
    try:
        folder.mkdir(exist_ok=True)
        handle = os.open(folder, os.O_RDONLY) if os.name == "posix" else None
    except FileExistsError:
        raise InvalidOptionError(f"{folder} is a file, and the parts of the job belong there: move it") from None
    except OSError as error:
        raise OutputFileError(f"cannot make the folder {folder}: {error.strerror}") from None
    try:
        if handle is not None:
            _lock(handle, folder)
        path = folder / JOB_NAME
        if path.exists():
            with reading(str(path)):
                _check_same(json.loads(path.read_bytes()), job, folder)
        elif any(not name.name.startswith(".") for name in folder.iterdir()):
            raise InvalidOptionError(f"{folder} is not empty and has no {JOB_NAME}: name another folder")
        for left in folder.glob(".*"):  # of a process that was killed
            if left.name.startswith((".rows-", f".{JOB_NAME}", ".whole")):
                left.unlink()
        if not path.exists():
            with atomic_file(path) as file:
                file.write(json.dumps(job, indent=2).encode() + b"\n")
        yield Parts(folder, ending)
    finally:
        if handle is not None:
            os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InvalidOptionError(f"another process works on the job in {folder}: wait for it, or stop it") from None
    except OSError:  # a file system without locks
        return


def _check_same(old: Any, new: dict[str, Any], folder: Path) -> None:
    """Raise InvalidOptionError, naming the first thing that differs, unless the jobs are one."""
    old = old if isinstance(old, dict) else {}
    for name in new:
        if name == "about" or old.get(name) == new[name]:
            continue
        if name == "inputs":
            what = "the input files are not the same, or have changed"
        elif name == "model":
            what = "the model is another"
        else:
            what = f"{name} was {old.get(name)!r} and is {new[name]!r}"
        raise InvalidOptionError(
            f"{folder} holds parts of another job: {what}. Name another output, or remove the folder to begin anew"
        )
