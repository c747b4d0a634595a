"""Signals to commands in processes of their own."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bgert.commands.signals import Stopped, signals_unwind

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "the terminal is gone"}


def encode(folder, source, out, **options):
    command = [sys.executable, "-m", "bgert", "encode", folder, "--input", source, "--output", out]
    return subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True, preexec_fn=heed, **options)


def heed():
    """A shell that starts the tests in the background has Ctrl-C ignored, which is inherited."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("ending", ["npy", "jsonl"])
def test_nothing_is_left_half_written(demo_folder, tmp_path, number, ending):
    out = tmp_path / f"out.{ending}"
    out.write_bytes(b"old")
    process = encode(demo_folder, "-", out, stdin=subprocess.PIPE)
    until = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2:  # the half-written file
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    process.send_signal(number)  # a group and its leader often get one each
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (128 + number, f"bgert: {WORDS[number]}\n")
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert out.read_bytes() == b"old"


def wait_for_bgert(process):
    """Until bgert's own code runs, Python itself answers."""
    maps = Path(f"/proc/{process.pid}/maps")
    until = time.monotonic() + 60
    while "_native" not in maps.read_text():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc")
@pytest.mark.parametrize("number", SIGNALS)
def test_signals_at_any_time(demo_folder, tmp_path, number):
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    source, out = tmp_path / "in.txt", tmp_path / "out.npy"
    source.write_text("".join("some text " * (n % 40 + 1) + "\n" for n in range(800)))
    for _ in range(8):
        process = encode(demo_folder, source, out)
        wait_for_bgert(process)
        time.sleep(draw.random())
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert process.returncode in (0, 128 + number), error
        assert error == (f"bgert: {WORDS[number]}\n" if process.returncode else "")
        assert out.exists() == (process.returncode == 0)
        out.unlink(missing_ok=True)
        assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


def test_handlers_are_given_back_and_what_was_ignored_stays_so():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with signals_unwind():
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(Stopped) as stop:
                signal.raise_signal(signal.SIGTERM)
        assert (stop.value.status, str(stop.value)) == (143, "terminated")
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def test_a_command_outside_the_main_thread_leaves_signals_alone():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def inside():
        with signals_unwind():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]
