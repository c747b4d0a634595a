"""The runtime's calls beside sentence-transformers' on the same folder: right ones pass, wrong ones are named."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import bgert
from bgert.commands.main import main
from bgert.model_folder import Manifest
from bgert_export import export
from bgert_export.checkpoint import Checkpoint
from bgert_export.errors import CheckpointError, UnsupportedCheckpointError, VerificationError
from bgert_export.known_models import KnownModel
from bgert_export.settings import decide
from bgert_export.source import Source
from bgert_export.verification.calls import compare_calls, reference_calls, summary_of

sentence_transformers = pytest.importorskip("sentence_transformers")

pytestmark = pytest.mark.filterwarnings("ignore::bgert.TruncationWarning")

CALLS = ("encode", "encode_queries", "encode_corpus")
PEERS = {"encode": "encode", "encode_queries": "encode_query", "encode_corpus": "encode_document"}
LIMITS = (2e-5, 0.999999, None)

# Texts by name, None for a name that is not in the file; every default that each allows is tried.
PROMPTS = [
    {"query": query, "document": document} | others
    for query in (None, "", "query: ")
    for document in (None, "", "document: ")
    for others in (
        {},
        {"passage": "passage: "},
        {"corpus": "corpus: ", "passage": "passage: "},
        {"classification": "Classify: ", "corpus": ""},
    )
]
CASES = [
    ({name: text for name, text in prompts.items() if text is not None}, default)
    for prompts in PROMPTS
    for default in (None, *prompts)
]


@pytest.fixture(scope="module")
def folder(write_model, sentence_transformers_files, tmp_path_factory):
    """A checkpoint as sentence-transformers of this machine saves it."""
    root = tmp_path_factory.mktemp("saved")
    source = write_model(root / "source", files=sentence_transformers_files("cls"))
    peer = sentence_transformers.SentenceTransformer(str(source), device="cpu")
    peer.save(str(root / "checkpoint"), create_model_card=False)
    return root / "checkpoint"


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "out"
    export(folder, out, verify=False)
    return out


def with_files(folder, destination, **changes):
    """A copy with keys of config_sentence_transformers.json changed; None removes a key."""
    shutil.copytree(folder, destination)
    path = destination / "config_sentence_transformers.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return destination


def described(exported, checkpoint):
    """An exported encoder whose manifest has the prompts that export decides on for another folder."""
    settings = decide(Checkpoint.open(Source(checkpoint)), bgert_options())
    encoder = bgert.Encoder(exported, threads=1)
    encoder.manifest = replace(
        encoder.manifest, prompts=settings.prompts, default_prompt=settings.default_prompt, choices=settings.choices
    )
    return encoder


def bgert_options(**options):
    from bgert_export.settings import Options

    return Options(**options)


def test_prompts_are_those_of_sentence_transformers(folder, exported, tmp_path, monkeypatch):
    """Every name, text and default: the text that goes before, as sentence-transformers resolves it itself."""
    encoder = bgert.Encoder(exported, threads=1)
    monkeypatch.setattr(encoder, "_encode", lambda texts, prefix, *rest: prefix)
    peer = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    put = []
    monkeypatch.setattr(peer, "_inference", lambda inputs, prompt, **rest: put.append(prompt or "") or [])
    checkpoint = with_files(folder, tmp_path / "checkpoint")
    file = checkpoint / "config_sentence_transformers.json"
    source, wrong = Checkpoint.open(Source(checkpoint)), []
    for prompts, default in CASES:
        config = json.loads(file.read_text()) | {"prompts": prompts, "default_prompt_name": default}
        file.write_text(json.dumps(config))
        # Its own reading of the file, without loading the weights again.
        peer.prompts, peer.default_prompt_name = dict(peer._default_prompts), None
        peer._parse_model_config(config)
        peer._validate_prompts()
        settings = decide(source, bgert_options())
        encoder.manifest = replace(encoder.manifest, prompts=settings.prompts, default_prompt=settings.default_prompt)
        for name, other in PEERS.items():
            put.clear()
            getattr(peer, other)(["a text"])
            if [getattr(encoder, name)(["a text"])] != put:
                wrong.append((prompts, default, name, put[0]))
    assert len(CASES) > 100
    assert wrong == []


@pytest.mark.parametrize(
    ("prompts", "default", "puts"),
    [
        ({"query": "", "document": "passage: "}, "document", ("passage: ", "", "passage: ")),
        ({"query": "query: "}, "query", ("query: ", "query: ", "")),
        ({"query": "", "document": "", "classification": "Classify: "}, "classification", ("Classify: ", "", "")),
    ],
)
def test_an_export_keeps_empty_prompts(folder, tmp_path, capsys, prompts, default, puts):
    checkpoint = with_files(folder, tmp_path / "checkpoint", prompts=prompts, default_prompt_name=default)
    manifest = export(checkpoint, tmp_path / "out")
    calls = manifest.graphs[0].parity.calls
    assert [call.call for call in calls] == list(CALLS)
    assert all(call.max_abs_error < 1e-5 and call.count == 12 and call.not_compared == "" for call in calls)
    assert Manifest.read(tmp_path / "out") == manifest
    encoder = bgert.Encoder(tmp_path / "out")
    plain = {text: encoder.encode(text, prompt="query") for text in puts} if not prompts.get("query") else {}
    (tmp_path / "texts.txt").write_text("Paris\n")
    for role, name, prefix in zip(("text", "query", "document"), CALLS, puts, strict=True):
        arguments = ["encode", str(tmp_path / "out"), "--input", str(tmp_path / "texts.txt"), "--role", role]
        assert main([*arguments, "--output", str(tmp_path / "rows.npy")]) == 0
        found = getattr(encoder, name)("Paris")
        np.testing.assert_array_equal(np.load(tmp_path / "rows.npy")[0], found)
        if plain:
            np.testing.assert_array_equal(found, encoder.encode(prefix + "Paris", prompt="query"))


@pytest.mark.parametrize("wrong", CALLS)
def test_a_wrong_prompt_is_named(folder, exported, tmp_path, wrong):
    prompts = {"query": "query: ", "document": "passage: ", "classification": "Classify: "}
    checkpoint = with_files(folder, tmp_path / "c", prompts=prompts, default_prompt_name="classification")
    encoder = described(exported, checkpoint)
    name = {"encode": "classification", "encode_queries": "query", "encode_corpus": "document"}[wrong]
    encoder.manifest.prompts[name] = "other: "
    calls = reference_calls(Checkpoint.open(Source(checkpoint)), encoder.manifest)
    parities, failures = compare_calls(encoder, encoder.manifest, calls, LIMITS)
    assert [call.call for call in parities if call.max_abs_error > 1e-3] == [wrong]
    (failure,) = failures
    assert failure.startswith(f"{wrong} differs from sentence-transformers {sentence_transformers.__version__} ")
    assert (
        f"bgert puts 'other: ' before it and cuts at 64 tokens, sentence-transformers puts {prompts[name]!r}" in failure
    )


def test_a_wrong_limit_is_named(folder, exported):
    encoder = bgert.Encoder(exported)
    encoder.manifest = replace(encoder.manifest, max_tokens=40)
    encoder.max_length = 40
    calls = reference_calls(Checkpoint.open(Source(folder)), encoder.manifest)
    _, failures = compare_calls(encoder, encoder.manifest, calls, LIMITS)
    assert len(failures) == 3
    assert "cuts at 40 tokens, sentence-transformers puts '' and cuts at 64" in failures[0]


def test_the_difference_fails_the_export(folder, tmp_path, monkeypatch):
    from bgert_export.settings import _Decision

    monkeypatch.setattr(_Decision, "_max_tokens", lambda self: 50)
    with pytest.raises(VerificationError, match=r"encode differs from sentence-transformers .* cuts at 50 tokens"):
        export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "in_calls", "note"),
    [
        ({"query_prompt": "ask: "}, ["encode_queries"], "the query prompt, which was asked for"),
        ({"max_tokens": 32}, list(CALLS), "the limit of 32 tokens, which was asked for"),
    ],
)
def test_what_was_asked_for_is_told(folder, tmp_path, options, in_calls, note):
    manifest = export(folder, tmp_path / "out", **options)
    calls = manifest.graphs[0].parity.calls
    assert all(call.count == 12 and call.max_abs_error < 1e-5 for call in calls)
    assert [call.call for call in calls if call.not_compared == note] == in_calls


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"pooling": "mean"}, "pooling 'mean' was asked for against the checkpoint's files"),
        ({"normalize": False}, "normalize False was asked for against the checkpoint's files"),
        ({"pooling": "cls"}, ""),
    ],
)
def test_pooling_against_the_files(folder, tmp_path, options, reason):
    lines = []
    manifest = export(folder, tmp_path / "out", progress=lines.append, **options)
    calls = manifest.graphs[0].parity.calls
    assert {call.not_compared for call in calls} == {reason}
    assert {call.count for call in calls} == {0 if reason else 12}
    said = f"not compared in encode, encode_queries, encode_corpus: {reason}"
    assert any(said in line for line in lines) == bool(reason)


def test_without_modules_json(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint()
    manifest = export(checkpoint, tmp_path / "a", pooling="mean", normalize=False)
    assert all(call.count == 12 and call.not_compared == "" for call in manifest.graphs[0].parity.calls)
    manifest = export(checkpoint, tmp_path / "b", pooling="cls", normalize=True)
    assert {call.not_compared for call in manifest.graphs[0].parity.calls} == {
        "there is no modules.json, so sentence-transformers takes mean pooling without normalisation"
    }


def test_an_instruction_from_the_table(folder, make_config, tmp_path, monkeypatch):
    known = KnownModel("tiny-model", ("bert", 3, 64, 4, 128, make_config()["vocab_size"]), prompts={"query": "find: "})
    monkeypatch.setattr("bgert_export.known_models._BY_NAME", {"tiny-model": known})
    manifest = export(with_files(folder, tmp_path / "tiny-model", prompts={"document": ""}), tmp_path / "out")
    assert manifest.prompts == {"query": "find: ", "document": ""}
    notes = {call.call: call.not_compared for call in manifest.graphs[0].parity.calls}
    assert "the published tiny-model's and not in the files" in notes.pop("encode_queries")
    assert set(notes.values()) == {""}
    # A name that is in the file counts, though the checkpoint is called like a known model.
    for prompts in ({"query": "", "document": ""}, {"query": None}):
        shutil.rmtree(tmp_path / "tiny-model")
        checkpoint = with_files(folder, tmp_path / "tiny-model", prompts=prompts)
        manifest = export(checkpoint, tmp_path / "out", force=True)
        assert manifest.prompts == {"query": "", "document": ""}
        assert {call.not_compared for call in manifest.graphs[0].parity.calls} == {""}


def test_a_limit_past_the_positions(folder, tmp_path):
    checkpoint = shutil.copytree(folder, tmp_path / "checkpoint")
    config = json.loads((checkpoint / "sentence_bert_config.json").read_text())
    (checkpoint / "sentence_bert_config.json").write_text(json.dumps(config | {"max_seq_length": 8192}))
    manifest = export(checkpoint, tmp_path / "out")
    assert manifest.max_tokens == 72
    for call in manifest.graphs[0].parity.calls:
        assert call.max_abs_error < 1e-5
        assert call.not_compared == "its own limit of 8192 tokens, which is past the 72 positions of the model"


@pytest.mark.parametrize("call", ["load", "encode"])
def test_what_sentence_transformers_cannot_do_does_not_fail_an_export(folder, tmp_path, monkeypatch, call):
    def fail(*arguments, **options):
        raise RuntimeError("no such thing\nsecond line")

    monkeypatch.setattr(sentence_transformers.SentenceTransformer, "__init__" if call == "load" else call, fail)
    manifest = export(folder, tmp_path / "out")
    expected = "cannot load the checkpoint" if call == "load" else "fails"
    assert {entry.not_compared for entry in manifest.graphs[0].parity.calls} == {
        f"sentence-transformers {expected}: RuntimeError: no such thing"
    }


def test_without_sentence_transformers(folder, tmp_path, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        "bgert_export.verification.calls.importlib.util.find_spec",
        lambda name: None if name == "sentence_transformers" else found(name),
    )
    manifest = export(folder, tmp_path / "out")
    parity = manifest.graphs[0].parity
    assert summary_of(parity.calls) == [
        "not compared in encode, encode_queries, encode_corpus: sentence-transformers is not installed"
    ]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_and_left_padding(folder, tmp_path, dtype):
    import torch
    from safetensors.torch import load_file, save_file

    checkpoint = shutil.copytree(folder, tmp_path / "checkpoint")
    weights = load_file(checkpoint / "model.safetensors")
    half = {name: value.to(getattr(torch, dtype)) for name, value in weights.items()}
    save_file(half, checkpoint / "model.safetensors", metadata={"format": "pt"})
    for name, change in (("config.json", {"dtype": dtype}), ("tokenizer_config.json", {"padding_side": "left"})):
        (checkpoint / name).write_text(json.dumps(json.loads((checkpoint / name).read_text()) | change))
    manifest = export(checkpoint, tmp_path / "out")
    assert all(call.max_abs_error < 1e-5 for call in manifest.graphs[0].parity.calls)


@pytest.fixture
def reranker(make_reranker_checkpoint, tmp_path):
    """A cross-encoder as sentence-transformers of this machine saves it, with a prompt and a limit."""

    def make(num_labels=1, prompts=None, default=None, **changes):
        source = make_reranker_checkpoint(num_labels)
        peer = sentence_transformers.CrossEncoder(
            str(source), device="cpu", prompts=prompts, default_prompt_name=default
        )
        peer.save(str(tmp_path / "reranker"), create_model_card=False)
        for name, change in changes.items():
            path = tmp_path / "reranker" / f"{name}.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | change))
        return tmp_path / "reranker"

    return make


@pytest.mark.parametrize(
    ("prompts", "default", "changes", "limit"),
    [
        ({"query": "rank this: "}, "query", {}, 64),
        ({"query": "rank this: "}, None, {}, 64),
        ({"task": "", "other": "x: "}, "task", {"sentence_bert_config": {"max_seq_length": 40}}, 40),
        (None, None, {"tokenizer_config": {"model_max_length": None, "max_len": 30}}, 72),
    ],
)
def test_rerankers(reranker, tmp_path, prompts, default, changes, limit):
    folder = reranker(prompts=prompts, default=default, **changes)
    manifest = export(folder, tmp_path / "out")
    assert (manifest.max_tokens, manifest.prompts, manifest.default_prompt) == (limit, prompts or {}, default)
    (call,) = manifest.graphs[0].parity.calls
    assert (call.call, call.count, call.not_compared) == ("score", 14, "")
    assert call.max_abs_error < 1e-5
    why = {choice.field: choice for choice in manifest.choices}
    assert (why["activation"].value, "raw logits" in why["activation"].why) == ("Sigmoid", True)
    model, peer = bgert.Reranker(tmp_path / "out"), sentence_transformers.CrossEncoder(str(folder), device="cpu")
    pairs = [("which day", "copy a file " * 40), ("which day", "")]
    expected = peer.predict(pairs, show_progress_bar=False)
    np.testing.assert_allclose(model.score(pairs, sigmoid=True), expected, atol=1e-5)
    best = model.rank("which day", [document for _, document in pairs], prompt=default)
    np.testing.assert_allclose([score for _, score in sorted(best)], model.score(pairs), atol=1e-6)
    for name in prompts or {}:
        expected = peer.predict(pairs, prompt_name=name, show_progress_bar=False)
        np.testing.assert_allclose(model.score(pairs, prompt=name, sigmoid=True), expected, atol=1e-5)
    with pytest.raises(bgert.InvalidOptionError, match="unknown prompt 'document'"):
        model.score(pairs, prompt="document")


def test_a_rerankers_wrong_prompt_fails_the_export(reranker, tmp_path, monkeypatch):
    from bgert_export.settings import _Decision

    folder = reranker(prompts={"query": "rank this: "}, default="query")
    monkeypatch.setattr(_Decision, "_default_prompt", lambda self: None)
    with pytest.raises(VerificationError, match=r"score differs .* bgert puts '' before it .* puts 'rank this: '"):
        export(folder, tmp_path / "out")


def test_several_labels_and_an_identity(reranker, tmp_path):
    manifest = export(reranker(num_labels=3), tmp_path / "out")
    assert manifest.graphs[0].parity.calls[0].max_abs_error < 1e-5
    assert [choice.value for choice in manifest.choices if choice.field == "activation"] == ["Identity"]


def test_the_kind_is_what_sentence_transformers_takes(
    reranker, make_checkpoint, make_config, sentence_transformers_files, tmp_path
):
    classifier = make_config(architectures=["BertForSequenceClassification"], num_labels=1)
    files = sentence_transformers_files("mean")
    manifest = export(make_checkpoint(config=classifier, files=files), tmp_path / "out")
    (choice,) = [choice for choice in manifest.choices if choice.field == "kind"]
    assert (manifest.kind, choice.value) == ("encoder", "encoder")
    assert choice.why.startswith("modules.json has Transformer and Pooling and Normalize; config.json has")
    assert all(call.count == 12 and call.not_compared == "" for call in manifest.graphs[0].parity.calls)
    # The reverse: a cross-encoder whose config.json knows nothing of a classifier.
    folder = reranker(config={"architectures": ["BertModel"], "id2label": {"0": "a"}})
    manifest = export(folder, tmp_path / "other")
    assert (manifest.kind, manifest.num_labels) == ("reranker", 1)
    assert manifest.graphs[0].parity.calls[0].count == 14


def test_a_cross_encoder_without_a_classifier(make_checkpoint, tmp_path):
    files = {
        "modules.json": [{"path": "", "type": "sentence_transformers.models.Transformer"}],
        "config_sentence_transformers.json": {"model_type": "CrossEncoder"},
    }
    with pytest.raises(
        CheckpointError, match=r"no weight .* that config_sentence_transformers\.json says CrossEncoder"
    ):
        export(make_checkpoint(files=files), tmp_path / "out")


@pytest.mark.parametrize("weights", [None, {}])
def test_an_adapter_is_refused(make_checkpoint, tmp_path, weights):
    folder = make_checkpoint(weights=weights, files={"adapter_config.json": {"peft_type": "LORA"}})
    if weights is not None:
        (folder / "config.json").unlink()
    with pytest.raises(UnsupportedCheckpointError, match=r"LoRA adapter .*merge_and_unload"):
        export(folder, tmp_path / "out")
