"""Who decides on pooling, normalisation, prompts and length, and what is written down of it."""

import pytest

from bgert.errors import InvalidOptionError
from bgert_export.checkpoint import Checkpoint
from bgert_export.errors import CheckpointError, UndecidedError, UnsupportedCheckpointError
from bgert_export.known_models import KnownModel
from bgert_export.settings import Options, decide
from bgert_export.source import Source

NONE = {"query": "", "document": ""}
QUERY = "Represent this sentence for searching relevant passages: "


def decided(folder, **options):
    settings = decide(Checkpoint.open(Source(folder)), Options(**options))
    return settings, {choice.field: choice for choice in settings.choices}


@pytest.fixture
def known(monkeypatch, make_config):
    config = make_config()
    model = KnownModel(
        "tiny-model", ("bert", 3, 64, 4, 128, config["vocab_size"]), prompts={"query": QUERY}, lowercase=True
    )
    monkeypatch.setattr("bgert_export.known_models._BY_NAME", {"tiny-model": model})
    return model


def test_nothing_known_is_an_error_that_names_the_flag(make_checkpoint):
    folder = make_checkpoint()
    with pytest.raises(UndecidedError, match=r"pooling .* pass --pooling cls, --pooling mean or another"):
        decided(folder)
    with pytest.raises(UndecidedError, match=r"normalize .* pass --normalize or --no-normalize"):
        decided(folder, pooling="cls")
    settings, why = decided(folder, pooling="cls", normalize=False)
    assert (settings.pooling, settings.normalize, settings.prompts) == ("cls", False, NONE)
    assert why["pooling"].why == why["normalize"].why == "asked for"
    assert "neither" in why["prompts"].why


def test_the_checkpoints_own_files(make_checkpoint, sentence_transformers_files):
    files = sentence_transformers_files("mean", normalize=False, prompts={"query": "q: "}, default="query")
    settings, why = decided(make_checkpoint(files=files))
    assert (settings.pooling, settings.normalize) == ("mean", False)
    assert (settings.prompts, settings.default_prompt) == ({"query": "q: ", "document": ""}, "query")
    assert why["pooling"].why == "1_Pooling/config.json"
    assert why["normalize"].why == "modules.json has no Normalize"
    assert why["prompts"].why == why["default_prompt"].why == "config_sentence_transformers.json"


def test_flags_win_and_the_difference_is_said(make_checkpoint, sentence_transformers_files):
    folder = make_checkpoint(files=sentence_transformers_files("mean", prompts={"query": "q: ", "x": "x: "}))
    settings, why = decided(folder, pooling="cls", normalize=False, query_prompt="ask: ", document_prompt="")
    assert (settings.pooling, settings.normalize) == ("cls", False)
    assert settings.prompts == {"query": "ask: ", "document": "", "x": "x: "}
    assert why["pooling"].why == "asked for; 1_Pooling/config.json says 'mean'"
    assert why["prompts.query"].value == "ask: "


@pytest.mark.parametrize("where", ["folder", "cache", "_name_or_path", "hub id"])
def test_the_table_fills_in(make_checkpoint, make_config, known, where):
    config = make_config(_name_or_path="BAAI/tiny-model" if where == "_name_or_path" else None)
    name = "tiny-model" if where == "folder" else "checkpoint"
    folder = make_checkpoint(name, config=config)
    if where == "cache":
        snapshot = folder.parent / "models--BAAI--tiny-model" / "snapshots" / "0123"
        snapshot.parent.mkdir(parents=True)
        folder = folder.rename(snapshot)
    source = Source(folder, hub_id="BAAI/tiny-model" if where == "hub id" else None)
    settings = decide(Checkpoint.open(source), Options())
    assert (settings.pooling, settings.normalize, settings.prompts) == ("cls", True, NONE | {"query": QUERY})
    origin = {"folder": "the folder's name is tiny-model", "cache": "the hub's cache is tiny-model"}
    said = origin.get(where, f"{'the hub id' if where == 'hub id' else where + ' of config.json'} is BAAI/tiny-model")
    for choice in settings.choices:
        if choice.field in ("pooling", "normalize", "prompts"):
            assert f"the published tiny-model ({said})" in choice.why


@pytest.mark.parametrize(
    ("prompts", "expected", "said"),
    [
        (None, NONE | {"query": QUERY}, "the checkpoint's files have none of them"),
        ({}, NONE | {"query": QUERY}, "the checkpoint's files have none of them"),
        ({"document": "", "x": "x: "}, NONE | {"query": QUERY, "x": "x: "}, "the checkpoint's files have none of them"),
        ({"query": "", "document": ""}, NONE, f"the published tiny-model has {{'query': {QUERY!r}}}"),
        ({"query": None}, NONE, "the published tiny-model has"),
    ],
)
def test_the_table_is_for_names_that_are_not_in_the_file(
    make_checkpoint, sentence_transformers_files, known, prompts, expected, said
):
    files = sentence_transformers_files("cls", prompts=prompts)
    settings, why = decided(make_checkpoint("tiny-model", files=files))
    assert settings.prompts == expected
    assert why["pooling"].why == "1_Pooling/config.json"
    assert said in why["prompts"].why


def test_a_passage_prompt_is_not_for_documents_and_that_is_said(make_checkpoint, sentence_transformers_files):
    files = sentence_transformers_files("cls", prompts={"query": "q: ", "passage": "p: "})
    settings, why = decided(make_checkpoint(files=files))
    assert settings.prompts == {"query": "q: ", "document": "", "passage": "p: "}
    assert "pass --document-prompt" in why["prompts"].why
    settings, _ = decided(make_checkpoint("other", files=files), document_prompt="p: ")
    assert settings.prompts["document"] == "p: "


def test_a_prompt_asked_for_that_pooling_would_leave_out(make_checkpoint, sentence_transformers_files):
    files = sentence_transformers_files("mean")
    files["1_Pooling/config.json"] = {"pooling_mode": "mean", "include_prompt": False}
    with pytest.raises(UnsupportedCheckpointError, match="include_prompt false"):
        decided(make_checkpoint(files=files), query_prompt="q: ")


def test_a_missing_pooling_folder(make_checkpoint, sentence_transformers_files):
    files = sentence_transformers_files("mean") | {"1_Pooling/config.json": None}
    folder = make_checkpoint(files=files)
    with pytest.raises(CheckpointError, match=r"has no 1_Pooling/config\.json, .* or pass --pooling"):
        decided(folder)
    settings, _ = decided(folder, pooling="mean")
    assert (settings.pooling, settings.normalize) == ("mean", True)


def test_checkpoint_beats_table_and_the_difference_is_said(make_checkpoint, sentence_transformers_files, known):
    files = sentence_transformers_files("mean", normalize=False, prompts={"query": "other: "})
    files["tokenizer_config.json"] = {"do_lower_case": False, "model_max_length": 64}
    settings, why = decided(make_checkpoint("tiny-model", files=files))
    assert (settings.pooling, settings.normalize, settings.prompts) == ("mean", False, NONE | {"query": "other: "})
    assert why["pooling"].why.endswith("the published tiny-model has 'cls'")
    assert why["normalize"].why.endswith("the published tiny-model has True")
    assert QUERY in why["prompts"].why
    assert (why["lowercase"].value, "has True" in why["lowercase"].why) == (False, True)
    assert why["max_tokens"].why.endswith("the published model has 512")


def test_a_known_name_with_another_geometry(make_checkpoint, make_config, known):
    folder = make_checkpoint("tiny-model", config=make_config(num_hidden_layers=2))
    with pytest.raises(UndecidedError):
        decided(folder)
    _, why = decided(folder, pooling="cls", normalize=True)
    assert "geometry is not" in why["known_model"].why


@pytest.mark.parametrize(
    ("max_seq_length", "model_max_length", "expected", "source"),
    [
        (40, 64, 40, "max_seq_length"),
        (64, 40, 64, "max_seq_length"),
        (None, 40, 40, "model_max_length"),
        (None, None, 72, "max_position_embeddings"),
        (None, 10**30, 72, "max_position_embeddings"),
        (500, 64, 72, "max_position_embeddings"),
        (None, 512, 72, "max_position_embeddings"),
    ],
)
def test_length_is_sentence_transformers_own(
    make_checkpoint, sentence_transformers_files, max_seq_length, model_max_length, expected, source
):
    from sentence_transformers import SentenceTransformer

    files = sentence_transformers_files("cls", max_seq_length=max_seq_length)
    files["tokenizer_config.json"] = {"tokenizer_class": "BertTokenizer", "model_max_length": model_max_length}
    if model_max_length is None:
        del files["tokenizer_config.json"]["model_max_length"]
    folder = make_checkpoint(files=files)
    settings, why = decided(folder)
    assert settings.max_tokens == expected
    assert source in why["max_tokens"].why
    if (max_seq_length or 0) <= 72:  # above its positions sentence-transformers fails on long texts
        assert SentenceTransformer(str(folder), device="cpu").max_seq_length == expected


@pytest.mark.parametrize("kind", ["encoder", "reranker"])
@pytest.mark.parametrize(
    ("tokenizer", "expected", "source"),
    [
        ({"max_len": 40}, 40, "max_len of tokenizer_config.json"),
        ({"max_len": 40, "model_max_length": 50}, 50, "model_max_length"),
        ({"max_len": 40, "model_max_length": None}, 72, "max_position_embeddings"),
        ({"max_len": 10**12}, 72, "max_position_embeddings"),
        ({"model_max_length": 1e30}, 72, "max_position_embeddings"),
    ],
)
def test_the_tokenizers_limit_is_one(make_checkpoint, make_config, kind, tokenizer, expected, source):
    from sentence_transformers import CrossEncoder, SentenceTransformer

    from bgert.tokenizer import Tokenizer

    classifier = {"architectures": ["BertForSequenceClassification"], "num_labels": 1}
    files = {"tokenizer_config.json": {"tokenizer_class": "BertTokenizer"} | tokenizer}
    folder = make_checkpoint(config=make_config(**(classifier if kind == "reranker" else {})), files=files)
    settings, why = decided(folder, **({} if kind == "reranker" else {"pooling": "cls", "normalize": True}))
    assert settings.max_tokens == expected
    assert source in why["max_tokens"].why
    assert Tokenizer.from_folder(folder).max_length in (expected, None)
    peer = CrossEncoder if kind == "reranker" else SentenceTransformer
    assert peer(str(folder), device="cpu").max_seq_length == expected


def test_a_limit_that_is_no_number(make_checkpoint):
    folder = make_checkpoint(files={"tokenizer_config.json": {"max_len": "64"}})
    with pytest.raises(CheckpointError, match="max_len is '64'"):
        decided(folder, pooling="cls", normalize=True)


def test_length_asked_for(make_checkpoint):
    folder = make_checkpoint()
    settings, _ = decided(folder, pooling="cls", normalize=True, max_tokens=32)
    assert settings.max_tokens == 32
    for wrong in (2, 73, 0, -1, True):
        with pytest.raises(InvalidOptionError, match="from 3 to 72"):
            decided(folder, pooling="cls", normalize=True, max_tokens=wrong)


def test_unknown_pooling(make_checkpoint):
    with pytest.raises(InvalidOptionError, match="unknown pooling 'median': use cls, max, mean"):
        decided(make_checkpoint(), pooling="median")


def test_rerankers_take_no_encoder_options(make_checkpoint, make_config):
    folder = make_checkpoint(config=make_config(architectures=["BertForSequenceClassification"], num_labels=1))
    settings, _ = decided(folder)
    assert (settings.pooling, settings.normalize, settings.prompts) == (None, False, {})
    for options in ({"pooling": "cls"}, {"normalize": True}, {"query_prompt": "q"}, {"document_prompt": ""}):
        with pytest.raises(InvalidOptionError, match="this checkpoint is a reranker"):
            decided(folder, **options)
