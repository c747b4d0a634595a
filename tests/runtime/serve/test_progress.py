"""Whether a batch gets on: starved is not hung."""

import threading
import time

import pytest

from bgert.serve.progress import LONGEST_TICK, WAITED_OUT, Progress


class Thread(Progress):
    """A thread whose processor time is what the test says."""

    def __init__(self, cpu=0.0):
        super().__init__()
        self.cpu = cpu

    def _cpu(self):
        return self.cpu


def looked(progress, ticks, *, cpu=0.0, tick=0.5, now=100.0):
    """What a look every `tick` seconds finds at the end, the thread having had `cpu` of each."""
    found = 0.0
    for number in range(ticks):
        progress.cpu = (progress.cpu or 0.0) + cpu if progress.cpu is not None else None
        found = progress.stuck(now + tick * (number + 1))
    return found


def begun(progress):
    progress.stuck(99.5)
    progress.begin()
    progress.stuck(100.0)
    return progress


def test_without_a_batch_nothing_is_stuck():
    assert looked(Thread(), 100) == 0
    progress = begun(Thread())
    progress.end()
    assert looked(progress, 100) == 0


def test_a_thread_that_does_nothing_is_stuck():
    assert looked(begun(Thread(5.0)), 120) == pytest.approx(60)


def test_a_thread_that_spins_is_stuck():
    assert looked(begun(Thread(5.0)), 120, cpu=0.5) == pytest.approx(60)


def test_a_thread_that_gets_little_of_a_core_is_not():
    """A twentieth of a core for a minute is three seconds of work."""
    assert looked(begun(Thread(5.0)), 120, cpu=0.025) == pytest.approx(60 / WAITED_OUT)
    assert looked(begun(Thread(5.0)), 20, cpu=0.025) < 2


def test_in_the_end_the_clock_decides():
    assert looked(begun(Thread()), 1300, cpu=0.001) >= 60


def test_a_process_that_was_stopped_was_not_waiting():
    progress = begun(Thread())
    assert progress.stuck(5000.0) <= LONGEST_TICK


def test_the_next_batch_begins_anew():
    progress = begun(Thread())
    looked(progress, 50)
    progress.end()
    progress.begin()
    assert progress.stuck(200.0) == 0


def test_without_a_clock_of_threads_the_time_looked_at_counts():
    progress = begun(Thread())
    progress.cpu = None
    assert looked(progress, 120) == pytest.approx(60)


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="this system has no clocks of threads")
def test_the_clock_is_that_of_the_thread_and_outlives_it():
    progress, go, spun, done = Progress(), threading.Event(), threading.Event(), threading.Event()

    def run():
        progress.attach()
        progress.begin()
        go.wait(20)
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
        spun.set()
        done.wait(20)

    thread = threading.Thread(target=run)
    thread.start()
    while not progress._running:
        time.sleep(0.001)
    now = time.monotonic()
    progress.stuck(now)
    progress.stuck(now + 0.5)
    before = progress.stuck(now + 1.0)
    assert 0.5 <= before <= 1.5, "asleep"
    go.set()
    assert spun.wait(20)
    assert progress.stuck(now + 1.5) < before, "it got on"
    done.set()
    thread.join()
    assert progress.stuck(now + 2.0) >= 0
