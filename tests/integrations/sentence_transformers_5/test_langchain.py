"""LangChain's classes over sentence-transformers, given an exported folder: one argument more."""

import warnings

import numpy as np
import pytest
from langchain_huggingface import HuggingFaceEmbeddings

TEXTS = ["Copy a folder.", "read JSON", "今天天气很好", "which file is the largest?"]
TRUSTED = {"device": "cpu", "trust_remote_code": True}


@pytest.fixture(scope="module")
def community():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is no longer maintained, and says so
        from langchain_community.cross_encoders import HuggingFaceCrossEncoder
        from langchain_community.embeddings import HuggingFaceBgeEmbeddings
    return HuggingFaceBgeEmbeddings, HuggingFaceCrossEncoder


def test_huggingface_embeddings(models, encoder):
    """It embeds queries as texts; with the model's own prompt where it is told so."""
    model = HuggingFaceEmbeddings(model_name=str(models["exported-minilm"]), model_kwargs=TRUSTED)
    np.testing.assert_array_equal(np.float32(model.embed_documents(TEXTS)), encoder.encode_corpus(TEXTS))
    assert all(type(number) is float for number in model.embed_query(TEXTS[0]))
    np.testing.assert_array_equal(np.float32(model.embed_query(TEXTS[0])), encoder.encode(TEXTS[0]))


def test_queries_of_huggingface_embeddings(models):
    import bgert

    own = bgert.Encoder(models["exported-bge"])
    model = HuggingFaceEmbeddings(
        model_name=str(models["exported-bge"]), model_kwargs=TRUSTED, query_encode_kwargs={"prompt_name": "query"}
    )
    np.testing.assert_array_equal(np.float32(model.embed_query(TEXTS[1])), own.encode_queries(TEXTS[1]))
    np.testing.assert_array_equal(np.float32(model.embed_documents(TEXTS)), own.encode_corpus(TEXTS))


def test_huggingface_bge_embeddings(models, community):
    """It puts an instruction of its own before queries: "question", where the model's authors say "sentence"."""
    import bgert

    own = bgert.Encoder(models["exported-bge"])
    model = community[0](model_name=str(models["exported-bge"]), model_kwargs=dict(TRUSTED))
    np.testing.assert_array_equal(np.float32(model.embed_documents(TEXTS)), own.encode_corpus(TEXTS))
    theirs = np.float32(model.embed_query(TEXTS[1]))
    instruction = "Represent this question for searching relevant passages: "
    np.testing.assert_array_equal(theirs, own.encode(TEXTS[1], prefix=instruction))
    assert np.abs(theirs - own.encode_queries(TEXTS[1])).max() > 1e-3
    model = community[0](
        model_name=str(models["exported-bge"]),
        model_kwargs=dict(TRUSTED),
        query_instruction=own.manifest.prompts["query"],
    )
    np.testing.assert_array_equal(np.float32(model.embed_query(TEXTS[1])), own.encode_queries(TEXTS[1]))


def test_huggingface_cross_encoder(models, reranker, community):
    model = community[1](model_name=str(models["exported-reranker"]), model_kwargs=dict(TRUSTED))
    pairs = [("how do I copy?", text) for text in TEXTS]
    np.testing.assert_allclose(list(model.score(pairs)), reranker.score(pairs, sigmoid=True), atol=1e-7)
