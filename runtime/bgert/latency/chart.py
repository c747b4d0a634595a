"""What was measured, as a picture."""

from __future__ import annotations

from typing import Any

from bgert.latency.svg import Line, lines

__all__ = ["chart"]

DRAWN = ("p50", "p99")


def chart(result: dict[str, Any], name: str) -> str:
    """SVG of p50, and of p99 as a dashed line where there are calls enough to say.

    One call after the other it is milliseconds against tokens a text, a line for each batch; by the clock against
    calls a second, a line for each batch and length.

    Args:
        result: what `measure` gave.
        name: of the model.
    """
    where = f"{name}, {result['device']} {result['precision']}, mode {result['mode']}"
    inputs = "pairs" if result["kind"] == "reranker" else "texts"
    by_clock = result["loop"] == "open"
    groups: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for point in result["points"]:
        label = f"batch {point['batch']}"
        if by_clock:
            groups.setdefault(f"{label}, length {point['length']}", []).append((point["rate"], point["latency"]))
        else:
            groups.setdefault(label, []).append((point["length"], point))
    series = []
    for label, found in groups.items():
        for share in DRAWN:
            points = [(x, times[f"{share}_ms"]) for x, times in sorted(found, key=lambda one: one[0])]
            if drawn := [(x, y) for x, y in points if y is not None]:
                series.append(Line(f"{label}, {share}", drawn, group=label, dashed=share != DRAWN[0]))
    across = "calls a second" if by_clock else f"tokens a {inputs[:-1]}"
    return lines(where, across, "ms, from when a call was due" if by_clock else "ms a call", series, log_y=True)
