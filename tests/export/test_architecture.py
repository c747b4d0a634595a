"""Hyperparameters and weight names."""

import json
import tracemalloc

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
    head = architecture.head
    assert (architecture.kind, architecture.num_labels, (head.dense, head.out)) == ("reranker", labels, names)
    assert architecture.weight_shapes()[f"{names[1]}.weight"] == (labels, 64)


def test_null_is_the_default(make_config):
    config = make_config() | {"position_embedding_type": None, "pad_token_id": None, "quantization_config": None}
    assert Architecture.from_config(config) == Architecture.from_config(make_config())


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
        *(({"hidden_act": name}, "hidden_act ") for name in ("gelu_10", "silu", "tanh", "GELU", "", 3, ["gelu"], {})),
        ({"position_embedding_type": ["absolute"]}, "position_embedding_type"),
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
        ({"hidden_size": 66}, "hidden_size 66 is not a multiple of num_attention_heads 4"),
        ({"max_position_embeddings": 2}, "leaves room for 2 tokens"),
        *(
            ({"architectures": ["BertForSequenceClassification"], "id2label": odd}, "id2label is")
            for odd in (["a"], "a", 3, True)
        ),
    ],
)
def test_damaged_config(make_config, changes, message):
    with pytest.raises(CheckpointError, match=message):
        Architecture.from_config(make_config(**changes))


NUMBERS = {
    "vocab_size": 1, "hidden_size": 1, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 1,
    "max_position_embeddings": 1, "type_vocab_size": 1, "pad_token_id": 0, "num_labels": 1,
}  # fmt: skip
ODD = [-1, -(2**70), 0, 2**31, 2**63, 10**30, 2.0, 2.5, 1e300, float("nan"), float("inf"), "3", "", True, False, [],
       [3], {}, None, "x" * 10_000]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:20])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_are_none(make_config, name, odd):
    config = make_config(architectures=["BertForSequenceClassification"])
    if name == "pad_token_id" and (odd is None or (type(odd) is int and odd == 0)):
        assert Architecture.from_config({**config, name: odd}).pad_token_id == 0
    else:
        with pytest.raises(CheckpointError, match=name) as raised:
            Architecture.from_config({**config, name: odd})
        assert len(str(raised.value)) < 300


@pytest.mark.parametrize("odd", [-1, 0, 1, 2.0, float("nan"), float("inf"), 10**400, "1e-5", "", True, None, [], {}])
def test_epsilons_that_are_none(make_config, odd):
    with pytest.raises(CheckpointError, match="layer_norm_eps"):
        Architecture.from_config({**make_config(), "layer_norm_eps": odd})


def test_pad_token_that_is_no_token(make_config):
    with pytest.raises(CheckpointError, match="pad_token_id 99999 is no id of vocab_size"):
        Architecture.from_config(make_config(pad_token_id=99_999))
    config = make_config(model_type="xlm-roberta", architectures=["XLMRobertaModel"])
    with pytest.raises(CheckpointError, match="no pad_token_id"):
        Architecture.from_config({**config, "pad_token_id": None})


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 10**6}, {"num_hidden_layers": 2**31 - 1}])
def test_layers_that_are_not_there_cost_nothing(make_config, changes):
    shapes = Architecture.from_config(make_config()).weight_shapes()
    architecture = Architecture.from_config(make_config(**changes))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"no weight encoder\.layer\.3\."):
        map_weights(architecture, shapes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


ABSENT = object()


@pytest.mark.parametrize("labels", [ABSENT, None, {"0": "a"}, {"0": "a", "1": "b"}, {"0": "a", "1": "b", "2": "c"}, {}])
@pytest.mark.parametrize("number", [ABSENT, 1, 2, 3])
def test_labels_are_as_many_as_transformers_says(make_config, tmp_path, number, labels):
    from transformers import AutoConfig

    config = make_config(architectures=["BertForSequenceClassification"])
    config |= {name: value for name, value in (("num_labels", number), ("id2label", labels)) if value is not ABSENT}
    (tmp_path / "config.json").write_text(json.dumps(config))
    expected = AutoConfig.from_pretrained(tmp_path).num_labels
    if expected == 0:
        with pytest.raises(CheckpointError, match="num_labels is 0"):
            Architecture.from_config(config)
    else:
        assert Architecture.from_config(config).num_labels == expected


def test_activations_are_functions_of_transformers():
    import torch
    from transformers.activations import ACT2FN

    from bgert_export.config_fields import _ACTIVATIONS

    x = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    formula = {
        "gelu": torch.nn.functional.gelu(x),
        "gelu_tanh": torch.nn.functional.gelu(x, approximate="tanh"),
        "relu": x.clamp(min=0),
    }
    for name, value in _ACTIVATIONS.items():
        assert (ACT2FN[name](x) - formula[value]).abs().max() < 1e-8, name
    same = {name for name in ACT2FN if name not in ("prelu", "xielu")
            and any((ACT2FN[name](x) - value).abs().max() < 1e-8 for value in formula.values())}  # fmt: skip
    assert same == set(_ACTIVATIONS)


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
    ["classifier.weight", "encoder.layer.0.adapter.weight", "encoder.layer.2.attention.self.query.lora_A.weight",
     "encoder.layer.0.attention.self.distance_embedding.weight", "encoder.layer.x.weight", "encoder.norm.weight",
     "embeddings.factor.weight", "embeddings.scale", "linear.weight", "model.embeddings.position_ids"],
)  # fmt: skip
@pytest.mark.parametrize("prefix", ["", "bert."])
def test_extra_weight(architecture, name, prefix):
    shape = () if name == "embeddings.scale" else (64,)
    found = architecture.weight_shapes() | {prefix + name: shape}
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.") + ".*--ignore-unknown-weights"):
        map_weights(architecture, found)
    assert map_weights(architecture, found, ignore_unknown=True).unused == [prefix + name]


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_weights_that_change_nothing(architecture, prefix):
    extra = {
        f"{prefix}embeddings.position_ids": (1, 72),
        f"{prefix}embeddings.token_type_ids": (1, 72),
        f"{prefix}pooler.dense.bias": (64,),
        "cls.seq_relationship.bias": (2,),
        "temperature": (),
        "logit_scale": (1,),
    }
    layers = {f"{prefix}encoder.layer.{layer}.output.dense.bias": (64,) for layer in (3, 11)}
    found = map_weights(architecture, architecture.weight_shapes() | extra | layers)
    assert found.unused == sorted(extra)
    assert found.unused_layers == [3, 11]
    assert found.names == map_weights(architecture, architecture.weight_shapes()).names


def test_a_scale_beside_a_classifier_is_not_left_out(make_config):
    architecture = Architecture.from_config(make_config(architectures=["BertForSequenceClassification"]))
    with pytest.raises(CheckpointError, match="a weight temperature"):
        map_weights(architecture, architecture.weight_shapes() | {"temperature": ()})


def test_wrong_shape(architecture):
    shapes = architecture.weight_shapes() | {"embeddings.word_embeddings.weight": (7, 64)}
    with pytest.raises(CheckpointError, match=r"embeddings\.word_embeddings\.weight has shape \[7, 64\]"):
        map_weights(architecture, shapes)


def test_the_same_weight_twice(architecture):
    name = "embeddings.LayerNorm.weight"
    with pytest.raises(CheckpointError, match="same weight twice"):
        map_weights(architecture, architecture.weight_shapes() | {f"bert.{name}": (64,)})
