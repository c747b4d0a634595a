"""Columns and tables of pandas, polars, Arrow and numpy as texts and as pairs."""

import numpy as np
import pandas
import polars
import pyarrow
import pytest

from bgert import InvalidTextError

TEXTS = ["Paris is the capital of France.", "", "面包是用面粉做的。", "naïve café 🙂"]
COLUMNS = {
    "pandas Series": lambda texts: pandas.Series(texts, index=[9, 2, 7, 4]),
    "pandas Series of object": lambda texts: pandas.Series(texts, dtype=object),
    "pandas Series of string": lambda texts: pandas.Series(texts, dtype="string"),
    "pandas Series of Arrow": lambda texts: pandas.Series(texts, dtype=pandas.ArrowDtype(pyarrow.string())),
    "pandas Series of category": lambda texts: pandas.Series(texts, dtype="category"),
    "pandas Index": pandas.Index,
    "pandas array": lambda texts: pandas.array(texts, dtype="string"),
    "polars Series": lambda texts: polars.Series("text", texts),
    "polars column": lambda texts: polars.DataFrame({"text": texts})["text"],
    "Arrow Array": pyarrow.array,
    "Arrow large_string": lambda texts: pyarrow.array(texts, pyarrow.large_string()),
    "Arrow string_view": lambda texts: pyarrow.array(texts, pyarrow.string_view()),
    "Arrow ChunkedArray": lambda texts: pyarrow.chunked_array([texts[:1], texts[1:]]),
    "Arrow dictionary": lambda texts: pyarrow.array(texts).dictionary_encode(),
    "numpy str": np.array,
    "numpy object": lambda texts: np.array(texts, object),
    "numpy StringDType": lambda texts: np.array(texts, np.dtypes.StringDType()),
    "generator": lambda texts: (text for text in texts),
}
TABLES = {
    "zip": lambda queries, texts: zip(queries, texts, strict=True),
    "zip of columns": lambda queries, texts: zip(pandas.Series(queries), polars.Series(texts), strict=True),
    "n x 2": lambda queries, texts: np.array(list(zip(queries, texts, strict=True))),
    "n x 2 of object": lambda queries, texts: np.array(list(zip(queries, texts, strict=True)), object),
    "pandas": lambda queries, texts: pandas.DataFrame({"q": queries, "d": texts}),
    "polars": lambda queries, texts: polars.DataFrame({"q": queries, "d": texts}),
    "polars rows": lambda queries, texts: polars.DataFrame({"q": queries, "d": texts}).iter_rows(),
    "Arrow": lambda queries, texts: pyarrow.table({"q": queries, "d": texts}),
    "lists": lambda queries, texts: [list(pair) for pair in zip(queries, texts, strict=True)],
}


@pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS)
def test_columns_are_texts(encoder, reranker, column):
    expected = encoder.encode(TEXTS)
    for call in (encoder.encode, encoder.encode_queries, encoder.encode_corpus):
        assert np.array_equal(call(column(TEXTS)), expected)
    assert np.array_equal(np.concatenate(list(encoder.stream(column(TEXTS), block=3))), expected)
    assert reranker.rank("a query", column(TEXTS)) == reranker.rank("a query", TEXTS)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_tables_are_pairs(reranker, table):
    queries = ["capital of France", "food", "吃的", "drinks"]
    expected = reranker.score(list(zip(queries, TEXTS, strict=True)))
    assert np.array_equal(reranker.score(table(queries, TEXTS)), expected)


@pytest.mark.parametrize(
    "column",
    [
        pandas.Series(["a", None]),
        pandas.Series(["a", None], dtype="string"),
        pandas.Series(["a", float("nan")], dtype=object),
        polars.Series(["a", None]),
        pyarrow.array(["a", None]),
    ],
    ids=lambda column: f"{type(column).__module__}, {getattr(column, 'dtype', None) or column.type}",
)
def test_a_missing_text_is_named(encoder, column):
    with pytest.raises(InvalidTextError, match=r"texts\[1\] is "):
        encoder.encode(column)


@pytest.mark.parametrize(
    "table",
    [pandas.DataFrame({"a": TEXTS}), polars.DataFrame({"a": TEXTS}), pyarrow.table({"a": TEXTS})],
    ids=["pandas", "polars", "Arrow"],
)
def test_a_table_is_no_column(encoder, table):
    with pytest.raises(InvalidTextError, match=r"shape \(4, 1\): pass one column"):
        encoder.encode(table)


def test_vectors_go_back_into_tables(encoder):
    vectors = encoder.encode(TEXTS)
    frame = pandas.DataFrame({"text": TEXTS, "vector": list(vectors)})
    assert np.array_equal(np.stack(list(frame["vector"])), vectors)
    assert np.array_equal(polars.DataFrame({"vector": np.asarray(vectors)})["vector"].to_numpy(), vectors)
    column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), encoder.dimensions)
    assert np.array_equal(np.stack(column.to_numpy(zero_copy_only=False)), vectors)
