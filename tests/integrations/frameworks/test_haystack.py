"""Haystack's components on bgert beside Encoder and Reranker."""

import asyncio
import copy

import new_process
import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import ComponentDevice

import bgert
from bgert.integrations.adapted import AdaptedEncoder
from bgert.integrations.haystack import BgertDocumentEmbedder, BgertRanker, BgertTextEmbedder

TEXTS = ["a text", "", "another one, with more words in it", "第三", "a\nline"]
FACTS = ["Paris is the capital of France.", "Bread is made of flour."]


@pytest.fixture(scope="module")
def bge(models):
    return bgert.Encoder(models["exported-bge"])


@pytest.fixture(scope="module")
def text_embedder(models):
    return BgertTextEmbedder(model=str(models["exported-bge"]))


@pytest.fixture(scope="module")
def document_embedder(models):
    return BgertDocumentEmbedder(model=str(models["exported-bge"]))


@pytest.fixture(scope="module")
def ranker(models):
    return BgertRanker(model=str(models["exported-reranker"]), top_k=2)


def documents_of(texts):
    return [Document(id=str(at), content=text, meta={"title": f"title {at}"}) for at, text in enumerate(texts)]


def test_vectors_are_the_encoders(text_embedder, document_embedder, bge):
    assert text_embedder.run(text="a text") == {"embedding": bge.encode_queries("a text").tolist()}
    given = documents_of(TEXTS)
    found = document_embedder.run(documents=given)["documents"]
    assert [one.embedding for one in found] == bge.encode_corpus(TEXTS).tolist()
    assert [one.content for one in found] == TEXTS
    assert {one.embedding for one in given} == {None}
    assert document_embedder.run(documents=[]) == {"documents": []}


def test_async_gives_the_same_bits(text_embedder, document_embedder):
    async def gather():
        queries = asyncio.gather(*(text_embedder.run_async(text=text) for text in TEXTS * 8))
        return await queries, await document_embedder.run_async(documents=documents_of(TEXTS))

    queries, documents = asyncio.run(gather())
    assert queries == [text_embedder.run(text=text) for text in TEXTS * 8]
    assert documents == document_embedder.run(documents=documents_of(TEXTS))


def test_metadata_and_prefix(models, bge):
    with_title = BgertDocumentEmbedder(
        models["exported-bge"], meta_fields_to_embed=["title", "no"], embedding_separator=": "
    )
    found = with_title.run(documents=documents_of(["a text"]))["documents"]
    assert found[0].embedding == bge.encode_corpus("title 0: a text").tolist()
    plain = BgertTextEmbedder(models["exported-bge"], prefix="")
    with pytest.warns(bgert.InstructionWarning):
        plain.warm_up()
    assert plain.run(text="a text")["embedding"] == bge.encode("a text", prefix="").tolist()


def test_nothing_is_opened_before_warm_up(models):
    with pytest.raises(bgert.InvalidOptionError, match="model is NoneType"):
        BgertTextEmbedder(None)
    embedder = BgertTextEmbedder("/no/such/folder")
    with pytest.raises(bgert.ModelNotFoundError):
        embedder.warm_up()
    with pytest.raises(bgert.ModelNotFoundError):
        embedder.run(text="a")


def test_all_that_come_at_once_get_one_model(models, monkeypatch):
    from haystack_integrations.components.embedders import bgert as embedders

    made = []

    def make(*arguments, **options):
        made.append(AdaptedEncoder(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(embedders, "AdaptedEncoder", make)
    embedder = BgertTextEmbedder(models["exported-bge"])

    async def gather():
        return await asyncio.gather(*(embedder.run_async(text="a") for _ in range(8)))

    asyncio.run(gather())
    assert len(made) == 1


def test_options_travel(models, encoder):
    with pytest.warns(UserWarning, match="batch_size is ignored"):
        embedder = BgertTextEmbedder(
            models["exported-minilm"],
            device=ComponentDevice.from_str("cpu"),
            dimensions=64,
            normalize_embeddings=True,
            progress_bar=False,
            batch_size=4,
        )
    data = embedder.to_dict()
    assert data["type"] == "haystack_integrations.components.embedders.bgert.BgertTextEmbedder"
    for again in (embedder, BgertTextEmbedder.from_dict(data), copy.deepcopy(embedder)):
        assert again.run(text="a text")["embedding"] == encoder.encode_queries("a text", dimensions=64).tolist()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"backend": "onnx"}, "precision="),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"suffix": "."}, "suffix"),
        ({"lenght": 3}, "unknown option 'lenght'"),
    ],
)
def test_what_there_is_not_is_refused_by_name(models, options, says):
    for component in (BgertTextEmbedder, BgertDocumentEmbedder, BgertRanker):
        with pytest.raises(bgert.InvalidOptionError, match=says):
            component("/no/such/folder", **options)


def test_hostile_input(text_embedder, document_embedder, ranker):
    for wrong in (None, ["a"], 3):
        with pytest.raises(bgert.InvalidTextError):
            text_embedder.run(text=wrong)
        with pytest.raises(bgert.InvalidTextError):
            asyncio.run(text_embedder.run_async(text=wrong))
        with pytest.raises(bgert.InvalidTextError):
            document_embedder.run(documents=wrong)
        with pytest.raises(bgert.InvalidTextError):
            ranker.run(query=wrong, documents=documents_of(TEXTS))
        with pytest.raises(bgert.InvalidTextError):
            ranker.run(query="a", documents=wrong)
    with pytest.warns(bgert.TruncationWarning, match="512 tokens"):
        text_embedder.run(text="word " * 600)


def test_rank(ranker, reranker, models):
    best = reranker.rank("what is it?", TEXTS, sigmoid=True)
    found = ranker.run(query="what is it?", documents=documents_of(TEXTS))["documents"]
    assert [(one.id, one.score) for one in found] == [(str(at), score) for at, score in best[:2]]
    again = asyncio.run(ranker.run_async(query="what is it?", documents=documents_of(TEXTS), top_k=9))["documents"]
    assert [(one.id, one.score) for one in again] == [(str(at), score) for at, score in best]
    least = best[2][1]
    kept = ranker.run(query="what is it?", documents=documents_of(TEXTS), top_k=9, score_threshold=least)["documents"]
    assert len(kept) == 3
    assert ranker.run(query="what is it?", documents=[]) == {"documents": []}
    raw = BgertRanker(models["exported-reranker"], scale_score=False, meta_fields_to_embed=["title"])
    titled = [f"title {at}\n{text}" for at, text in enumerate(TEXTS)]
    found = raw.run(query="what is it?", documents=documents_of(TEXTS))["documents"]
    assert [one.score for one in found] == [score for _, score in reranker.rank("what is it?", titled)]
    with pytest.raises(bgert.InvalidOptionError, match="top_k"):
        BgertRanker(models["exported-reranker"], top_k=0)
    with pytest.raises(bgert.InvalidOptionError, match="scale_score"):
        BgertRanker(models["exported-reranker"], sigmoid=True)


def pipeline_of(models):
    pipeline = Pipeline()
    pipeline.add_component("query", BgertTextEmbedder(str(models["exported-bge"]), dimensions=128))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(InMemoryDocumentStore(), top_k=2))
    pipeline.add_component("ranker", BgertRanker(str(models["exported-reranker"])))
    pipeline.connect("query.embedding", "retriever.query_embedding")
    pipeline.connect("retriever", "ranker")
    return pipeline


def test_a_pipeline_is_loaded_from_yaml_in_a_new_process(models):
    """Without an import of bgert, and without a list of allowed modules."""
    pipeline = pipeline_of(models)
    indexer = BgertDocumentEmbedder(str(models["exported-bge"]), dimensions=128)
    stored = indexer.run(documents=documents_of(FACTS))["documents"]
    pipeline.get_component("retriever").document_store.write_documents(stored)
    here = pipeline.run({"query": {"text": "capital"}, "ranker": {"query": "capital"}})
    code = """
from haystack import Document, Pipeline
pipeline = Pipeline.loads(yaml)
pipeline.get_component("retriever").document_store.write_documents([Document.from_dict(one) for one in documents])
found = pipeline.run({"query": {"text": "capital"}, "ranker": {"query": "capital"}})
result = [[one.id, one.score] for one in found["ranker"]["documents"]]
"""
    yaml = pipeline.dumps()
    found = new_process.result_of(code, yaml=yaml, documents=[one.to_dict() for one in stored])
    assert found == [[one.id, one.score] for one in here["ranker"]["documents"]]
    assert len(found) == 2


def test_other_integrations_live_beside(tmp_path):
    other = tmp_path / "haystack_integrations/components/embedders/other"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("name = 'other'")
    code = """
sys.path.insert(0, path)
from haystack_integrations.components.embedders.bgert import BgertTextEmbedder
from haystack_integrations.components.embedders.other import name
result = [BgertTextEmbedder.__name__, name]
"""
    assert new_process.result_of(code, path=tmp_path) == ["BgertTextEmbedder", "other"]
