"""Arithmetic of the GPU benchmark, and that a rehearsed stage is kept and not run again."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_flops_are_those_of_the_matrix_products(benchmark):
    architecture = {"hidden_size": 8, "intermediate_size": 32, "num_hidden_layers": 3}
    count = 0
    lengths = [5, 2]
    for layer in range(3):
        for n in lengths:
            count += 3 * n * 8 * 8 + 2 * n * n * 8
            rows = 1 if layer == 2 else n
            count += rows * (8 * 8 + 2 * 8 * 32)
    measure = benchmark("gpu_measure")
    assert measure.flops(architecture, lengths, cls=True) == 2 * count
    assert measure.flops(architecture, lengths, cls=False) > 2 * count


def test_random_batches_stay_within_the_budget(benchmark):
    batches = benchmark("gpu_measure").random_batches(100, 4096, 512, 1000, seed=5)
    assert all(1 <= len(batch.input_ids) <= 4096 for batch in batches)
    assert len({len(batch.input_ids) for batch in batches}) > 50
    assert max(int(np.diff(batch.cu_seqlens).max()) for batch in batches) > 256


def test_percentiles(benchmark):
    found = benchmark("gpu_measure").percentiles([0.001 * n for n in range(1, 101)])
    assert found == {"p50_ms": 50.5, "p99_ms": 100.0, "min_ms": 1.0, "runs": 100}


def test_results_are_kept_and_failures_seen(benchmark, tmp_path, monkeypatch, capsys):
    gpu = benchmark("gpu")
    calls = []

    def stage(name, result):
        def run(bench):
            calls.append(name)
            if isinstance(result, Exception):
                raise result
            return dict(result)

        return run

    stages = {
        "one": stage("one", {"x": 1}),
        "two": stage("two", RuntimeError("broke")),
        "three": stage("three", {"passed": True}),
    }
    monkeypatch.setattr(gpu, "STAGES", stages)
    output = tmp_path / "out.json"
    command = ["gpu.py", "--tokenizer", "t", "--output", str(output), "--work", str(tmp_path / "w"), "--rehearse"]
    monkeypatch.setattr(sys, "argv", command)
    assert gpu.main() == 1
    assert calls == ["one", "two", "three"]
    stages["two"] = stage("two", {"x": 2})
    assert gpu.main() == 0
    assert calls == ["one", "two", "three", "two"]
    assert json.loads(output.read_text())["two"]["x"] == 2
    stages["three"] = stage("three", {"passed": False})
    monkeypatch.setattr(sys, "argv", [*command, "--only", "three"])
    assert gpu.main() == 1
    assert "FAILED: three" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command[:-1], "--deadline", "-1"])
    with pytest.raises(SystemExit):
        gpu.main()
