"""Parquet in and out, beside pyarrow's own reading."""

import datetime
import decimal
import json
import sys

import numpy as np
import pytest

from bgert.jobs.rows import Columns, blocks_of

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: the extra `parquet`")
pq = pytest.importorskip("pyarrow.parquet")


def table_of(texts, **more):
    return pa.table({"id": list(range(len(texts))), "text": texts, **more})


def vectors_of(table, name="embedding"):
    column = table.column(name).combine_chunks()
    return np.asarray(column.flatten()).reshape(len(column), -1)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "ubinary"])
def test_columns_stay_and_vectors_are_lists_of_one_length(encode, tiny, sentences, tmp_path, dtype):
    texts = sentences(50)
    table = table_of(
        texts,
        nested=[{"a": [n, None], "b": {"c": str(n)}} for n in range(50)],
        when=[datetime.datetime(2026, 11, 27, tzinfo=datetime.timezone.utc)] * 50,
        price=[decimal.Decimal("1.50")] * 50,
        raw=[b"\xff"] * 50,
        maybe=[None if n % 3 else n for n in range(50)],
        kind=pa.array(["a", "b"] * 25).dictionary_encode(),
    )
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=7)
    out = tmp_path / "out.parquet"
    assert encode(tmp_path / "in.parquet", "--output", out, "--dtype", dtype) == 0
    result = pq.read_table(out)
    assert result.drop_columns(["embedding"]).equals(table)
    expected = np.asarray(tiny.encode(texts, dtype=dtype))
    kind = result.schema.field("embedding").type
    assert (kind.list_size, kind.value_type) == (expected.shape[1], pa.from_numpy_dtype(expected.dtype))
    np.testing.assert_array_equal(vectors_of(result), expected)
    about = json.loads(pq.read_schema(out).metadata[b"bgert"])
    assert about["dtype"] == dtype


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
    ids=str,
)
def test_kinds_of_strings(encode, tiny, tmp_path, kind):
    texts = ["the file", "a folder", "the file", ""]
    pq.write_table(pa.table({"text": pa.array(texts).cast(kind)}), tmp_path / "in.parquet", row_group_size=3)
    assert encode(tmp_path / "in.parquet", "--output", tmp_path / "out.parquet") == 0
    result = pq.read_table(tmp_path / "out.parquet")
    assert result.column("text").to_pylist() == texts
    assert result.schema.field("text").type == pq.read_schema(tmp_path / "in.parquet").field("text").type
    np.testing.assert_array_equal(vectors_of(result), tiny.encode(texts))


def test_kept_columns_by_name_in_their_order_and_none(encode, tmp_path):
    pq.write_table(table_of(["a", "b"], title=["x", "y"]), tmp_path / "in.parquet")
    for keep, names in (("title,id", ["title", "id"]), ("none", []), ("all", ["id", "text", "title"])):
        assert encode(tmp_path / "in.parquet", "--output", tmp_path / "out.parquet", "--keep", keep) == 0
        assert pq.read_schema(tmp_path / "out.parquet").names == [*names, "embedding"]


def test_other_names_of_columns(encode, tiny, tmp_path):
    table = pa.table({"body": ["the file"], "embedding": [[1.0]], "a.b": [1], "a": [{"b": 2}]})
    pq.write_table(table, tmp_path / "in.parquet")
    options = ["--text-column", "body", "--embedding-column", "vector"]
    assert encode(tmp_path / "in.parquet", "--output", tmp_path / "out.parquet", *options) == 0
    result = pq.read_table(tmp_path / "out.parquet")
    assert result.drop_columns(["vector"]).equals(table)
    np.testing.assert_array_equal(vectors_of(result, "vector"), tiny.encode(["the file"]))


def test_several_files_and_row_groups_are_one_list_of_rows(encode, tiny, sentences, tmp_path):
    texts = sentences(60)
    for number, (start, stop) in enumerate([(0, 0), (0, 17), (17, 20), (20, 60), (60, 60)]):
        table = pa.table(
            {"id": pa.array(range(start, stop), pa.int64()), "text": pa.array(texts[start:stop], pa.string())}
        )
        pq.write_table(table, tmp_path / f"in-{number}.parquet", row_group_size=6)
    out = tmp_path / "out.parquet"
    assert encode(tmp_path / "in-*.parquet", "--output", out, "--part-rows", "25") == 0
    result = pq.read_table(out)
    assert result.column("id").to_pylist() == list(range(60))
    np.testing.assert_array_equal(vectors_of(result), tiny.encode(texts))
    groups = pq.read_metadata(out)
    assert [groups.row_group(number).num_rows for number in range(groups.num_row_groups)] == [25, 25, 10]


def test_no_rows(encode, tmp_path):
    pq.write_table(table_of([]).cast(pa.schema({"id": pa.int64(), "text": pa.string()})), tmp_path / "in.parquet")
    for output in ("out.parquet", "out.npy", "out.jsonl", "folder/"):
        assert encode(tmp_path / "in.parquet", "--output", f"{tmp_path}/{output}") == 0
    for place in ("out.parquet", "folder"):
        result = pq.read_table(tmp_path / place)
        assert (result.num_rows, result.schema.names) == (0, ["id", "text", "embedding"])
    assert np.load(tmp_path / "out.npy").shape == (0, 64)
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_a_partitioned_folder(encode, tiny, tmp_path):
    rows = [{"text": "the file", "day": "2026-01-02", "lang": "de/at"}, {"text": "copy", "day": "007", "lang": None}]
    for number, row in enumerate(rows):
        folder = (
            tmp_path / "in" / f"day={row['day']}" / f"lang={'de%2Fat' if row['lang'] else '__HIVE_DEFAULT_PARTITION__'}"
        )
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"text": [row["text"]]}), folder / f"part-{number}.parquet")
        (folder / "_SUCCESS").touch()
        (folder / ".part.parquet.crc").write_bytes(b"x")
        (folder / "_metadata.parquet").write_bytes(b"x")
    assert encode(tmp_path / "in", "--output", tmp_path / "out.parquet") == 0
    result = pq.read_table(tmp_path / "out.parquet")
    assert result.drop_columns(["embedding"]).to_pylist() == rows[::-1]
    np.testing.assert_array_equal(vectors_of(result), tiny.encode(["copy", "the file"]))


def test_null_texts(encode, tiny, tmp_path, capsys):
    pq.write_table(table_of(["the file", None, "copy", None]), tmp_path / "in.parquet", row_group_size=2)
    out = tmp_path / "out.parquet"
    assert encode(tmp_path / "in.parquet", "--output", out) == 2
    assert "in.parquet: row 2 has null in column 'text'; --nulls drop" in capsys.readouterr().err
    assert not out.exists()
    assert encode(tmp_path / "in.parquet", "--output", out, "--nulls", "drop") == 0
    assert "2 rows without a text left out" in capsys.readouterr().out
    result = pq.read_table(out)
    assert result.column("id").to_pylist() == [0, 2]
    np.testing.assert_array_equal(vectors_of(result), tiny.encode(["the file", "copy"]))
    pq.write_table(pa.table({"text": pa.nulls(3)}), tmp_path / "in.parquet")
    assert encode(tmp_path / "in.parquet", "--output", out, "--nulls", "drop") == 0
    assert pq.read_table(out).num_rows == 0


@pytest.mark.parametrize(
    ("tables", "options", "said"),
    [
        ([pa.table([["a"], ["b"]], names=["text", "text"])], [], "2 columns are named 'text'"),
        ([pa.table([["a"], [1], [2]], names=["text", "n", "n"])], [], "2 columns are named 'n'"),
        ([pa.table({"body": ["a"]})], [], "no column 'text' among 'body' (--text-column names another)"),
        ([pa.table({"text": ["a"]})], ["--keep", "id"], "no column 'id' among 'text' (--keep names another)"),
        ([pa.table({"text": [1]})], [], "column 'text' is int64, not of texts"),
        ([pa.table({"text": [b"a"]})], [], "column 'text' is binary, not of texts"),
        ([pa.table({"text": ["a"], "embedding": [1]})], [], "has a column 'embedding' already"),
        ([table_of(["a"]), table_of(["b"], x=[1])], [], "column 'x' is in one of them alone"),
        ([table_of(["a"]), table_of(["b"]).drop_columns(["id"])], [], "column 'id' is in one of them alone"),
        ([pa.table({"text": ["a"], "x": [1]}), pa.table({"text": ["a"], "x": [1.5]})], [], "'x' is double and int64"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line_at_the_start(encode, tmp_path, capsys, tables, options, said):
    for number, table in enumerate(tables):
        pq.write_table(table, tmp_path / f"in-{number}.parquet")
    before = sorted(tmp_path.iterdir())
    assert encode(*sorted(tmp_path.iterdir()), "--output", tmp_path / "out.parquet", *options) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_column_that_is_twice_there_may_be_left_out(encode, tmp_path):
    pq.write_table(pa.table([["a"], [1], [2]], names=["text", "n", "n"]), tmp_path / "in.parquet")
    assert encode(tmp_path / "in.parquet", "--output", tmp_path / "out.parquet", "--keep", "text") == 0


def test_without_pyarrow(encode, tmp_path, monkeypatch, capsys):
    pq.write_table(table_of(["a"]), tmp_path / "in.parquet")
    (tmp_path / "in.txt").write_text("a")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for source, output in (("in.parquet", "out.npy"), ("in.txt", "out.parquet"), ("in.txt", "folder/")):
        assert encode(tmp_path / source, "--output", f"{tmp_path}/{output}") == 2
        assert ".parquet needs pyarrow: install the extra `parquet`" in capsys.readouterr().err
    assert encode(tmp_path / "in.txt", "--output", tmp_path / "out.npy") == 0


def test_what_is_no_parquet(encode, tmp_path, capsys):
    for content in (b"", b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1"):
        (tmp_path / "in.parquet").write_bytes(content)
        assert encode(tmp_path / "in.parquet", "--output", tmp_path / "out.npy") == 2
        assert "in.parquet: not read as Parquet" in capsys.readouterr().err


def test_what_pandas_says_of_its_index_stays_while_all_columns_do(encode, tmp_path):
    """With an index that is left out pandas could not read the file."""
    said = {b"pandas": b'{"index_columns": ["id"]}', b"other": b"x"}
    pq.write_table(table_of(["a", "b"]).replace_schema_metadata(said), tmp_path / "in.parquet")
    for keep, kept in (("all", said[b"pandas"]), ("text", None)):
        assert encode(tmp_path / "in.parquet", "--output", tmp_path / "out.parquet", "--keep", keep) == 0
        assert pq.read_schema(tmp_path / "out.parquet").metadata.get(b"pandas") == kept


def test_parquet_to_json_lines(encode, tiny, tmp_path, capsys):
    table = table_of(
        ["a file", "copy"],
        day=[datetime.date(2026, 11, 27)] * 2,
        price=[decimal.Decimal("1.50")] * 2,
        x=[float("nan"), 1.5],
        deep=[{"y": [float("inf")]}, None],
    )
    pq.write_table(table, tmp_path / "in.parquet")
    out = tmp_path / "out.jsonl"
    assert encode(tmp_path / "in.parquet", "--output", out, "--keep", "all") == 0
    lines = [json.loads(line, parse_constant=pytest.fail) for line in out.read_text().splitlines()]
    np.testing.assert_array_equal(
        np.array([line.pop("embedding") for line in lines], np.float32), tiny.encode(["a file", "copy"])
    )
    assert lines == [
        {"id": 0, "text": "a file", "day": "2026-11-27", "price": "1.50", "x": None, "deep": {"y": [None]}},
        {"id": 1, "text": "copy", "day": "2026-11-27", "price": "1.50", "x": 1.5, "deep": None},
    ]
    pq.write_table(table_of(["a"], raw=[b"x"]), tmp_path / "in.parquet")
    assert encode(tmp_path / "in.parquet", "--output", out, "--keep", "all") == 2
    assert "JSON has no bytes" in capsys.readouterr().err


def test_json_lines_to_parquet(encode, tiny, sentences, tmp_path):
    texts = sentences(40)
    records = [
        {"id": n, "text": text} | ({"score": n if n % 2 else n / 2} if n > 25 else {}) for n, text in enumerate(texts)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert encode(tmp_path / "in.jsonl", "--output", tmp_path / "out.parquet", "--part-rows", "8") == 0
    result = pq.read_table(tmp_path / "out.parquet")
    assert result.schema.field("score").type == pa.float64()
    np.testing.assert_array_equal(vectors_of(result), tiny.encode(texts))
    assert result.drop_columns(["embedding"]).to_pylist() == [{"score": None} | record for record in records]


@pytest.mark.parametrize("value", ["'x'", "[1]", str(2**70), "'\\ud800'"])
def test_fields_that_are_no_column(encode, tmp_path, capsys, value):
    lines = [{"text": "a", "x": 1}, {"text": "b", "x": eval(value)}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    argv = [tmp_path / "in.jsonl", "--output", tmp_path / "out.parquet"]
    assert encode(*argv) == 2
    assert "field 'x' of rows 1 to 2 is no column of Parquet" in capsys.readouterr().err
    assert encode(*argv, "--keep", "text") == 0


def test_lines_of_text_to_parquet(encode, tmp_path):
    (tmp_path / "in.txt").write_text("a file\n\ncopy\n")
    assert encode(tmp_path / "in.txt", "--output", tmp_path / "out.parquet") == 0
    assert pq.read_table(tmp_path / "out.parquet").column("text").to_pylist() == ["a file", "", "copy"]


def test_rows_from_any_row_on(sentences, tmp_path):
    from bgert.jobs.inputs import find_inputs
    from bgert.jobs.parquet import ParquetSource

    texts = sentences(50)
    pq.write_table(table_of(texts[:30]), tmp_path / "a.parquet", row_group_size=4)
    pq.write_table(table_of(texts[30:]), tmp_path / "b.parquet", row_group_size=4)
    source = ParquetSource(find_inputs([str(tmp_path)]), Columns(["text"], None), 7, keeps=True)
    for start in range(51):
        blocks = list(blocks_of(source, [(start, None)]))
        assert [text for block in blocks for text in block.texts] == texts[start:]
        kept = [record for block in blocks for piece in block.kept for record in piece.column("text").to_pylist()]
        assert kept == texts[start:]


def test_large_rows_make_small_blocks(tmp_path):
    from bgert.jobs.inputs import find_inputs
    from bgert.jobs.parquet import ParquetSource

    picture = np.random.default_rng(0).bytes(1 << 20)
    pq.write_table(table_of(["a"] * 300, raw=[picture] * 300), tmp_path / "a.parquet", use_dictionary=False)
    source = ParquetSource(find_inputs([str(tmp_path)]), Columns(["text"], None), 16384, keeps=True)
    sizes = [block.stop - block.start for block in blocks_of(source)]
    assert sum(sizes) == 300
    assert max(sizes) <= 128
