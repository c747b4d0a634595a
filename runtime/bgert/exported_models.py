"""Checkpoints that were named instead of model folders: each is exported once, into a cache, and opened from there.

A model folder of the cache is named by a digest of all that went into it: the hub id and its commit, or the folder and
the SHA-256 of each of its files, the weights among them; the targets; bgert's version; whether PyTorch compared it. So
what is found is what would be made. It lies in `models` in the folder of `bgert.cache_folder`, beside a file with the
hub's last commit for those who are offline. Export makes a folder whole or not at all; here is a lock that waits.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import json
import logging
import os
import stat
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgert import __version__
from bgert.cache_folder import exports_folder
from bgert.errors import (
    BgertError,
    EngineNotInstalledError,
    IntegrityError,
    ModelFolderError,
    UnverifiedWarning,
    install_extra,
    warn_caller,
)
from bgert.model_folder import Manifest, sha256_of
from bgert.progress import in_terminal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_log = logging.getLogger(__name__)

__all__ = ["ExportedModels", "targets_for"]

FORMAT = 2
_CPU_TARGETS = {"bf16": "cpu-bf16", "int8": "cpu-int8"}
_READ = ("*.json", "*.txt", "*.model", "*.safetensors", "*.bin", "*_*/config.json")
"""The files of a checkpoint that export or verification may read."""


def targets_for(device: object, precision: object) -> tuple[str, ...]:
    """What to export for a device and precision; `cpu` for those that nobody knows, which opening then refuses."""
    name = device if isinstance(device, str) else next(iter(device), "") if isinstance(device, (list, tuple)) else ""
    kind = str(name).partition(":")[0].partition("-")[0]
    if kind == "cuda":
        return ("cuda-fp8",) if precision == "fp8" else ("cuda",)
    if kind == "tensorrt":
        return ("tensorrt-bf16",) if precision == "bf16" else ("tensorrt",)
    return (_CPU_TARGETS.get(str(precision), "cpu"),)


class ExportedModels:
    """The exports of one checkpoint in the cache.

    Args:
        source: a hub id, or the folder of a checkpoint.
        targets: the graphs that are wanted.
    """

    def __init__(self, source: str | Path, targets: Sequence[str]) -> None:
        self._source = source
        self._targets = list(targets)
        self._root = exports_folder()
        name = source.replace("/", "--") if isinstance(source, str) else f"local--{source.resolve().name}"
        self._folder = self._root / name

    def last_commit(self) -> str | None:
        """The hub's commit when it was last asked; None if it never was."""
        try:
            if self._is_trusted():
                return (self._folder / "main").read_text("ascii").strip() or None
        except (OSError, ValueError):
            pass
        return None

    def folder(self, commit: str | None = None) -> Path:
        """The model folder of a commit of the hub, or of the local checkpoint as it is now; exported if need be.

        Raises:
            EngineNotInstalledError: it has to be exported, and the libraries for that are not here.
            IntegrityError: others could have written the cache.
            ModelFolderError: the cache cannot be written.
            BgertError: what `bgert_export.export` raises.
        """
        content = {"id": self._source, "revision": commit} if isinstance(self._source, str) else _content(self._source)
        proved, unproved = self._place(content, verify=True), self._place(content, verify=False)
        verify = all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))
        found = self._find(proved)
        if found is None and not verify:
            found = self._find(unproved)
        if found is None:
            try:
                found = self._export(proved if verify else unproved, commit, verify=verify)
            except ConnectionError:  # the hub went away since it was exported without PyTorch
                found = self._find(unproved)
                if found is None:
                    raise
        if commit is not None and commit != self.last_commit():
            with contextlib.suppress(OSError):  # a cache that is only read
                _write(self._folder / "main", commit)
        self._warn(found)
        return found

    def _place(self, content: dict[str, Any], *, verify: bool) -> Path:
        recipe = [FORMAT, __version__, content, self._targets, verify]
        text = json.dumps(recipe, sort_keys=True)
        return self._folder / hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def _find(self, folder: Path) -> Path | None:
        """A model folder that is whole, as far as sizes tell; opening it checks every digest."""
        if not folder.is_dir() or not self._is_trusted():
            return None
        try:
            entries = Manifest.read(folder).files()
            whole = all((folder / entry.name).stat().st_size == entry.size for entry in entries)
        except (ModelFolderError, OSError):
            return None
        return folder if whole else None

    def _export(self, folder: Path, commit: str | None, *, verify: bool) -> Path:
        name = str(self._source)
        try:
            export = importlib.import_module("bgert_export").export
            undecided = importlib.import_module("bgert_export.errors").UndecidedError
        except ImportError:
            raise _cannot_export(name, "bgert_export") from None
        with self._lock(folder):
            found = self._find(folder)  # another process may have made it meanwhile
            if found is not None:
                return found
            _say(f"{name} is a checkpoint: exporting it once, into {folder}")
            if folder.is_dir() and not (folder / "manifest.json").exists():
                (folder / "manifest.json").touch()  # damaged: export replaces model folders alone
            try:
                export(
                    self._source,
                    folder,
                    revision=commit,
                    targets=self._targets,
                    verify=verify,
                    force=True,
                    progress=_say,
                )
            except EngineNotInstalledError as error:
                raise _cannot_export(name, str(error)) from None
            except undecided as error:
                raise undecided(f"{error}, to `bgert export {name} -o DIR`, and load DIR") from None
            _log.info("exported %s for %s into %s", name, ", ".join(self._targets), folder)
            return folder

    def _warn(self, folder: Path) -> None:
        unproved = [entry for entry in Manifest.read(folder).graphs if entry.parity is None]
        if unproved:
            graphs = ", ".join(f"{entry.target} {entry.precision}" for entry in unproved)
            warn_caller(
                f"{self._source} was exported without a comparison with PyTorch ({graphs}): {install_extra('verify')} "
                "and load it again, on a machine that runs the graph",
                UnverifiedWarning,
            )

    @contextmanager
    def _lock(self, folder: Path) -> Iterator[None]:
        """Hold the lock of a model folder; wait for who has it."""
        import fcntl

        try:
            for part in (self._root, self._folder):
                part.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = folder.with_suffix(".lock")
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ModelFolderError(
                f"{self._source} is a checkpoint, and {self._folder} cannot be written ({error.strerror}) to export it "
                "there: set BGERT_CACHE to another folder"
            ) from error
        try:
            self._is_trusted()
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _say(f"another process is exporting {self._source}: waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)  # the file stays: removing it would let two hold two files of one name

    def _is_trusted(self) -> bool:
        """Raise IntegrityError where another user could have put a model of their own; False where there is nothing."""
        for part in (self._root, self._folder):
            try:
                about = part.lstat()
            except FileNotFoundError:
                return False
            except OSError as error:
                raise IntegrityError(f"cannot read {part}: {error.strerror}") from error
            if not stat.S_ISDIR(about.st_mode) or about.st_uid not in (0, os.geteuid()) or about.st_mode & 0o022:
                raise IntegrityError(
                    f"{part} must be a folder of your own (or root's) that nobody else can write: "
                    f"`chmod go-w {part}`, or set BGERT_CACHE to another folder"
                )
        return True


def _content(folder: Path) -> dict[str, Any]:
    """A local checkpoint: its path, for models are known by their names too, and what it holds."""
    paths = {path for pattern in _READ for path in folder.glob(pattern) if path.is_file()}
    try:
        digests = {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}
    except OSError as error:
        raise ModelFolderError(f"cannot read {error.filename or folder}: {error.strerror}") from error
    return {"path": str(folder.resolve()), "sha256": digests}


def _cannot_export(name: str, reason: str) -> BgertError:
    return EngineNotInstalledError(
        f"{name} is a checkpoint, which is exported on first use, and that cannot be done here ({reason}): "
        f"{install_extra('export')}, or export it elsewhere with `bgert export {name} -o DIR` and load DIR"
    )


def _say(line: str) -> None:
    if in_terminal():
        print(line, file=sys.stderr, flush=True)


def _write(path: Path, text: str) -> None:
    """Replace a small file in one step."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text + "\n")
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
