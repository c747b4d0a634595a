import sys

import pytest

from bgert.errors import EngineNotInstalledError
from bgert.progress import progress_bar


def test_a_bar_where_one_was_asked_for(capsys):
    with progress_bar(3, True) as advance:
        advance(1)
        advance(2)
    assert "3/3" in capsys.readouterr().err


@pytest.mark.parametrize("show", [None, False])
def test_no_bar(show):
    with progress_bar(10**6, show) as advance:
        assert advance is None  # stderr is no terminal here


def test_long_work_in_a_terminal(monkeypatch):
    monkeypatch.setattr("bgert.progress.in_terminal", lambda: True)
    for total, bar in ((10**6, True), (10, False), (None, False)):
        with progress_bar(total, None) as advance:
            assert (advance is not None) == bar


def test_long_work_in_a_notebook(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    for total, bar in ((10**6, True), (10, False)):
        with progress_bar(total, None) as advance:
            assert (advance is not None) == bar


def test_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(EngineNotInstalledError, match="extra `cpu`"), progress_bar(1, True):
        pass
    with progress_bar(1, True, optional=True) as advance:
        assert advance is None
