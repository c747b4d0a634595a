"""The table of published models."""

import json
from dataclasses import replace

import pytest

from bgert.errors import ModelNotFoundError
from bgert_export import known_models
from bgert_export.architecture import Architecture
from bgert_export.checkpoint import Checkpoint, locate
from bgert_export.errors import UndecidedError
from bgert_export.known_models import find_known, published_id
from bgert_export.settings import Options, decide

CHINESE = "为这个句子生成表示以用于检索相关文章\N{FULLWIDTH COLON}"
ENGLISH = "Represent this sentence for searching relevant passages: "


@pytest.mark.parametrize("size", ["small", "base", "large"])
@pytest.mark.parametrize("version", ["", "-v1.5"])
@pytest.mark.parametrize(("language", "prompt"), [("en", ENGLISH), ("zh", CHINESE)])
def test_query_instructions(size, version, language, prompt):
    known = find_known([f"BAAI/bge-{size}-{language}{version}"])
    assert known.prompts == {"query": prompt}
    assert (known.pooling, known.normalize, known.max_tokens) == ("cls", True, 512)


def test_llm_embedder_has_every_task():
    prompts = find_known(["BAAI/llm-embedder"]).prompts
    assert prompts["query"] == prompts["qa-query"] == "Represent this query for retrieving relevant documents: "
    assert prompts["document"] == prompts["qa-document"] == "Represent this document for retrieval: "
    for task in ("icl", "chat", "lrlm", "tool", "convsearch"):
        assert prompts[f"{task}-query"].endswith(": ")
        assert prompts[f"{task}-document"].endswith(": ")
    assert len(prompts) == 14


@pytest.mark.parametrize(
    ("hub_id", "pooling", "normalize", "query", "document", "width", "limit"),
    [
        ("intfloat/e5-small-v2", "mean", True, "query: ", "passage: ", 384, 512),
        ("intfloat/e5-base", "mean", True, "query: ", "passage: ", 768, 512),
        ("intfloat/multilingual-e5-small", "mean", True, "query: ", "passage: ", 384, 512),
        ("intfloat/multilingual-e5-large", "mean", True, "query: ", "passage: ", 1024, 512),
        ("thenlper/gte-large", "mean", True, "", "", 1024, 512),
        ("Snowflake/snowflake-arctic-embed-xs", "cls", True, ENGLISH, "", 384, 512),
        ("Snowflake/snowflake-arctic-embed-m-v1.5", "cls", True, ENGLISH, "", 768, 512),
        ("mixedbread-ai/mxbai-embed-large-v1", "cls", None, ENGLISH, "", 1024, 512),
        ("WhereIsAI/UAE-Large-V1", "cls", None, ENGLISH, "", 1024, 512),
        ("sentence-transformers/all-MiniLM-L6-v2", "mean", True, "", "", 384, 256),
        ("sentence-transformers/all-MiniLM-L12-v2", "mean", True, "", "", 384, 128),
        ("sentence-transformers/all-mpnet-base-v2", "mean", True, "", "", 768, 384),
        ("sentence-transformers/multi-qa-mpnet-base-dot-v1", "cls", False, "", "", 768, 512),
        ("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", "mean", False, "", "", 384, 128),
        ("nomic-ai/nomic-embed-text-v1", "mean", None, "search_query: ", "search_document: ", 768, 8192),
        ("nomic-ai/nomic-embed-text-v1.5", "mean", None, "search_query: ", "search_document: ", 768, 8192),
        ("Snowflake/snowflake-arctic-embed-m-long", "cls", None, ENGLISH, "", 768, 2048),
    ],
)
def test_models_of_others(hub_id, pooling, normalize, query, document, width, limit):
    known = find_known([hub_id])
    assert published_id(hub_id.rsplit("/", 1)[1]) == hub_id
    assert (known.pooling, known.normalize, known.geometry[2], known.max_tokens) == (pooling, normalize, width, limit)
    assert (known.prompts.get("query", ""), known.prompts.get("document", "")) == (query, document)


@pytest.mark.parametrize(
    "name",
    [
        "multilingual-e5-large-instruct",
        "gte-base-en-v1.5",
        "distiluse-base-multilingual-cased-v2",
    ],
)
def test_relatives_that_are_other_models(name):
    assert find_known([name]) is None


def test_the_demo_model_is_what_the_table_says(demo_checkpoint):
    config = json.loads((demo_checkpoint / "config.json").read_text())
    assert find_known(["all-MiniLM-L6-v2"]).fits(Architecture.from_config(config))


def test_what_is_not_published_stays_open(make_checkpoint, make_config, monkeypatch):
    """Prompts and pooling are taken from the table; normalisation must be said."""
    config = make_config()
    fields = (
        "model_type",
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "vocab_size",
    )
    known = find_known(["UAE-Large-V1"])
    tiny = replace(known, geometry=tuple(config[name] for name in fields))
    monkeypatch.setitem(known_models._BY_NAME, "uae-large-v1", tiny)
    checkpoint = Checkpoint.open(locate(make_checkpoint("UAE-Large-V1", config=config)))
    with pytest.raises(UndecidedError, match="--normalize or --no-normalize"):
        decide(checkpoint, Options())
    settings = decide(checkpoint, Options(normalize=True))
    assert (settings.pooling, settings.prompts) == ("cls", {"query": ENGLISH, "document": ""})


@pytest.mark.parametrize(
    "names",
    [
        ["BAAI/bge-small-en"],
        ["bge-small-en"],
        ["checkpoint", "/home/someone/BGE-Small-EN/"],
        ["x", "C:\\models\\bge-small-en"],
        ["mirror/bge-small-en", "BAAI/bge-large-en"],
    ],
)
def test_names(names):
    assert find_known(names).name == "bge-small-en"


@pytest.mark.parametrize("names", [[], ["bert-base-uncased"], ["bge-small"], ["bge-m9"], ["my-bge-small-en"]])
def test_other_names(names):
    assert find_known(names) is None


def test_geometry(make_config):
    config = make_config(
        vocab_size=21128, hidden_size=512, num_hidden_layers=4, num_attention_heads=8, intermediate_size=2048
    )
    known = find_known(["bge-small-zh-v1.5"])
    assert known.fits(Architecture.from_config(config))
    assert not known.fits(Architecture.from_config(config | {"num_hidden_layers": 12}))
    assert not known.fits(Architecture.from_config(config | {"architectures": ["BertForSequenceClassification"]}))


def test_rerankers_have_no_prompts():
    known = find_known(["BAAI/bge-reranker-large"])
    assert (known.kind, known.pooling, known.prompts) == ("reranker", None, {})


def test_the_hub_id_of_a_name_without_its_owner(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert published_id("bge-small-en-v1.5") == "BAAI/bge-small-en-v1.5"
    assert published_id("bert-base-uncased") is None
    for name in ("bge-reranker-base", "BGE-Small-EN-v1.5"):
        with pytest.raises(ModelNotFoundError, match=f"did you mean the hub id BAAI/{name.lower()}"):
            locate(name)
    (tmp_path / "bge-reranker-base").mkdir()
    assert locate("bge-reranker-base").folder.name == "bge-reranker-base"
