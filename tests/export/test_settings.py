"""Who decides on pooling, normalisation, prompts and length, and what is written down of it."""

import pytest

from bgert.errors import InvalidOptionError
from bgert_export.checkpoint import Checkpoint
from bgert_export.errors import UndecidedError
from bgert_export.known_models import KnownModel
from bgert_export.settings import Options, decide
from bgert_export.source import Source

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
    with pytest.raises(UndecidedError, match=r"pooling .* pass --pooling cls or --pooling mean"):
        decided(folder)
    with pytest.raises(UndecidedError, match=r"normalize .* pass --normalize or --no-normalize"):
        decided(folder, pooling="cls")
    settings, why = decided(folder, pooling="cls", normalize=False)
    assert (settings.pooling, settings.normalize, settings.prompts) == ("cls", False, {})
    assert why["pooling"].why == why["normalize"].why == "asked for"
    assert "neither" in why["prompts"].why


def test_the_checkpoints_own_files(make_checkpoint, sentence_transformers_files):
    files = sentence_transformers_files("mean", normalize=False, prompts={"query": "q: "}, default="query")
    settings, why = decided(make_checkpoint(files=files))
    assert (settings.pooling, settings.normalize) == ("mean", False)
    assert (settings.prompts, settings.default_prompt) == ({"query": "q: "}, "query")
    assert why["pooling"].why == "1_Pooling/config.json"
    assert why["normalize"].why == "modules.json has no Normalize"
    assert why["prompts"].why == why["default_prompt"].why == "config_sentence_transformers.json"


def test_flags_win_and_the_difference_is_said(make_checkpoint, sentence_transformers_files):
    folder = make_checkpoint(files=sentence_transformers_files("mean", prompts={"query": "q: ", "x": "x: "}))
    settings, why = decided(folder, pooling="cls", normalize=False, query_prompt="ask: ", document_prompt="")
    assert (settings.pooling, settings.normalize) == ("cls", False)
    assert settings.prompts == {"query": "ask: ", "x": "x: "}
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
    assert (settings.pooling, settings.normalize, settings.prompts) == ("cls", True, {"query": QUERY})
    assert all("the published tiny-model" in c.why for c in settings.choices if c.field in ("pooling", "prompts"))


def test_the_table_adds_only_the_instruction_to_complete_files(make_checkpoint, sentence_transformers_files, known):
    files = sentence_transformers_files("cls", prompts={"query": "", "document": ""})
    settings, why = decided(make_checkpoint("tiny-model", files=files))
    assert settings.prompts == {"query": QUERY}
    assert why["pooling"].why == "1_Pooling/config.json"
    assert "files have none" in why["prompts"].why


def test_checkpoint_beats_table_and_the_difference_is_said(make_checkpoint, sentence_transformers_files, known):
    files = sentence_transformers_files("mean", normalize=False, prompts={"query": "other: "})
    files["tokenizer_config.json"] = {"do_lower_case": False, "model_max_length": 64}
    settings, why = decided(make_checkpoint("tiny-model", files=files))
    assert (settings.pooling, settings.normalize, settings.prompts) == ("mean", False, {"query": "other: "})
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


def test_length_asked_for(make_checkpoint):
    folder = make_checkpoint()
    settings, _ = decided(folder, pooling="cls", normalize=True, max_tokens=32)
    assert settings.max_tokens == 32
    for wrong in (2, 73, 0, -1, True):
        with pytest.raises(InvalidOptionError, match="from 3 to 72"):
            decided(folder, pooling="cls", normalize=True, max_tokens=wrong)


def test_unknown_pooling(make_checkpoint):
    with pytest.raises(InvalidOptionError, match="unknown pooling 'max': use cls or mean"):
        decided(make_checkpoint(), pooling="max")


def test_rerankers_take_no_encoder_options(make_checkpoint, make_config):
    folder = make_checkpoint(config=make_config(architectures=["BertForSequenceClassification"], num_labels=1))
    settings, _ = decided(folder)
    assert (settings.pooling, settings.normalize, settings.prompts) == (None, False, {})
    for options in ({"pooling": "cls"}, {"normalize": True}, {"query_prompt": "q"}, {"document_prompt": ""}):
        with pytest.raises(InvalidOptionError, match="this checkpoint is a reranker"):
            decided(folder, **options)
