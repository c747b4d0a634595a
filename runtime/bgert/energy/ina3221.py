"""INA3221: Jetson's monitors of its supply rails, by Linux's hwmon. They give power, which is summed up over time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Ina3221"]

FOLDER = Path("sys/bus/i2c/drivers")
CHANNELS = (1, 2, 3)  # what hwmon numbers from 4 on are sums and shunts of the same
INPUTS = ("VDD_IN", "POM_5V_IN", "POM_3V3_IN")
"""Rails that feed the whole module, by the names of Jetson's device trees: the others are behind them."""


class Ina3221:
    """One rail: its voltage times its current, joined by straight lines between readings.

    Args:
        folder: of the monitor in hwmon.
        channel: from 1.
        label: the rail's name.
        clock: seconds.

    Raises:
        OSError: it cannot be read.
    """

    shortest = 0.5
    period = 0.05

    def __init__(self, folder: Path, channel: int, label: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = f"INA3221 {label}"
        self.covers = "the whole module" if label in INPUTS else f"the rail {label} alone"
        self._files = [folder / f"{what}{channel}_input" for what in ("in", "curr")]
        self._clock = clock
        self._joules = 0.0
        self._last = self._now()

    def read(self) -> float:
        """Joules since it was opened.

        Raises:
            OSError: it cannot be read any more.
        """
        (before, power), (moment, now) = self._last, self._now()
        self._joules += (moment - before) * (power + now) / 2
        self._last = (moment, now)
        return self._joules

    def _now(self) -> tuple[float, float]:
        """A moment and watts: hwmon has millivolts and milliamperes."""
        volts, amperes = (int(_read(file)) / 1e3 for file in self._files)
        return self._clock(), volts * amperes

    @classmethod
    def rails(cls, root: Path = Path("/"), *, clock: Callable[[], float] = time.monotonic) -> list[Ina3221]:
        """The rail that feeds the module, or where none is named so all there are.

        Args:
            root: where `sys` lies.
            clock: seconds.

        Raises:
            OSError: there is none, or none can be read; the message says which.
        """
        found = []
        for folder in sorted((root / FOLDER).glob("ina3221*/*/hwmon/hwmon*")):
            for channel in CHANNELS:
                file = folder / f"in{channel}_label"
                if file.is_file() and (folder / f"curr{channel}_input").is_file():
                    found.append((_read(file), folder, channel))
        if not found:
            raise OSError("no INA3221 (the monitor of Jetson's rails) here")
        whole = [rail for rail in found if rail[0] in INPUTS]
        rails, why = [], ""
        for label, folder, channel in whole or found:
            try:
                rails.append(cls(folder, channel, label, clock=clock))
            except OSError as error:  # noqa: PERF203 - a channel that is switched off
                why = str(error)
        if not rails:
            raise OSError(why)
        return rails


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except OSError as error:
        raise OSError(f"INA3221: {path} cannot be read ({error.strerror})") from None
