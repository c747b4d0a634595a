"""SPLADE models, as sentence-transformers' SparseEncoder saves and computes them."""

import json

import numpy as np
import pytest
import torch
import transformers

from bgert import Encoder
from bgert.errors import InvalidOptionError
from bgert_export import export
from bgert_export.errors import CheckpointError, UnsupportedCheckpointError
from bgert_export.families import FAMILIES
from random_network import draw_weights

sentence_transformers = pytest.importorskip("sentence_transformers")

TEXTS = [
    "how to copy a file",
    "",
    "the text of the model " * 5,
    "which list of numbers is in the key? none of it, and it is false",
    "今天天气很好 read and write",
]


@pytest.fixture
def make(tmp_path, write_model, make_config):
    """A masked language model that transformers drew and wrote."""

    def build(model_type="bert", **changes):
        family = FAMILIES[model_type]
        settings = {"tokenizer_class": "BertTokenizer", "model_max_length": 64}
        if not family.token_types or model_type == "roberta":
            settings["model_input_names"] = ["input_ids", "attention_mask"]
        folder = write_model(tmp_path / model_type, weights={}, files={"tokenizer_config.json": settings})
        size = len((folder / "vocab.txt").read_text("utf-8").splitlines())
        sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
        config = transformers.AutoConfig.for_model(
            model_type,
            **{family.config_name(name): value for name, value in sizes.items()},
            vocab_size=size,
            max_position_embeddings=72,
            pad_token_id=1 if family.positions_after_padding else 0,
            **changes,
        )
        torch.manual_seed(6)
        model = getattr(transformers, f"{family.name}ForMaskedLM")(config)
        draw_weights(model)
        model.save_pretrained(folder)
        return folder

    return build


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("bert", {}),
        ("bert", {"hidden_act": "gelu_new"}),
        ("bert", {"tie_word_embeddings": False}),
        ("distilbert", {}),
        ("roberta", {"type_vocab_size": 1}),
        ("mpnet", {}),
    ],
)
def test_vectors_are_those_of_sparse_encoder(make, tmp_path, model_type, changes):
    folder = make(model_type, **changes)
    manifest = export(folder, tmp_path / "out", pooling="splade")  # verified, SparseEncoder's calls too
    assert [call.max_abs_error is not None for call in manifest.graphs[0].parity.calls] == [True] * 3
    assert not any("predictions.transform" in str(choice.value) for choice in manifest.choices)
    encoder = Encoder(tmp_path / "out")
    assert encoder.outputs == ("sparse",)
    peer = sentence_transformers.SparseEncoder(str(folder), device="cpu")
    expected = peer.encode(TEXTS, convert_to_sparse_tensor=False).numpy()
    found = encoder.encode_outputs(TEXTS)
    assert found.dense is None
    assert found.sparse.shape == expected.shape
    assert np.abs(found.sparse.toarray() - expected).max() < 2e-5 * np.linalg.norm(expected, axis=1).max()
    assert 0 < len(found.sparse.values) < 0.9 * expected.size
    assert np.array_equal(encoder.encode(TEXTS), found.sparse.toarray())
    np.testing.assert_allclose(found.sparse.similarity(found.sparse), peer.similarity(expected, expected), rtol=1e-4)
    for text, vector in zip(TEXTS, found.sparse, strict=True):
        assert encoder.encode_outputs(text).sparse.as_dict() == vector.as_dict()


@pytest.mark.parametrize(
    ("strategy", "activation", "pooling"),
    [("max", "relu", "splade"), ("sum", "relu", "splade_sum"), ("max", "log1p_relu", "splade_log1p")],
)
def test_what_sparse_encoder_saves(make, tmp_path, strategy, activation, pooling):
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    modules = [Transformer(str(make()), transformer_task="fill-mask"), SpladePooling(strategy, activation)]
    prompts = {"query": "which ", "document": ""}
    peer = sentence_transformers.SparseEncoder(modules=modules, device="cpu", prompts=prompts)
    peer.save(str(tmp_path / "saved"), create_model_card=False)
    manifest = export(tmp_path / "saved", tmp_path / "out")
    assert (manifest.pooling, manifest.normalize, manifest.prompts["query"]) == (pooling, False, "which ")
    expected = peer.encode_query(TEXTS, convert_to_sparse_tensor=False).numpy()
    found = Encoder(tmp_path / "out").encode_outputs(TEXTS, prompt="query").sparse.toarray()
    assert np.abs(found - expected).max() < 2e-5 * np.linalg.norm(expected, axis=1).max()
    for precision in ("cpu-bf16", "cpu-int8"):
        export(tmp_path / "saved", tmp_path / precision, targets=[precision], int8_floor=0.9)


def test_other_settings_are_refused(make, tmp_path):
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    folder = make()
    modules = [Transformer(str(folder), transformer_task="fill-mask"), SpladePooling("sum", "log1p_relu")]
    sentence_transformers.SparseEncoder(modules=modules, device="cpu").save(
        str(tmp_path / "saved"), create_model_card=False
    )
    with pytest.raises(UnsupportedCheckpointError, match="'sum' of 'log1p_relu'"):
        export(tmp_path / "saved", tmp_path / "out", verify=False)
    for target in ("cuda", "tensorrt"):
        with pytest.raises(UnsupportedCheckpointError, match="export the target cpu"):
            export(folder, tmp_path / "out", pooling="splade", targets=[target], verify=False)
    with pytest.raises(InvalidOptionError, match="normalisation"):
        export(folder, tmp_path / "out", pooling="splade", normalize=True, verify=False)


def test_a_checkpoint_without_the_head_is_refused(make_checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match=r"no weight cls\.predictions\.bias|no weight cls\.predictions"):
        export(make_checkpoint(), tmp_path / "out", pooling="splade", verify=False)


def test_a_manifest_of_another_pooling_is_refused(make, tmp_path):
    from bgert.errors import ModelFolderError
    from bgert.model_folder import Manifest

    export(make(), tmp_path / "out", pooling="splade", verify=False)
    path = tmp_path / "out" / "manifest.json"
    raw = json.loads(path.read_text())
    for wrong in ("splade+cls", "cls+", "median", "mean+splade"):
        path.write_text(json.dumps(raw | {"pooling": wrong}))
        with pytest.raises(ModelFolderError, match="pooling"):
            Manifest.read(tmp_path / "out")
