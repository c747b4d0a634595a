"""bgert.integrations.fastembed beside Encoder, and arrays handed to qdrant-client as they are."""

import numpy as np
import pytest
from fastembed import TextEmbedding
from qdrant_client import QdrantClient, models

import bgert
from bgert.integrations.fastembed import BgertTextEmbedding, add_model

TEXTS = ["a text", "another one, with more words in it", "第三", "a\nline"]
FACTS = ["Paris is the capital of France.", "Bread is made of flour."]
NAME = "BAAI/bge-small-en-v1.5"


@pytest.fixture(autouse=True)
def _clean():
    yield
    BgertTextEmbedding.models.clear()
    if BgertTextEmbedding in TextEmbedding.EMBEDDINGS_REGISTRY:
        TextEmbedding.EMBEDDINGS_REGISTRY.remove(BgertTextEmbedding)


@pytest.fixture
def folder(request):
    return request.getfixturevalue("models")["exported-bge"]


def test_text_embedding_gives_the_encoders_bits(folder, bge):
    assert TextEmbedding.get_embedding_size(NAME) == 384
    add_model(NAME, folder, dimensions=128)
    assert TextEmbedding.get_embedding_size(NAME) == 128, "fastembed's own gives way"
    model = TextEmbedding(NAME)
    documents = np.asarray(bge.encode_corpus(TEXTS, dimensions=128))
    np.testing.assert_array_equal(list(model.embed(TEXTS)), documents)
    np.testing.assert_array_equal(list(model.embed(iter(TEXTS), batch_size=2)), documents)
    np.testing.assert_array_equal(list(model.passage_embed(TEXTS)), documents)
    np.testing.assert_array_equal(list(model.embed("a text")), documents[:1])
    np.testing.assert_array_equal(list(model.query_embed(TEXTS)), np.asarray(bge.encode_queries(TEXTS, dimensions=128)))
    np.testing.assert_array_equal(
        list(model.query_embed("a text")), np.asarray(bge.encode_queries(["a text"], dimensions=128))
    )
    assert model.token_count(TEXTS) == bge.tokenizer.count(TEXTS).sum()
    assert list(model.embed([])) == []
    assert model.embedding_size == 128


def test_documents_of_qdrant_client(folder, bge):
    add_model(NAME, folder)
    client = QdrantClient(":memory:")
    size = client.get_embedding_size(NAME)
    client.create_collection("facts", models.VectorParams(size=size, distance=models.Distance.COSINE))
    points = [models.PointStruct(id=at, vector=models.Document(text=text, model=NAME)) for at, text in enumerate(FACTS)]
    client.upsert("facts", points)
    stored = client.retrieve("facts", [0, 1], with_vectors=True)
    np.testing.assert_allclose([point.vector for point in stored], bge.encode_corpus(FACTS), rtol=0, atol=1e-6)
    found = client.query_points("facts", query=models.Document(text="capital of France", model=NAME), limit=2).points
    expected = np.asarray(bge.encode_corpus(FACTS)) @ np.asarray(bge.encode_queries("capital of France"))
    assert {point.id: point.score for point in found} == pytest.approx(dict(enumerate(expected)), abs=1e-6)


def test_arrays_go_in_as_they_are(bge):
    client = QdrantClient(":memory:")
    client.create_collection("facts", models.VectorParams(size=384, distance=models.Distance.COSINE))
    client.upload_collection("facts", vectors=bge.encode_corpus(FACTS), ids=[0, 1])
    found = client.query_points("facts", query=bge.encode_queries("capital of France"), limit=2).points
    expected = np.asarray(bge.encode_corpus(FACTS)) @ np.asarray(bge.encode_queries("capital of France"))
    assert {point.id: point.score for point in found} == pytest.approx(dict(enumerate(expected)), abs=1e-6)


def test_what_there_is_not_is_refused_by_name(folder):
    add_model("mine", folder)
    for options in ({"providers": ["CPUExecutionProvider"]}, {"cuda": True}, {"device_ids": [0]}, {"threads": 2}):
        with pytest.raises(bgert.InvalidOptionError, match="add_model"):
            TextEmbedding("mine", **options)
    with pytest.warns(UserWarning, match="parallel is ignored"):
        list(TextEmbedding("mine").embed(TEXTS, parallel=2))
    with pytest.raises(bgert.InvalidOptionError, match="unknown option"):
        add_model("mine", folder, lenght=3)
    with pytest.raises(bgert.ModelNotFoundError):
        add_model("no/such-folder-here")


def test_without_the_registry_it_says_so(folder, monkeypatch):
    monkeypatch.delattr(TextEmbedding, "EMBEDDINGS_REGISTRY")
    with pytest.raises(bgert.EngineNotInstalledError, match="EMBEDDINGS_REGISTRY"):
        add_model("mine", folder)
    monkeypatch.undo()


def test_hostile_texts(folder):
    add_model("mine", folder)
    model = TextEmbedding("mine")
    for wrong in (None, [None], 3):
        with pytest.raises(bgert.InvalidTextError):
            list(model.embed(wrong))
        with pytest.raises(bgert.InvalidTextError):
            list(model.query_embed(wrong))
    with pytest.warns(bgert.TruncationWarning, match="512 tokens"):
        list(model.embed(["word " * 600]))
