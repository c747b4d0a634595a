"""Arithmetic of the GPU benchmark, that a rehearsed stage is kept and not run again, and that the stages run."""

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


def test_results_of_another_kind_or_commit_are_not_gone_on_with(benchmark, tmp_path, monkeypatch, capsys):
    gpu = benchmark("gpu")
    output = tmp_path / "out.json"
    command = ["gpu.py", "--tokenizer", "t", "--output", str(output), "--work", str(tmp_path / "w"), "--rehearse"]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(gpu, "STAGES", {"one": lambda bench: {}})
    for content in ({"schema": 2}, benchmark("results").begin_gpu("2026-01-01", "another", rehearsal=True)):
        output.write_text(json.dumps(content))
        with pytest.raises(SystemExit):
            gpu.main()
        assert "choose another file" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::bgert.errors.TruncationWarning")  # sample texts are longer than MiniLM takes
@pytest.mark.slow
def test_the_stages_of_other_models_run_on_a_cpu(benchmark, demo_checkpoint, tmp_path, monkeypatch):
    for name in ("torch", "transformers", "sentence_transformers"):
        pytest.importorskip(name, reason="the GPU benchmark's peers")
    gpu = benchmark("gpu")
    shapes = {"minilm": (2, 128, 4, 30522, False), "bert-reranker": (2, 128, 4, 30522, True)}
    monkeypatch.setattr(benchmark("random_checkpoint"), "GEOMETRIES", shapes)
    output = tmp_path / "out.json"
    command = ["gpu.py", "--tokenizer", str(demo_checkpoint), "--output", str(output), "--work", str(tmp_path / "w")]
    stages = [
        "export",
        "graphs",
        "matmul",
        "fused_parity",
        "fused_kernels",
        "trained",
        "rerankers",
        "geometries",
        "fused_shapes",
    ]
    monkeypatch.setattr(sys, "argv", [*command, "--rehearse", "--only", *stages])
    assert gpu.main() == 0
    found = json.loads(output.read_text())
    assert (found["kind"], found["rehearsal"]) == ("gpu", True)
    assert found["trained"]["min_cosine"] > 0.999999
    assert found["rerankers"]["max_logit_difference"] < 1e-4
    assert found["fused_parity"]["passed"]
    assert {row["variant"] for row in found["fused_kernels"]["rows"]} > {"onnxruntime", "fused", "fused, erf"}
    assert found["fused_shapes"]["text"]["mixed_tokens_per_second"] > 0
    assert found["graphs"]["largest_difference"] == 0  # on the CPU both are one backend
    assert found["graphs"]["shapes"].keys() == benchmark("gpu_latency").SHAPES.keys()
    for entry in (*found["graphs"]["shapes"].values(), found["graphs"]["text"]):
        assert entry["graphs"].keys() == entry["plain"].keys() >= {"p50_ms", "p99_ms", "min_ms"}
    assert min(found["graphs"]["threads"].values()) > 0
    committed = benchmark("results").gpu()
    for name in ("trained", "rerankers"):  # what report.py reads of a stage is what the stage writes
        kept = committed[name].keys() - {"tokenize_seconds"}
        assert kept - {"stage_seconds"} <= found[name].keys()
    shape, row = found["geometries"]["minilm"], committed["geometries"]["minilm"]["rows"][0]
    assert row.keys() == shape["rows"][0].keys()
    assert shape["latency_32_tokens"].keys() == committed["geometries"]["minilm"]["latency_32_tokens"].keys()
