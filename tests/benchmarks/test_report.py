"""Tables and plots of a made-up result."""

import xml.etree.ElementTree as ElementTree

import pytest

import tables
from figures import best_peer, running, share
from plots import plots


def entry(speed, ratio=None, precision="fp32"):
    def spread(value):
        return {"median": value, "min": value * 0.9, "max": value * 1.1}

    sets = {
        name: {
            "tokens_per_second": spread(speed),
            "texts_per_second": spread(speed / 50),
            "gflops": spread(speed / 50),
        }
        | ({"ratio": spread(ratio)} if ratio else {})
        for name in ("short", "mixed")
    }
    return {
        "precision": precision,
        "settings": {"throughput": {"batch": 32}},
        "load_seconds": 0.5,
        "cold_start_seconds": 0.75,
        "peak_rss_bytes": 200_000_000,
        "idle_cpu": 0.0,
        "sets": sets,
        "latency_ms": {"batch_1": {"p50": 3.0, "p95": 4.0, "p99": 5.0, "calls": 9}},
        "quality": {"texts": "mixed", "cosine_mean": 1.0, "cosine_min": 0.9999999, "ndcg_at_10": 0.4},
    }


@pytest.fixture
def result():
    facts = {"texts": 10, "tokens": 500, "median_tokens": 40, "longest": 256}
    model = {
        "kind": "encoder",
        "weights": "trained",
        "layers": 6,
        "hidden": 384,
        "pooling": "mean",
        "max_length": 256,
        "rounds": 3,
        "sets": {"short": facts, "mixed": facts},
        "gemm": {"fp32": {"layer": {"median": 400.0, "min": 390.0, "max": 410.0}}},
        "peers": {
            "fastembed": {"precision": "fp32", "error": "no\nwheel"},
            "openvino-default": entry(24_000, 0.67, "bf16"),
            "openvino-f32": entry(14_000, 1.14, "f32"),
            "sentence-transformers": entry(5_000, 3.2),
            "bgert": entry(16_000),
        },
    }
    return {
        "schema": 2,
        "date": "2026-01-01",
        "commit": "abc",
        "machine": {
            "processor": "P",
            "instructions": ["avx2"],
            "cores": 2,
            "memory_gib": 24,
            "system": "Linux",
            "python": "3.11.7",
        },
        "environments": {
            "openvino_by_hand": {
                "versions": {"openvino": "2026.4.1"},
                "install_bytes": 300_000_000,
                "install_seconds": 8.0,
            }
        },
        "models": {"minilm": model, "bge-base": {"error": "no tokenizer", "peers": {}}},
        "tokenizer": None,
    }


def test_best_peer_by_precision(result):
    model = result["models"]["minilm"]
    exact, less = (best_peer(model, "mixed", exact=exact) for exact in (True, False))
    assert (exact.peer, exact.ratio) == ("openvino-f32", 1.14)
    assert (less.peer, less.ratio) == ("openvino-default", 0.67)


def test_share_only_where_the_bare_rate_of_the_precision_is_known(result):
    model = result["models"]["minilm"]
    assert share(model, model["peers"]["bgert"], "mixed") == pytest.approx(16_000 / 50 / 400)
    assert share(model, model["peers"]["openvino-default"], "mixed") is None


def test_rows_come_in_the_order_of_the_peer_list(result):
    assert [*running(result["models"]["minilm"])] == [
        "bgert",
        "sentence-transformers",
        "openvino-f32",
        "openvino-default",
    ]


def test_readme_tables(result):
    text = tables.readme(result)
    assert "| **bgert** | **fp32** | **16,000** |" in text
    assert "| **bgert** | **fp32** | **16,000** | **3.20 x** |" in text
    assert "| sentence-transformers, torch | fp32 | 5,000 | 1.00 x |" in text
    assert "| OpenVINO by hand, f32 2026.4.1 | fp32 | 14,000 | 2.81 x |" in text  # 3.2 / 1.14
    assert "- fastembed did not run: no wheel" in text
    assert "| minilm | **1.14** (0.67) | **1.14** (0.67) |" in text
    widths = {line.count("|") for line in tables.peers_table(result, result["models"]["minilm"])}
    assert len(widths) == 1


def test_headline(result):
    result["models"]["minilm"]["peers"]["bgert-bf16"] = entry(32_000, 0.5, "bf16")
    result["models"]["minilm"]["peers"]["sentence-transformers"]["peak_rss_bytes"] = 1_000_000_000
    result["models"]["minilm"]["peers"]["sentence-transformers"]["cold_start_seconds"] = 3
    for name, size in (("bgert", 150_000_000), ("sentence_transformers", 1_200_000_000)):
        result["environments"][name] = {"install_bytes": size}
    assert tables.headline(result) == (
        "**3.2 times the speed of sentence-transformers on a CPU** in fp32 with the same vectors (cosine 1.0000000), "
        "6.4 times in bf16; 1/8 of its disk, 1/5 of its memory, 1/4 of its time from start to first vector."
    )


def test_detail_names_every_model_and_plot(result):
    text = tables.detail(result, ["latency-minilm.svg", "roofline.svg"])
    assert "## minilm" in text
    assert "Not measured: no tokenizer" in text
    assert "plots/latency-minilm.svg" in text
    assert "3 / 4 / 5" in text


def test_plots_are_svg_and_the_same_each_time(result):
    drawn = plots(result)
    assert drawn == plots(result)
    assert set(drawn) == {"roofline.svg", "throughput-minilm.svg", "latency-minilm.svg", "quality-minilm.svg"}
    for content in drawn.values():
        ElementTree.fromstring(content)
    assert drawn["roofline.svg"].count("<rect") == 1 + 2 * 3  # background, and a bar and a legend for each of fp32
