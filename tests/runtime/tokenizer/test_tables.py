"""The committed Unicode tables are what the installed `tokenizers` does."""

import importlib.util
import sys
from pathlib import Path

import pytest
import tokenizers

TOOL = Path(__file__).resolve().parents[3] / "tools" / "probe_hf_tables.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("probe_hf_tables", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_tables_are_what_the_probe_finds(tool):
    if not tokenizers.__version__.startswith(tool.PROBED_VERSION + "."):
        pytest.skip(f"the tables are pinned to tokenizers {tool.PROBED_VERSION}, this is {tokenizers.__version__}")
    assert tool.OUTPUT.read_text(encoding="utf-8") == tool.render(tool.probe())


def test_tables_stay_small(tool):
    assert tool.OUTPUT.stat().st_size < 200_000
