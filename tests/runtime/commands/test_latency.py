"""`bgert bench --latency`."""

import json

import numpy as np
import pytest

from bgert import Encoder, InvalidOptionError
from bgert.commands.latency import Points, measure, peak_rss_mb, percentiles, report
from bgert.commands.main import main

ENGINE = {"device": "cpu", "precision": "auto", "threads": 1, "mode": "latency"}


def test_percentiles_are_those_of_numpy(rng):
    seconds = [rng.expovariate(100) for _ in range(137)]
    found = percentiles(seconds)
    for name, percent in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99)):
        expected = np.percentile(seconds, percent, method="inverted_cdf") * 1e3
        assert found[f"{name}_ms"] == pytest.approx(expected, abs=1e-4)
    assert (found["calls"], found["min_ms"]) == (137, pytest.approx(min(seconds) * 1e3, abs=1e-4))


def test_too_few_calls_say_nothing_of_the_tail():
    found = percentiles([0.001] * 19)
    assert found["p90_ms"] == 1
    assert found["p95_ms"] is None
    assert found["p99_ms"] is None


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
        (["--latency", "--length", "513"], "max_length is 513"),
        (["--latency", "--length", "2"], "max_length is 2"),
        (["--against", "bge-small-en-v1.5"], "did you mean BAAI/bge-small-en-v1.5?"),
    ],
)
def test_options_that_do_not_fit(demo_folder, capsys, options, said):
    assert main(["bench", str(demo_folder), *options]) == 2
    assert said in capsys.readouterr().err


def test_points_need_something_to_time():
    with pytest.raises(InvalidOptionError, match="from 1"):
        Points([], [16], 1, 1)
