"""What sets each `model_type` of the BERT family apart: names, fields, positions, head. One table for all writers.

All are the same network: embeddings, post-norm transformer layers, a classifier of two layers on the first token. What
differs is written down here, under BERT's names; adding a family is adding an entry, if it is of this network.
Sources: the classes of these names in transformers 5.23, `models/{bert,roberta,distilbert,electra,mpnet}`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ENCODER", "FAMILIES", "RERANKER", "Family", "Head"]

ENCODER = "encoder"
RERANKER = "reranker"
_LAYER = "encoder.layer"


@dataclass(frozen=True)
class Head:
    """The classifier on the first token: a layer of the hidden size, its activation, the layer that gives logits."""

    dense: str = "classifier.dense"
    out: str = "classifier.out_proj"
    activation: str = "tanh"
    """`tanh`, `relu` or `gelu`."""


@dataclass(frozen=True)
class Family:
    """One `model_type`."""

    name: str
    """How transformers begins the names of its classes: `Bert` of `BertModel`."""
    prefix: str
    """What task models put before the encoder's weight names."""
    encoders: tuple[str, ...] = ("Model", "ForMaskedLM")
    """Ends of the names of classes whose encoder is exported."""
    head: Head = Head()
    layers: str = _LAYER
    """What stands before a layer's number."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Weights of a layer: the family's name to BERT's; empty where they are BERT's own."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Fields of config.json: BERT's name to the family's, where they differ."""
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Fields that change the arithmetic, and the values that are exported, the first of them transformers' default."""
    harmless: tuple[str, ...] = ()
    """How names of weights begin that only training uses."""
    token_types: bool = True
    positions_after_padding: bool = False
    """Positions count from `pad_token_id + 1` and skip padding tokens, as `create_position_ids_from_input_ids`."""
    padding_id: int | None = None
    """The id of padding, where the code says it and not config.json."""
    epsilon: float | None = None
    """Of LayerNorm, where the code says it and not config.json."""
    relative_bias: str | None = None
    """Name of the table of relative position biases that all layers share."""
    pooler: bool = True
    """Whether the encoder's class has a pooler that can be left out."""

    @property
    def classes(self) -> dict[str, str]:
        """What each class of transformers becomes: an encoder or a reranker."""
        kinds = {self.name + end: ENCODER for end in self.encoders}
        return kinds | {f"{self.name}ForSequenceClassification": RERANKER}

    def config_name(self, name: str) -> str:
        """The family's name of a field of BERT's config.json."""
        return self.fields.get(name, name)

    def logical(self, name: str) -> str:
        """BERT's name of a weight that the family calls `name`, without prefix; what is nothing of BERT's stays."""
        if not self.parts:
            return name
        found = re.fullmatch(rf"{re.escape(self.layers)}\.(\d{{1,9}})\.(.+)\.(weight|bias)", name)
        if found and found[2] in self.parts:
            return f"{_LAYER}.{found[1]}.{self.parts[found[2]]}.{found[3]}"
        # A name that another family gives such a weight is none of this one.
        return f"({name})" if name.startswith(f"{_LAYER}.") else name


_ROBERTA: dict[str, Any] = {"prefix": "roberta.", "positions_after_padding": True}
_ATTENTION = "attention.self"

FAMILIES: dict[str, Family] = {
    "bert": Family(
        "Bert",
        "bert.",
        encoders=("Model", "ForMaskedLM", "ForPreTraining"),
        head=Head("pooler.dense", "classifier"),
        fixed={"position_embedding_type": ("absolute", None)},
    ),
    "xlm-roberta": Family("XLMRoberta", **_ROBERTA, fixed={"position_embedding_type": ("absolute", None)}),
    "roberta": Family("Roberta", **_ROBERTA, fixed={"position_embedding_type": ("absolute", None)}),
    "camembert": Family("Camembert", **_ROBERTA, fixed={"position_embedding_type": ("absolute", None)}),
    "distilbert": Family(
        "DistilBert",
        "distilbert.",
        head=Head("pre_classifier", "classifier", "relu"),
        layers="transformer.layer",
        parts={
            "attention.q_lin": f"{_ATTENTION}.query",
            "attention.k_lin": f"{_ATTENTION}.key",
            "attention.v_lin": f"{_ATTENTION}.value",
            "attention.out_lin": "attention.output.dense",
            "sa_layer_norm": "attention.output.LayerNorm",
            "ffn.lin1": "intermediate.dense",
            "ffn.lin2": "output.dense",
            "output_layer_norm": "output.LayerNorm",
        },
        fields={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_act": "activation",
        },
        harmless=("vocab_transform.", "vocab_layer_norm.", "vocab_projector."),
        token_types=False,
        epsilon=1e-12,
        pooler=False,
    ),
    "electra": Family(
        "Electra",
        "electra.",
        encoders=("Model", "ForMaskedLM", "ForPreTraining"),
        head=Head(activation="gelu"),
        fixed={"position_embedding_type": ("absolute", None)},
        harmless=("discriminator_predictions.", "generator_predictions.", "generator_lm_head."),
        pooler=False,
    ),
    "mpnet": Family(
        "MPNet",
        "mpnet.",
        parts={
            "attention.attn.q": f"{_ATTENTION}.query",
            "attention.attn.k": f"{_ATTENTION}.key",
            "attention.attn.v": f"{_ATTENTION}.value",
            "attention.attn.o": "attention.output.dense",
            "attention.LayerNorm": "attention.output.LayerNorm",
            **{name: name for name in ("intermediate.dense", "output.dense", "output.LayerNorm")},
        },
        # Its code looks up 32 buckets whatever config.json says.
        fixed={"relative_attention_num_buckets": (32,)},
        token_types=False,
        positions_after_padding=True,
        padding_id=1,
        relative_bias="encoder.relative_attention_bias.weight",
    ),
}
