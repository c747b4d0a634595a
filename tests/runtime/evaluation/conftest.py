"""Small judged collections as files."""

import json

import pytest

from bgert import Reranker
from bgert_export import export

DOCUMENTS = {
    "d1": ("Copy a folder", "copy a folder with everything in it"),
    "d2": ("", "the weather is fine today"),
    "d3": ("JSON", "parse a JSON document into objects"),
    "d4": (None, "compress a file with gzip"),
    "q1": ("Folders", "remove a folder and all files below it"),
    "d6": ("", ""),
}
QUERIES = {"q1": "how do I copy a directory", "q2": "read JSON", "q3": "nobody answers this", "q4": "another split"}
QRELS = {"q1": {"d1": 3, "q1": 1, "d2": 0}, "q2": {"d3": 1, "d4": -1}, "q3": {"d2": 0}}


@pytest.fixture
def collection_folder(tmp_path):
    """A collection of six documents; q3 has no relevant document and q4 no judgment."""
    folder = tmp_path / "collection"
    (folder / "qrels").mkdir(parents=True)
    records = [
        {"_id": name, "text": text} | ({} if title is None else {"title": title})
        for name, (title, text) in DOCUMENTS.items()
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in QUERIES.items())
    )
    (folder / "qrels/test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n"
        + "".join(f"{query}\t{name}\t{grade}\n" for query, row in QRELS.items() for name, grade in row.items())
    )
    return folder


@pytest.fixture
def qrels():
    return QRELS


@pytest.fixture(scope="module")
def reranker_folder(make_reranker_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reranker") / "model"
    export(make_reranker_checkpoint(num_labels=1), folder, verify=False)
    return folder


@pytest.fixture(scope="module")
def reranker(reranker_folder):
    return Reranker(reranker_folder)
