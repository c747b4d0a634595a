"""Atomic writing of a folder: a temporary folder beside the destination, flushed to disk, then one rename.

A destination that is replaced changes names with the new folder in one step where the system can do that (Linux, most
file systems): at no moment is there no model. While an export runs it holds a lock on `.NAME.bgert-export.lock`;
whoever holds it may remove what a killed export left behind. Readers see the whole destination or none of it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from bgert.model_folder import MANIFEST_NAME
from bgert.paths import user_path
from bgert_export.errors import DestinationError, WriteError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Staging"]


class Staging:
    """A context manager around the writing of `destination`; leaving it without `commit` leaves nothing behind.

    Args:
        destination: the folder to make. Its parent is made if need be.
        force: replace a destination that exists, if it is a model folder or empty.

    Raises:
        DestinationError: on entering: the destination exists, or another export is writing it.
        WriteError: on entering: the parent cannot be written.
    """

    def __init__(self, destination: str | Path, *, force: bool = False) -> None:
        self.destination = Path(os.path.abspath(user_path(destination, "the destination")))  # noqa: PTH100 - keeps symlinks
        self._force = force
        stem = f".{self.destination.name}.bgert-export"
        parent = self.destination.parent
        self.folder = parent / f"{stem}.tmp"
        """Where to write."""
        self._replaced = parent / f"{stem}.old"
        self._lock_path = parent / f"{stem}.lock"
        self._lock: int | None = None

    def __enter__(self) -> Staging:
        self.check()
        try:
            self.destination.parent.mkdir(parents=True, exist_ok=True)
            self._acquire()
            self._recover()
            self.check()  # again, now that nobody else can make it
            self.folder.mkdir()
        except OSError as error:
            self._release()
            if isinstance(error, DestinationError):
                raise
            raise WriteError(f"cannot write {self.destination}: {error.strerror or error}") from error
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            self._release()

    def commit(self) -> None:
        """Flush everything to disk and give the folder its name."""
        for root, _, names in os.walk(self.folder):
            for name in names:
                _flush(Path(root) / name)
            _flush(Path(root))
        if not self.destination.exists():
            self.folder.rename(self.destination)
        elif not _exchange(self.folder, self.destination):  # else the old folder is removed as a temporary one
            self.destination.rename(self._replaced)
            try:
                self.folder.rename(self.destination)
            except BaseException:
                self._replaced.rename(self.destination)
                raise
            shutil.rmtree(self._replaced, ignore_errors=True)
        _flush(self.destination.parent)

    def check(self) -> None:
        """Raise DestinationError if the destination exists and may not be replaced, WriteError if that is not seen."""
        try:
            self._check()
        except PermissionError as error:
            raise WriteError(f"cannot read {self.destination}: {error.strerror}") from error

    def _check(self) -> None:
        if not os.path.lexists(self.destination):
            return
        if not self._force:
            raise DestinationError(f"{self.destination} exists: pass --force to replace it, or choose another folder")
        # Only what an export could have written is ever deleted.
        entries = list(self.destination.iterdir()) if self.destination.is_dir() else []
        ours = self.destination.is_dir() and (not entries or (self.destination / MANIFEST_NAME).is_file())
        if not ours or self.destination.is_symlink():
            raise DestinationError(f"{self.destination} exists and is no model folder: not even --force replaces it")

    def _recover(self) -> None:
        """Clear away what a killed export left; called with the lock held."""
        if self._replaced.exists():
            if self.destination.exists():
                shutil.rmtree(self._replaced)
            else:
                self._replaced.rename(self.destination)
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _acquire(self) -> None:
        import fcntl

        while True:
            lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(lock, 32).decode("ascii", "replace").strip()
                os.close(lock)
                raise DestinationError(
                    f"another export{f' (process {holder})' if holder else ''} is writing {self.destination}: "
                    "wait for it, or choose another folder"
                ) from None
            except BaseException:
                os.close(lock)
                raise
            try:
                current = self._lock_path.stat().st_ino == os.fstat(lock).st_ino
            except FileNotFoundError:
                current = False
            if current:
                break
            os.close(lock)  # its holder removed the file between our open and our lock
        self._lock = lock  # from here on `_release` gives it back, whatever fails
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)

    def _release(self) -> None:
        if self._lock is not None:
            lock, self._lock = self._lock, None
            try:
                self._lock_path.unlink(missing_ok=True)
            finally:
                os.close(lock)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change names in one step; False, and nothing done, where the system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
