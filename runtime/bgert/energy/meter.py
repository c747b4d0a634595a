"""Which counters tell of a device, and what they counted while something ran."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bgert.energy.ina3221 import Ina3221
from bgert.energy.nvml import Nvml
from bgert.energy.rapl import Rapl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Counter", "Meter", "Missing", "Watch", "meter_for"]

FIGURES = ("joules", "joules_a_call", "tokens_a_joule", "watts")


class Counter(Protocol):
    """What counts energy."""

    name: str
    covers: str
    """Whose energy it is."""
    shortest: float
    """Seconds: of less time it says too little."""
    period: float
    """Seconds in which it must be read again."""

    def read(self) -> float:
        """Joules since some moment; an OSError where it cannot be read."""
        ...


@dataclass(frozen=True)
class Missing:
    """A counter that would tell, and why it cannot."""

    name: str
    why: str


class Watch:
    """A stretch of time, and the joules that each counter counted in it."""

    def __init__(self, sources: Sequence[Counter | Missing]) -> None:
        self._sources = sources
        counters = [source for source in sources if not isinstance(source, Missing)]
        self._counters = counters
        self._failed: dict[str, str] = {}
        self._stop = threading.Event()
        self._first = [self._read(counter) for counter in counters]
        self._begun = time.monotonic()
        self._joules: list[float] = []
        self._seconds = 0.0
        self._threads = [
            threading.Thread(target=self._keep_reading, args=(counter,), name="bgert-energy", daemon=True)
            for counter in counters
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """The end of it."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._seconds = time.monotonic() - self._begun
        self._joules = [self._read(counter) - first for counter, first in zip(self._counters, self._first, strict=True)]

    def _read(self, counter: Counter) -> float:
        try:
            return counter.read()
        except OSError as error:
            self._failed[counter.name] = str(error)
            return 0.0

    def _keep_reading(self, counter: Counter) -> None:
        while not self._stop.wait(counter.period):
            self._read(counter)

    def facts(self, calls: int, tokens: int) -> list[dict[str, Any]]:
        """What each counter tells of so many calls and tokens, the device's own first.

        Returns:
            `counter`, what it `covers`, `seconds`, `joules`, `joules_a_call`, `tokens_a_joule`, mean `watts`, and
            `why` those are None where they are.
        """
        joules = iter(self._joules)
        return [
            self._entry(source.name, None, source.why)
            if isinstance(source, Missing)
            else self._of(source, next(joules), calls, tokens)
            for source in self._sources
        ]

    def _of(self, counter: Counter, joules: float, calls: int, tokens: int) -> dict[str, Any]:
        why = self._failed.get(counter.name)
        if why is None and self._seconds < counter.shortest:
            why = f"the calls took {self._seconds:.2g} s, and it takes {counter.shortest:g} s to say (--calls)"
        if why is None and joules <= 0:
            why = "it stood still"
        if why is not None:
            return self._entry(counter.name, counter.covers, why)
        return self._entry(
            counter.name,
            counter.covers,
            None,
            joules=float(f"{joules:.5g}"),
            joules_a_call=float(f"{joules / calls:.4g}"),
            tokens_a_joule=float(f"{tokens / joules:.4g}"),
            watts=float(f"{joules / self._seconds:.4g}"),
        )

    def _entry(self, name: str, covers: str | None, why: str | None, **figures: float) -> dict[str, Any]:
        about = {"counter": name, "covers": covers, "seconds": round(self._seconds, 3)}
        return {**about, **dict.fromkeys(FIGURES), **figures, "why": why}


class Meter:
    """The counters of a device.

    Args:
        sources: those that tell of it, its own first.
    """

    def __init__(self, sources: Sequence[Counter | Missing]) -> None:
        self.sources = list(sources)

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """Count for as long as the block lasts; `facts` is for afterwards."""
        watch = Watch(self.sources)
        try:
            yield watch
        finally:
            watch.stop()


def meter_for(device: str, *, root: Path = Path("/"), nvml: Any = None, cuda: Any = None) -> Meter:
    """The counters that tell of a model's device.

    A Jetson's rails feed all of it, the GPU too. Elsewhere a GPU's board is counted by NVML, and the processors, which
    work for the GPU as well, by RAPL: side by side, for what one has in its count the other has not.

    Args:
        device: as a model names its own.
        root: where `sys` lies.
        nvml: NVML, or what stands for it in tests; None loads it.
        cuda: CUDA's driver, likewise.
    """

    def opened(name: str, counters: Callable[[], Sequence[Counter]]) -> Sequence[Counter | Missing]:
        try:
            return counters()
        except OSError as error:
            return [Missing(name, str(error))]

    rails = opened("INA3221", lambda: Ina3221.rails(root))
    if not isinstance(rails[0], Missing):
        return Meter(rails)
    sources = list(opened("RAPL", lambda: [Rapl(root)]))
    if device != "cpu":
        sources = [*opened("NVML", lambda: [Nvml(device, nvml=nvml, cuda=cuda)]), *sources]
    if all(isinstance(source, Missing) for source in sources):
        sources += rails
    return Meter(sources)
