"""The engine's threads against backends that fail in every way."""

import asyncio
import threading
import time

import numpy as np
import pytest

from bgert.backends.protocol import BackendInfo
from bgert.batching import PackedBatch
from bgert.errors import DeviceLostError, DeviceMemoryError, EngineError, NonFiniteOutputError
from bgert.serve.queue import BULK, INTERACTIVE
from bgert.serve.worker import Engine, EngineDeadError, Work

POISON = 666


class Backend:
    """Row i gets the sum of its ids and its length. What it ran is in `batches`."""

    def __init__(self, workers=1, budget=64, run=None):
        self.info = BackendInfo("cpu", "fp32", "fake", workers=workers, token_budget=budget)
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()
        self._run = run

    def run(self, batch):
        self.gate.wait()
        self.batches.append([row.tolist() for row in rows_of(batch)])
        if self._run is not None:
            self._run(batch)
        return np.array([[row.sum(), len(row)] for row in rows_of(batch)], np.float32).reshape(-1, 2)


def rows_of(batch):
    return [batch.input_ids[a:b] for a, b in zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True)]


def work(*rows, lane=None):
    cu_seqlens = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    ids = np.array([number for row in rows for number in row], np.int32)
    return Work(PackedBatch(ids, cu_seqlens, np.zeros_like(ids)), 2, lane=lane)


def answer(*rows):
    return [[sum(row), len(row)] for row in rows]


def with_engine(backend, scenario):
    async def main():
        engine = Engine(backend, 2)
        engine.start(asyncio.get_running_loop())
        try:
            return await asyncio.wait_for(scenario(engine), 30)
        finally:
            engine.stop()
            backend.gate.set()

    return asyncio.run(main())


def raiser(error):
    def run(batch):
        if POISON in batch.input_ids:
            raise error

    return run


def test_rows_come_back_in_the_callers_order():
    rows = [[1, 2], [3] * 9, [4], [5] * 30, [6, 6, 6]]

    async def scenario(engine):
        return (await engine.submit(work(*rows))).tolist()

    assert with_engine(Backend(workers=3, budget=16), scenario) == answer(*rows)


@pytest.mark.parametrize("error", [RuntimeError("no"), EngineError("no"), ValueError("no")])
def test_only_the_poisoned_request_fails_and_the_engine_goes_on(error):
    backend = Backend(run=raiser(error))
    backend.gate.clear()

    async def scenario(engine):
        first = engine.submit(work([9]))  # holds the thread while the others gather
        await asyncio.sleep(0.05)
        futures = [engine.submit(work(row)) for row in ([1, 2], [POISON], [3])]
        backend.gate.set()
        done = await asyncio.gather(first, *futures, return_exceptions=True)
        assert (await engine.submit(work([7]))).tolist() == answer([7])
        assert engine.died is None
        assert engine.open_tokens == [0, 0, 0]
        return done

    held, one, poisoned, two = with_engine(backend, scenario)
    assert held.tolist() == answer([9])
    assert one.tolist() == answer([1, 2])
    assert two.tolist() == answer([3])
    assert poisoned is error
    assert [[1, 2], [POISON], [3]] in backend.batches, "the three ran together first"


def test_a_request_that_fails_runs_no_further():
    backend = Backend(budget=4, run=raiser(RuntimeError("no")))

    async def scenario(engine):
        with pytest.raises(RuntimeError):
            await engine.submit(work(*[[POISON] * 4] * 50))
        await engine.submit(work([1]))

    with_engine(backend, scenario)
    assert len(backend.batches) < 50


class NaN(Backend):
    def run(self, batch):
        rows = super().run(batch)
        rows[[POISON in row for row in rows_of(batch)]] = np.nan
        return rows


def test_nothing_that_is_not_finite_is_served_and_neighbours_are():
    backend = NaN()
    backend.gate.clear()

    async def scenario(engine):
        first = engine.submit(work([9]))
        await asyncio.sleep(0.05)
        good, bad = engine.submit(work([1, 2], [3])), engine.submit(work([4], [POISON]))
        backend.gate.set()
        return await asyncio.gather(first, good, bad, return_exceptions=True)

    _, good, bad = with_engine(backend, scenario)
    assert good.tolist() == answer([1, 2], [3])
    assert isinstance(bad, NonFiniteOutputError)
    assert len(backend.batches) == 2


def test_rows_of_another_shape_are_an_error():
    class Wrong(Backend):
        def run(self, batch):
            return super().run(batch)[:, :1]

    async def scenario(engine):
        with pytest.raises(EngineError, match=r"\(1, 1\)"):
            await engine.submit(work([1]))

    with_engine(Wrong(), scenario)


def test_memory_that_is_too_small_halves_the_batches():
    def run(batch):
        if len(batch.input_ids) > 10:
            raise DeviceMemoryError("full")

    backend = Backend(budget=64, run=run)

    async def scenario(engine):
        rows = [[number] * 4 for number in range(1, 21)]
        assert (await engine.submit(work(*rows))).tolist() == answer(*rows)
        assert engine.token_budget <= 10
        before = len(backend.batches)
        await engine.submit(work(*rows))
        assert all(sum(map(len, batch)) <= 10 for batch in backend.batches[before:])
        with pytest.raises(DeviceMemoryError):
            await engine.submit(work([1] * 11))
        assert (await engine.submit(work([1]))).tolist() == answer([1])

    with_engine(backend, scenario)


@pytest.mark.parametrize("error", [DeviceLostError("gone"), SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_a_thread_that_ends_fails_all_requests_and_takes_no_more(error):
    backend = Backend(budget=8, run=raiser(error))

    async def scenario(engine):
        futures = [engine.submit(work([POISON] * 8)), *(engine.submit(work([1] * 8)) for _ in range(20))]
        if isinstance(error, MemoryError):  # an exception like another: only its request fails
            done = await asyncio.gather(*futures, return_exceptions=True)
            assert done[0] is error
            assert engine.died is None
            return
        done = await asyncio.gather(*futures, return_exceptions=True)
        assert all(isinstance(result, EngineDeadError) for result in done)
        assert type(error).__name__ in engine.died
        with pytest.raises(EngineDeadError):
            await engine.submit(work([1]))

    with_engine(backend, scenario)


def test_cancelled_rows_never_run():
    backend = Backend(budget=8)
    backend.gate.clear()

    async def scenario(engine):
        held = engine.submit(work([9]))
        await asyncio.sleep(0.05)
        bulk = work(*[[5] * 8] * 50)
        engine.submit(bulk)
        assert engine.cancel(bulk) == 50
        assert engine.cancel(bulk) == 0
        assert engine.open_tokens == [0, 1, 0]
        backend.gate.set()
        await held
        await engine.submit(work([1]))

    with_engine(backend, scenario)
    assert [[5] * 8] not in backend.batches


def test_a_query_waits_for_no_more_than_the_batch_that_runs():
    backend = Backend(budget=8)

    async def scenario(engine):
        engine.submit(work(*[[5] * 8] * 300))
        backend.gate.clear()
        await asyncio.sleep(0.05)
        ran = len(backend.batches)
        query = engine.submit(work([1, 2]))
        backend.gate.set()
        await query
        assert [1, 2] in backend.batches[ran + 1] or [1, 2] in backend.batches[ran]

    with_engine(backend, scenario)


def test_an_idle_thread_takes_what_is_there_at_once():
    backend = Backend(workers=2, budget=8)
    backend.gate.clear()

    async def scenario(engine):
        futures = [engine.submit(work([number] * 8)) for number in (1, 2)]
        end = time.monotonic() + 10
        while engine.queued_tokens and time.monotonic() < end:
            await asyncio.sleep(0.001)
        assert engine.queued_tokens == 0, "both threads hold a batch, neither waits for a fuller one"
        backend.gate.set()
        await asyncio.gather(*futures)

    with_engine(backend, scenario)


def test_lanes_by_the_number_of_texts():
    assert work(*[[1]] * 8).lane == INTERACTIVE
    assert work(*[[1]] * 9).lane == BULK
    assert work([1], lane=BULK).lane == BULK
