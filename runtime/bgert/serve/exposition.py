"""Counters, gauges and histograms in Prometheus' text format.

The names that dashboards of text-embeddings-inference read end in no `_total`, which the usual client library would
add; and a value is there from the start, so that a rate over it has a beginning.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["Counter", "Family", "Gauge", "Histogram", "render"]

Labels = tuple[str, ...]


class Family:
    """Values that share a name and differ by labels. Values that are `expect`ed are there before they are counted."""

    kind = ""

    def __init__(self, name: str, help_text: str, *labels: str) -> None:
        self.name = name
        self.help = help_text
        self.labels = labels
        if not labels:
            self.expect()

    def expect(self, *values: str) -> None:
        """Have the value with these labels from now on."""
        raise NotImplementedError

    def samples(self) -> Iterator[tuple[str, float]]:
        """Name with labels, and value."""
        raise NotImplementedError

    def named(self, suffix: str, values: Labels, *more: str) -> str:
        """The name of a sample with its labels."""
        pairs = [f'{name}="{_escaped(value)}"' for name, value in zip(self.labels, values, strict=True)]
        pairs += more
        return f"{self.name}{suffix}" + ("{" + ",".join(pairs) + "}" if pairs else "")


class Counter(Family):
    """Only grows."""

    kind = "counter"

    def __init__(self, name: str, help_text: str, *labels: str) -> None:
        self._values: dict[Labels, float] = {}
        super().__init__(name, help_text, *labels)

    def expect(self, *values: str) -> None:
        """Begin at nought."""
        self._values.setdefault(values, 0.0)

    def add(self, *values: str, amount: float = 1.0) -> None:
        """Count; the values are those of the labels in their order."""
        self._values[values] = self._values.get(values, 0.0) + amount

    def samples(self) -> Iterator[tuple[str, float]]:
        """One a value."""
        for values, value in self._values.items():
            yield self.named("", values), value


class Gauge(Family):
    """Is read when it is asked for."""

    kind = "gauge"

    def __init__(self, name: str, help_text: str, *labels: str) -> None:
        self._reads: dict[Labels, Callable[[], float]] = {}
        super().__init__(name, help_text, *labels)

    def expect(self, *values: str) -> None:
        """Nought until it is watched."""
        self._reads.setdefault(values, lambda: 0.0)

    def watch(self, read: Callable[[], float], *values: str) -> None:
        """Where a value comes from."""
        self._reads[values] = read

    def samples(self) -> Iterator[tuple[str, float]]:
        """One a value."""
        for values, read in self._reads.items():
            yield self.named("", values), read()


class Histogram(Family):
    """Counts values by size."""

    kind = "histogram"

    def __init__(self, name: str, help_text: str, bounds: Iterable[float], *labels: str) -> None:
        self._bounds = list(bounds)
        self._names = [f"{bound:.6g}" for bound in self._bounds] + ["+Inf"]
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}
        super().__init__(name, help_text, *labels)

    def expect(self, *values: str) -> None:
        """Begin without a value."""
        self._counts.setdefault(values, [0] * len(self._names))
        self._sums.setdefault(values, 0.0)

    def observe(self, value: float, *values: str) -> None:
        """Count one value, of the labels in their order."""
        if values not in self._counts:
            self.expect(*values)
        self._counts[values][bisect_left(self._bounds, value)] += 1
        self._sums[values] += value

    def samples(self) -> Iterator[tuple[str, float]]:
        """Buckets, sum and count."""
        for values, counts in self._counts.items():
            for name, count in zip(self._names, accumulate(counts), strict=True):
                yield self.named("_bucket", values, f'le="{name}"'), count
            yield self.named("_sum", values), self._sums[values]
            yield self.named("_count", values), sum(counts)


def render(families: Sequence[Family]) -> bytes:
    """The text that Prometheus reads, version 0.0.4."""
    lines = []
    for family in families:
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        lines += [f"{name} {value:.17g}" for name, value in family.samples()]
    return ("\n".join(lines) + "\n").encode()


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
