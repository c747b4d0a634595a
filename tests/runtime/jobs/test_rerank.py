"""`bgert rerank` on files: one query's documents, and pairs a row."""

import json

import numpy as np
import pytest

from bgert import Reranker
from bgert.commands.main import main
from bgert_export import export


@pytest.fixture(scope="module")
def folder(make_reranker_checkpoint, tmp_path_factory):
    target = tmp_path_factory.mktemp("reranker") / "model"
    export(make_reranker_checkpoint(num_labels=1), target, verify=False)
    return target


@pytest.fixture
def rerank(folder):
    return lambda *options: main(["rerank", str(folder), "--threads", "1", *map(str, options)])


@pytest.fixture
def pairs(sentences, tmp_path):
    """(query, document) of 50 rows of in.jsonl."""
    both = list(zip(sentences(50, seed=1), sentences(50, seed=2), strict=True))
    lines = [
        json.dumps({"id": n, "q": query, "text": document, "index": -n}) for n, (query, document) in enumerate(both)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    return both


@pytest.mark.parametrize("sigmoid", [False, True])
def test_a_score_a_row(rerank, folder, pairs, tmp_path, sigmoid, monkeypatch, capsys):
    expected = Reranker(folder).score(pairs, sigmoid=sigmoid)
    monkeypatch.setattr("bgert.commands.rerank.CALL_ROWS", 8)
    argv = ["--query-column", "q", "--input", tmp_path / "in.jsonl", "--part-rows", "20", *["--sigmoid"] * sigmoid]
    assert rerank(*argv, "--output", tmp_path / "out.npy") == 0
    assert "50 scores in" in capsys.readouterr().out
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
    assert rerank(*argv, "--output", tmp_path / "out.jsonl", "--keep", "id", "--score-column", "s", "--resume") == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == list(range(50))
    np.testing.assert_array_equal(np.array([line["s"] for line in lines], np.float32), expected)


def test_parquet(rerank, folder, pairs, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    assert rerank("--query-column", "q", "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.parquet") == 0
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.names == ["id", "q", "text", "index", "score"]
    np.testing.assert_array_equal(table.column("score"), Reranker(folder).score(pairs))


def test_documents_of_several_files_with_what_is_kept(rerank, folder, pairs, tmp_path, capsys):
    (tmp_path / "more.jsonl").write_text('{"id": 50, "text": null}\n{"id": 51, "text": "the last"}\n')
    argv = ["--query", "a file", "--input", tmp_path / "in.jsonl", tmp_path / "more.jsonl", "--json", "--keep", "id"]
    assert rerank(*argv, "--nulls", "drop") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(line["id"] == line["index"] for line in lines)
    documents = [document for _, document in pairs] + ["the last"]
    expected = Reranker(folder).rank("a file", documents)
    assert [line["text"] for line in lines] == [documents[index] for index, _ in expected]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--query-column", "q"], "needs --output"),
        (["--query-column", "q", "--output", "-", "--top-k", "3"], "go with --query"),
        (["--query", "x", "--output", "-"], "go with --query-column"),
        (["--query-column", "none", "--output", "-"], "no text in field 'none'"),
        (["--query", "x", "--json", "--keep", "all", "--text-column", "q"], "has a field 'index' already"),
    ],
)
def test_what_does_not_go_together(rerank, pairs, tmp_path, capsys, options, said):
    assert rerank("--input", tmp_path / "in.jsonl", *options) == 2
    assert said in capsys.readouterr().err
