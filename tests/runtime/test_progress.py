import sys

import pytest

from bgert.errors import EngineNotInstalledError
from bgert.progress import progress_bar, token_bar


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


def test_the_end_of_a_bar_in_tokens_is_estimated_from_the_texts_so_far(capsys):
    with token_bar(10, True) as bar:
        bar.window(4, 100)
        bar.advance(100)
        assert (bar._bar.n, bar._bar.total) == (100, 250)
        bar.window(6, 20)
        bar.advance(20)
        assert (bar._bar.n, bar._bar.total) == (120, 120)
    assert "120/120" in capsys.readouterr().err


def test_a_bar_in_tokens_without_an_end(capsys):
    with token_bar(None, True) as bar:
        bar.window(4, 100)
        bar.advance(100)
        assert bar._bar.total is None
    with token_bar(10, False) as bar:
        assert bar is None
