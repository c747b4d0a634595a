"""The measured speed of an engine."""

import pytest

from bgert.serve.speed import Speed


def measured(batches, first=1000.0):
    speed = Speed()
    speed.begin(first)
    for ended, tokens, more in batches:
        speed.batch(ended, tokens, more)
    return speed.tokens_per_second


def test_the_time_between_batches_counts():
    """Two workers, batches of 512 that run for 80 ms each and begin 20 ms after the last: not 12,800 but 10,240."""
    batches = sorted((start + 0.1 * number, 512, True) for start in (0.0, 0.05) for number in range(300))
    assert measured(batches) == pytest.approx(10_240, rel=0.03)


def test_idle_time_does_not_count():
    batches = [(10.0 * number, 512, False) for number in range(100)]
    assert measured(batches) == 1000
    bursts = [(10.0 * number + 0.1 * step, 500, step < 3) for number in range(100) for step in range(4)]
    assert measured(bursts) == pytest.approx(5000, rel=0.05)


def test_the_lower_of_a_short_and_a_long_memory_counts():
    steady = [(0.1 * number, 500, True) for number in range(300)]
    assert measured(steady) == pytest.approx(5000, rel=0.03)
    slower = [(30 + 0.5 * number, 500, True) for number in range(4)]
    assert measured(steady + slower) < 2500
    faster = [(30 + 0.01 * number, 500, True) for number in range(100)]
    assert measured(steady + faster) < 15_000


def test_failed_batches_are_no_work():
    assert measured([(0.0, 0, True), (1.0, 0, True), (2.0, 0, True)]) == 1000


def test_nothing_measured_is_zero():
    assert Speed().tokens_per_second == 0
    speed = Speed()
    speed.batch(1.0, 512, True)
    speed.batch(1.0, 512, True)
    assert speed.tokens_per_second == 0
