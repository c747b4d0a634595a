"""docs/MODELS.md is what its tool makes of the exporter's tables, and what it says of targets is what writers do."""

import importlib.util
import json
from pathlib import Path

import pytest

from bgert_export.families import FAMILIES

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("models_page", ROOT / "tools" / "models_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(tool):
    assert tool.PAGE.read_text("utf-8") == tool.page(), "python tools/models_page.py"


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_architecture_has_its_targets(tool, model_type):
    from bgert_export.targets import TARGETS

    assert set(tool.targets(model_type).split(", ")) <= set(TARGETS)


def test_true_shapes_are_told_as_they_were_measured(tool, tmp_path, monkeypatch):
    entry = {
        "kind": "encoder",
        "geometry": ["nomic_bert", 12, 768, 12, 3072, 30528],
        "max_tokens": 8192,
        "inputs": 270,
        "corpus": "270 built-in texts of 2 to 4097 tokens, 90 lengths (1025, 4097 among them): English",
        "max_abs_error": 4.2e-7,
        "min_cosine": 0.99999991,
        "graph_bytes": 547e6,
        "seconds": 121.4,
        "peak_rss_bytes": 2.34e9,
    }
    monkeypatch.setattr(tool, "SHAPES", tmp_path / "shapes.json")
    assert "## True shapes" not in tool.page()
    shapes = {"nomic-embed-text-v1.5": entry, "bge-m3": {"error": "it broke"}}
    tool.SHAPES.write_text(json.dumps({"machine": {"processor": "A processor", "cores": 2}, "shapes": shapes}))
    lines = tool.page().splitlines()
    line = "| nomic-embed-text-v1.5 | nomic_bert | 8,192 | 270 | 4,097 | 4.2e-07 | 0.9999999 | 547 MB | 121 | 2.3 GB |"
    assert line in lines
    assert not any(line.startswith("| bge-m3 ") for line in lines)
    rows = {line.split(" ")[1]: line for line in lines if line.startswith("| ")}
    assert rows["nomic-ai/nomic-embed-text-v1.5"].endswith("| its shape, on random weights |")
    assert rows["BAAI/bge-m3"].endswith("| its architecture, on random weights |")
