"""Tables and plots of a GPU's result: the figures are those of the JSON."""

import xml.etree.ElementTree as ElementTree

import pytest

import gpu_tables
import results


@pytest.fixture(scope="module")
def result():
    return results.gpu()


def test_a_changed_figure_changes_the_table(result):
    changed = result | {"trained": result["trained"] | {"tokens_per_second": 12_345_678}}
    assert "12,345,678" in gpu_tables.readme(changed)
    assert "12,345,678" not in gpu_tables.readme(result)
    changed = result | {"torch_compile": result["torch_compile"] | {"ms": 13.8488}}
    assert "torch.compile 13.85 ms | 2.00 x |" in gpu_tables.readme(changed)  # bgert: 6.9244


def test_a_peer_whose_settings_were_not_kept_gives_no_ratio(result):
    def row(settings):
        trained = result["trained"] | {"peer_settings": settings}
        return next(
            line
            for line in gpu_tables.readme(result | {"trained": trained}).splitlines()
            if "MiniLM-L6-v2, text" in line
        )

    assert row(None).endswith(" |  |  |")
    assert row({"precision": "fp16", "batch": 128}).endswith(" x |")


def test_what_is_published_names_gpu_versions_day_and_commit(result):
    text = gpu_tables.provenance(result)
    for part in ("NVIDIA H200", "580.159.04", "onnxruntime-gpu 1.31.1", "torch 2.11.0+cu130", "2026-11-26", "f0b6919"):
        assert part in text


def test_every_row_and_length_is_in_the_detail(result):
    text = gpu_tables.detail(result)
    rows = result["kernels"]["rows"] + result["torch_kernels"]["rows"]
    rows += [row for entry in gpu_tables.geometries(result).values() for row in entry["rows"]]
    assert len(rows) > 40
    assert all(f"{row['tokens_per_second']:,}" in text for row in rows)


def test_plots_are_svg_and_the_same_each_time(result):
    drawn = gpu_tables.plots(result)
    assert drawn == gpu_tables.plots(result)
    for content in drawn.values():
        ElementTree.fromstring(content)
    assert drawn["gpu-kernels.svg"].count("<polyline") == 4 + 2
    assert drawn["gpu-geometries.svg"].count("<polyline") == 3
