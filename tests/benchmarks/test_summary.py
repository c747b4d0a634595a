"""Statistics of repeated timings."""

import pytest

from summary import percentiles, ratios, rounded, spread


def test_spread():
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_ratios_pair_rounds():
    """A slow round that meets both leaves the ratio alone."""
    assert ratios([1.0, 10.0, 1.0], [2.0, 20.0, 2.0]) == {"median": 2.0, "min": 2.0, "max": 2.0}
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 1.0], [1.0])


def test_percentiles_are_measured_values():
    found = percentiles([number / 1000 for number in range(1, 101)])
    assert found == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "calls": 100}
    assert percentiles([0.001]) == {"p50": 1.0, "p95": 1.0, "p99": 1.0, "calls": 1}


def test_rounded_keeps_four_digits():
    assert rounded(12345.678) == 12350.0
    assert rounded(0.000123456) == 0.0001235
