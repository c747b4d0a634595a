"""RAPL: energy that processors count themselves, by Linux's powercap (Intel's, and AMD's under the same name)."""

from __future__ import annotations

from pathlib import Path

__all__ = ["Rapl"]

FOLDER = Path("sys/class/powercap")


class Rapl:
    """The packages of all sockets, and their memory where it is counted beside them.

    Zones within a package (`core`, `uncore`) are in its count already, and `psys` counts the packages again.

    Args:
        root: where `sys` lies.

    Raises:
        OSError: there is none, or it may not be read; the message says which.
    """

    covers = "the processors' packages"
    shortest = 0.05
    """Seconds below which it says too little: it is brought up to date each millisecond."""
    period = 10.0
    """Seconds in which it must be read again: it wraps around, after minutes at the earliest."""

    def __init__(self, root: Path = Path("/")) -> None:
        zones = []
        for zone in sorted((root / FOLDER).glob("intel-rapl:*")):
            name = _read(zone / "name")
            if name.startswith("package-") or name == "dram":
                zones.append((zone, name))
        if not any(name != "dram" for _, name in zones):
            raise OSError("no RAPL here (/sys/class/powercap has no package: a virtual machine or container, say)")
        if any(name == "dram" for _, name in zones):
            self.covers += " and memory"
        self.name = "RAPL " + " + ".join(name for _, name in zones)
        self._files = [zone / "energy_uj" for zone, _ in zones]
        self._ranges = [int(_read(zone / "max_energy_range_uj")) for zone, _ in zones]
        self._last = self._values()
        self._joules = 0.0

    def read(self) -> float:
        """Joules since it was opened.

        Raises:
            OSError: it cannot be read any more.
        """
        values = self._values()
        for value, last, wraps in zip(values, self._last, self._ranges, strict=True):
            self._joules += (value - last + (wraps if value < last else 0)) / 1e6
        self._last = values
        return self._joules

    def _values(self) -> list[int]:
        return [int(_read(file)) for file in self._files]


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except PermissionError:
        raise OSError(f"RAPL: {path} may not be read: run as root, or let root `chmod a+r` it") from None
    except OSError as error:
        raise OSError(f"RAPL: {path} cannot be read ({error.strerror})") from None
