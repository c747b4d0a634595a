"""Hyperparameters and weight names of the BERT family, read strictly from a checkpoint's `config.json`.

Weights have logical names here: those of Hugging Face's `BertModel`, without the `bert.` or `roberta.` prefix that
task models put before them. XLM-RoBERTa is the same network with positions that start at `pad_token_id + 1`
(`create_position_ids_from_input_ids` in transformers) and another classification head.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bgert_export.errors import CheckpointError, UnsupportedCheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Architecture", "WeightMap", "map_weights"]

Shape = tuple[int, ...]

_ENCODER = "encoder"
_RERANKER = "reranker"
_CLASSES: dict[str, dict[str, str]] = {
    "bert": {
        "BertModel": _ENCODER,
        "BertForMaskedLM": _ENCODER,
        "BertForPreTraining": _ENCODER,
        "BertForSequenceClassification": _RERANKER,
    },
    "xlm-roberta": {
        "XLMRobertaModel": _ENCODER,
        "XLMRobertaForMaskedLM": _ENCODER,
        "XLMRobertaForSequenceClassification": _RERANKER,
    },
}
_PREFIXES = {"bert": "bert.", "xlm-roberta": "roberta."}
_SUPPORTED = ", ".join(name for classes in _CLASSES.values() for name in classes)


@dataclass(frozen=True)
class Architecture:
    """What the graph writers need to know of a network, apart from its weights."""

    model_type: str
    """`bert` or `xlm-roberta`."""
    kind: str
    """`encoder` or `reranker` (a sequence-classification head)."""
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    """Rows of the position table."""
    position_offset: int
    """Row of the position table that the first token uses: 0 for BERT, `pad_token_id + 1` for XLM-RoBERTa."""
    type_vocab_size: int
    layer_norm_eps: float
    pad_token_id: int
    num_labels: int | None = None
    """Logits of the classification head; None for encoders."""

    @property
    def max_tokens(self) -> int:
        """Longest input that the position table allows, special tokens counted."""
        return self.max_position_embeddings - self.position_offset

    @property
    def prefix(self) -> str:
        """What task models put before the encoder's weight names."""
        return _PREFIXES[self.model_type]

    def as_dict(self) -> dict[str, Any]:
        """The fields, for the manifest."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Architecture:
        """Read a decoded `config.json`.

        Raises:
            UnsupportedCheckpointError: another architecture, or a setting that changes the arithmetic in a way that
                bgert does not implement; the message names the field.
            CheckpointError: a field is missing or of the wrong type.
        """
        model_type = config.get("model_type")
        if not isinstance(model_type, str) or model_type not in _CLASSES:
            raise UnsupportedCheckpointError(
                f"config.json: model_type {model_type!r} is not supported: bgert exports {' and '.join(_CLASSES)}"
            )
        kind = _kind(config, model_type)
        for name, allowed in _FIXED_FIELDS.items():
            value = config.get(name, allowed[0])
            if value not in allowed:
                raise UnsupportedCheckpointError(
                    f"config.json: {name} {value!r} is not supported: bgert exports {name} {allowed[0]!r} alone"
                )
        pad = _whole(config, "pad_token_id", least=0, default=1 if model_type == "xlm-roberta" else 0)
        architecture = cls(
            model_type=model_type,
            kind=kind,
            vocab_size=_whole(config, "vocab_size"),
            hidden_size=_whole(config, "hidden_size"),
            num_hidden_layers=_whole(config, "num_hidden_layers"),
            num_attention_heads=_whole(config, "num_attention_heads"),
            intermediate_size=_whole(config, "intermediate_size"),
            max_position_embeddings=_whole(config, "max_position_embeddings"),
            position_offset=pad + 1 if model_type == "xlm-roberta" else 0,
            type_vocab_size=_whole(config, "type_vocab_size", default=2),
            layer_norm_eps=_epsilon(config),
            pad_token_id=pad,
            num_labels=_num_labels(config) if kind == _RERANKER else None,
        )
        if architecture.hidden_size % architecture.num_attention_heads:
            raise CheckpointError(
                f"config.json: hidden_size {architecture.hidden_size} is not a multiple of "
                f"num_attention_heads {architecture.num_attention_heads}"
            )
        if architecture.max_tokens < 3:
            raise CheckpointError(
                f"config.json: max_position_embeddings {architecture.max_position_embeddings} leaves room for "
                f"{architecture.max_tokens} tokens"
            )
        return architecture

    def as_kind(self, kind: str) -> Architecture:
        """The same network with or without a classifier; one that config.json knows nothing of has one label."""
        return replace(self, kind=kind, num_labels=1 if kind == _RERANKER else None)

    def weight_shapes(self) -> dict[str, Shape]:
        """Logical name to shape of every weight that the graph uses. Linear weights are [out, in]."""
        hidden, inner = self.hidden_size, self.intermediate_size
        shapes: dict[str, Shape] = {
            "embeddings.word_embeddings.weight": (self.vocab_size, hidden),
            "embeddings.position_embeddings.weight": (self.max_position_embeddings, hidden),
            "embeddings.token_type_embeddings.weight": (self.type_vocab_size, hidden),
            "embeddings.LayerNorm.weight": (hidden,),
            "embeddings.LayerNorm.bias": (hidden,),
        }
        for layer in range(self.num_hidden_layers):
            at = f"encoder.layer.{layer}."
            for name, rows, columns in (
                ("attention.self.query", hidden, hidden),
                ("attention.self.key", hidden, hidden),
                ("attention.self.value", hidden, hidden),
                ("attention.output.dense", hidden, hidden),
                ("intermediate.dense", inner, hidden),
                ("output.dense", hidden, inner),
            ):
                shapes[f"{at}{name}.weight"] = (rows, columns)
                shapes[f"{at}{name}.bias"] = (rows,)
            for name in ("attention.output.LayerNorm", "output.LayerNorm"):
                shapes[f"{at}{name}.weight"] = (hidden,)
                shapes[f"{at}{name}.bias"] = (hidden,)
        if self.num_labels is not None:
            dense, out = self.head_names()
            shapes[f"{dense}.weight"] = (hidden, hidden)
            shapes[f"{dense}.bias"] = (hidden,)
            shapes[f"{out}.weight"] = (self.num_labels, hidden)
            shapes[f"{out}.bias"] = (self.num_labels,)
        return shapes

    def head_names(self) -> tuple[str, str]:
        """Logical names of the head's tanh layer and output layer. Rerankers alone."""
        if self.model_type == "bert":
            return "pooler.dense", "classifier"
        return "classifier.dense", "classifier.out_proj"


@dataclass(frozen=True)
class WeightMap:
    """Where the weights of a graph are in a checkpoint."""

    names: dict[str, str]
    """Logical name to the checkpoint's name."""
    unused: list[str]
    """The checkpoint's names that the graph has no use for: heads of training, saved buffers."""


def map_weights(
    architecture: Architecture, found: Mapping[str, Shape], *, tolerated: tuple[str, ...] = ()
) -> WeightMap:
    """Match a checkpoint's weight names and shapes with what the architecture needs.

    Old checkpoints call LayerNorm's weight and bias `gamma` and `beta`. Weights that begin with one of `tolerated`
    may be there without a use.

    Raises:
        CheckpointError: a weight is missing, has another shape, or is one that the architecture does not have.
    """
    prefix = architecture.prefix
    logical: dict[str, str] = {}
    for name in found:
        short = name.removeprefix(prefix)
        short = short.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if short in logical:
            raise CheckpointError(f"the weights {logical[short]} and {name} are the same weight twice")
        logical[short] = name
    names: dict[str, str] = {}
    for short, shape in architecture.weight_shapes().items():
        actual = logical.pop(short, None)
        if actual is None:
            raise CheckpointError(f"the checkpoint has no weight {short} (with or without the prefix {prefix})")
        if tuple(found[actual]) != shape:
            raise CheckpointError(
                f"the weight {actual} has shape {list(found[actual])}, config.json asks for {list(shape)}"
            )
        names[short] = actual
    tolerated += ("embeddings.position_ids", "pooler.", "cls.", "lm_head.")
    for short, actual in logical.items():
        if not short.startswith(tolerated):
            raise CheckpointError(
                f"the checkpoint has a weight {actual} that {architecture.model_type} {architecture.kind}s do not "
                "have: it is not the network that config.json describes"
            )
    return WeightMap(names=names, unused=sorted(logical.values()))


# The first value is the default that transformers assumes.
_FIXED_FIELDS: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute",),
    "hidden_act": ("gelu",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
}


def _kind(config: Mapping[str, Any], model_type: str) -> str:
    classes = config.get("architectures")
    if classes is None:
        return _ENCODER
    if not isinstance(classes, list) or len(classes) != 1 or not isinstance(classes[0], str):
        raise CheckpointError(f"config.json: architectures is {classes!r}, not a list of one class name")
    kind = _CLASSES[model_type].get(classes[0])
    if kind is None:
        raise UnsupportedCheckpointError(
            f"config.json: architectures {classes[0]!r} with model_type {model_type!r} is not supported: "
            f"bgert exports {_SUPPORTED}"
        )
    return kind


def _whole(config: Mapping[str, Any], name: str, *, least: int = 1, default: int | None = None) -> int:
    value = config.get(name, default)
    if value is None:
        raise CheckpointError(f"config.json has no {name}")
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise CheckpointError(f"config.json: {name} is {value!r}, not a whole number from {least}")
    return value


def _epsilon(config: Mapping[str, Any]) -> float:
    value = config.get("layer_norm_eps", 1e-12)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1:
        raise CheckpointError(f"config.json: layer_norm_eps is {value!r}, not a number between 0 and 1")
    return float(value)


def _num_labels(config: Mapping[str, Any]) -> int:
    labels = config.get("id2label")
    if isinstance(labels, dict) and labels:
        return len(labels)
    return _whole(config, "num_labels", default=2)
