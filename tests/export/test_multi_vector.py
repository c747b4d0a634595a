"""ColBERT's checkpoints of three kinds, beside PyTorch by their definition and beside sentence-transformers."""

import asyncio
import json
import shutil
import string

import numpy as np
import pytest
import torch
import transformers

import multi_vector_checkpoints as checkpoints
from bgert import Encoder, InvalidOptionError, TruncationWarning
from bgert.errors import ModelFolderError
from bgert.model_folder import Manifest
from bgert.outputs import max_sim
from bgert_export import export
from bgert_export.errors import CheckpointError, UnsupportedCheckpointError, VerificationError
from multi_vector_checkpoints import TEXTS

pytestmark = pytest.mark.filterwarnings("ignore:.*longer than .* tokens:bgert.TruncationWarning")

LOCAL = {"local_attention": 32, "global_attn_every_n_layers": 2}
FORMS = {
    "colbert-ai": (checkpoints.write_colbert_ai, {}),
    "colbert-ai, attended, with punctuation": (
        checkpoints.write_colbert_ai,
        {"attend_to_mask_tokens": True, "mask_punctuation": False},
    ),
    "pylate": (checkpoints.write_pylate, {}),
    "pylate, attended": (checkpoints.write_pylate, {"attend_to_expansion_tokens": True}),
    "pylate, not expanded": (checkpoints.write_pylate, {"do_query_expansion": False}),
    "pylate, no markers": (checkpoints.write_pylate, {"query_prefix": "", "document_prefix": ""}),
    "pylate, two layers": (
        checkpoints.write_pylate,
        {"layers": (96, 32), "residual": True, "activation": "activation.GELU"},
    ),
    "pylate, ModernBERT": (checkpoints.write_pylate, {"model_type": "modernbert"} | LOCAL),
    "pylate, RoBERTa": (checkpoints.write_pylate, {"model_type": "roberta", "skiplist_words": [".", ","]}),
}


@pytest.fixture(scope="module", params=FORMS)
def form(request, tmp_path_factory):
    """A checkpoint, its settings by PyLate's names, and its export."""
    write, options = FORMS[request.param]
    folder = write(tmp_path_factory.mktemp("multi-vector") / "checkpoint", **options)
    manifest = export(folder, folder.parent / "exported")
    if write is checkpoints.write_pylate:
        return folder, checkpoints.PYLATE | options, manifest
    metadata = checkpoints.COLBERT_AI | options
    settings = {
        "query_prefix": metadata["query_token_id"],
        "document_prefix": metadata["doc_token_id"],
        "query_length": metadata["query_maxlen"],
        "document_length": metadata["doc_maxlen"],
        "attend_to_expansion_tokens": metadata["attend_to_mask_tokens"],
        "skiplist_words": list(string.punctuation) if metadata["mask_punctuation"] else [],
        "do_query_expansion": True,
    }
    return folder, settings, manifest


@pytest.fixture(scope="module")
def colbert(tmp_path_factory):
    """An export of PyLate's form."""
    folder = checkpoints.write_pylate(tmp_path_factory.mktemp("colbert") / "checkpoint")
    export(folder, folder.parent / "exported", verify=False)
    return Encoder(folder.parent / "exported")


def dense(folder, settings):
    """The layers over tokens, of PyTorch."""
    if not (folder / "modules.json").exists():
        weight = checkpoints.load_file(folder / "model.safetensors")["linear.weight"]
        return lambda rows: rows @ weight.T
    activation = {"activation.GELU": torch.nn.functional.gelu}.get(settings.get("activation"), lambda rows: rows)

    def run(rows):
        for path in sorted(folder.glob("*_Dense")):
            weights = checkpoints.load_file(path / "model.safetensors")
            through = activation(rows @ weights["linear.weight"].T)
            rows = through + rows @ weights["residual.weight"].T if "residual.weight" in weights else through
        return rows

    return run


def by_definition(folder, settings, role, text):
    """Khattab and Zaharia 2020, section 3.2: a marker behind the first token, masks behind a query, no punctuation."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    vocabulary = tokenizer.get_vocab()
    marker = settings[f"{role}_prefix"]
    length = settings[f"{role}_length"]
    ids = tokenizer(text, truncation=True, max_length=length - bool(marker))["input_ids"]
    if marker:
        ids.insert(1, vocabulary[marker])
    seen = [1] * len(ids)
    if role == "query" and settings["do_query_expansion"]:
        more = length - len(ids)
        ids += [tokenizer.mask_token_id] * more
        seen += [int(settings["attend_to_expansion_tokens"])] * more
    with torch.inference_mode():
        states = model(input_ids=torch.tensor([ids]), attention_mask=torch.tensor([seen])).last_hidden_state[0]
        rows = torch.nn.functional.normalize(dense(folder, settings)(states), dim=1).numpy()
    skipped = {vocabulary[word] for word in settings["skiplist_words"]} if role == "document" else ()
    return rows[[token not in skipped for token in ids]]


def test_vectors_are_those_of_the_definition(form):
    folder, settings, manifest = form
    parities = {call.call: call for call in manifest.graphs[0].parity.calls}
    assert set(parities) == {"multi_vector of query", "multi_vector of document"}
    assert max(call.max_abs_error for call in parities.values()) < 2e-5
    encoder = Encoder(folder.parent / "exported")
    assert encoder.outputs == ("multi_vector",)
    found = {}
    for role in ("query", "document"):
        found[role] = encoder.encode_outputs(TEXTS, prompt=role).multi_vector
        expected = [by_definition(folder, settings, role, text) for text in TEXTS]
        assert [rows.shape for rows in found[role]] == [rows.shape for rows in expected]
        assert max(np.abs(a - b).max(initial=0) for a, b in zip(found[role], expected, strict=True)) < 2e-5
        alone = [encoder.encode_outputs(text, prompt=role).multi_vector for text in TEXTS]
        assert all(np.array_equal(a, b) for a, b in zip(found[role], alone, strict=True))
        scattered = np.concatenate(found[role])
        assert (scattered @ scattered.T).min() < 0.9  # there is something to tell apart
    scores = encoder.similarity(found["query"], found["document"])
    by_hand = [[(q @ d.T).max(1).sum() for d in found["document"]] for q in found["query"]]
    np.testing.assert_allclose(scores, by_hand, rtol=1e-5)


def test_vectors_are_those_of_sentence_transformers(form):
    folder, _, _ = form
    peer_of = pytest.importorskip("sentence_transformers").MultiVectorEncoder
    encoder, peer = Encoder(folder.parent / "exported"), peer_of(str(folder), device="cpu")
    # It puts the marker before the text, where a mask that takes the blanks before it would take the marker's.
    texts = [text for text in TEXTS if not text.startswith("[MASK]")]
    found, expected = [], []
    for role, call in (("query", peer.encode_query), ("document", peer.encode_document)):
        found.append(encoder.encode_outputs(texts, prompt=role).multi_vector)
        expected.append(call(texts, convert_to_numpy=True))
        assert [rows.shape for rows in found[-1]] == [rows.shape for rows in expected[-1]]
        assert max(np.abs(a - b).max(initial=0) for a, b in zip(found[-1], expected[-1], strict=True)) < 2e-5
    scores = peer.similarity(*expected).numpy()
    np.testing.assert_allclose(encoder.similarity(*found), scores, rtol=1e-5)
    assert max_sim(found[0][0], found[1][3]) == pytest.approx(scores[0, 3], rel=1e-5)


@pytest.mark.parametrize(
    ("expansion", "tasks"),
    [
        ({"strategy": "fixed", "length": 12}, ["document"]),
        ({"strategy": "fixed", "length": 12, "attend": True, "token": "[unused0]"}, ["query", "document"]),
        ({"strategy": "min", "length": 12}, ["query"]),
        (None, ["document"]),
    ],
)
def test_what_multi_vector_encoder_saves(tmp_path, expansion, tasks):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    lengths = {"document_length": 20, "query_length": None if expansion else 16}
    modules = [
        Transformer(str(checkpoints.write_network(tmp_path / "network")), query_expansion=expansion, **lengths),
        Dense(64, 48, activation_function=torch.nn.Identity(), module_input_name="token_embeddings"),
        MultiVectorMask(skiplist_words=[".", ",", "nothing like it"], skiplist_tasks=tasks),
        *([Normalize(module_input_name="token_embeddings")] if expansion else []),
    ]
    prompts = {"query": "which: ", "document": "text. "}
    peer = sentence_transformers.MultiVectorEncoder(modules=modules, prompts=prompts, device="cpu")
    peer.save(str(tmp_path / "saved"), create_model_card=False)
    manifest = export(tmp_path / "saved", tmp_path / "out")
    assert (manifest.prompts, manifest.max_tokens, manifest.normalize) == (prompts, 20, expansion is not None)
    assert {choice.field: choice.value for choice in manifest.choices}["skiplist_words"] == ["nothing like it"]
    encoder = Encoder(tmp_path / "out")
    for role, call in (("query", peer.encode_query), ("document", peer.encode_document)):
        found, expected = encoder.encode_outputs(TEXTS, prompt=role).multi_vector, call(TEXTS, convert_to_numpy=True)
        assert [rows.shape for rows in found] == [rows.shape for rows in expected]
        scale = max(np.linalg.norm(rows, axis=1).max() for rows in expected)
        assert max(np.abs(a - b).max(initial=0) for a, b in zip(found, expected, strict=True)) < 2e-5 * scale


@pytest.mark.parametrize("target", ["cpu-bf16", "cpu-int8"])
def test_other_precisions(tmp_path, colbert, target):
    export(colbert._folder.parent / "checkpoint", tmp_path / "out", targets=[target], int8_floor=0.95)
    for role in ("query", "document"):
        exact = colbert.encode_outputs(TEXTS, prompt=role).multi_vector
        found = Encoder(tmp_path / "out").encode_outputs(TEXTS, prompt=role).multi_vector
        cosines = np.concatenate([(a * b).sum(1) for a, b in zip(exact, found, strict=True)])
        assert 0.95 < cosines.mean() < 1


def test_a_role_has_to_be_named(colbert):
    for given in ({}, {"prompt": None}, {"prefix": "which "}, {"prefix": ""}):
        with pytest.raises(InvalidOptionError, match="prompt='query' or prompt='document'"):
            colbert.encode_outputs(TEXTS, **given)
    with pytest.raises(InvalidOptionError, match="passage"):
        colbert.encode_outputs(TEXTS, prompt="passage")
    with pytest.raises(InvalidOptionError, match="this model has multi_vector"):
        colbert.encode_outputs(TEXTS, "dense", prompt="query")


def test_there_is_no_vector_of_a_text(colbert):
    calls = (
        colbert.encode,
        colbert.encode_queries,
        colbert.encode_corpus,
        colbert.stream,
        lambda texts: asyncio.run(colbert.aencode(texts)),
    )
    for call in calls:
        with pytest.raises(InvalidOptionError, match=r"encode_outputs\(texts, prompt='query'\)\.multi_vector"):
            call(TEXTS)


def test_commands_say_what_the_folder_gives(colbert, tmp_path, capsys):
    from bgert.commands.main import main

    folder = colbert._folder
    assert main(["info", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "a vector of 48 dimensions a token, L2-normalised, by MaxSim" in printed
    query, document = colbert.manifest.roles["query"], colbert.manifest.roles["document"]
    assert (
        f"at most 14 tokens, marked by {query.prefix_ids[0]}, filled up to 14 with {query.expansion_id}, which "
        "others do not see"
    ) in printed
    assert f"at most 40 tokens, marked by {document.prefix_ids[0]}, without the vectors of 32 ids" in printed
    (tmp_path / "texts.txt").write_text("a text\n")
    command = ["encode", str(folder), "--input", str(tmp_path / "texts.txt"), "--output", str(tmp_path / "out.npy")]
    assert main(command) == 2
    assert "gives a vector for every token" in capsys.readouterr().err
    assert not (tmp_path / "out.npy").exists()
    assert not (folder / "modules.json").exists()


def test_a_server_refuses_it(colbert):
    from bgert.serve import models

    settings = type("Settings", (), {"folders": [str(colbert._folder)], "device": "cpu", "precision": "auto"})
    with pytest.raises(ModelFolderError, match="a vector for every token, and the server"):
        models.load(0, settings, None)


def test_max_length_is_for_either_role(colbert):
    with pytest.warns(TruncationWarning, match="longer than 14 tokens"):
        colbert.encode_outputs(TEXTS[2], prompt="query")
    # Longer queries pass, and shorter ones are filled up as before.
    found = colbert.encode_outputs([TEXTS[0], TEXTS[2]], prompt="query", max_length=30)
    assert [len(rows) for rows in found.multi_vector] == [14, 30]
    assert found.info.truncated.tolist() == [False, True]
    assert np.array_equal(found.multi_vector[0], colbert.encode_outputs(TEXTS[0], prompt="query").multi_vector)
    assert len(colbert.encode_outputs(TEXTS[0], prompt="query", max_length=6).multi_vector) == 6
    assert len(colbert.encode_outputs("how " * 90, prompt="document", max_length=72).multi_vector) == 72
    with pytest.raises(InvalidOptionError, match="from 4 to 76"):  # two special tokens, the marker and one more
        colbert.encode_outputs(TEXTS, prompt="query", max_length=3)
    assert colbert.encode_outputs([], prompt="query").multi_vector == []


def test_pickles_and_long_lists(colbert):
    import pickle

    again = pickle.loads(pickle.dumps(colbert))
    many = TEXTS * 50
    found = again.encode_outputs(many, prompt="query").multi_vector
    expected = colbert.encode_outputs(TEXTS, prompt="query").multi_vector
    assert all(np.array_equal(rows, expected[number % len(TEXTS)]) for number, rows in enumerate(found))


def test_similarity_of_one(colbert):
    query = colbert.encode_outputs(TEXTS[0], prompt="query").multi_vector
    documents = colbert.encode_outputs(TEXTS, prompt="document").multi_vector
    assert documents[-1].shape == (3, 48)
    assert colbert.similarity(query, documents).shape == (1, len(TEXTS))
    assert colbert.similarity([query, query], documents[0])[1, 0] == max_sim(query, documents[0])
    with pytest.raises(InvalidOptionError, match="shapes"):
        colbert.similarity(query, [documents[0][:, :5]])


@pytest.mark.parametrize("target", ["cuda", "tensorrt", "portable"])
def test_other_targets_are_refused(colbert, tmp_path, target):
    with pytest.raises(UnsupportedCheckpointError, match="the pooling multi_vector has no target"):
        export(colbert._folder.parent / "checkpoint", tmp_path / "out", targets=[target], verify=False)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"query_prefix": "[unused7]"}, UnsupportedCheckpointError, r"the marker '\[unused7\]' is no token"),
        ({"query_length": 2}, CheckpointError, "query_length is 2"),
        ({"do_query_expansion": "yes"}, CheckpointError, "do_query_expansion is 'yes'"),
        ({"skiplist_words": "all"}, CheckpointError, "skiplist_words is 'all'"),
        ({"model_type": "MultiVectorEncoder"}, UnsupportedCheckpointError, "has no MultiVectorMask"),
        (
            {"model_type": "modernbert", "query_length": 40, "local_attention": 32},
            UnsupportedCheckpointError,
            r"filled up to 40 tokens .* see only 16 on either side: bgert has up to 17",
        ),
    ],
)
def test_settings_that_are_refused(tmp_path, settings, error, message):
    if "local_attention" in settings:
        folder = checkpoints.write_pylate(tmp_path / "checkpoint", **settings)
    else:
        folder = checkpoints.write_pylate(tmp_path / "checkpoint")
        path = folder / "config_sentence_transformers.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(error, match=message):
        export(folder, tmp_path / "out", verify=False)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"similarity": "l2"}, "similarity 'l2' is not supported"),
        ({"interaction": "flipr"}, "interaction 'flipr' is not supported"),
        ({"doc_maxlen": None}, "doc_maxlen is None"),
        ({"query_token_id": "[Q]"}, r"the marker '\[Q\]' is no token"),
    ],
)
def test_metadata_that_is_refused(tmp_path, metadata, message):
    folder = checkpoints.write_colbert_ai(tmp_path / "checkpoint", **metadata)
    with pytest.raises(CheckpointError, match=message):
        export(folder, tmp_path / "out", verify=False)


def test_what_is_missing_is_named(tmp_path):
    folder = checkpoints.write_colbert_ai(tmp_path / "checkpoint")
    with pytest.raises(InvalidOptionError, match="not for a multi-vector model"):
        export(folder, tmp_path / "out", pooling="cls", verify=False)
    (folder / "artifact.metadata").write_text(json.dumps(checkpoints.COLBERT_AI | {"dim": 128}))
    with pytest.raises(CheckpointError, match=r"linear\.weight has shape \[48, 64\].* \[128, 64\]"):
        export(folder, tmp_path / "out", verify=False)
    (folder / "artifact.metadata").unlink()
    with pytest.raises(CheckpointError, match=r"no artifact\.metadata, .*: download it too"):
        export(folder, tmp_path / "out", verify=False)


def test_an_export_that_differs_is_refused(tmp_path, monkeypatch):
    """Of each role by itself: a marker too few would show in no vector of a text alone."""
    from bgert_export.verification import text_roles

    folder = checkpoints.write_pylate(tmp_path / "checkpoint")
    true = text_roles.role_inputs

    def other(reference, manifest, name, texts):
        found = true(reference, manifest, name, texts)
        return found if name == "query" else [type(one)(one.ids[:1] + one.ids[2:], one.types[1:]) for one in found]

    monkeypatch.setattr("bgert_export.verification.token_outputs.role_inputs", other)
    with pytest.raises(VerificationError, match="the output multi_vector of document differs from PyTorch in shape"):
        export(folder, tmp_path / "out")


def test_manifests_that_contradict_themselves_are_refused(colbert, tmp_path):
    folder = shutil.copytree(colbert._folder, tmp_path / "copy")
    path = folder / "manifest.json"
    raw = json.loads(path.read_text())
    role = raw["roles"]["query"]
    for wrong in (
        {"roles": {}},
        {"pooling": "mean"},
        {"token_outputs": [], "graphs": [graph | {"token_outputs": []} for graph in raw["graphs"]]},
        {"roles": raw["roles"] | {"query": role | {"expand_to": -1}}},
        {"roles": raw["roles"] | {"passage": role}},
        {"roles": {"query": role}},
    ):
        path.write_text(json.dumps(raw | wrong))
        with pytest.raises(ModelFolderError):
            Manifest.read(folder)
    # More tokens than positions: nothing is looked up there.
    path.write_text(json.dumps(raw | {"roles": raw["roles"] | {"query": role | {"expand_to": 99, "max_tokens": 99}}}))
    with pytest.raises(InvalidOptionError, match="from 4 to 76"):
        Encoder(folder).encode_outputs(TEXTS, prompt="query")
