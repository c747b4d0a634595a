"""Where TensorRT engines are kept, and when one may be loaded.

An engine is native code for one GPU, driver and TensorRT version, or one of TensorRT for RTX for its targets and one
version: it is built here, never downloaded, and loaded only from a folder that nobody else can write. Beside each plan
is a JSON record of everything that went into it (`recipe.py`). Its key is the SHA-256 of that; the plan's own SHA-256
is checked before TensorRT sees a byte. The record is replaced last, so there is never half an engine.

The folder is `engines` in that of `bgert.cache_folder`.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgert.backends.tensorrt.recipe import FORMAT, EngineRecord, Environment, Profile, Recipe
from bgert.cache_folder import cache_folder
from bgert.errors import EngineError, EngineNotBuiltError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["EngineCache", "UntrustedCacheError"]

_BUILD = "run `bgert build` on the model folder"


class UntrustedCacheError(IntegrityError):
    """Others could have written into the cache; building again would not mend that."""


class EngineCache:
    """The engines of one user on one machine.

    Args:
        root: folder, made with mode 0700 when something is stored; None for the default.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_folder() / "engines"

    def find(self, graph: str, precision: str, here: Environment) -> EngineRecord:
        """The newest engine of a graph that runs here.

        Raises:
            EngineNotBuiltError: there is none, or those that there are were built for something else; it says what.
            IntegrityError: the cache can be written by others.
        """
        reasons = []
        for path in self._records(graph):
            record = self._read(path)
            if record is None:
                reasons.append(f"{path.name} cannot be read")
                continue
            if record.recipe.precision != precision:
                continue
            reason = record.recipe.environment.mismatch(here)
            if reason is None:
                return record
            reasons.append(reason)
        if reasons:
            raise EngineNotBuiltError(f"no TensorRT engine for this model runs here ({'; '.join(reasons)}): {_BUILD}")
        raise EngineNotBuiltError(f"there is no TensorRT engine of this model in {self.root}: {_BUILD}")

    def stale(self, recipe: Recipe) -> list[str]:
        """Why engines of the same graph are not the one asked for, for the person who waits for a build."""
        found = []
        for path in self._records(recipe.graph):
            record = self._read(path)
            if record is not None and record.recipe.precision == recipe.precision and record.recipe != recipe:
                reason = record.recipe.environment.mismatch(recipe.environment)
                found.append(reason or "it was built with other profiles or options")
        return found

    def lookup(self, recipe: Recipe) -> EngineRecord | None:
        """The engine of exactly this recipe, whole; None where there is none.

        Raises:
            IntegrityError: it is damaged, or the cache can be written by others.
        """
        path = self._folder(recipe.graph) / f"{recipe.key()}.json"
        if not os.path.lexists(path):
            return None
        self._trust(path.parent)
        record = self._read(path)
        if record is None or record.recipe != recipe:
            raise IntegrityError(f"{path} is not the record of an engine: {_BUILD}")
        self.load(record)
        return record

    def load(self, record: EngineRecord) -> bytes:
        """The plan, checked.

        Raises:
            IntegrityError: it is missing, truncated, changed, or others could have written it.
        """
        path = self._folder(record.recipe.graph) / record.plan
        plan = _read_own(path)
        if len(plan) != record.size or hashlib.sha256(plan).hexdigest() != record.sha256:
            raise IntegrityError(f"{path} is not the plan that was built ({len(plan)} bytes): {_BUILD}")
        return plan

    def store(self, recipe: Recipe, plan: bytes, **about: Any) -> EngineRecord:
        """Keep an engine; `about` are the other fields of its record. What it replaces is removed.

        Raises:
            EngineError: the cache cannot be written; what was there stays.
        """
        folder = self._make(self._folder(recipe.graph))
        digest = hashlib.sha256(plan).hexdigest()
        key = recipe.key()
        record = EngineRecord(recipe, f"{key}-{digest[:16]}.plan", len(plan), digest, **about)
        try:
            _write_atomically(folder / record.plan, plan)
            text = json.dumps(asdict(record), indent=2, sort_keys=True) + "\n"
            _write_atomically(folder / f"{key}.json", text.encode())
        except OSError as error:
            raise EngineError(f"cannot write into {folder}: {error.strerror}") from error
        for old in folder.glob(f"{key}-*"):
            if not old.name.startswith(Path(record.plan).stem):
                old.unlink(missing_ok=True)
        return record

    def kernels(self, record: EngineRecord, here: Environment) -> bytes:
        """What TensorRT for RTX compiled of an engine for this GPU and driver, or nothing.

        Raises:
            IntegrityError: others could have written it.
        """
        return _kept(self._kernels_path(record, here))

    def store_kernels(self, record: EngineRecord, here: Environment, content: bytes) -> None:
        """Keep them for the next process.

        Raises:
            EngineError: they cannot be written.
        """
        self._keep(self._kernels_path(record, here), content)

    def timing(self, here: Environment) -> bytes:
        """TensorRT's timing cache for this GPU and version, or nothing.

        Raises:
            IntegrityError: others could have written it.
        """
        return _kept(self._timing_path(here))

    def store_timing(self, here: Environment, cache: bytes) -> None:
        """Keep the timing cache of a build for the next.

        Raises:
            EngineError: it cannot be written.
        """
        self._keep(self._timing_path(here), cache)

    @contextmanager
    def building(self, recipe: Recipe) -> Iterator[None]:
        """Hold the lock of a recipe.

        Raises:
            EngineError: somebody else is building the same.
        """
        import fcntl

        folder = self._make(self._folder(recipe.graph))
        path = folder / f"{recipe.key()}.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(lock, 32).decode("ascii", "replace").strip()
                raise EngineError(
                    f"another build{f' (process {holder})' if holder else ''} is making this engine: wait for it"
                ) from None
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(lock)  # the file stays: removing it would let two builders hold two files of one name

    def _folder(self, graph: str) -> Path:
        return self.root / graph[:32]

    def _timing_path(self, here: Environment) -> Path:
        return self.root / "timing" / _digest_of(here)

    def _kernels_path(self, record: EngineRecord, here: Environment) -> Path:
        return self._folder(record.recipe.graph) / f"{Path(record.plan).stem}-{_digest_of(here)}.kernels"

    def _records(self, graph: str) -> Sequence[Path]:
        """The records of a graph, newest first."""
        folder = self._folder(graph)
        if not os.path.lexists(folder):
            return []
        self._trust(folder)
        return sorted(folder.glob("*.json"), key=lambda path: path.lstat().st_mtime_ns, reverse=True)

    def _read(self, path: Path) -> EngineRecord | None:
        """A record, or None if it is damaged or of another format."""
        try:
            raw = json.loads(_read_own(path))
            recipe = dict(raw.pop("recipe"))
            recipe["environment"] = Environment(**recipe["environment"])
            recipe["profiles"] = [Profile(**profile) for profile in recipe["profiles"]]
            record = EngineRecord(recipe=Recipe(**recipe), **raw)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        named = f"{record.recipe.key()}.json" == path.name and Path(str(record.plan)).name == record.plan
        return record if named and record.recipe.format == FORMAT else None

    def _keep(self, path: Path, content: bytes) -> None:
        """Write what a later process is quicker with; EngineError if it cannot be written."""
        self._make(path.parent)
        try:
            _write_atomically(path, content)
        except OSError as error:
            raise EngineError(f"cannot write {path}: {error.strerror}") from error

    def _make(self, folder: Path) -> Path:
        try:
            for part in (self.root, folder):
                part.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EngineError(f"cannot make {folder}: {error.strerror}: set BGERT_CACHE to another folder") from error
        self._trust(folder)
        return folder

    def _trust(self, folder: Path) -> None:
        """Raise IntegrityError unless the folder and the root are this user's alone."""
        for part in (self.root, folder):
            about = part.lstat()
            if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o077:
                raise UntrustedCacheError(
                    f"{part} must be a folder of your own with mode 0700, because engines are native code: "
                    f"`chmod 700 {part}`, or set BGERT_CACHE to another folder"
                )


def _digest_of(here: Environment) -> str:
    """Names a GPU, its driver and a version."""
    about = json.dumps([here.tensorrt, here.gpu, here.compute_capability, here.multiprocessors, here.driver])
    return hashlib.sha256(about.encode()).hexdigest()[:32]


def _kept(path: Path) -> bytes:
    """What `_keep` wrote, or nothing."""
    return _read_own(path) if os.path.lexists(path) else b""


def _read_own(path: Path) -> bytes:
    """A regular file of this user's that nobody else can write, read without following a link."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise IntegrityError(f"{path} is missing: {_BUILD}") from None
    except OSError as error:
        raise IntegrityError(f"cannot read {path}: {error.strerror}: {_BUILD}") from error
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o022:
            raise IntegrityError(f"{path} is no file of your own, or others can write it: refused; {_BUILD}")
        return file.read()


def _write_atomically(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
