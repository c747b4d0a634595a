"""Forks, the end of the interpreter and Ctrl-C, in processes of their own."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from bgert.backends.protocol import BackendInfo
from bgert.cpu_count import CoreLimit
from bgert.runner import Runner

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="fork")

START = """
import gc, multiprocessing, os, random, sys, threading, time, bgert
folder, mode = sys.argv[1:]
encoder = bgert.Encoder(folder, mode=mode, threads=2)
texts = ["some text " * n for n in range(1, 14)]
expected = encoder.encode(texts)

def right(other=None):
    return ((encoder if other is None else other).encode(texts) == expected).all()

def end_of(child, seconds=30):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "never ends"
"""


def python(code, *arguments, timeout=200):
    """A process with START before the code; its standard error must be empty."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", START + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


FORKS = """
def busy():
    while True:
        encoder.encode(texts)

for _ in range(3):
    threading.Thread(target=busy, daemon=True).start()

def grandchild():
    child = os.fork()
    if child == 0:
        os._exit(0 if right() else 1)
    return end_of(child) == 0 and right()

def dropped():
    global encoder
    del encoder
    gc.collect()
    return True

deeds = [right, dropped, grandchild, lambda: right(bgert.Encoder(folder, mode=mode, threads=2)), lambda: True]
bad = []
for number in range({count}):
    child = os.fork()
    if child == 0:
        status = 0 if deeds[number % len(deeds)]() else 1
        sys.exit(status) if number // len(deeds) % 2 else os._exit(status)
    if (status := end_of(child)) != 0:
        bad.append((number, status))
print(bad)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["throughput", "latency"])
def test_forks_while_other_threads_encode(demo_folder, mode):
    count = os.environ.get("BGERT_TEST_FORKS", "60")
    assert python(FORKS.replace("{count}", count), demo_folder, mode, timeout=900) == "[]\n"


@pytest.mark.parametrize("mode", ["throughput", "latency"])
def test_fork_while_sessions_are_opened(demo_folder, mode):
    code = """
def opening():
    while True:
        bgert.Encoder(folder, mode=mode, threads=2)

for _ in range(2):
    threading.Thread(target=opening, daemon=True).start()
bad = []
for number in range(15):
    child = os.fork()
    if child == 0:
        os._exit(0 if right() and right(bgert.Encoder(folder, mode=mode, threads=2)) else 1)
    if (status := end_of(child)) != 0:
        bad.append((number, status))
print(bad)
"""
    assert python(code, demo_folder, mode) == "[]\n"


@pytest.mark.parametrize("mode", ["throughput", "latency"])
def test_a_stream_goes_on_on_both_sides_of_a_fork(demo_folder, mode):
    code = """
blocks = encoder.stream(texts * 8, block=len(texts))
first = next(blocks)
child = os.fork()
rest = list(blocks)
good = len(rest) == 7 and all((block == expected).all() for block in [first, *rest])
if child == 0:
    os._exit(0 if good else 1)
print(good, end_of(child))
"""
    assert python(code, demo_folder, mode) == "True 0\n"


def test_pools_of_processes(demo_folder, tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(
        """
import multiprocessing, sys, threading, bgert
from concurrent.futures import ThreadPoolExecutor
encoder = None
def load(folder):
    global encoder
    if encoder is None:
        encoder = bgert.Encoder(folder, threads=1)
def work(text):
    return encoder.encode(text).tolist()
if __name__ == "__main__":
    folder = sys.argv[1]
    load(folder)
    texts = [f"text {n}" for n in range(12)]
    expected = [work(text) for text in texts]
    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(encoder.encode, texts) for _ in range(20)]
        for method in multiprocessing.get_all_start_methods():
            with multiprocessing.get_context(method).Pool(2, load, [folder]) as pool:
                assert pool.map(work, texts) == expected, method
            print(method)
"""
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, demo_folder], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "fork\n" in done.stdout


END = """
def encoding():
    while True:
        encoder.encode(texts)

def tokenizing():
    while True:
        encoder.tokenizer.encode_batch(texts * 50)

def opening():
    while True:
        bgert.Encoder(folder)

for deed in (encoding, encoding, tokenizing, opening):
    threading.Thread(target=deed, daemon=True).start()
time.sleep(random.random() / 10)
"""


@pytest.mark.parametrize("mode", ["throughput", "latency"])
def test_the_interpreter_ends_while_daemon_threads_are_inside(demo_folder, mode):
    for _ in range(6):
        assert python(END, demo_folder, mode) == ""


def test_who_encodes_at_exit_still_can(demo_folder):
    code = """
import atexit, bgert.lifecycle
def last():
    print(bgert.lifecycle.interpreter_ends(), right(), len(list(encoder.stream(texts, block=3))))
atexit.unregister(bgert.lifecycle._wait_for_native_calls)
atexit.register(last)
atexit.register(bgert.lifecycle._wait_for_native_calls)  # runs first
threading.Thread(target=lambda: [encoder.encode(texts) for _ in range(10**9)], daemon=True).start()
"""
    assert python(code, demo_folder, "throughput") == "True True 5\n"


class SlowBackend:
    """Counts batches and how many run at once."""

    def __init__(self, workers=2, cores=1, seconds=0.005):
        self.info = BackendInfo("cpu", "fp32", "double", workers, 1, cores=cores)
        self.batches = self.inside = self.most = 0
        self.seconds = seconds
        self.lock = threading.Lock()

    def run(self, batch):
        with self.lock:
            self.batches += 1
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(self.seconds)
        with self.lock:
            self.inside -= 1
        return np.zeros((len(batch), 1), np.float32)


class OneToken:
    seen = None

    def __call__(self, texts, first, cores):
        n = len(texts)
        self.ids, self.type_ids = np.zeros(n, np.int32), np.zeros(n, np.int32)
        self.cu_seqlens, self.truncated = np.arange(n + 1, dtype=np.int32), np.zeros(n, np.bool_)
        return self


def encode(runner, count):
    for window in runner.windows(iter([["a"] * count]), OneToken()):
        runner.run(window, lambda index, rows: None)


def test_an_interrupt_among_helpers_stops_all_of_them(monkeypatch):
    """A Ctrl-C may come where no batch runs: when a helper has just been started."""
    backend = SlowBackend(workers=3)
    original = threading.Thread.start

    def interrupted(thread):
        original(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        encode(Runner(backend, columns=1, threads=3), 100)
    assert backend.inside == 0
    done = backend.batches
    time.sleep(0.1)
    assert backend.batches == done < 20


def test_no_thread_can_be_started(monkeypatch):
    def refused(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    backend = SlowBackend(workers=3, seconds=0)
    runner = Runner(backend, columns=1, threads=3)
    rows = [len(window) for window in runner.windows(iter([["a"] * 3, ["b"] * 2]), OneToken())]
    assert rows == [3, 2]
    encode(runner, 5)
    assert backend.batches == 5


@pytest.mark.parametrize(("cores", "threads", "most"), [(1, 1, 1), (1, 2, 2), (2, 2, 1), (0, 1, 6)])
def test_all_calls_of_a_model_share_its_cores(cores, threads, most):
    """`cores` that a batch takes, of `threads`; 0 is a device of its own."""
    backend = SlowBackend(workers=1, cores=cores)
    runner = Runner(backend, columns=1, threads=threads)
    callers = [threading.Thread(target=encode, args=(runner, 10)) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert backend.batches == 60
    assert backend.most <= most
    assert cores == 0 or backend.most == most


def test_an_interrupted_wait_holds_no_core(monkeypatch):
    limit = CoreLimit(2)
    with limit.take(2) as cores:
        assert cores == 2
        monkeypatch.setattr(limit._given_back, "wait", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt), limit.take(1):
            pass
        monkeypatch.undo()
    with limit.take(1) as cores, limit.take(1, 5) as others:
        assert (cores, others) == (1, 1)
    with limit.take(1, 5) as cores:
        assert cores == 2
