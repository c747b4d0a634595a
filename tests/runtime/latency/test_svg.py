"""Charts: what is on them can be told apart and read."""

import re
from xml.etree import ElementTree

import pytest

from bgert.latency.svg import OURS, PALETTE, Bar, Line, bars, lines, number


def drawn(svg):
    root = ElementTree.fromstring(svg)
    return root, {kind: [one for one in root if one.tag.endswith("}" + kind)] for kind in ("polyline", "text", "rect")}


def test_each_series_has_a_colour_of_its_own():
    series = [Line(f"peer {n}", [(1, n + 1), (2, n + 2)]) for n in range(len(PALETTE))]
    series += [Line(f"bgert {n}", [(1, 50 + n), (2, 60)], ours=True) for n in range(len(OURS))]
    _, shapes = drawn(lines("t", "x", "y", series, log_y=False))
    colors = [line.get("stroke") for line in shapes["polyline"]]
    assert len(set(colors)) == len(series)
    assert set(colors[-len(OURS) :]) == set(OURS)
    entries = [Bar("g", f"bgert {n}", n + 1.0, ours=True) for n in range(3)]
    _, shapes = drawn(bars("t", "y", entries, reference=1.0, reference_label="all"))
    assert len({one.get("fill") for one in shapes["rect"]}) == 1 + 3


def test_the_legend_and_the_title_lie_within_the_picture():
    label = "sentence-transformers, OpenVINO, bf16, and more"
    for title in ("short", "a title that is a good deal longer than what the chart itself would take, by far " * 2):
        root, shapes = drawn(lines(title, "x", "y", [Line(label, [(1, 1), (2, 2)])], log_y=True))
        (entry,) = [one for one in shapes["text"] if one.text == label]
        assert float(entry.get("x")) + 6.5 * len(label) <= float(root.get("width"))
        assert 70 + 8.5 * len(title) <= float(root.get("width"))


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.05, "0.05"), (3, "3"), (128, "128"), (999, "999"), (1000, "1,000"), (4321, "4,321"), (17000, "17k")],
)
def test_numbers_on_axes_are_for_readers(value, said):
    assert number(value) == said


def test_no_axis_has_powers_of_ten_in_letters():
    svg = lines("t", "x", "y", [Line("a", [(1, 2), (1000, 5000)])], log_y=True)
    assert not re.search(r">[\d.]+e[+-]\d+<", svg)
