"""gte-en-v1.5, stella, gte-multilingual and its reranker as their authors wrote them: NTK scaling, names of weights."""

import json

import numpy as np
import pytest
import transformers
from safetensors.torch import load_file, save_file

import bgert
import rotary_reference
from bgert_export import export
from bgert_export.architecture import Architecture
from bgert_export.errors import UnsupportedCheckpointError

TEXTS = ["copy a file", "", "the model of the day " * 9, "return [PAD] list", "a b c " * 160]
NEW = {
    "model_type": "new",
    "architectures": ["NewModel"],
    "auto_map": {"AutoConfig": "configuration.NewConfig", "AutoModel": "modeling.NewModel"},
    "hidden_act": "gelu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "logn_attention_clip1": False,
    "logn_attention_scale": False,
    "max_position_embeddings": 8192,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "pack_qkv": True,
    "pad_token_id": 0,
    "position_embedding_type": "rope",
    "rope_scaling": {"factor": 8.0, "type": "ntk"},
    "rope_theta": 20000,
    "type_vocab_size": 1,
    "unpad_inputs": False,
}


@pytest.fixture
def write_new(make_native):
    """A checkpoint under the names of the authors' code."""

    def build(end="Model", **changes):
        config = NEW | {"architectures": [f"New{end}"]} | changes
        if "Classification" in end:
            config |= {"id2label": {"0": "LABEL_0"}, "type_vocab_size": 2}
        folder = make_native("new", end, config=config, type_vocab_size=config["type_vocab_size"])
        weights = load_file(folder / "model.safetensors")
        renamed = {f"new.{name.removeprefix('gte.')}" if name.startswith("gte.") else name: value
                   for name, value in weights.items()}  # fmt: skip
        save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
        return folder, json.loads((folder / "config.json").read_text("utf-8")), renamed

    return build


def tokenized(folder, *texts):
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    encoded = tokenizer(*texts, truncation="longest_first", max_length=512, return_tensors="pt")
    return encoded["input_ids"][0], encoded["token_type_ids"][0]


@pytest.mark.parametrize(
    "changes",
    [{}, {"rope_scaling": {"factor": 2.0, "type": "ntk"}, "rope_theta": 500000, "type_vocab_size": 0},
     {"rope_scaling": None, "rope_theta": 160000}],
)  # fmt: skip
def test_vectors_are_those_of_the_reference(write_new, tmp_path, changes):
    folder, config, weights = write_new(**changes)
    manifest = export(folder, tmp_path / "out", pooling="cls", normalize=True)  # verified with transformers' class too
    assert manifest.graphs[0].parity.max_abs_error < 2e-5
    found = bgert.Encoder(tmp_path / "out").encode(TEXTS)
    for text, row in zip(TEXTS, found, strict=True):
        first = rotary_reference.hidden_states(weights, config, tokenized(folder, text)[0])[0]
        np.testing.assert_allclose(row, (first / first.norm()).numpy(), atol=2e-5, rtol=0)


def test_scores_are_those_of_the_reference(write_new, tmp_path):
    folder, config, weights = write_new("ForSequenceClassification")
    export(folder, tmp_path / "out")
    pairs = [("copy a file", "the model of the day " * 90), ("", "list"), ("a [PAD] b", "file")]
    for pair, score in zip(pairs, bgert.Reranker(tmp_path / "out").score(pairs), strict=True):
        expected = rotary_reference.logit(weights, config, *tokenized(folder, *pair))
        assert abs(float(expected) - float(score)) < 2e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_scaling": {"factor": 2.0, "type": "dynamic"}}, "rope_scaling .* is not supported"),
        ({"rope_scaling": {"factor": 2.0, "type": "ntk", "mixed_b": 0.5}}, r"mixed_b 0\.5 is not supported"),
        ({"position_embedding_type": "absolute"}, "position_embedding_type 'absolute' is not supported"),
        ({"logn_attention_scale": True}, "logn_attention_scale True is not supported"),
        ({"layer_norm_type": "rms_norm"}, "layer_norm_type 'rms_norm' is not supported"),
    ],
)
def test_settings_of_another_network_are_refused(changes, message):
    with pytest.raises(UnsupportedCheckpointError, match=message):
        Architecture.from_config(NEW | {"vocab_size": 100} | changes)
