"""bgert.integrations.lancedb beside Encoder, in a table that a new process opens."""

import time

import lancedb
import new_process
import numpy as np
import pyarrow as pa
import pytest
from lancedb.embeddings import get_registry
from lancedb.pydantic import LanceModel, Vector

import bgert
from bgert.integrations.lancedb import BgertEmbeddings

TEXTS = ["a text", "", "another one, with more words in it", "第三", "a\nline"]
FACTS = ["Paris is the capital of France.", "Bread is made of flour."]


@pytest.fixture(scope="module")
def function(models):
    return get_registry().get("bgert").create(name=str(models["exported-bge"]))


def table_of(folder, function):
    class Fact(LanceModel):
        text: str = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField()

    table = lancedb.connect(folder).create_table("facts", schema=Fact)
    table.add([{"text": text} for text in FACTS])
    return table


def test_vectors_are_the_encoders(function, bge):
    expected = np.asarray(bge.encode_corpus(TEXTS))
    for texts in (TEXTS, pa.array(TEXTS), pa.chunked_array([TEXTS[:2], TEXTS[2:]]), np.array(TEXTS)):
        np.testing.assert_array_equal(function.compute_source_embeddings(texts), expected)
    (query,) = function.compute_query_embeddings("a text")
    np.testing.assert_array_equal(query, np.asarray(bge.encode_queries("a text")))
    assert function.ndims() == 384


def test_a_table_is_opened_again_in_a_new_process(models, tmp_path, bge):
    function = BgertEmbeddings.create(name=str(models["exported-bge"]), dimensions=128, device="cpu")
    table = table_of(tmp_path, function)
    stored = np.stack(table.to_arrow()["vector"].to_numpy())
    np.testing.assert_array_equal(stored, np.asarray(bge.encode_corpus(FACTS, dimensions=128)))
    here = table.search("capital of France").limit(2).to_list()
    code = """
import lancedb, bgert.integrations.lancedb
table = lancedb.connect(path).open_table("facts")
result = [[row["text"], row["_distance"]] for row in table.search("capital of France").limit(2).to_list()]
"""
    found = new_process.result_of(code, path=tmp_path)
    assert found == [[row["text"], row["_distance"]] for row in here]


def test_a_bad_text_fails_at_once_as_it_is(function, tmp_path):
    """LanceDB tries every failure seven times again, with pauses, and hides it in an Exception."""
    table_of(tmp_path, function)
    table = lancedb.connect(tmp_path).open_table("facts")
    start = time.monotonic()
    for wrong in ([None], ["a", 3]):
        with pytest.raises(bgert.InvalidTextError):
            function.compute_source_embeddings_with_retry(wrong)
    with pytest.raises(bgert.InvalidTextError):
        function.compute_query_embeddings_with_retry(None)
    with pytest.raises(RuntimeError, match=r"InvalidTextError: texts\[0\] is NoneType"):
        table.add([{"text": None}])
    assert time.monotonic() - start < 60  # LanceDB's pauses are 2 seconds at least and double, seven times
    with pytest.warns(bgert.TruncationWarning, match="512 tokens"):
        function.compute_source_embeddings(["word " * 600])
    assert function.compute_source_embeddings([]) == []


def test_instructions_and_options(models, bge):
    plain = BgertEmbeddings.create(name=str(models["exported-bge"]), query_instruction="", normalize=True)
    with pytest.warns(bgert.InstructionWarning):
        (query,) = plain.compute_query_embeddings("a text")
    np.testing.assert_array_equal(query, np.asarray(bge.encode("a text", prefix="")))
    for options, says in (({"trust_remote_code": True}, "trust_remote_code"), ({"lenght": 3}, "unknown option")):
        with pytest.raises(bgert.InvalidOptionError, match=says):
            BgertEmbeddings.create(name=str(models["exported-bge"]), **options)
