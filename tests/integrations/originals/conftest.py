import pytest

import bgert
from bgert.integrations import instructions


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch):
    """Each test sees the warnings that a process gives once."""
    monkeypatch.setattr(instructions, "_told", set())


@pytest.fixture(scope="session")
def bge(models):
    return bgert.Encoder(models["exported-bge"])
