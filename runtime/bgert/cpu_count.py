"""How many cores this process may use (CPU affinity and the cgroup's CPU quota), and a limit that calls share."""

from __future__ import annotations

import math
import os
import threading
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bgert.errors import DeviceWarning, warn_caller
from bgert.lifecycle import on_fork

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["CoreLimit", "available_cpus", "omp_threads", "threads_of", "warn_above_cores"]


def available_cpus() -> int:
    """Cores that the process may use, at least 1; a fractional CPU quota is rounded up."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    quota = _own_quota()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def omp_threads() -> int | None:
    """Threads that OMP_NUM_THREADS asks for (the first of a list), at most the available cores; None if unsaid."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(int(first), available_cpus()) if first.isdecimal() and int(first) > 0 else None


def threads_of(threads: int | None) -> int:
    """Threads that a model opened with this option works with."""
    return threads or omp_threads() or available_cpus()


def warn_above_cores(threads: int | None) -> None:
    """Warn where more threads were asked for than the process has cores."""
    if threads is not None and threads > (cores := available_cpus()):
        warn_caller(
            f"threads is {threads} and this process may use {cores} cores: more threads only slow it down",
            DeviceWarning,
        )


@lru_cache(maxsize=1)
def _own_quota() -> float | None:
    return cgroup_quota(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))


def cgroup_quota(mount: Path, membership: Path) -> float | None:
    """The smallest CPU quota of the process's cgroups and their parents, in cores; None if there is none.

    Args:
        mount: where the cgroup file systems are mounted.
        membership: the process's `/proc/self/cgroup`.
    """
    quotas: list[float] = []
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            quotas.extend(_quotas_v2(mount, path))
        elif "cpu" in controllers.split(","):
            for name in dict.fromkeys((controllers, "cpu", "cpu,cpuacct", "cpuacct,cpu")):
                quotas.extend(_quotas_v1(mount / name, path))
    return min(quotas, default=None)


def _quotas_v2(mount: Path, path: str) -> Iterator[float]:
    for folder in _folders(mount, path):
        parts = _read(folder / "cpu.max").split()
        if len(parts) == 2:
            yield from _quota(parts[0], parts[1])


def _quotas_v1(mount: Path, path: str) -> Iterator[float]:
    for folder in _folders(mount, path):
        yield from _quota(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _folders(mount: Path, path: str) -> Iterator[Path]:
    """The cgroup's folder and those above it. A container may see only the mount's root, which is among them."""
    own = PurePosixPath("/" + path.strip().strip("/"))
    for folder in (own, *own.parents):
        if ".." not in folder.parts:
            yield mount / str(folder)[1:]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _quota(microseconds: str, period: str) -> Iterator[float]:
    """Cores from a quota such as `150000` a period of `100000`; `max` and -1 mean no limit."""
    if microseconds.isdigit() and period.isdigit() and int(period) > 0 and int(microseconds) > 0:
        yield int(microseconds) / int(period)


class CoreLimit:
    """Cores that all calls of one model share, whatever threads they come from."""

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self._taken: dict[object, int] = {}
        self.forked()
        on_fork(self)

    def forked(self) -> None:
        """In a forked child: those who held cores are not there."""
        self._taken.clear()
        self._lock = threading.Lock()
        self._given_back = threading.Condition(self._lock)

    def take(self, least: int, most: int | None = None) -> _Share:
        """A context that waits for `least` cores; its value is how many it got, up to `most`."""
        return _Share(self, min(least, self.cores), min(most or least, self.cores))

    def _take(self, share: _Share) -> int:
        with self._lock:
            while (free := self.cores - sum(self._taken.values())) < share.least:
                # A Ctrl-C may cut a notification off: look again now and then.
                self._given_back.wait(0.1)
            self._taken[share] = granted = min(free, share.most)
        return granted

    def _give_back(self, share: _Share) -> None:
        self._taken.pop(share, None)
        with self._lock:
            self._given_back.notify_all()


class _Share:
    """Some of a limit's cores. One that was interrupted on its way in holds nothing."""

    __slots__ = ("_limit", "least", "most")

    def __init__(self, limit: CoreLimit, least: int, most: int) -> None:
        self._limit, self.least, self.most = limit, least, most

    def __enter__(self) -> int:
        try:
            return self._limit._take(self)
        except BaseException:
            self._limit._give_back(self)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limit._give_back(self)
