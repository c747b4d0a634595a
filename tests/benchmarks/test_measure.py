"""Rounds, ratios, latencies, and peers that fail on the way."""

import json

import pytest

import measure
from measure import measure_group, rotated
from summary import ratios


def test_rounds_begin_with_another_peer_each():
    assert [rotated(["a", "b", "c"], number) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]
    assert rotated([], 1) == []


def test_figures_of_a_group(make_peer, make_job):
    peers = [make_peer("bgert", two_modes=True, sleep=0.02), make_peer("other", precision=None, sleep=0.06)]
    measured = measure_group(make_job(peers), peers)["peers"]
    ours, other = measured["bgert"], measured["other"]
    assert len(ours["sets"]["mixed"]["seconds"]) == 3
    assert "ratio" not in ours["sets"]["mixed"]
    assert min(ours["sets"]["mixed"]["seconds"]) >= 0.02
    assert min(other["sets"]["mixed"]["seconds"]) >= 0.06
    expected = ratios(ours["sets"]["mixed"]["seconds"], other["sets"]["mixed"]["seconds"])
    assert other["sets"]["mixed"]["ratio"]["median"] == pytest.approx(expected["median"], rel=1e-2)
    speed = ours["sets"]["mixed"]["tokens_per_second"]
    assert speed["min"] <= speed["median"] <= speed["max"] < 20 / 0.02
    assert ours["sets"]["mixed"]["texts_per_second"]["median"] == pytest.approx(speed["median"] / 5, rel=1e-2)
    assert ours["sets"]["mixed"]["gflops"]["median"] == pytest.approx(speed["median"] * 1000 / 1e9, rel=1e-2)
    assert other["precision"] == "bf16"  # what the engine says, where the list leaves it open
    assert set(ours["settings"]) == {"throughput", "latency"}
    assert set(other["settings"]) == {"throughput"}
    assert ours["latency_ms"]["batch_1"]["calls"] == 6
    assert ours["latency_ms"]["batch_32"]["calls"] == 3
    assert "batch_1000" not in ours["latency_ms"]
    assert ours["latency_ms"]["tokens_16"]["p50"] >= 20
    assert ours["idle_cpu"] < 0.1
    assert json.dumps(measured)


@pytest.mark.parametrize("fail", ["load", "third run", "die", "hang"])
def test_a_peer_that_fails_is_listed_and_the_others_go_on(make_peer, make_job, fail, monkeypatch):
    start = measure.Group.start

    def started(group, peer):  # a short limit for what is to hang alone: on a busy machine the others need their time
        start(group, peer)
        if peer.name == "broken" and fail == "hang":
            group.alive["broken"].process.limit = 1.0

    monkeypatch.setattr(measure.Group, "start", started)
    peers = [make_peer("bgert"), make_peer("broken", fail=fail), make_peer("other")]
    measured = measure_group(make_job(peers, rounds=2, calls=(3, 0, 0)), peers)["peers"]
    assert measured["broken"]["error"]
    assert "sets" not in measured["broken"]
    assert measured["other"]["sets"]["mixed"]["ratio"]["median"] > 0
    assert "error" not in measured["bgert"]


def test_a_peer_that_spins_while_it_waits_is_seen(make_peer, make_job):
    peers = [make_peer("bgert", sleep=0.2), make_peer("spinner", fail="spin", sleep=0.0), make_peer("idle", sleep=0.2)]
    measured = measure_group(make_job(peers, rounds=2, calls=(0, 0, 0)), peers)["peers"]
    # Both wait while others compute. How much of a core a spinner gets is the machine's business; an idler takes none.
    assert measured["spinner"]["idle_cpu"] > 4 * measured["idle"]["idle_cpu"]
    assert measured["spinner"]["idle_cpu"] > 0
