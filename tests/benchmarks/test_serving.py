"""The server's results: what must be reached is judged by the figures, tables and plots come from them."""

import copy
import xml.etree.ElementTree as ElementTree

import pytest

import serving


def load(times, share, p99=5000.0, statuses=None, **more):
    return {
        "times_capacity": times,
        "share_of_capacity": share,
        "seconds": 60.0,
        "statuses": statuses or {"200": 500, "429": 600},
        "latency_ms": {"p50": p99 / 2, "p95": p99, "p99": p99, "max": p99},
        "queue_bound_ms": 10_000.0,
        "promised_ms": 9_000.0,
        "resident_bytes": {"start": 1e8, "half": 1.2e8, "end": 1.2e8, "max": 1.2e8},
    } | more


@pytest.fixture
def result():
    runs = {"requests_per_cpu_second": 100.0, "runs": []}
    ratio = {name: runs | {"ratio": {"median": value}} for name, value in (("bgert-fp32", 2.0), ("bgert-int8", 4.5))}
    return {
        "schema": serving.SCHEMA,
        "date": "2026-01-01",
        "commit": "abc",
        "machine": {"processor": "P", "cores": 2},
        "peer_versions": {"infinity-emb": "0.0.78"},
        "stages": {
            "cost": {"share": {"base64": 0.95, "float": 0.88}},
            "idle": {"p50_over_encoder_ms": 0.5, "ms": {"server": {"p50": 2.5}, "encoder": {"p50": 2.0}}},
            "load": {
                "capacity_requests_per_second": 30.0,
                "texts_each": 8,
                "loads": [
                    load(0.5, 0.5, 50.0, {"200": 300}),
                    load(2.0, 0.95, speed_after_2_s=0.99),
                    load(10.0, 0.92, speed_after_2_s=0.97),
                ],
            },
            "abandoned": {"delay_in_batches": {"median": 1.0, "max": 1.9}},
            "peer": {shape: copy.deepcopy(ratio) | {"infinity": runs} for shape in serving.SHAPES},
        },
    }


BROKEN = {
    "base64": lambda stages: stages["cost"]["share"].update(base64=0.89),
    "float": lambda stages: stages["cost"]["share"].update(float=0.84),
    "idle": lambda stages: stages["idle"].update(p50_over_encoder_ms=0.81),
    "replies": lambda stages: stages["load"]["loads"][1]["statuses"].update({"none": 1}),
    "goodput": lambda stages: stages["load"]["loads"][2].update(share_of_capacity=0.89),
    "a full queue": lambda stages: stages["load"]["loads"][1]["latency_ms"].update(p99=10_001.0),
    "what admission promised": lambda stages: stages["load"]["loads"][1].update(promised_ms=3_999.0),
    "memory": lambda stages: stages["load"]["loads"][1]["resident_bytes"].update(end=1.3e8),
    "2 s after": lambda stages: stages["load"]["loads"][1].update(speed_after_2_s=0.8),
    "abandoned": lambda stages: stages["abandoned"]["delay_in_batches"].update(max=3.0),
    "bgert-int8": lambda stages: stages["peer"]["single_c16"]["bgert-int8"]["ratio"].update(median=3.9),
}


def test_all_is_reached(result):
    assert serving.failures(result) == []
    assert len(serving.checks(result)) == 2 + 1 + 2 * 6 + 1 + 4


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_not_reached_is_said(result, what):
    broken = copy.deepcopy(result)
    BROKEN[what](broken["stages"])
    (line,) = serving.failures(broken)
    assert what in line


def test_tables_and_plots(result):
    table = serving.readme(result)
    assert "**95%** with base64" in table
    assert "10 times capacity offered for 60 s" in table
    assert "beside infinity-emb 0.0.78" in table
    assert {line.count("|") for line in table.splitlines() if line.startswith("|")} == {3}
    drawn = serving.plots(result)
    for name, content in drawn.items():
        ElementTree.fromstring(content)
        assert f"plots/{name}" in serving.detail(result)
    assert len(drawn) == 2


def test_nothing_was_measured(tmp_path):
    assert serving.newest(tmp_path) is None
    assert (serving.readme(None), serving.detail(None), serving.plots(None)) == ("", "", {})
