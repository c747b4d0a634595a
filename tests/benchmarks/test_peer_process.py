"""The protocol between the harness and a peer."""

import json
import sys
import time

import numpy as np
import pytest

from peer_process import PeerFailedError, PeerProcess, cold_start, surroundings

TASK = {"kind": "encoder", "mode": "throughput", "options": {}}


@pytest.fixture
def start(adapter, log):
    started = []

    def make(**options):
        process = PeerProcess(sys.executable, adapter, log, 120.0)
        started.append(process)
        process.ask("load", task=TASK | {"options": options})
        return process

    yield make
    for process in started:
        process.close()


def give(process, tmp_path, texts):
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(texts))
    assert process.ask("texts", name="some", path=str(path))["count"] == len(texts)


def test_a_pass_is_timed_inside_and_its_vectors_are_kept(start, tmp_path):
    process = start(sleep=0.05)
    give(process, tmp_path, ["a", "中文"])
    begun = time.perf_counter()
    answer = process.ask("encode", name="some", vectors=str(tmp_path / "v.npy"))
    assert 0.05 <= answer["seconds"] <= time.perf_counter() - begun
    assert np.load(tmp_path / "v.npy").tolist() == [[1, 1], [2, 1]]


def test_latency_walks_through_the_texts(start, tmp_path):
    process = start()
    give(process, tmp_path, ["a", "b", "c"])
    assert len(process.ask("latency", name="some", size=7, repeats=4, first=2)["calls"]) == 4


def test_peak_memory(start):
    assert 5e6 < start().ask("memory")["peak_rss_bytes"] < 5e9


@pytest.mark.parametrize(("fail", "message"), [("die", "died in 'encode', status 3"), ("hang", "within 1 s")])
def test_a_peer_that_stops_answering_is_an_error(start, tmp_path, fail, message):
    process = start(fail=fail)
    give(process, tmp_path, ["a"])
    if fail == "hang":
        process.limit = 1.0
    with pytest.raises(PeerFailedError, match=message):
        process.ask("encode", name="some")


def test_what_a_peer_raises_is_told_and_it_lives_on(start, tmp_path):
    process = start()
    with pytest.raises(PeerFailedError, match="KeyError: 'unknown'"):
        process.ask("encode", name="unknown")
    give(process, tmp_path, ["a"])
    process.ask("encode", name="some")


def test_an_adapter_that_cannot_be_imported_is_told(log):
    with (
        PeerProcess(sys.executable, "no_such_adapter", log, 30) as process,
        pytest.raises(PeerFailedError, match="no_such_adapter"),
    ):
        process.ask("load", task=TASK)


def test_a_waiting_peer_sleeps(start):
    process = start()
    used = []
    for _ in range(10):  # it may still be starting up
        before = process.cpu_seconds()
        time.sleep(0.3)
        used.append(process.cpu_seconds() - before)
        if used[-1] <= 0.02:
            return
    pytest.fail(f"CPU seconds in each 0.3 s: {used}")


def test_cold_start_counts_from_the_start_of_the_process(adapter, log, tmp_path):
    task = TASK | {"texts": str(tmp_path), "options": {"sleep": 0.2}}
    begun = time.perf_counter()
    seconds = cold_start(sys.executable, adapter, task, log, 120)
    assert 0.2 < seconds <= time.perf_counter() - begun


def test_peers_do_not_see_the_callers_python(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    assert not [name for name in surroundings() if name.startswith("PYTHON")]
    assert surroundings()["HF_HUB_OFFLINE"] == "1"
