"""Percentiles, and calls that come by a clock."""

import itertools

import numpy as np
import pytest

from bgert.latency.calls import percentiles
from bgert.latency.open_loop import moments_due, serve_in_order
from bgert.loadtest.arrivals import arrivals
from bgert.loadtest.percentiles import nearest_rank


def test_percentiles_are_those_of_numpy(rng):
    seconds = [rng.expovariate(100) for _ in range(137)]
    found = percentiles(seconds)
    for name, percent in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99)):
        expected = np.percentile(seconds, percent, method="inverted_cdf") * 1e3
        assert found[f"{name}_ms"] == pytest.approx(expected, abs=1e-4)
    assert found["min_ms"] == pytest.approx(min(seconds) * 1e3, abs=1e-4)


def test_too_few_calls_say_nothing_of_the_tail():
    found = percentiles([0.001] * 19)
    assert found["p90_ms"] == 1
    assert found["p95_ms"] is None
    assert found["p99_ms"] is None


@pytest.mark.parametrize("percent", [1, 7, 50, 90, 95, 99, 100])
def test_the_nearest_rank_is_exact(percent):
    for count in range(1, 202):
        # By its definition in whole numbers; numpy's 7 % of 100 are 7.000000000000001.
        least = next(value for value in range(count) if 100 * (value + 1) >= percent * count)
        assert nearest_rank(range(count), percent) == least


class Clock:
    """Time that passes only where somebody sleeps or works."""

    def __init__(self):
        self.now = 1000.0

    def read(self):
        return self.now

    def pass_by(self, seconds):
        self.now += seconds


def test_a_call_waits_for_those_before_it_and_all_of_that_counts(rng):
    """Lindley's recursion, which is what a queue of one server does."""
    clock = Clock()
    due = list(itertools.accumulate(rng.expovariate(10) for _ in range(300)))
    took = [rng.expovariate(11) for _ in due]
    served = serve_in_order(
        lambda number: lambda: clock.pass_by(took[number]), due, clock=clock.read, sleep=clock.pass_by
    )
    free = 0.0
    for moment, seconds, latency, service in zip(due, took, served.latencies, served.services, strict=True):
        free = max(free, moment) + seconds
        assert latency == pytest.approx(free - moment, abs=1e-9)
        assert service == pytest.approx(seconds, abs=1e-9)
    queue = max(sum(end > moment for end in served.ended[: number + 1]) for number, moment in enumerate(due))
    assert served.longest_queue == queue > 1
    assert served.late == pytest.approx(0, abs=1e-9)
    facts = served.facts(10)
    assert facts["achieved_per_second"] == pytest.approx(300 / served.ended[-1], abs=1e-3)
    assert facts["capacity_per_second"] == pytest.approx(300 / sum(took), abs=1e-3)
    assert facts["latency"]["max_ms"] == pytest.approx(1e3 * max(served.latencies), abs=1e-3)


def test_one_stall_is_in_the_latency_of_all_behind_it_and_in_one_service_time():
    clock = Clock()
    due = [number / 10 for number in range(1, 101)]
    served = serve_in_order(
        lambda number: lambda: clock.pass_by(5.0 if number == 10 else 0.01), due, clock=clock.read, sleep=clock.pass_by
    )
    assert sum(service > 0.1 for service in served.services) == 1
    assert sum(latency > 0.1 for latency in served.latencies) > 50
    assert served.facts(10)["latency"]["p50_ms"] > 400
    assert served.facts(10)["service"]["p99_ms"] == pytest.approx(10, abs=1e-3)


@pytest.mark.parametrize(("rate", "above"), [(9.9, False), (10.1, True)])
def test_above_capacity_is_more_a_second_than_it_ends(rate, above):
    clock = Clock()
    due = moments_due(50, rate, seed=3)
    served = serve_in_order(lambda _: lambda: clock.pass_by(0.1), due, clock=clock.read, sleep=clock.pass_by)
    assert served.facts(rate)["above_capacity"] is above


def test_a_clock_that_is_late_itself_is_seen():
    clock = Clock()
    served = serve_in_order(
        lambda _: lambda: clock.pass_by(0.01),
        [1.0, 2.0],
        clock=clock.read,
        sleep=lambda wait: clock.pass_by(wait + 0.25),
    )
    assert served.late == pytest.approx(0.25)


def test_arrivals_are_poisson_of_their_rate_and_the_last_is_on_time():
    due = moments_due(4000, 20.0, seed=5)
    assert due == moments_due(4000, 20.0, seed=5) != moments_due(4000, 20.0, seed=6)
    assert due[-1] == pytest.approx(200)
    between = np.diff([0, *due])
    assert between.min() > 0
    # Exponential: as wide as long; by its own quartiles.
    assert between.std() == pytest.approx(0.05, rel=0.1)
    assert np.median(between) == pytest.approx(0.05 * np.log(2), rel=0.1)
    assert list(itertools.islice(arrivals(4, fixed=True), 3)) == [0.25, 0.5, 0.75]
