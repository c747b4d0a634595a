"""The examples run."""

import importlib.util
from pathlib import Path

import pytest

import bgert
from bgert.evaluation.sample_texts import docstrings

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore::bgert.TruncationWarning")
def test_two_stage_search(encoder, make_reranker_checkpoint, tmp_path):
    from bgert_export import export

    export(make_reranker_checkpoint(num_labels=1), tmp_path / "reranker", verify=False)
    reranker = bgert.Reranker(tmp_path / "reranker")
    corpus = {name: text for name, text in docstrings().items() if name.startswith(("shutil.", "textwrap."))}
    query = "copy a directory tree"
    found = load("two_stage_search").search(encoder, reranker, corpus, query, candidates=5)
    similarities = encoder.encode_corpus(list(corpus.values())) @ encoder.encode_queries(query)
    nearest = [list(corpus)[index] for index in (-similarities).argsort()[:5]]
    assert "shutil.copytree" in nearest
    best = [nearest[index] for index, _ in reranker.rank(query, [corpus[name] for name in nearest], top_k=3)]
    assert [name for name, _ in found] == best


def test_the_demo_answers_its_questions(demo_folder, capsys, monkeypatch):
    demo = load("demo")
    modules = tuple(expected.split(".")[0] + "." for expected in demo.QUESTIONS.values())
    few = {name: text for name, text in docstrings().items() if name.startswith(modules)}
    monkeypatch.setattr(demo, "docstrings", lambda: few)
    with pytest.warns(bgert.TruncationWarning):
        assert demo.search(demo_folder)
    out = capsys.readouterr().out
    for expected in demo.QUESTIONS.values():
        assert expected in out
    assert "MISSED" not in out
