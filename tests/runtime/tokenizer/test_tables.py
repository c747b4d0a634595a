"""The committed Unicode tables are what the installed `tokenizers` does."""

import pytest
import tokenizers


@pytest.fixture(scope="module")
def probe(tool):
    return tool("probe_hf_tables")


def test_tables_are_what_the_probe_finds(probe):
    if not tokenizers.__version__.startswith(probe.PROBED_VERSION + "."):
        pytest.skip(f"the tables are pinned to tokenizers {probe.PROBED_VERSION}, this is {tokenizers.__version__}")
    assert probe.OUTPUT.read_text(encoding="utf-8") == probe.render(probe.probe())


def test_tables_stay_small(probe):
    assert probe.OUTPUT.stat().st_size < 200_000
