"""Collections as files, whole and damaged."""

import json

import pytest

from bgert.errors import BgertError, InputFileError
from bgert.evaluation import CollectionError, load_collection


def test_reads_everything(collection_folder, qrels):
    collection = load_collection(collection_folder)
    assert list(collection.document_ids) == ["d1", "d2", "d3", "d4", "q1", "d6"]
    assert list(collection.documents) == [
        "Copy a folder copy a folder with everything in it",
        "the weather is fine today",
        "JSON parse a JSON document into objects",
        "compress a file with gzip",
        "Folders remove a folder and all files below it",
        "",
    ]
    assert len(collection.documents) == 6
    assert [collection.documents[index] for index in (4, 0, -1)] == [
        list(collection.documents)[index] for index in (4, 0, -1)
    ]
    assert collection.documents[1:3] == list(collection.documents)[1:3]
    assert list(collection.queries) == ["q1", "q2", "q3", "q4"]
    assert collection.qrels == qrels


@pytest.mark.parametrize(
    "lines",
    [
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td3\t1\n",
        "q1\td1\t2\nq2\td3\t1",
        "q1\td1\t2\r\n\r\nq2\td3\t+1\r\n",
        "q1 0 d1 2\nq2 0 d3 1\n",
        "q1\tQ0\td1\t2\nq2   0   d3\t1\n",
        "qid iter docid rel\nq1 0 d1 2\nq2 0 d3 1\n",
        "q1\td1\t2\nq1\td1\t2\nq2\td3\t1\n",
    ],
)
def test_forms_of_judgments(collection_folder, tmp_path, lines):
    (tmp_path / "other.txt").write_bytes(lines.encode())
    expected = {"q1": {"d1": 2}, "q2": {"d3": 1}}
    assert load_collection(collection_folder, tmp_path / "other.txt").qrels == expected
    (collection_folder / "qrels/test.tsv").unlink()
    (collection_folder / "qrels.tsv").write_bytes(lines.encode())
    assert load_collection(collection_folder).qrels == expected


def test_other_ends_of_lines(collection_folder):
    path = collection_folder / "corpus.jsonl"
    before = list(load_collection(collection_folder).documents)
    path.write_bytes(b"  \r\n" + path.read_bytes().replace(b"\n", b" \r\n"))
    documents = load_collection(collection_folder).documents
    assert [documents[index] for index in range(6)] == list(documents) == before


def test_a_mark_of_the_byte_order_is_no_text(collection_folder):
    expected = load_collection(collection_folder)
    for name in ("corpus.jsonl", "queries.jsonl"):
        path = collection_folder / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    found = load_collection(collection_folder)
    assert (list(found.documents), found.queries) == (list(expected.documents), expected.queries)


def test_a_lone_surrogate_is_named_by_its_line(collection_folder):
    with (collection_folder / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "bad", "text": "\\ud800"}\n')
    with pytest.raises(CollectionError, match=r"corpus.jsonl:\d+: a lone surrogate in field 'text'"):
        load_collection(collection_folder)


def test_ids_with_spaces(collection_folder):
    with (collection_folder / "corpus.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"_id": "a b", "text": "über", "title": "x"}, ensure_ascii=False) + "\n")
    (collection_folder / "qrels/test.tsv").write_text("q1\ta b\t1\n")
    collection = load_collection(collection_folder)
    assert collection.qrels == {"q1": {"a b": 1}}
    assert collection.documents[6] == "x über"


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("corpus.jsonl", b"{", r"corpus.jsonl:7: not JSON"),
        ("corpus.jsonl", b"[" * 100_000, r"corpus.jsonl:7: not JSON"),
        ("corpus.jsonl", b"[]", r"corpus.jsonl:7: not a JSON object"),
        ("corpus.jsonl", b'{"_id": "d7"}', r"corpus.jsonl:7: no string in field 'text'"),
        ("corpus.jsonl", b'{"_id": "d7", "text": 1}', r"corpus.jsonl:7: no string in field 'text'"),
        ("corpus.jsonl", b'{"_id": "d7", "text": "", "title": []}', r"corpus.jsonl:7: no string in field 'title'"),
        ("corpus.jsonl", b'{"_id": 7, "text": ""}', r"corpus.jsonl:7: no string in field '_id'"),
        ("corpus.jsonl", b'{"_id": "", "text": ""}', r"corpus.jsonl:7: no string in field '_id'"),
        ("corpus.jsonl", b'{"_id": "d2", "text": ""}', r"corpus.jsonl:7: document 'd2' occurs twice"),
        ("corpus.jsonl", b'{"_id": "d7", "text": "\xff"}', r"corpus.jsonl:7: not UTF-8"),
        ("queries.jsonl", b"null", r"queries.jsonl:5: not a JSON object"),
        ("queries.jsonl", b'{"_id": "q1", "text": "again"}', r"queries.jsonl:5: query 'q1' occurs twice"),
        ("queries.jsonl", b'{"_id": "q5", "text": " \\n"}', r"queries.jsonl:5: query 'q5' is empty"),
        ("qrels/test.tsv", b"q1\td9\t1", r"test.tsv:8: document 'd9' is not in the collection"),
        ("qrels/test.tsv", b"q9\td1\t1", r"test.tsv:8: query 'q9' is not in the collection"),
        ("qrels/test.tsv", b"q2\td1\t1.5", r"test.tsv:8: relevance '1.5' is not a whole number"),
        ("qrels/test.tsv", b"q2\td1\thigh", r"test.tsv:8: relevance 'high' is not a whole number"),
        ("qrels/test.tsv", b"q2\td1\t", r"test.tsv:8: 2 fields"),
        ("qrels/test.tsv", b"q1\td1\t1", r"test.tsv:8: query 'q1' and document 'd1' have another grade"),
        ("qrels/test.tsv", b"q1\td\xff\t1", r"test.tsv:8: not UTF-8"),
    ],
)
def test_damaged_lines_are_named(collection_folder, name, line, message):
    with (collection_folder / name).open("ab") as file:
        file.write(line)
    with pytest.raises(BgertError, match=message):
        load_collection(collection_folder)


@pytest.mark.parametrize("line", ["q1\td1\thigh", "q1\tnone\thigh", "none\td1\thigh", "a\tb\tc3"])
def test_a_damaged_first_line_is_no_header(collection_folder, line):
    (collection_folder / "qrels/test.tsv").write_text(line + "\nq1\td1\t1\n")
    with pytest.raises(CollectionError, match=r"test.tsv:1"):
        load_collection(collection_folder)


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_missing_and_empty_files(collection_folder, name):
    (collection_folder / name).write_bytes(b"\n")
    with pytest.raises(CollectionError, match=r"no (documents|queries|judgments)"):
        load_collection(collection_folder)
    (collection_folder / name).unlink()
    with pytest.raises(InputFileError, match=r"no such file|neither is there"):
        load_collection(collection_folder)
    (collection_folder / name).mkdir()
    with pytest.raises(InputFileError, match="directory"):
        load_collection(collection_folder)


def test_two_files_of_judgments(collection_folder):
    (collection_folder / "qrels.tsv").write_text("q1\td1\t1\n")
    with pytest.raises(InputFileError, match="both are there"):
        load_collection(collection_folder)
    assert load_collection(collection_folder, collection_folder / "qrels.tsv").qrels == {"q1": {"d1": 1}}


def test_no_folder(tmp_path):
    with pytest.raises(InputFileError, match="no such file"):
        load_collection(tmp_path / "none")
