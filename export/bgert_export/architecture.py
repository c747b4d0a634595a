"""Hyperparameters and weight names of the BERT family, read strictly from a checkpoint's `config.json`.

Weights have logical names here: those of Hugging Face's `BertModel`, without the prefix that task models put before
them, whatever a family calls them (`families.py`).
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bgert_export.config_fields import (
    FIXED_FIELDS,
    activation_of,
    epsilon_of,
    head_pooling_of,
    kind_of,
    number_of_labels,
    shown,
    whole_number,
)
from bgert_export.errors import CheckpointError, UnsupportedCheckpointError
from bgert_export.families import ENCODER, FAMILIES, RERANKER, Family, Head

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bgert_export.local_attention import LocalAttention
    from bgert_export.rotary import Rotary

__all__ = ["Architecture", "WeightMap", "map_weights"]

Shape = tuple[int, ...]


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
    """Rows of the position table; with rotary positions the longest text."""
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
    """Between the layers of the feed-forward network: `gelu`, `gelu_tanh` (the approximation by tanh) or `relu`; with
    a gate `gelu` or `silu`."""
    relative_attention_num_buckets: int | None = None
    """Rows of the table of relative position biases (MPNet); None without one."""
    reads_token_types: bool = True
    """Whether there is a table of token types."""
    rotary: Rotary | None = None
    """How positions turn queries and keys; None where there is a table of positions."""
    local: LocalAttention | None = None
    """Layers that see neighbours alone; None where all see everything."""
    head_pooling: str = "cls"
    """What the classifier reads: `cls` or `mean`."""

    @property
    def max_tokens(self) -> int:
        """Longest input that the position table allows, special tokens counted."""
        return self.max_position_embeddings - self.position_offset

    @property
    def family(self) -> Family:
        """What sets the `model_type` apart."""
        return FAMILIES[self.model_type]

    @property
    def head(self) -> Head:
        """The classifier of a reranker."""
        return self.family.head

    @property
    def head_size(self) -> int:
        """Numbers of one head's query."""
        return self.hidden_size // self.num_attention_heads

    def rotary_of(self, layer: int) -> Rotary | None:
        """How positions turn a layer's queries and keys."""
        return self.local.rotary if self.local is not None and layer in self.local.layers else self.rotary

    def window_of(self, layer: int) -> int | None:
        """How many tokens on either side a layer sees; None for all."""
        return self.local.window if self.local is not None and layer in self.local.layers else None

    @property
    def gated(self) -> bool:
        """Whether the feed-forward network multiplies the activation of one matrix by another."""
        return self.family.gated

    def require_gelu(self, what: str) -> None:
        """Raise UnsupportedCheckpointError unless the activation is `gelu`, the one that most graphs have, or gated."""
        if self.activation != "gelu" and not self.gated:
            raise UnsupportedCheckpointError(
                f"config.json: hidden_act is {self.activation}, which {what} do not have: export the target cpu"
            )

    def require_post_norm(self, what: str) -> None:
        """Raise UnsupportedCheckpointError for ModernBERT's layers, which few graphs have."""
        if self.family.pre_norm:
            raise UnsupportedCheckpointError(
                f"{self.model_type} has LayerNorm before its layers and local attention, which {what} does not have: "
                "export the target cpu"
            )

    def require_table_of_positions(self, what: str) -> None:
        """Raise UnsupportedCheckpointError for rotary positions and gates, which come together."""
        if self.rotary is not None or self.gated:
            raise UnsupportedCheckpointError(
                f"{self.model_type} has rotary positions and a gated feed-forward network, which {what} does not have: "
                "export the target cpu, or cuda where it takes the model"
            )

    def require_absolute_positions(self, what: str) -> None:
        """Raise UnsupportedCheckpointError where attention has a relative position bias, which few graphs have."""
        self.require_post_norm(what)
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
        kind = kind_of(config, model_type)
        for name, allowed in (FIXED_FIELDS | dict(family.fixed)).items():
            value = config.get(name, allowed[0])
            if value not in allowed:
                raise UnsupportedCheckpointError(
                    f"config.json: {name} {shown(value)} is not supported: bgert exports {name} {allowed[0]!r} alone"
                )
        after_padding = family.positions_after_padding
        pad = family.padding_id
        if pad is None:
            pad = 0  # where no position depends on it null stands for none
            if after_padding or config.get("pad_token_id") is not None:
                pad = whole_number(config, "pad_token_id", least=0, default=1 if after_padding else 0)
        sizes = {
            name: whole_number(config, family.config_name(name, config))
            for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        }
        rotary = family.rotary(config) if family.rotary is not None else None
        positions = whole_number(config, family.config_name("max_position_embeddings", config))
        if rotary is not None and rotary.fixed_up_to is not None:
            positions = min(positions, rotary.fixed_up_to)
        types = (
            whole_number(config, "type_vocab_size", default=2, least=0 if rotary else 1) if family.token_types else 0
        )
        epsilon = family.config_name("layer_norm_eps", config)
        architecture = cls(
            model_type=model_type,
            kind=kind,
            vocab_size=whole_number(config, "vocab_size"),
            **sizes,
            max_position_embeddings=positions,
            position_offset=pad + 1 if after_padding else 0,
            type_vocab_size=max(types, 1),
            layer_norm_eps=epsilon_of(config, epsilon, family.default_epsilon)
            if family.epsilon is None
            else family.epsilon,
            pad_token_id=pad,
            num_labels=number_of_labels(config) if kind == RERANKER else None,
            activation=activation_of(config, family),
            relative_attention_num_buckets=family.fixed["relative_attention_num_buckets"][0]
            if family.relative_bias
            else None,
            reads_token_types=types > 0,
            rotary=rotary,
            local=family.local(config, sizes["num_hidden_layers"]) if family.local is not None else None,
            head_pooling=head_pooling_of(config, family.head),
        )
        if model_type == "electra" and (narrow := config.get("embedding_size", 128)) != architecture.hidden_size:
            raise UnsupportedCheckpointError(
                f"config.json: embedding_size {shown(narrow)} is not hidden_size {architecture.hidden_size}: bgert "
                "exports ELECTRAs alone that have no projection behind their embeddings"
            )
        if pad >= architecture.vocab_size:
            raise CheckpointError(f"config.json: pad_token_id {pad} is no id of vocab_size {architecture.vocab_size}")
        if architecture.hidden_size % architecture.num_attention_heads:
            raise CheckpointError(
                f"config.json: hidden_size {architecture.hidden_size} is not a multiple of "
                f"num_attention_heads {architecture.num_attention_heads}"
            )
        if rotary is not None and architecture.head_size % 2:
            raise CheckpointError(f"config.json: heads of {architecture.head_size} numbers have no pairs to turn")
        if architecture.max_tokens < 3:
            raise CheckpointError(
                f"config.json: max_position_embeddings {architecture.max_position_embeddings} leaves room for "
                f"{architecture.max_tokens} tokens"
            )
        return architecture

    def as_kind(self, kind: str) -> Architecture:
        """The same network with or without a classifier; one that config.json knows nothing of has one label."""
        return replace(self, kind=kind, num_labels=1 if kind == RERANKER else None)

    def layer_norms(self, layer: int) -> list[str]:
        """Names of a layer's two LayerNorms; with LayerNorm before its parts the first layer has one."""
        at = f"encoder.layer.{layer}"
        if not self.family.pre_norm:
            return [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
        return [f"{at}.attention.LayerNorm"] * (layer > 0) + [f"{at}.intermediate.LayerNorm"]

    def weight_shapes(self) -> dict[str, Shape]:
        """Logical name to shape of every weight that the graph uses. Linear weights are [out, in]."""
        return dict(self._weights())

    def _weights(self) -> Iterator[tuple[str, Shape]]:
        """One after the other, so that a layer that a checkpoint does not have ends it, whatever config.json says."""
        hidden, inner = self.hidden_size, self.intermediate_size
        yield "embeddings.word_embeddings.weight", (self.vocab_size, hidden)
        if self.rotary is None:
            yield "embeddings.position_embeddings.weight", (self.max_position_embeddings, hidden)
        if self.reads_token_types:
            yield "embeddings.token_type_embeddings.weight", (self.type_vocab_size, hidden)
        norm = ("weight",) if self.family.pre_norm else ("weight", "bias")
        for part in norm:
            yield f"embeddings.LayerNorm.{part}", (hidden,)
        linears = [
            ("attention.self.query", hidden, hidden),
            ("attention.self.key", hidden, hidden),
            ("attention.self.value", hidden, hidden),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", inner, hidden),
            ("output.dense", hidden, inner),
        ]
        if self.gated:
            linears.append(("intermediate.gate", inner, hidden))
        for layer in range(self.num_hidden_layers):
            at = f"encoder.layer.{layer}."
            for name, rows, columns in linears:
                yield f"{at}{name}.weight", (rows, columns)
                if name not in self.family.without_bias:
                    yield f"{at}{name}.bias", (rows,)
            for name in self.layer_norms(layer):
                for part in norm:
                    yield f"{name}.{part}", (hidden,)
        if self.family.pre_norm:
            yield "final.LayerNorm.weight", (hidden,)
        if self.family.relative_bias is not None and self.relative_attention_num_buckets is not None:
            yield self.family.relative_bias, (self.relative_attention_num_buckets, self.num_attention_heads)
        if self.num_labels is not None:
            yield f"{self.head.dense}.weight", (hidden, hidden)
            if self.head.biased:
                yield f"{self.head.dense}.bias", (hidden,)
            if self.head.norm is not None:
                yield f"{self.head.norm}.weight", (hidden,)
            yield f"{self.head.out}.weight", (self.num_labels, hidden)
            yield f"{self.head.out}.bias", (self.num_labels,)


@dataclass(frozen=True)
class WeightMap:
    """Where the weights of a graph are in a checkpoint, and what else is there."""

    names: dict[str, str]
    """Logical name to the checkpoint's name."""
    rows: dict[str, tuple[int, int]]
    """Logical name to the first row and the row past the last, where a checkpoint's weight holds several."""
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
    shapes: dict[str, Shape] = {}
    rows: dict[str, tuple[int, int]] = {}
    for name in found:
        short = name.removeprefix(prefix)
        short = short.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        parts = family.logical(short)
        for number, part in enumerate(parts):
            if part in logical:
                raise CheckpointError(f"the weights {logical[part]} and {name} are the same weight twice")
            logical[part] = name
            shapes[part] = tuple(found[name])
            if len(parts) > 1 and shapes[part] and shapes[part][0] % len(parts) == 0:
                each = shapes[part][0] // len(parts)
                rows[part] = (number * each, (number + 1) * each)
                shapes[part] = (each, *shapes[part][1:])
    names: dict[str, str] = {}
    for short, shape in architecture._weights():
        actual = logical.pop(short, None)
        if actual is None:
            raise CheckpointError(f"the checkpoint has no weight {short} (with or without the prefix {prefix})")
        if shapes[short] != shape:
            raise CheckpointError(
                f"the weight {actual} has shape {list(found[actual])}, config.json asks for {list(shape)}"
                + (
                    f" for each of its {len(family.logical(actual.removeprefix(prefix)))} parts"
                    if short in rows
                    else ""
                )
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
    return WeightMap(
        names=names,
        rows={name: rows[name] for name in names if name in rows},
        unused=sorted(set(unused)),
        unused_layers=sorted(layers),
    )
