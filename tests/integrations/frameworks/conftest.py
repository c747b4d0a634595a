import pytest

from bgert.integrations import instructions


def pytest_configure(config):
    config.option.asyncio_mode = "auto"  # langchain-tests' coroutines carry no mark


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch):
    """Each test sees the warnings that a process gives once."""
    monkeypatch.setattr(instructions, "_told", set())
