"""Hyperparameters and weight names."""

import pytest

from bgert_export.architecture import Architecture, map_weights
from bgert_export.errors import CheckpointError, UnsupportedCheckpointError


def test_bert(make_config):
    architecture = Architecture.from_config(make_config())
    assert (architecture.kind, architecture.num_labels, architecture.max_tokens) == ("encoder", None, 72)
    assert architecture.position_offset == 0
    shapes = architecture.weight_shapes()
    assert shapes["encoder.layer.2.output.dense.weight"] == (64, 128)
    assert len(shapes) == 5 + 3 * 16


def test_xlm_roberta_has_two_positions_less(make_config):
    config = make_config(
        model_type="xlm-roberta", architectures=["XLMRobertaModel"], pad_token_id=1, max_position_embeddings=514
    )
    architecture = Architecture.from_config(config)
    assert (architecture.position_offset, architecture.max_tokens) == (2, 512)


@pytest.mark.parametrize(
    ("changes", "labels", "names"),
    [
        ({"architectures": ["BertForSequenceClassification"], "num_labels": 3}, 3, ("pooler.dense", "classifier")),
        (
            {
                "architectures": ["XLMRobertaForSequenceClassification"],
                "model_type": "xlm-roberta",
                "id2label": {"0": "LABEL_0"},
            },
            1,
            ("classifier.dense", "classifier.out_proj"),
        ),
        ({"architectures": ["BertForSequenceClassification"]}, 2, ("pooler.dense", "classifier")),
    ],
)
def test_heads(make_config, changes, labels, names):
    architecture = Architecture.from_config(make_config(**changes))
    assert (architecture.kind, architecture.num_labels, architecture.head_names()) == ("reranker", labels, names)
    assert architecture.weight_shapes()[f"{names[1]}.weight"] == (labels, 64)


def test_without_architectures_it_is_an_encoder(make_config):
    assert Architecture.from_config(make_config(architectures=None)).kind == "encoder"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "distilbert"}, "model_type 'distilbert' is not supported"),
        ({"model_type": None}, "model_type None"),
        ({"model_type": ["bert"]}, "model_type"),
        ({"architectures": ["BertForTokenClassification"]}, "architectures 'BertForTokenClassification'"),
        ({"architectures": ["XLMRobertaModel"]}, "architectures 'XLMRobertaModel' with model_type 'bert'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"hidden_act": "gelu_new"}, "hidden_act 'gelu_new'"),
        ({"is_decoder": True}, "is_decoder True"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_unsupported(make_config, changes, message):
    with pytest.raises(UnsupportedCheckpointError, match=message):
        Architecture.from_config(make_config(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": []}, "architectures is"),
        ({"architectures": "BertModel"}, "architectures is"),
        ({"hidden_size": None}, "no hidden_size"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"hidden_size": 66}, "hidden_size 66 is not a multiple of num_attention_heads 4"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"layer_norm_eps": 0}, "layer_norm_eps is 0"),
        ({"layer_norm_eps": "1e-12"}, "layer_norm_eps"),
        ({"pad_token_id": -1}, "pad_token_id is -1"),
        ({"max_position_embeddings": 2}, "leaves room for 2 tokens"),
        ({"architectures": ["BertForSequenceClassification"], "num_labels": 0}, "num_labels is 0"),
    ],
)
def test_damaged_config(make_config, changes, message):
    with pytest.raises(CheckpointError, match=message):
        Architecture.from_config(make_config(**changes))


@pytest.fixture
def architecture(make_config):
    return Architecture.from_config(make_config())


def test_plain_names(architecture):
    found = map_weights(architecture, architecture.weight_shapes())
    assert all(short == name for short, name in found.names.items())
    assert found.unused == []


def test_prefix_and_old_names(architecture):
    old = {
        "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): shape
        for name, shape in architecture.weight_shapes().items()
    }
    extra = {
        "bert.pooler.dense.weight": (64, 64),
        "bert.embeddings.position_ids": (1, 72),
        "cls.predictions.bias": (9,),
    }
    found = map_weights(architecture, old | extra)
    assert found.names["embeddings.LayerNorm.bias"] == "bert.embeddings.LayerNorm.beta"
    assert found.unused == sorted(extra)


def test_missing_weight(architecture):
    shapes = architecture.weight_shapes()
    del shapes["encoder.layer.1.output.dense.bias"]
    with pytest.raises(CheckpointError, match=r"no weight encoder\.layer\.1\.output\.dense\.bias"):
        map_weights(architecture, shapes)


@pytest.mark.parametrize(
    "name",
    ["encoder.layer.3.output.dense.bias", "classifier.weight", "encoder.layer.0.adapter.weight", "linear.weight"],
)
def test_extra_weight(architecture, name):
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        map_weights(architecture, architecture.weight_shapes() | {name: (64,)})


def test_wrong_shape(architecture):
    shapes = architecture.weight_shapes() | {"embeddings.word_embeddings.weight": (7, 64)}
    with pytest.raises(CheckpointError, match=r"embeddings\.word_embeddings\.weight has shape \[7, 64\]"):
        map_weights(architecture, shapes)


def test_the_same_weight_twice(architecture):
    name = "embeddings.LayerNorm.weight"
    with pytest.raises(CheckpointError, match="same weight twice"):
        map_weights(architecture, architecture.weight_shapes() | {f"bert.{name}": (64,)})
