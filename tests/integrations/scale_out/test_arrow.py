"""The stage that all engines run, on tables."""

import pickle

import numpy as np
import pyarrow as pa
import pytest

from bgert import Encoder, InvalidOptionError, InvalidTextError
from bgert.integrations import arrow
from bgert.integrations.arrow import Embed, Score

TEXTS = ["copy a file", "", "the longer of the texts, with a few more words in it", "北京是首都"]


def rows_of(table, name="embedding"):
    return np.stack(table[name].to_numpy(zero_copy_only=False))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())], ids=str)
@pytest.mark.parametrize("batch", [False, True], ids=["table", "record batch"])
def test_a_column_of_vectors_is_added_and_the_others_are_kept(kind, batch, models, encoder):
    table = pa.table({"text": pa.array(TEXTS).cast(kind), "n": range(4)})
    given = table.to_batches()[0] if batch else table
    found = Embed(models["exported-minilm"])(given)
    assert type(found) is type(given)
    assert found.schema.names == ["text", "n", "embedding"]
    assert found.select(["text", "n"]).equals(given)
    np.testing.assert_array_equal(rows_of(found), encoder.encode_corpus(TEXTS))


def test_roles_and_options_are_those_of_the_encoder(models):
    folder = models["exported-bge"]
    encoder, table = Encoder(folder), pa.table({"t": TEXTS})
    queries = Embed(folder, column="t", output="v", role="query")(table)
    np.testing.assert_array_equal(rows_of(queries, "v"), encoder.encode_queries(TEXTS))
    assert not np.array_equal(rows_of(queries, "v"), encoder.encode_corpus(TEXTS))
    for dtype, kind in {"float16": pa.float16(), "int8": pa.int8(), "ubinary": pa.uint8()}.items():
        found = Embed(folder, column="t", prefix="x: ", dtype=dtype, dimensions=64, max_length=8, truncated="cut")(
            table
        )
        wanted = encoder.encode(TEXTS, prefix="x: ", dtype=dtype, dimensions=64, max_length=8)
        assert found.schema.field("embedding").type == pa.list_(kind, wanted.shape[1])
        np.testing.assert_array_equal(rows_of(found), wanted)
        assert found["cut"].to_pylist() == wanted.info.truncated.tolist() == [False, False, True, True]


def test_scores_are_those_of_the_reranker(models, reranker):
    table = pa.table({"query": ["how to copy"] * 4, "document": TEXTS})
    found = Score(models["exported-reranker"])(table)
    np.testing.assert_array_equal(found["score"].to_numpy(), reranker.score([("how to copy", text) for text in TEXTS]))
    assert found.schema.field("score").type == pa.float32()


def test_no_rows(models):
    found = Embed(models["exported-minilm"])(pa.table({"text": pa.array([], pa.string())}))
    assert found.schema.field("embedding").type == pa.list_(pa.float32(), 384)


def test_a_stage_pickles_and_its_model_is_opened_once_a_process(models, monkeypatch):
    monkeypatch.setattr(arrow, "_models", {})
    opens = []
    monkeypatch.setattr(Encoder, "_open", lambda self, real=Encoder._open: (opens.append(1), real(self)))
    stage = Embed(models["exported-minilm"], threads=1)
    table = pa.table({"text": TEXTS})
    stage(table)
    again = pickle.loads(pickle.dumps(stage))
    assert again(table).equals(stage(table))
    assert len(pickle.dumps(stage)) < 1000
    assert opens == [1]
    Embed(models["exported-minilm"], threads=2)(table)
    assert opens == [1, 1]


@pytest.mark.parametrize(
    ("table", "error", "match"),
    [
        ({"text": ["a", None]}, InvalidTextError, "'text' has 1 nulls in a batch of 2 rows"),
        ({"text": [1, 2]}, InvalidTextError, "'text' holds int64"),
        ({"body": ["a"]}, InvalidOptionError, "no column 'text': the table has body"),
        ({"text": ["a"], "embedding": [1]}, InvalidOptionError, "'embedding' already"),
    ],
)
def test_what_cannot_be_embedded_is_refused(table, error, match, models):
    with pytest.raises(error, match=match):
        Embed(models["exported-minilm"])(pa.table(table))


def test_an_unknown_role_is_refused():
    with pytest.raises(InvalidOptionError, match="unknown role 'passage'"):
        Embed("folder", role="passage")
