"""How models share the cores."""

import threading
import time

from bgert.serve.cores import Cores


class Model:
    """Threads that run batches for as long as they are told, and how many of them ran at one time."""

    def __init__(self, cores, threads):
        self.cores = cores
        self.running = self.most = self.done = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def start(self):
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive(), "a thread waits for a place that it never gets"

    def _run(self):
        while not self._stop.is_set():
            with self.cores.place(self):
                with self._lock:
                    self.running += 1
                    self.most = max(self.most, self.running)
                time.sleep(0.002)
                with self._lock:
                    self.running -= 1
                    self.done += 1


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_one_model_has_all_cores():
    model = Model(Cores(4), 4)
    model.start()
    until(lambda: model.most == 4)
    model.stop()


def test_no_more_batches_than_cores_and_one_and_equal_parts():
    cores, most = Cores(4), []
    first, second = Model(cores, 4), Model(cores, 4)
    first.start()
    until(lambda: first.running == 4)
    second.start()
    until(lambda: second.done > 20)  # what the first had has gone over to the second by then
    begun = (first.done, second.done)
    while second.done < begun[1] + 200:
        most.append(cores.running)
        time.sleep(0.001)
    parts = (first.done - begun[0], second.done - begun[1])
    first.stop()
    second.stop()
    assert max(most) <= 5
    assert 0.5 < parts[0] / parts[1] < 2
    assert cores.running == 0


def test_a_model_without_a_batch_never_waits():
    cores, ran = Cores(1), []

    def run():
        with cores.place("idle"):
            ran.append(cores.running)

    with cores.place("busy"):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(20)
        assert ran == [2]


def test_a_place_goes_to_the_model_that_has_fewest():
    cores, order = Cores(2), []
    gates = [threading.Event() for _ in range(3)]

    def hold(model, gate):
        with cores.place(model):
            order.append(model)
            gate.wait(20)

    holders = [threading.Thread(target=hold, args=("a", gates[0])), threading.Thread(target=hold, args=("a", gates[0]))]
    for thread in holders:
        thread.start()
    until(lambda: len(order) == 2)
    waiting = [threading.Thread(target=hold, args=("a", gates[1])) for _ in range(2)]
    for thread in waiting:
        thread.start()
    until(lambda: sum(map(len, cores._waiting.values())) == 2)
    waiting.append(threading.Thread(target=hold, args=("b", gates[2])))
    waiting[-1].start()
    until(lambda: order[2:] == ["b"])
    waiting.append(threading.Thread(target=hold, args=("b", gates[2])))
    waiting[-1].start()
    until(lambda: sum(map(len, cores._waiting.values())) == 3)
    gates[0].set()
    until(lambda: len(order) == 4)
    assert order[3] == "a", "it has none then, the other has one"
    for gate in gates:
        gate.set()
    for thread in holders + waiting:
        thread.join(20)
        assert not thread.is_alive()
    assert cores.running == 0


def test_two_engines_share_the_cores_and_serve_all():
    import asyncio

    import numpy as np

    from bgert.backends.protocol import BackendInfo
    from bgert.batching import PackedBatch
    from bgert.serve.worker import Engine, Work

    running, most, changing = [0], [0], threading.Lock()

    class Backend:
        info = BackendInfo("cpu", "fp32", "fake", workers=4, token_budget=8, cores=1)

        def run(self, batch):
            with changing:
                running[0] += 1
                most[0] = max(most[0], running[0])
            time.sleep(0.002)
            with changing:
                running[0] -= 1
            return np.ones((len(batch.cu_seqlens) - 1, 1), np.float32)

    def work():
        ids = np.ones(8 * 50, np.int32)
        return Work(PackedBatch(ids, np.arange(0, 8 * 51, 8, dtype=np.int32), ids), 1)

    async def main():
        cores = Cores(4)
        engines = [Engine(Backend(), 1, name, cores) for name in "ab"]
        for engine in engines:
            engine.start(asyncio.get_running_loop())
        futures = [engine.submit(work()) for engine in engines for _ in range(4)]
        rows = await asyncio.wait_for(asyncio.gather(*futures), 30)
        assert all((part == 1).all() for part in rows)
        for engine in engines:
            engine.stop()
        assert all([await asyncio.to_thread(engine.join, 20) for engine in engines])
        assert cores.running == 0

    asyncio.run(main())
    assert 2 <= most[0] <= 5, "eight threads, four cores"
