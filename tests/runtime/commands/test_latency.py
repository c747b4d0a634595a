"""`bgert bench --latency`."""

import json
import time
from xml.etree import ElementTree

import numpy as np
import pytest

from bgert import Encoder, InvalidOptionError
from bgert.commands.latency import report
from bgert.commands.main import main
from bgert.energy import Meter, Missing
from bgert.latency.calls import Points
from bgert.latency.cold_start import PARTS
from bgert.latency.measure import measure, peak_rss_mb

ENGINE = {"device": "cpu", "precision": "auto", "threads": 1, "mode": "latency"}


def test_calls_have_the_batch_and_length_that_were_asked_for(demo_folder, monkeypatch):
    seen = []
    encode = Encoder.encode

    def watched(self, texts, **options):
        result = encode(self, texts, **options)
        seen.append((len(texts), result.info.tokens, self._runner.backend.info.workers))
        return result

    monkeypatch.setattr(Encoder, "encode", watched)
    result = measure(demo_folder, Points([1, 3], [16, 256], calls=4, warm_up=2), **ENGINE)
    expected = [(batch, batch * length, 1) for length in (16, 256) for batch in (1, 3) for _ in range(6)]
    assert seen == expected
    assert [(point["batch"], point["length"]) for point in result["points"]] == [(1, 16), (3, 16), (1, 256), (3, 256)]
    for point in result["points"]:
        assert point["calls"] == 4
        assert point["tokens_a_call"] == point["batch"] * point["length"]
        assert point["min_ms"] <= point["p50_ms"] <= point["max_ms"]
        assert 1e3 * point["batch"] / point["max_ms"] <= point["texts_per_second"] + 0.1
        assert point["texts_per_second"] <= 1e3 * point["batch"] / point["min_ms"] + 0.1
    assert result["load_seconds"] > 0
    assert "too few calls" in report(result)


def test_lengths_are_as_far_as_the_model_takes_them(demo_folder):
    result = measure(demo_folder, Points([1], None, calls=1, warm_up=1), **ENGINE)
    assert [point["tokens_a_call"] for point in result["points"]] == [16, 128, 256]


def test_a_reranker(make_reranker_checkpoint, tmp_path, capsys):
    assert main(["export", str(make_reranker_checkpoint(num_labels=1)), "-o", str(tmp_path / "m"), "--no-verify"]) == 0
    capsys.readouterr()
    argv = ["bench", str(tmp_path / "m"), "--latency", "--batch", "2", "--length", "32", "--calls", "100", "--json"]
    assert main(argv) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["cold_start"]) == {*PARTS, "total_seconds", "runs"}
    (point,) = result["points"]
    assert (result["kind"], point["tokens_a_call"], point["calls"], result["mode"]) == ("reranker", 64, 100, "latency")
    assert point["p50_ms"] <= point["p99_ms"] <= point["max_ms"]


def test_peak_memory_counts_what_this_process_has_had():
    before = peak_rss_mb()
    np.ones(int(before * 1e6 / 8) + 10_000_000)
    assert peak_rss_mb() > before + 50


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--batch", "1"], "--batch needs --latency"),
        (["--warm-up", "1"], "--warm-up needs --latency"),
        (["--latency", "--rounds", "2"], "--rounds is not for --latency"),
        (["--latency", "--batch", "1,x"], "--batch is '1,x'"),
        (["--latency", "--batch", "0"], "from 1"),
        (["--latency", "--calls", "0"], "from 1"),
        (["--latency", "--length", "513"], "--length is 513"),
        (["--latency", "--length", "2"], "--length is 2"),
        (["--rate", "5"], "--rate needs --latency"),
        (["--plot", "x.svg"], "--plot needs --latency"),
        (["--latency", "--rate", "0"], "--rate takes calls a second"),
        (["--latency", "--rate", "5,nan"], "--rate takes calls a second"),
        (["--latency", "--rate", "many"], "--rate is 'many'"),
        (["--latency", "--seed", "1"], "--seed is of the calls of --rate"),
        (["--latency", "--cold-starts", "-1"], "--cold-starts is -1"),
        (["--latency", "--plot", "x.png"], "ends in .svg"),
        (["--latency", "--plot", "/no/such/folder/x.svg"], "/no/such/folder is no folder"),
        (["--against", "bge-small-en-v1.5"], "did you mean BAAI/bge-small-en-v1.5?"),
    ],
)
def test_options_that_do_not_fit(demo_folder, capsys, options, said):
    assert main(["bench", str(demo_folder), *options]) == 2
    assert said in capsys.readouterr().err


def test_points_need_something_to_time():
    with pytest.raises(InvalidOptionError, match="from 1"):
        Points([], [16], 1, 1)


def test_by_the_clock(demo_folder, tmp_path, monkeypatch, capsys):
    """A model that takes 20 ms for a call is at 10 calls a second idle, and at 200 a second behind from the start."""
    encode = Encoder.encode

    def slow(self, texts, **options):
        time.sleep(0.02)
        return encode(self, texts, **options)

    monkeypatch.setattr(Encoder, "encode", slow)
    argv = ["bench", str(demo_folder), "--latency", "--batch", "2", "--length", "8", "--calls", "20", "--warm-up", "1"]
    argv += ["--rate", "5,1000", "--seed", "7", "--cold-starts", "0"]
    assert main([*argv, "--json", "--plot", str(tmp_path / "x.svg")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["loop"], result["cold_start"]) == ("open", None)
    idle, busy = result["points"]
    assert [(point["rate"], point["seed"], point["tokens_a_call"]) for point in result["points"]] == [
        (5, 7, 16),
        (1000, 7, 16),
    ]
    assert not idle["above_capacity"]
    assert idle["service"]["min_ms"] >= 20
    assert idle["achieved_per_second"] == pytest.approx(5, rel=0.1)
    assert busy["above_capacity"]
    assert busy["longest_queue"] > 15
    # 20 calls of 20 ms and more that come within 20 ms: the last waits for all.
    assert busy["latency"]["max_ms"] > 20 * 20 - 20
    assert busy["service"]["p50_ms"] < busy["latency"]["p50_ms"] / 4
    assert busy["capacity_per_second"] < 50
    drawn = ElementTree.parse(tmp_path / "x.svg").getroot()
    assert [one.tag.rpartition("}")[2] for one in drawn].count("polyline") == 1  # p99 of 20 calls says nothing
    text = report(result)
    assert "seed 7" in text
    assert "ABOVE CAPACITY: 1000 calls/s of 2 x 8" in text
    assert "ABOVE CAPACITY: 5 " not in text


def test_a_plot_of_one_call_after_the_other(demo_folder, tmp_path):
    argv = ["bench", str(demo_folder), "--latency", "--batch", "1,2", "--length", "8,16", "--calls", "100"]
    assert main([*argv, "--warm-up", "1", "--cold-starts", "0", "--plot", str(tmp_path / "x.svg")]) == 0
    drawn = ElementTree.parse(tmp_path / "x.svg").getroot()
    lines = [one for one in drawn if one.tag.endswith("polyline")]
    assert [line.get("stroke-dasharray") is not None for line in lines] == [False, True, False, True]
    assert lines[0].get("stroke") == lines[1].get("stroke") != lines[2].get("stroke")
    assert all(len(line.get("points").split()) == 2 for line in lines)
    words = [one.text for one in drawn if one.tag.endswith("text")]
    assert {"batch 1, p50", "batch 2, p99", "tokens a text", "8", "16"} <= set(words)


def test_energy_stands_beside_the_times(demo_folder, monkeypatch, capsys):
    class Counts:
        name, covers, shortest, period, joules = "RAPL package-0", "the processors' packages", 0.0, 100.0, 0.0

        def read(self):
            self.joules += 12.0
            return self.joules

    monkeypatch.setattr(
        "bgert.latency.measure.meter_for", lambda device: Meter([Missing("NVML", "no driver"), Counts()])
    )
    for loop in ([], ["--rate", "1000"]):
        argv = ["bench", str(demo_folder), "--latency", "--length", "8", "--calls", "4", "--warm-up", "1", *loop]
        assert main([*argv, "--cold-starts", "0", "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        missing, found = result["points"][0]["energy"]
        assert (missing["why"], missing["joules_a_call"]) == ("no driver", None)
        assert (found["joules"], found["joules_a_call"], found["why"]) == (12, 3, None)
        assert found["tokens_a_joule"] == pytest.approx(32 / 12, rel=1e-3)
        assert found["watts"] == pytest.approx(12 / found["seconds"], rel=0.2)
        assert "energy: RAPL package-0 (the processors' packages" in report(result)
        assert "energy: not by NVML: no driver" in report(result)


def test_threads_are_those_that_it_works_with(demo_folder, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = measure(demo_folder, Points([1], [8], calls=1, warm_up=1), **{**ENGINE, "threads": None})
    assert result["threads"] == 1 == Encoder(demo_folder)._runner.cores


def test_a_model_that_cannot_be_opened_says_so_itself(demo_folder, capsys):
    assert main(["bench", str(demo_folder), "--latency", "--precision", "int8"]) == 2
    assert "int8" in (said := capsys.readouterr().err)
    assert "new process" not in said
