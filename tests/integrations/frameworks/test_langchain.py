"""bgert.integrations.langchain beside Encoder and Reranker, and langchain-tests' own demands."""

import asyncio
import copy
import pickle
import warnings

import new_process
import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from pydantic import BaseModel, ConfigDict

import bgert
from bgert.integrations.langchain import BgertCrossEncoder, BgertEmbeddings, BgertRerank

TEXTS = ["a text", "", "another one, with more words in it", "第三", "a\nline"]
PAIRS = [("what is it?", "a text"), ("what is it?", ""), ("who?", "another one")]


class TestUnit(EmbeddingsUnitTests):
    embeddings_class = BgertEmbeddings

    @pytest.fixture(autouse=True)
    def _folder(self, models):
        self.folder = str(models["exported-minilm"])

    @property
    def embedding_model_params(self):
        return {"model_name": self.folder}


class TestIntegration(EmbeddingsIntegrationTests):
    embeddings_class = BgertEmbeddings

    @pytest.fixture(autouse=True)
    def _folder(self, models):
        self.folder = str(models["exported-minilm"])

    @property
    def embedding_model_params(self):
        return {"model_name": self.folder}


@pytest.fixture(scope="module")
def bge(models):
    return bgert.Encoder(models["exported-bge"])


@pytest.fixture(scope="module")
def embeddings(models):
    return BgertEmbeddings(str(models["exported-bge"]))


@pytest.fixture(scope="module")
def cross_encoder(models):
    return BgertCrossEncoder(str(models["exported-reranker"]))


def test_vectors_are_the_encoders(embeddings, bge):
    assert embeddings.embed_documents(TEXTS) == bge.encode_corpus(TEXTS).tolist()
    assert embeddings.embed_query("a text") == bge.encode_queries("a text").tolist()
    assert embeddings.embed_query("a text") != bge.encode_corpus("a text").tolist(), "the instruction has to matter"
    assert type(embeddings.embed_query("a text")[0]) is float
    assert embeddings.embed_documents([]) == []


def test_async_gives_the_same_bits(embeddings):
    async def gather():
        queries = asyncio.gather(*(embeddings.aembed_query(text) for text in TEXTS * 8))
        return await queries, await embeddings.aembed_documents(TEXTS), await embeddings.aembed_documents([])

    queries, documents, nothing = asyncio.run(gather())
    assert queries == [embeddings.embed_query(text) for text in TEXTS * 8]
    assert documents == embeddings.embed_documents(TEXTS)
    assert nothing == []


def test_instructions_are_literal_and_another_one_warns(models, bge):
    folder = models["exported-bge"]
    with pytest.warns(bgert.InstructionWarning, match="query instruction") as caught:
        plain = BgertEmbeddings(folder, query_instruction="")
    assert caught[0].filename == __file__
    assert plain.embed_query("a text") == bge.encode("a text", prefix="").tolist()
    with pytest.warns(bgert.InstructionWarning, match="no document instruction"):
        other = BgertEmbeddings(folder, embed_instruction="passage: ")
    assert other.embed_documents(["a text"]) == bge.encode(["a text"], prefix="passage: ").tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = BgertEmbeddings(folder, query_instruction=bge.manifest.prompts["query"], embed_instruction="")
    assert own.embed_query("a text") == bge.encode_queries("a text").tolist()


def test_options_of_encoder_and_encode(models, encoder):
    small = BgertEmbeddings(
        models["exported-minilm"], device="cpu", precision="fp32", threads=1, max_length=8, dimensions=64
    )
    with pytest.warns(bgert.TruncationWarning):
        vectors = small.embed_documents(["one two three four five six seven eight nine"])
    assert np.shape(vectors) == (1, 64)
    assert vectors == encoder.encode(["one two three four five six"], dimensions=64).tolist()


def test_options_as_huggingface_embeddings_takes_them(models, embeddings):
    with pytest.warns(UserWarning, match="batch_size is ignored") as caught:
        same = BgertEmbeddings(
            model_name=str(models["exported-bge"]),
            model_kwargs={"device": "cpu"},
            encode_kwargs={"normalize_embeddings": True, "batch_size": 8},
        )
    assert [warning.filename for warning in caught] == [__file__]
    assert same.embed_query("a text") == embeddings.embed_query("a text")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cache_folder": "/tmp"}, "BGERT_CACHE"),
        ({"multi_process": True}, "multi_process"),
        ({"encode_kwargs": {"normalize_embeddings": False}}, "--no-normalize"),
        ({"model_kwargs": {"trust_remote_code": True}}, "trust_remote_code"),
        ({"lenght": 3}, "unknown option 'lenght'"),
        ({"max_length": 10_000}, "max_length"),
        ({"dimensions": 10_000}, "dimensions"),
        ({"query_instruction": 3}, "instruction is int"),
        ({"device": "cpu:7"}, "device"),
    ],
)
def test_what_there_is_not_is_refused_by_name(models, options, says):
    with pytest.raises((bgert.InvalidOptionError, bgert.DeviceUnavailableError), match=says):
        BgertEmbeddings(models["exported-bge"], **options)


def test_hostile_texts(embeddings):
    for wrong in (None, "a text", [None], [b"a"], ["a", 3]):
        with pytest.raises(bgert.InvalidTextError):
            embeddings.embed_documents(wrong)
        with pytest.raises(bgert.InvalidTextError):
            asyncio.run(embeddings.aembed_documents(wrong))
    for wrong in (None, ["a text"], b"a"):
        with pytest.raises(bgert.InvalidTextError):
            embeddings.embed_query(wrong)
        with pytest.raises(bgert.InvalidTextError):
            asyncio.run(embeddings.aembed_query(wrong))
    with pytest.warns(bgert.TruncationWarning, match="512 tokens"):
        embeddings.embed_query("word " * 600)


def test_pickle_and_copies(embeddings):
    class Chain(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        embeddings: Embeddings

    chain = Chain(embeddings=embeddings)
    expected = embeddings.embed_query("a text")
    for again in (
        pickle.loads(pickle.dumps(embeddings)),
        copy.deepcopy(embeddings),
        chain.model_copy(deep=True).embeddings,
    ):
        assert again.embed_query("a text") == expected


def test_a_vector_store_is_read_again_in_a_new_process(embeddings, models, tmp_path):
    store = InMemoryVectorStore(embeddings)
    store.add_texts(["Paris is the capital of France.", "Bread is made of flour."], ids=["paris", "bread"])
    store.dump(str(tmp_path / "store.json"))
    code = """
from langchain_core.vectorstores import InMemoryVectorStore
from bgert.integrations.langchain import BgertEmbeddings
store = InMemoryVectorStore.load(path, BgertEmbeddings(folder))
result = [[document.id, score] for document, score in store.similarity_search_with_score("capital of France", k=2)]
"""
    found = new_process.result_of(code, path=tmp_path / "store.json", folder=models["exported-bge"])
    here = store.similarity_search_with_score("capital of France", k=2)
    assert found == [[document.id, score] for document, score in here]


def test_cross_encoder(cross_encoder, reranker, models):
    assert cross_encoder.score(PAIRS) == reranker.score(PAIRS, sigmoid=True).tolist()
    raw = BgertCrossEncoder(models["exported-reranker"], sigmoid=False, model_kwargs={"device": "cpu"})
    assert raw.score(PAIRS) == reranker.score(PAIRS).tolist()
    assert pickle.loads(pickle.dumps(raw)).score(PAIRS) == raw.score(PAIRS)
    assert raw.score([]) == []
    for wrong in (None, "ab", [None], [("a",)], [("a", None)]):
        with pytest.raises(bgert.InvalidTextError):
            raw.score(wrong)
    with pytest.raises(bgert.InvalidOptionError, match="truncation"):
        BgertCrossEncoder(models["exported-reranker"], truncation="middle")
    with pytest.raises(bgert.ModelFolderError, match="encoder"):
        BgertCrossEncoder(models["exported-bge"])


def test_rerank(reranker, models):
    documents = [Document(page_content=text, metadata={"at": at}) for at, text in enumerate(TEXTS)]
    rerank = BgertRerank(model=str(models["exported-reranker"]), top_n=2)
    best = reranker.rank("what is it?", TEXTS, top_k=2, sigmoid=True)
    expected = [Document(page_content=TEXTS[at], metadata={"at": at, "relevance_score": score}) for at, score in best]
    for again in (
        rerank,
        pickle.loads(pickle.dumps(rerank)),
        rerank.model_copy(deep=True),
        BgertRerank(**rerank.model_dump()),
        BgertRerank.model_validate_json(rerank.model_dump_json()),
    ):
        assert again.compress_documents(documents, "what is it?") == expected
    assert asyncio.run(rerank.acompress_documents(documents, "what is it?")) == expected
    assert documents[0].metadata == {"at": 0}
    assert rerank.compress_documents([], "what is it?") == []
    assert len(BgertRerank(models["exported-reranker"], top_n=None).compress_documents(documents, "?")) == len(TEXTS)
    with pytest.raises(bgert.InvalidTextError):
        rerank.compress_documents(documents, None)
    for wrong in (0, -1, "3"):
        with pytest.raises(bgert.InvalidOptionError, match="top_n"):
            BgertRerank(models["exported-reranker"], top_n=wrong)
    with pytest.raises(bgert.InvalidOptionError, match="unknown option"):
        BgertRerank(models["exported-reranker"], top_m=3)


def test_nothing_else_is_loaded(models):
    code = """
import sys
from bgert.integrations.langchain import BgertEmbeddings
BgertEmbeddings(folder).embed_query("a")
result = sorted({"torch", "transformers", "tokenizers", "sentence_transformers"} & set(sys.modules))
"""
    assert new_process.result_of(code, folder=models["exported-minilm"]) == []
