"""bgert.integrations.chroma beside Encoder, in a store that a new process opens."""

import pickle
import warnings

import chromadb
import new_process
import numpy as np
import pytest

import bgert
from bgert.integrations.chroma import BgertEmbeddingFunction

TEXTS = ["a text", "another one, with more words in it", "第三", "a\nline"]
FACTS = ["Paris is the capital of France.", "Bread is made of flour."]


@pytest.fixture(scope="module")
def function(models):
    return BgertEmbeddingFunction(str(models["exported-bge"]))


def test_vectors_are_the_encoders(function, bge):
    np.testing.assert_array_equal(function(TEXTS), np.asarray(bge.encode_corpus(TEXTS)))
    np.testing.assert_array_equal(function.embed_query(TEXTS), np.asarray(bge.encode_queries(TEXTS)))
    assert (np.asarray(function(TEXTS)) != np.asarray(function.embed_query(TEXTS))).any()
    assert function(["a"])[0].dtype == np.float32
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(function))(TEXTS), function(TEXTS))


def test_a_collection_is_opened_again_in_a_new_process(models, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        function = BgertEmbeddingFunction(str(models["exported-bge"]), dimensions=128)
        collection = chromadb.PersistentClient(str(tmp_path)).create_collection("facts", embedding_function=function)
    assert collection.configuration["hnsw"]["space"] == "cosine"
    collection.add(ids=["paris", "bread"], documents=FACTS)
    here = collection.query(query_texts=["capital of France"], n_results=2)
    code = """
import chromadb, bgert.integrations.chroma
collection = chromadb.PersistentClient(path).get_collection("facts")
found = collection.query(query_texts=["capital of France"], n_results=2)
result = [found["ids"], found["distances"]]
"""
    assert new_process.result_of(code, path=tmp_path) == [here["ids"], here["distances"]]
    without = """
import chromadb
try:
    collection = chromadb.PersistentClient(path).get_collection("facts")
    collection.query(query_texts=["capital of France"], n_results=2)
    result = "it ran"
except Exception as error:
    result = str(error)
"""
    assert "bgert" in new_process.result_of(without, path=tmp_path)


def test_the_space_is_cosine_for_vectors_of_any_length(function):
    assert function.default_space() == "cosine"


def test_one_model_for_all_that_open_a_collection(function, models):
    again = BgertEmbeddingFunction.build_from_config(function.get_config())
    assert again._model is function._model
    other = BgertEmbeddingFunction(str(models["exported-bge"]), dimensions=64)
    assert other._model is not function._model
    assert other(["a"])[0].shape == (64,)


def test_instructions_and_options(models, bge):
    with pytest.warns(bgert.InstructionWarning) as caught:
        plain = BgertEmbeddingFunction(models["exported-bge"], query_instruction="", normalize_embeddings=True)
    assert len(caught) == 1
    np.testing.assert_array_equal(plain.embed_query(["a"]), np.asarray(bge.encode(["a"], prefix="")))
    assert plain.get_config()["query_instruction"] == ""
    for options, says in (
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"lenght": 3}, "unknown option 'lenght'"),
        ({"normalize_embeddings": False}, "--no-normalize"),
    ):
        with pytest.raises(bgert.InvalidOptionError, match=says):
            BgertEmbeddingFunction(models["exported-bge"], **options)


def test_hostile_texts(function):
    for wrong in (None, "a text", [None], [b"a"]):
        with pytest.raises(bgert.InvalidTextError):
            function(wrong)
        with pytest.raises(bgert.InvalidTextError):
            function.embed_query(wrong)
    with pytest.warns(bgert.TruncationWarning, match="512 tokens"):
        function(["word " * 600])
