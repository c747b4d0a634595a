"""The table of published models."""

import pytest

from bgert.errors import ModelNotFoundError
from bgert_export.architecture import Architecture
from bgert_export.checkpoint import locate
from bgert_export.known_models import find_known, published_id

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


@pytest.mark.parametrize("names", [[], ["bert-base-uncased"], ["bge-small"], ["bge-m3"], ["my-bge-small-en"]])
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
