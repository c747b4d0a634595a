"""The queue as pure decisions: nothing lost or doubled, budgets kept, nobody starved."""

import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed: pip install hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bgert.batching import Bucket
from bgert.serve.queue import BULK, INTERACTIVE, PROBE, BatchShape, Part, WorkQueue, fill

BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be


class Rows:
    def __init__(self, lengths, lane=BULK):
        self.lengths = sorted(lengths, reverse=True)
        self.lane = lane
        self.taken = 0


LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=12)
REQUESTS = st.lists(st.tuples(LENGTHS, st.sampled_from([PROBE, INTERACTIVE, BULK])), max_size=20)
SHAPES = st.one_of(
    st.integers(1, 200).map(BatchShape),
    st.just(BatchShape(64, (Bucket(8, 8), Bucket(16, 4), Bucket(40, 2)))),
)


def within(parts, shape):
    rows = [work.lengths[index] for work, start, stop in parts for index in range(start, stop)]
    if not shape.buckets:
        return len(rows) == 1 or max(rows) * len(rows) <= shape.token_budget
    return any(max(rows) <= bucket.length and len(rows) <= bucket.texts for bucket in shape.buckets)


@BUSY
@given(REQUESTS, SHAPES, st.randoms(use_true_random=False))
def test_every_row_runs_once_in_batches_that_keep_the_budget(requests, shape, random):
    queue = WorkQueue(shape)
    works = [Rows(lengths, lane) for lengths, lane in requests]
    waiting, ran = list(works), []
    while waiting or len(queue):
        if waiting and random.random() < 0.5:
            queue.add(waiting.pop(0))
            continue
        parts = queue.take()
        assert bool(parts) or not len(queue)
        if parts:
            assert within(parts, shape)
            assert len({part.work.lane for part in parts}) == 1
        ran += [(part.work, index) for part in parts for index in range(part.start, part.stop)]
    assert len(ran) == len(set(ran))
    assert set(ran) == {(work, index) for work in works for index in range(len(work.lengths))}
    assert queue.tokens == [0, 0, 0]
    assert queue.take() == []


@BUSY
@given(REQUESTS, SHAPES, st.randoms(use_true_random=False))
def test_discarded_rows_never_run_and_are_not_counted(requests, shape, random):
    queue = WorkQueue(shape)
    works = [Rows(lengths, lane) for lengths, lane in requests]
    for work in works:
        queue.add(work)
    gone = set()
    while len(queue):
        if random.random() < 0.3:
            work = random.choice(works)
            left = work.taken < len(work.lengths) and work not in gone
            assert queue.discard(work) is left
            gone.add(work)
        for part in queue.take():
            assert part.work not in gone
        live = [work for work in works if work not in gone]
        for lane in (PROBE, INTERACTIVE, BULK):
            expected = sum(sum(work.lengths[work.taken :]) for work in live if work.lane == lane)
            assert queue.tokens[lane] == expected


@BUSY
@given(st.lists(LENGTHS, min_size=1, max_size=20), SHAPES)
def test_the_oldest_request_is_in_every_batch(requests, shape):
    works = [Rows(lengths) for lengths in requests]
    parts = fill(works, shape)
    assert parts[0].work is works[0]
    assert parts[0].start == 0
    assert all(work.taken == 0 for work in works), "fill decides, it does not take"


@BUSY
@given(st.lists(LENGTHS, min_size=1, max_size=20), st.integers(40, 200))
def test_a_batch_leaves_no_room_for_a_row_that_comes_first(requests, budget):
    """Of requests that it passed over, no row would have fitted when it did so."""
    works = [Rows(lengths) for lengths in requests]
    shape = BatchShape(budget)
    parts = fill(works, shape)
    chosen = {part.work: part for part in parts}
    longest = texts = 0
    for work in works:
        if work in chosen:
            texts += chosen[work].stop
            longest = max(longest, work.lengths[0])
            full = texts == max(1, budget // longest)
            assert full or chosen[work].stop == len(work.lengths)
        else:
            assert max(longest, work.lengths[0]) * (texts + 1) > budget


@settings(BUSY, max_examples=50)
@given(st.integers(1, 8), st.integers(1, 40))
def test_a_lone_query_is_next_whatever_bulk_waits(texts, length):
    queue = WorkQueue(BatchShape(64))
    for _ in range(5):
        queue.add(Rows([16] * 500, BULK))
    for _ in range(7):
        queue.take()
    query = Rows([length] * texts, INTERACTIVE)
    queue.add(query)
    batches = 0
    while query.taken < len(query.lengths):
        parts = queue.take()
        batches += 1
        if parts[0].work is not query:
            assert batches > 1, "a bulk batch went before the query's first"
    assert batches <= -(-texts * length // 16)


def test_lanes_share_four_to_one_by_tokens():
    queue = WorkQueue(BatchShape(32))
    queue.add(Rows([8] * 4000, INTERACTIVE))
    queue.add(Rows([8] * 4000, BULK))
    tokens = {INTERACTIVE: 0, BULK: 0}
    for _ in range(500):
        for part in queue.take():
            tokens[part.work.lane] += 8 * (part.stop - part.start)
    assert tokens[INTERACTIVE] == pytest.approx(4 * tokens[BULK], rel=0.02)


def test_bulk_is_not_starved_by_queries_without_end():
    queue = WorkQueue(BatchShape(32))
    bulk = Rows([32] * 10, BULK)
    queue.add(bulk)
    taken = 0
    while bulk.taken < 10:
        queue.add(Rows([32], INTERACTIVE))
        queue.add(Rows([32], INTERACTIVE))
        queue.take()
        taken += 1
    assert taken <= 10 * 5 + 1


def test_a_lane_that_was_idle_is_owed_nothing():
    queue = WorkQueue(BatchShape(32))
    queue.add(Rows([32] * 1000, INTERACTIVE))
    for _ in range(900):
        queue.take()
    queue.add(Rows([32] * 100, BULK))
    first = [queue.take()[0].work.lane for _ in range(50)]
    assert first.count(BULK) in (10, 11), "bulk made up for the time before it came"


def test_the_canary_goes_first():
    queue = WorkQueue(BatchShape(32))
    queue.add(Rows([4], INTERACTIVE))
    canary = Rows([4], PROBE)
    queue.add(canary)
    assert queue.take() == [Part(canary, 0, 1)]
