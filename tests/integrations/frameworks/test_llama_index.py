"""bgert.integrations.llama_index beside Encoder and Reranker."""

import asyncio
import copy
import logging
import pickle

import new_process
import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings.utils import resolve_embed_model
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

import bgert
from bgert.integrations.llama_index import BgertEmbedding, BgertRerank

TEXTS = ["a text", "", "another one, with more words in it", "第三", "a\nline"]


@pytest.fixture(scope="module")
def bge(models):
    return bgert.Encoder(models["exported-bge"])


@pytest.fixture(scope="module")
def embedding(models):
    return BgertEmbedding(model_name=str(models["exported-bge"]))


@pytest.fixture(scope="module")
def rerank(models):
    return BgertRerank(model=str(models["exported-reranker"]), top_n=2)


def nodes_of(texts):
    return [TextNode(text=text, id_=str(at), metadata={"at": at}) for at, text in enumerate(texts)]


def test_vectors_are_the_encoders(embedding, bge):
    assert embedding.get_text_embedding_batch(TEXTS) == bge.encode_corpus(TEXTS).tolist()
    assert embedding.get_text_embedding("a text") == bge.encode_corpus("a text").tolist()
    assert embedding.get_query_embedding("a text") == bge.encode_queries("a text").tolist()
    assert embedding.get_query_embedding("a text") != embedding.get_text_embedding("a text")
    assert embedding.get_text_embedding_batch([]) == []
    assert resolve_embed_model(embedding) is embedding


def test_async_gives_the_same_bits_and_leaves_the_loop_free(embedding):
    async def gather():
        queries = await asyncio.gather(*(embedding.aget_query_embedding(text) for text in TEXTS * 8))
        return queries, await embedding.aget_text_embedding_batch(TEXTS), await embedding.aget_text_embedding("a text")

    queries, texts, text = asyncio.run(gather())
    assert queries == [embedding.get_query_embedding(text) for text in TEXTS * 8]
    assert texts == embedding.get_text_embedding_batch(TEXTS)
    assert text == embedding.get_text_embedding("a text")


def test_options(models, bge, encoder):
    folder = str(models["exported-minilm"])
    small = BgertEmbedding(
        folder, embed_batch_size=2, num_workers=2, dimensions=64, max_length=8, threads=1, device=None
    )
    assert (small.embed_batch_size, small.num_workers) == (2, 2)
    with pytest.warns(bgert.TruncationWarning):
        vectors = small.get_text_embedding_batch(["one two three four five six seven eight nine", "b", "c"])
    assert vectors == encoder.encode(["one two three four five six", "b", "c"], dimensions=64).tolist()
    with pytest.warns(bgert.InstructionWarning):
        plain = BgertEmbedding(models["exported-bge"], query_instruction="", normalize=True)
    assert plain.get_query_embedding("a text") == bge.encode("a text", prefix="").tolist()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cache_folder": "/tmp"}, "BGERT_CACHE"),
        ({"parallel_process": True}, "parallel_process"),
        ({"normalize": False}, "--no-normalize"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"lenght": 3}, "unknown option 'lenght'"),
        ({"options": {"lenght": 3}}, "unknown option 'lenght'"),
    ],
)
def test_what_there_is_not_is_refused_by_name(models, options, says):
    with pytest.raises(bgert.InvalidOptionError, match=says):
        BgertEmbedding(models["exported-bge"], **options)


def test_hostile_texts(embedding):
    for wrong in (None, 3, ["a"]):
        for call in (embedding.get_query_embedding, embedding.get_text_embedding):
            with pytest.raises(bgert.InvalidTextError):
                call(wrong)
    with pytest.raises(bgert.InvalidTextError):
        embedding.get_text_embedding_batch([None])
    with pytest.raises(bgert.InvalidTextError):
        asyncio.run(embedding.aget_text_embedding_batch(["a", None]))
    with pytest.warns(bgert.TruncationWarning, match="512 tokens"):
        embedding.get_text_embedding("word " * 600)


def test_pickle_copies_and_dictionaries(models, caplog):
    with pytest.warns(bgert.InstructionWarning):
        embedding = BgertEmbedding(models["exported-bge"], text_instruction="passage: ", dimensions=64)
    expected = embedding.get_text_embedding("a text")
    with caplog.at_level(logging.WARNING):
        again = [
            pickle.loads(pickle.dumps(embedding)),
            copy.deepcopy(embedding),
            embedding.model_copy(deep=True),
            BgertEmbedding.from_dict(embedding.to_dict()),
            BgertEmbedding.from_json(embedding.to_json()),
        ]
    assert not caplog.records, "LlamaIndex drops what it cannot pickle"
    assert len(expected) == 64
    for one in again:
        assert one.get_text_embedding("a text") == expected


def test_a_pipeline_of_two_processes(embedding, bge):
    nodes = IngestionPipeline(transformations=[embedding]).run(nodes=nodes_of(TEXTS), num_workers=2)
    expected = bge.encode_corpus([node.get_content(MetadataMode.EMBED) for node in nodes])
    np.testing.assert_array_equal([node.embedding for node in nodes], np.asarray(expected, float))


def test_an_index_is_read_again_in_a_new_process(embedding, models, tmp_path):
    index = VectorStoreIndex(
        nodes_of(["Paris is the capital of France.", "Bread is made of flour."]), embed_model=embedding
    )
    index.storage_context.persist(str(tmp_path))
    code = """
from llama_index.core import StorageContext, load_index_from_storage
from bgert.integrations.llama_index import BgertEmbedding
index = load_index_from_storage(StorageContext.from_defaults(persist_dir=path), embed_model=BgertEmbedding(folder))
result = [[found.node.node_id, found.score] for found in index.as_retriever(similarity_top_k=2).retrieve("capital")]
"""
    found = new_process.result_of(code, path=tmp_path, folder=models["exported-bge"])
    assert found == [
        [one.node.node_id, one.score] for one in index.as_retriever(similarity_top_k=2).retrieve("capital")
    ]


def test_rerank(rerank, reranker):
    scored = [NodeWithScore(node=node, score=0.5) for node in nodes_of(TEXTS)]
    texts = [one.node.get_content(MetadataMode.EMBED) for one in scored]
    best = reranker.rank("what is it?", texts, top_k=2, sigmoid=True)
    expected = [(str(at), score) for at, score in best]
    for again in (rerank, pickle.loads(pickle.dumps(rerank)), BgertRerank.from_dict(rerank.to_dict())):
        found = again.postprocess_nodes(scored, query_str="what is it?")
        assert [(one.node.node_id, one.score) for one in found] == expected
    found = asyncio.run(rerank.apostprocess_nodes(scored, query_bundle=QueryBundle("what is it?")))
    assert [(one.node.node_id, one.score) for one in found] == expected
    assert {one.score for one in scored} == {0.5}
    assert rerank.postprocess_nodes([], query_str="what is it?") == []


def test_rerank_options(models, reranker):
    keeps = BgertRerank(models["exported-reranker"], top_n=9, keep_retrieval_score=True, sigmoid=False, device="cpu")
    scored = [NodeWithScore(node=node, score=0.5) for node in nodes_of(TEXTS)]
    found = keeps.postprocess_nodes(scored, query_str="what is it?")
    assert [one.node.metadata["retrieval_score"] for one in found] == [0.5] * len(TEXTS)
    texts = [one.node.get_content(MetadataMode.EMBED) for one in scored]
    assert [one.score for one in found] == [score for _, score in reranker.rank("what is it?", texts)]
    assert "retrieval_score" not in scored[0].node.metadata
    with pytest.raises(bgert.InvalidTextError, match="no query"):
        keeps.postprocess_nodes(scored)
    for wrong in (0, "2", None):
        with pytest.raises(bgert.InvalidOptionError, match="top_n"):
            BgertRerank(models["exported-reranker"], top_n=wrong)
    with pytest.raises(bgert.InvalidOptionError, match="cross_encoder_kwargs"):
        BgertRerank(models["exported-reranker"], cross_encoder_kwargs={})
