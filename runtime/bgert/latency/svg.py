"""Line and bar charts as SVG, the same bytes for the same figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Bar", "Line", "bars", "lines"]

HEIGHT = 400
LEFT, RIGHT, TOP, BOTTOM = 70, 500, 44, 52
"""Where the chart itself lies; the legend is to the right of it, and the picture as wide as its longest label asks."""
LETTER = 7.0
"""Width that a letter of a label may have."""
PALETTE = (
    *("#4e79a7", "#f28e2b", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#9c755f", "#bab0ac"),
    *("#3b3b3b", "#86bcb6", "#1f3f66", "#a0cbe8", "#8cd17d", "#d4a6c8"),
)
OURS = ("#d62728", "#7a0010", "#ff7f7f", "#b5179e")


@dataclass(frozen=True)
class Line:
    """A series: its label, points, whether it is bgert's, and whose colour it has if not one of its own."""

    label: str
    points: list[tuple[float, float]]
    ours: bool = False
    group: str | None = None
    dashed: bool = False


@dataclass(frozen=True)
class Bar:
    """A bar: group, label and value."""

    group: str
    label: str
    value: float
    ours: bool = False


def lines(title: str, x_label: str, y_label: str, series: list[Line], *, log_y: bool) -> str:
    """A chart with a logarithmic x axis, ticks where the points are."""
    xs = sorted({x for line in series for x, _ in line.points})
    ys = [y for line in series for _, y in line.points]
    if not ys:
        return document(title, [text((LEFT + RIGHT) / 2, HEIGHT / 2, "no figures", anchor="middle")])
    low, high = (min(ys), max(ys)) if log_y else (0.0, max(ys))
    ticks = log_ticks(low, high) if log_y else even_ticks(high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])

    def across(x: float) -> float:
        if len(xs) == 1:
            return (LEFT + RIGHT) / 2
        part = (math.log(x) - math.log(xs[0])) / (math.log(xs[-1]) - math.log(xs[0]))
        return LEFT + part * (RIGHT - LEFT)

    def up(y: float) -> float:
        part = math.log(y / low) / math.log(high / low) if log_y else (y - low) / (high - low)
        return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)

    parts = frame(x_label, y_label)
    for tick in ticks:
        parts += [rule(up(tick)), text(LEFT - 6, up(tick) + 4, number(tick), anchor="end")]
    placed = -1e9
    for x in xs:
        if across(x) - placed > 34:
            placed = across(x)
            parts.append(text(placed, HEIGHT - BOTTOM + 16, number(x), anchor="middle"))
    colors = colors_of([(line.group or line.label, line.ours) for line in series])
    for place, line in enumerate(series):
        color = colors[line.group or line.label]
        width = 3 if line.ours else 1.5
        dashes = ' stroke-dasharray="5 4"' if line.dashed else ""
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"{dashes}/>')
        parts += [f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="{width}" fill="{color}"/>' for x, y in line.points]
        parts += legend(place, line.label, color)
    return document(title, parts, [line.label for line in series])


def bars(title: str, y_label: str, entries: list[Bar], *, reference: float, reference_label: str) -> str:
    """Grouped bars with a line at a reference value."""
    if not entries:
        return document(title, [text((LEFT + RIGHT) / 2, HEIGHT / 2, "no figures", anchor="middle")])
    high = max(reference, *(bar.value for bar in entries))
    ticks = even_ticks(high)
    high = max(high, ticks[-1])

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - y / high * (HEIGHT - TOP - BOTTOM)

    parts = frame("", y_label)
    for tick in ticks:
        parts += [rule(up(tick)), text(LEFT - 6, up(tick) + 4, f"{tick:.0%}", anchor="end")]
    labels = list(dict.fromkeys(bar.label for bar in entries))
    groups = list(dict.fromkeys(bar.group for bar in entries))
    colors = colors_of([(bar.label, bar.ours) for bar in entries])
    room = (RIGHT - LEFT) / len(groups)
    step = room * 0.86 / len(labels)
    for bar in entries:
        left = LEFT + groups.index(bar.group) * room + room * 0.07 + labels.index(bar.label) * step
        parts.append(
            f'<rect x="{left:.1f}" y="{up(bar.value):.1f}" width="{step * 0.9:.1f}" '
            f'height="{HEIGHT - BOTTOM - up(bar.value):.1f}" fill="{colors[bar.label]}"/>'
        )
    for place, group in enumerate(groups):
        parts.append(text(LEFT + (place + 0.5) * room, HEIGHT - BOTTOM + 16, group, anchor="middle"))
    parts.append(rule(up(reference), color="#222"))
    parts.append(text(LEFT + 4, up(reference) - 4, reference_label))
    for place, label in enumerate(labels):
        parts += legend(place, label, colors[label])
    return document(title, parts, labels)


def colors_of(entries: list[tuple[str, bool]]) -> dict[str, str]:
    """A colour for each label, in order; bgert's own are reds. With more labels than colours they come again."""
    found: dict[str, str] = {}
    taken = {True: 0, False: 0}
    for label, ours in entries:
        if label not in found:
            palette = OURS if ours else PALETTE
            found[label] = palette[taken[ours] % len(palette)]
            taken[ours] += 1
    return found


def frame(x_label: str, y_label: str) -> list[str]:
    """Axis names."""
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return [
        text((LEFT + RIGHT) / 2, HEIGHT - 14, x_label, anchor="middle"),
        f'<text x="16" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 16 {middle:.0f})">'
        f"{escape(y_label)}</text>",
    ]


def legend(place: int, label: str, color: str) -> list[str]:
    """One entry at the right."""
    y = TOP + 18 * place
    swatch = f'<rect x="{RIGHT + 14}" y="{y}" width="12" height="12" fill="{color}"/>'
    return [swatch, text(RIGHT + 32, y + 10, label)]


def rule(y: float, color: str = "#ddd") -> str:
    """A horizontal line across the chart."""
    return f'<line x1="{LEFT}" y1="{y:.1f}" x2="{RIGHT}" y2="{y:.1f}" stroke="{color}"/>'


def text(x: float, y: float, content: str, *, anchor: str = "start") -> str:
    """Words."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def even_ticks(high: float) -> list[float]:
    """Round numbers from zero to at least `high`."""
    step = 10 ** math.floor(math.log10(high))
    step = next(step * part for part in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0) if high / (step * part) <= 6)
    return [step * count for count in range(math.ceil(high / step - 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten around a range."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def number(value: float) -> str:
    """Short: 17000 is 17k."""
    if value >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def document(title: str, parts: list[str], labels: Sequence[str] = ()) -> str:
    """The file, as wide as its legend and its title."""
    width = max(720, RIGHT + 42 + round(LETTER * max(map(len, labels), default=0)), LEFT + 10 + 9 * len(title))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12">'
    )
    background = f'<rect width="{width}" height="{HEIGHT}" fill="white"/>'
    heading = f'<text x="{LEFT}" y="24" font-size="15" font-weight="bold">{escape(title)}</text>'
    return "\n".join([head, background, heading, *parts, "</svg>"]) + "\n"
