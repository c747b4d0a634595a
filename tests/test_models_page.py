"""docs/MODELS.md is what its tool makes of the exporter's tables, and what it says of targets is what writers do."""

import importlib.util
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
