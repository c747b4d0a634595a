"""Hyperparameters and weight names of the BERT family, read strictly from a checkpoint's `config.json`.

Weights have logical names here: those of Hugging Face's `BertModel`, without the prefix that task models put before
them, whatever a family calls them (`families.py`).
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bgert_export.errors import CheckpointError, UnsupportedCheckpointError
from bgert_export.families import ENCODER, FAMILIES, RERANKER, Family, Head

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Architecture", "WeightMap", "map_weights"]

Shape = tuple[int, ...]

# Names in transformers' ACT2FN of one function; they differ in how they are computed, by roundings.
_ACTIVATIONS = {
    **dict.fromkeys(("gelu", "gelu_python"), "gelu"),
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"), "gelu_tanh"),
    "relu": "relu",
}
_LARGEST = 2**31 - 1  # ids and positions are 32-bit
_SUPPORTED = ", ".join(name for family in FAMILIES.values() for name in family.classes)


@dataclass(frozen=True)
class Architecture:
    """What the graph writers need to know of a network, apart from its weights."""

    model_type: str
    """One of `families.FAMILIES`."""
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
    """Row of the position table that the first token uses: 0 for BERT; `pad_token_id + 1` in families where positions
    skip padding tokens."""
    type_vocab_size: int
    """Rows of the table of token types; 1 where there is none and all tokens are alike."""
    layer_norm_eps: float
    pad_token_id: int
    num_labels: int | None = None
    """Logits of the classification head; None for encoders."""
    activation: str = "gelu"
    """Between the layers of the feed-forward network: `gelu`, `gelu_tanh` (the approximation by tanh) or `relu`."""
    relative_attention_num_buckets: int | None = None
    """Rows of the table of relative position biases (MPNet); None without one."""

    @property
    def max_tokens(self) -> int:
        """Longest input that the position table allows, special tokens counted."""
        return self.max_position_embeddings - self.position_offset

    @property
    def family(self) -> Family:
        """What sets the `model_type` apart."""
        return FAMILIES[self.model_type]

    @property
    def reads_token_types(self) -> bool:
        """Whether the network has a table of token types."""
        return self.family.token_types

    @property
    def head(self) -> Head:
        """The classifier of a reranker."""
        return self.family.head

    def require_gelu(self, what: str) -> None:
        """Raise UnsupportedCheckpointError unless the activation is `gelu`, the one that most graphs have."""
        if self.activation != "gelu":
            raise UnsupportedCheckpointError(
                f"config.json: hidden_act is {self.activation}, which {what} do not have: export the target cpu"
            )

    def require_absolute_positions(self, what: str) -> None:
        """Raise UnsupportedCheckpointError where attention has a relative position bias, which few graphs have."""
        if self.relative_attention_num_buckets is not None:
            raise UnsupportedCheckpointError(
                f"{self.model_type} has relative position biases, which {what} does not have: export the target cpu"
            )

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
        if not isinstance(model_type, str) or model_type not in FAMILIES:
            raise UnsupportedCheckpointError(
                f"config.json: model_type {model_type!r} is not supported: bgert exports {', '.join(FAMILIES)}; "
                "--via torch lets PyTorch write the graph of any other that transformers itself has"
            )
        family = FAMILIES[model_type]
        kind = _kind(config, model_type)
        for name, allowed in (_FIXED_FIELDS | dict(family.fixed)).items():
            value = config.get(name, allowed[0])
            if value not in allowed:
                raise UnsupportedCheckpointError(
                    f"config.json: {name} {_shown(value)} is not supported: bgert exports {name} {allowed[0]!r} alone"
                )
        after_padding = family.positions_after_padding
        pad = family.padding_id
        if pad is None:
            pad = 0  # where no position depends on it null stands for none
            if after_padding or config.get("pad_token_id") is not None:
                pad = _whole(config, "pad_token_id", least=0, default=1 if after_padding else 0)
        sizes = {
            name: _whole(config, family.config_name(name))
            for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        }
        architecture = cls(
            model_type=model_type,
            kind=kind,
            vocab_size=_whole(config, "vocab_size"),
            **sizes,
            max_position_embeddings=_whole(config, "max_position_embeddings"),
            position_offset=pad + 1 if after_padding else 0,
            type_vocab_size=_whole(config, "type_vocab_size", default=2) if family.token_types else 1,
            layer_norm_eps=_epsilon(config) if family.epsilon is None else family.epsilon,
            pad_token_id=pad,
            num_labels=_num_labels(config) if kind == RERANKER else None,
            activation=_activation(config, family.config_name("hidden_act")),
            relative_attention_num_buckets=family.fixed["relative_attention_num_buckets"][0]
            if family.relative_bias
            else None,
        )
        if model_type == "electra" and (narrow := config.get("embedding_size", 128)) != architecture.hidden_size:
            raise UnsupportedCheckpointError(
                f"config.json: embedding_size {_shown(narrow)} is not hidden_size {architecture.hidden_size}: bgert "
                "exports ELECTRAs alone that have no projection behind their embeddings"
            )
        if pad >= architecture.vocab_size:
            raise CheckpointError(f"config.json: pad_token_id {pad} is no id of vocab_size {architecture.vocab_size}")
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
        return replace(self, kind=kind, num_labels=1 if kind == RERANKER else None)

    def weight_shapes(self) -> dict[str, Shape]:
        """Logical name to shape of every weight that the graph uses. Linear weights are [out, in]."""
        return dict(self._weights())

    def _weights(self) -> Iterator[tuple[str, Shape]]:
        """One after the other, so that a layer that a checkpoint does not have ends it, whatever config.json says."""
        hidden, inner = self.hidden_size, self.intermediate_size
        yield "embeddings.word_embeddings.weight", (self.vocab_size, hidden)
        yield "embeddings.position_embeddings.weight", (self.max_position_embeddings, hidden)
        if self.family.token_types:
            yield "embeddings.token_type_embeddings.weight", (self.type_vocab_size, hidden)
        yield "embeddings.LayerNorm.weight", (hidden,)
        yield "embeddings.LayerNorm.bias", (hidden,)
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
                yield f"{at}{name}.weight", (rows, columns)
                yield f"{at}{name}.bias", (rows,)
            for name in ("attention.output.LayerNorm", "output.LayerNorm"):
                yield f"{at}{name}.weight", (hidden,)
                yield f"{at}{name}.bias", (hidden,)
        if self.family.relative_bias is not None and self.relative_attention_num_buckets is not None:
            yield self.family.relative_bias, (self.relative_attention_num_buckets, self.num_attention_heads)
        if self.num_labels is not None:
            yield f"{self.head.dense}.weight", (hidden, hidden)
            yield f"{self.head.dense}.bias", (hidden,)
            yield f"{self.head.out}.weight", (self.num_labels, hidden)
            yield f"{self.head.out}.bias", (self.num_labels,)


@dataclass(frozen=True)
class WeightMap:
    """Where the weights of a graph are in a checkpoint, and what else is there."""

    names: dict[str, str]
    """Logical name to the checkpoint's name."""
    unused: list[str]
    """The checkpoint's names that the graph has no use for: heads of training, saved buffers."""
    unused_layers: list[int]
    """Layers past `num_hidden_layers`."""


# What a BERT of any kind may have beside its encoder, and never uses to make an output of the kinds that are exported.
_HARMLESS = re.compile(r"embeddings\.(position_ids|token_type_ids)$|pooler\.|cls\.|lm_head\.")
_LAYER = re.compile(r"encoder\.layer\.(\d{1,9})\.")
_BODY = ("embeddings.", "encoder.")


def map_weights(
    architecture: Architecture,
    found: Mapping[str, Shape],
    *,
    tolerated: tuple[str, ...] = (),
    ignore_unknown: bool = False,
) -> WeightMap:
    """Match a checkpoint's weight names and shapes with what the architecture needs.

    Old checkpoints call LayerNorm's weight and bias `gamma` and `beta`. transformers leaves out every weight that its
    network has no place for. Here that goes for those that cannot belong to an output; the rest (an adapter, say, or a
    projection) may be part of what the authors compute and is left out only if the caller says so.

    Args:
        architecture: from config.json.
        found: shapes by the checkpoint's names.
        tolerated: how names begin that may be there without a use.
        ignore_unknown: leave out whatever the network does not have.

    Raises:
        CheckpointError: a weight is missing, has another shape, or is one that the architecture does not have.
    """
    family = architecture.family
    prefix = family.prefix
    logical: dict[str, str] = {}
    for name in found:
        short = name.removeprefix(prefix)
        short = short.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        short = family.logical(short)
        if short in logical:
            raise CheckpointError(f"the weights {logical[short]} and {name} are the same weight twice")
        logical[short] = name
    names: dict[str, str] = {}
    for short, shape in architecture._weights():
        actual = logical.pop(short, None)
        if actual is None:
            raise CheckpointError(f"the checkpoint has no weight {short} (with or without the prefix {prefix})")
        if tuple(found[actual]) != shape:
            raise CheckpointError(
                f"the weight {actual} has shape {list(found[actual])}, config.json asks for {list(shape)}"
            )
        names[short] = actual
    unused, layers = [], set()
    for short, actual in logical.items():
        layer = _LAYER.match(short)
        if layer and int(layer[1]) >= architecture.num_hidden_layers:
            layers.add(int(layer[1]))
            continue
        # A number by itself, such as the temperature of a loss, scales scores and turns no vector.
        scale = architecture.kind == ENCODER and math.prod(found[actual]) == 1 and not short.startswith(_BODY)
        if not (ignore_unknown or scale or _HARMLESS.match(short) or short.startswith(tolerated + family.harmless)):
            raise CheckpointError(
                f"the checkpoint has a weight {actual} that {architecture.model_type} {architecture.kind}s do not "
                "have: it is not the network that config.json describes (--ignore-unknown-weights leaves such "
                "weights out, as transformers does)"
            )
        unused.append(actual)
    return WeightMap(names=names, unused=sorted(unused), unused_layers=sorted(layers))


# The first value is the default that transformers assumes.
_FIXED_FIELDS: dict[str, tuple[Any, ...]] = {
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
}


def _kind(config: Mapping[str, Any], model_type: str) -> str:
    classes = config.get("architectures")
    if classes is None:
        return ENCODER
    if not isinstance(classes, list) or len(classes) != 1 or not isinstance(classes[0], str):
        raise CheckpointError(f"config.json: architectures is {classes!r}, not a list of one class name")
    kind = FAMILIES[model_type].classes.get(classes[0])
    if kind is None:
        raise UnsupportedCheckpointError(
            f"config.json: architectures {classes[0]!r} with model_type {model_type!r} is not supported: "
            f"bgert exports {_SUPPORTED}"
        )
    return kind


def _activation(config: Mapping[str, Any], field: str) -> str:
    name = config.get(field, "gelu")
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise UnsupportedCheckpointError(
            f"config.json: {field} {_shown(name)} is not supported: bgert exports {', '.join(_ACTIVATIONS)}"
        )
    return _ACTIVATIONS[name]


def _whole(config: Mapping[str, Any], name: str, *, least: int = 1, default: int | None = None) -> int:
    value = config.get(name, default)
    if value is None:
        raise CheckpointError(f"config.json has no {name}")
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _LARGEST:
        raise CheckpointError(f"config.json: {name} is {_shown(value)}, not a whole number from {least} to {_LARGEST}")
    return value


def _epsilon(config: Mapping[str, Any]) -> float:
    value = config.get("layer_norm_eps", 1e-12)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1:
        raise CheckpointError(f"config.json: layer_norm_eps is {_shown(value)}, not a number between 0 and 1")
    return float(value)


def _num_labels(config: Mapping[str, Any]) -> int:
    """As transformers: `num_labels` counts, then how many labels have a name, then two."""
    labels = config.get("id2label")
    if labels is not None and not isinstance(labels, dict):
        raise CheckpointError(f"config.json: id2label is {_shown(labels)}, not an object of names")
    named = 2 if labels is None else len(labels)
    return _whole({"num_labels": named, **config}, "num_labels")


def _shown(value: Any) -> str:
    """A value of the file for a message of one line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
