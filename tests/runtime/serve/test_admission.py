"""Who is let in and how long it then waits, in simulated time: no threads, no clocks, no machine to be slow."""

import heapq
import math
import random

import pytest

pytest.importorskip("msgspec", reason="the extra `serve` is not installed")

from bgert.serve.admission import Admission, full, longest_wait, queue_limit, request_limit, wait
from bgert.serve.queue import BULK, INTERACTIVE, LANES, BatchShape, WorkQueue
from bgert.serve.refusal import Refusal
from bgert.serve.settings import Settings
from bgert.serve.speed import Speed

SETTINGS = Settings(folders=("m",))
WORKERS, BUDGET = 2, 512
TOKEN = 1 / 6700  # seconds on one worker
BETWEEN = 0.004  # seconds from a batch to the next, which are no part of either


class Rows:
    """A request, as the queue and admission see one."""

    def __init__(self, lengths, lane, due=0.0):
        self.lengths = sorted(lengths, reverse=True)
        self.tokens = sum(lengths)
        self.lane = lane
        self.taken = self.done = 0
        self.due = due


class Engine:
    """Workers that take the time they are told, on a clock of their own."""

    def __init__(self, first):
        self.queue = WorkQueue(BatchShape(BUDGET))
        self.open_tokens = [0] * len(LANES)
        self.speed = Speed()
        self.speed.begin(first)
        self.idle = WORKERS
        self.ends = []

    tokens_per_second = property(lambda self: self.speed.tokens_per_second)

    def submit(self, work):
        self.queue.add(work)
        self.open_tokens[work.lane] += work.tokens

    def begin(self, now, seconds):
        """Fill the idle workers; `seconds` gives the time of so many tokens."""
        while self.idle and (parts := self.queue.take()):
            self.idle -= 1
            tokens = sum(sum(work.lengths[start:stop]) for work, start, stop in parts)
            ended = now + seconds(tokens)
            heapq.heappush(self.ends, (ended, id(parts), parts, tokens))

    def end(self):
        """The next batch that ends: the time and the requests that are done with it."""
        ended, _, parts, tokens = heapq.heappop(self.ends)
        self.idle += 1
        self.speed.batch(ended, tokens, bool(len(self.queue)))
        done = []
        for work, start, stop in parts:
            work.done += stop - start
            if work.done == len(work.lengths):
                self.open_tokens[work.lane] -= work.tokens
                done.append(work)
        return ended, done


def simulate(times, *, seconds=60.0, slower=1.0, first=None, bulk=0.0, settings=SETTINGS):
    """Open loop at a multiple of capacity; in the middle the machine becomes `slower` times as slow.

    Returns:
        Waits of the accepted by lane, tokens done, and how many were refused.
    """
    draw = random.Random(3)
    capacity = WORKERS * BUDGET / (BUDGET * TOKEN + BETWEEN)
    engine = Engine(first or capacity)
    mean = 460
    waits, refused, tokens, now = {INTERACTIVE: [], BULK: []}, 0, 0, 0.0
    arrival = 0.0

    def cost(count):
        pace = slower if now > seconds / 2 else 1.0
        return (count * TOKEN + BETWEEN) * pace * draw.lognormvariate(0, 0.1)

    while arrival < seconds or engine.ends:
        if engine.ends and (arrival >= seconds or engine.ends[0][0] <= arrival):
            now, done = engine.end()
            for work in done:
                waits[work.lane].append((work.due, now - work.due))
                tokens += work.tokens if now <= seconds else 0
        else:
            now = arrival
            lane = BULK if draw.random() < bulk else INTERACTIVE
            lengths = [max(1, min(256, round(draw.lognormvariate(3.6, 0.9)))) for _ in range(8)]
            if full(engine, lane, settings):
                refused += 1
            else:
                engine.submit(Rows(lengths, lane, now))
            arrival += draw.expovariate(times * capacity / mean)
        engine.begin(now, cost)
    return waits, tokens / seconds / capacity, refused


def p99(waits):
    ordered = sorted(seconds for _, seconds in waits)
    return ordered[math.ceil(0.99 * len(ordered)) - 1]


@pytest.mark.parametrize("times", [2, 10])
def test_a_full_queue_keeps_its_promise_and_the_engine_busy(times):
    """The promise is `--max-wait`; beyond it lie a batch on each worker, the request itself, and the batches' noise."""
    waits, goodput, refused = simulate(times)
    assert refused > 0
    assert p99(waits[INTERACTIVE]) < SETTINGS.max_wait * 1.03 + (WORKERS * BUDGET + 1000) * TOKEN / WORKERS
    assert max(seconds for _, seconds in waits[INTERACTIVE]) < SETTINGS.max_wait * 1.15
    assert goodput > 0.93


def test_nothing_is_refused_that_the_engine_can_do():
    waits, _, refused = simulate(0.8)
    assert refused == 0
    assert p99(waits[INTERACTIVE]) < 1


@pytest.mark.parametrize("first", [40_000, 3_000])
def test_a_wrong_first_estimate_is_soon_forgotten(first):
    waits, goodput, _ = simulate(2, first=first)
    late = [(due, seconds) for due, seconds in waits[INTERACTIVE] if due > 10]
    assert p99(late) < SETTINGS.max_wait * 1.1
    assert goodput > 0.9


def test_a_machine_that_becomes_slower_is_noticed_within_seconds():
    waits, _, _ = simulate(2, slower=3)
    late = [(due, seconds) for due, seconds in waits[INTERACTIVE] if due > 45]
    assert len(late) > 100
    assert p99(late) < SETTINGS.max_wait * 1.2


def test_bulk_waits_longer_and_does_not_take_the_engine_from_short_requests():
    waits, _, _ = simulate(3, bulk=0.5)
    assert p99(waits[INTERACTIVE]) < SETTINGS.max_wait * 1.1
    # Its lane alone would be done in four times as long; beside a full one it gets a fifth of the engine.
    assert SETTINGS.max_wait < p99(waits[BULK]) < 5 * longest_wait(BULK, SETTINGS)


def engine_of(speed, interactive=0, bulk=0):
    engine = Engine(speed)
    engine.open_tokens = [0, interactive, bulk]
    return engine


def test_waits_by_tokens_speed_and_weights():
    assert wait(engine_of(1000), INTERACTIVE) == 0
    assert wait(engine_of(1000, 3000), INTERACTIVE) == 3
    assert wait(engine_of(1000, 4000, 100_000), INTERACTIVE) == 5
    assert wait(engine_of(1000, 4000, 100), INTERACTIVE) == 4.1
    assert wait(engine_of(1000, 2000, 1000), BULK) == 3
    assert wait(engine_of(1000, 90_000, 1000), BULK) == 5


def test_limits_by_lane():
    assert queue_limit(engine_of(10_000), INTERACTIVE, SETTINGS) == 25_000
    assert queue_limit(engine_of(10_000), BULK, SETTINGS) == 100_000
    assert queue_limit(engine_of(10), INTERACTIVE, SETTINGS) == 8192, "a slow engine takes a few requests"
    assert not full(engine_of(10, 8000), INTERACTIVE, SETTINGS)
    assert full(engine_of(10, 8192), INTERACTIVE, SETTINGS)
    assert not full(engine_of(10_000, 24_999), INTERACTIVE, SETTINGS)
    assert full(engine_of(10_000, 25_000), INTERACTIVE, SETTINGS)
    assert full(engine_of(10_000, 20_000, 5000), INTERACTIVE, SETTINGS), "what bulk may run meanwhile is waited for"
    few = Settings(folders=("m",), max_queue_tokens=500)
    assert full(engine_of(10_000, 500), INTERACTIVE, few)
    assert not full(engine_of(10_000, 499), INTERACTIVE, few)


def refusal(call, *args):
    with pytest.raises(Refusal) as caught:
        call(*args)
    return caught.value


def test_a_request_that_would_be_too_late_is_told_at_once_and_one_alone_is_not():
    admission = Admission(SETTINGS)
    work = Rows([100] * 9, BULK)
    busy = engine_of(1000, 0, 9000)
    admission.before_queue(busy, work, 60)
    told = refusal(admission.before_queue, busy, work, 5)
    assert told.kind == "overloaded"
    assert "about 9 s" in told.message
    assert 9 <= told.retry_after <= 12
    admission.before_queue(engine_of(1000), work, 0.01)


def test_what_never_fits_is_judged_by_the_best_speed():
    """A machine that is slow for a moment must not tell a client to give up for ever."""
    engine = engine_of(10_000)
    for second in range(60):
        engine.speed.batch(float(second), 10, True)
    assert engine.tokens_per_second < 100
    assert request_limit(engine, SETTINGS) == 600_000


@pytest.mark.parametrize(
    ("length", "interactive", "bulk", "refused"),
    [
        (1000, 30_000, 0, True),
        (1000, 0, 200_000, False),
        (20_000, 30_000, 0, False),
        (20_000, 30_000, 200_000, True),
        (200_000, 30_000, 0, False),
        (200_000, 0, 200_000, True),
        (None, 30_000, 0, False),
        (None, 30_000, 200_000, True),
    ],
)
def test_before_the_body_only_what_is_surely_of_a_full_lane_is_refused(length, interactive, bulk, refused):
    admission, engine = Admission(SETTINGS), engine_of(10_000, interactive, bulk)
    if refused:
        told = refusal(admission.before_body, length, [engine])
        assert told.kind == "overloaded"
        assert told.retry_after >= 2
    else:
        admission.before_body(length, [engine])
    admission.before_body(length, [engine, engine_of(10_000)])
