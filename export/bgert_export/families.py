"""What sets each `model_type` of the BERT family apart: names, fields, positions, head. One table for all writers.

All are the same network: embeddings, transformer layers with LayerNorm behind or before their parts, a classifier of
two layers. Positions are a table, or turn queries and keys (`rotary.py`); the feed-forward network may have a gate, and
some layers may see neighbours alone (`local_attention.py`). What differs is written down here, under BERT's names;
adding a family is adding an entry, if it is of this network. Sources: the classes of these names in transformers 5.23,
`models/{bert,roberta,distilbert,electra,mpnet,nomic_bert,gte,modernbert}`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bgert_export.local_attention import read_modernbert_global, read_modernbert_local
from bgert_export.rotary import read_gte, read_nomic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bgert_export.local_attention import LocalAttention
    from bgert_export.rotary import Rotary

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
    norm: str | None = None
    """LayerNorm after the activation."""
    poolings: tuple[str, ...] = ("cls",)
    """What it may read, by `classifier_pooling` of config.json where there are several; the first is the default."""
    biased: bool = True
    """Whether the first layer has a bias."""


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
    parts: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    """Weights of a layer: the family's name to BERT's; empty where they are BERT's own. Several names for a weight
    whose rows are several matrices, one after the other. The half of a gated feed-forward network that goes through
    the activation is `intermediate.gate`, the other one `intermediate.dense`."""
    around: Mapping[str, str] = field(default_factory=dict)
    """Weights outside of the layers: the family's name to BERT's, where they differ."""
    without_bias: tuple[str, ...] = ()
    """Linear parts of a layer, by BERT's names, that have none."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Fields of config.json: BERT's name to the family's, where they differ."""
    also_bert_fields: bool = False
    """A field that is not there under the family's name may have BERT's: transformers renamed them."""
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
    default_epsilon: float = 1e-12
    relative_bias: str | None = None
    """Name of the table of relative position biases that all layers share."""
    rotary: Callable[[Mapping[str, Any]], Rotary] | None = None
    """Reads from config.json how positions turn queries and keys; None for a table of positions."""
    gated: bool = False
    """The feed-forward network multiplies the activation of one matrix by another."""
    pre_norm: bool = False
    """LayerNorm stands before attention and feed-forward network, and once behind the last layer; then it has no bias.
    The first layer's attention reads the embeddings, which have been through one."""
    local: Callable[[Mapping[str, Any], int], LocalAttention] | None = None
    """Reads from config.json and the number of layers which of them see neighbours alone."""
    activations: Mapping[str, str] = field(default_factory=dict)
    """Names of `hidden_act` to the activation's, where they are not those of transformers."""
    default_activation: str = "gelu"
    pooler: bool = True
    """Whether the encoder's class has a pooler that can be left out."""
    torch: str = ""
    """How transformers begins the names of its classes where the checkpoint's are another's."""

    @property
    def torch_name(self) -> str:
        """How transformers begins the names of the classes that run it."""
        return self.torch or self.name

    @property
    def classes(self) -> dict[str, str]:
        """What each class of transformers becomes: an encoder or a reranker."""
        kinds = {self.name + end: ENCODER for end in self.encoders}
        return kinds | {f"{self.name}ForSequenceClassification": RERANKER}

    def config_name(self, name: str, config: Mapping[str, Any] | None = None) -> str:
        """The family's name of a field of BERT's config.json."""
        mine = self.fields.get(name, name)
        return name if self.also_bert_fields and mine not in (config or {}) else mine

    def logical(self, name: str) -> tuple[str, ...]:
        """BERT's names of what a weight holds that the family calls `name`, without prefix, in the order of its rows.

        What is nothing of BERT's stays.
        """
        whole, _, end = name.rpartition(".")
        if whole in self.around:
            return (f"{self.around[whole]}.{end}",)
        if not self.parts:
            return (name,)
        found = re.fullmatch(rf"{re.escape(self.layers)}\.(\d{{1,9}})\.(.+)\.(weight|bias)", name)
        if found and found[2] in self.parts:
            parts = self.parts[found[2]]
            parts = (parts,) if isinstance(parts, str) else parts
            return tuple(f"{_LAYER}.{found[1]}.{part}.{found[3]}" for part in parts)
        # A name that another family gives such a weight is none of this one.
        return (f"({name})" if name.startswith(f"{_LAYER}.") else name,)


_ROBERTA: dict[str, Any] = {"prefix": "roberta.", "positions_after_padding": True}
_ATTENTION = "attention.self"
_QKV = tuple(f"{_ATTENTION}.{part}" for part in ("query", "key", "value"))

_GTE: dict[str, Any] = {
    "head": Head("pooler.dense", "classifier"),
    "parts": {
        "attention.qkv_proj": _QKV,
        "attention.o_proj": "attention.output.dense",
        "attn_ln": "attention.output.LayerNorm",
        "mlp.up_gate_proj": ("intermediate.dense", "intermediate.gate"),
        "mlp.down_proj": "output.dense",
        "mlp_ln": "output.LayerNorm",
    },
    "without_bias": ("intermediate.dense", "intermediate.gate"),
    "fixed": {"layer_norm_type": ("layer_norm",)},
    "rotary": read_gte,
    "gated": True,
    "activations": {"gelu": "gelu", "silu": "silu"},
}

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
    "nomic_bert": Family(
        "NomicBert",
        "nomic_bert.",
        head=Head("pooler.dense", "classifier"),
        layers="encoder.layers",
        parts={
            "attn.Wqkv": _QKV,
            "attn.out_proj": "attention.output.dense",
            "norm1": "attention.output.LayerNorm",
            "mlp.fc11": "intermediate.dense",
            "mlp.fc12": "intermediate.gate",
            "mlp.fc2": "output.dense",
            "norm2": "output.LayerNorm",
        },
        around={"emb_ln": "embeddings.LayerNorm"},
        without_bias=(*_QKV, "attention.output.dense", "intermediate.dense", "intermediate.gate", "output.dense"),
        fields={
            "hidden_size": "n_embd",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "intermediate_size": "n_inner",
            "max_position_embeddings": "n_positions",
            "layer_norm_eps": "layer_norm_epsilon",
            "hidden_act": "activation_function",
        },
        also_bert_fields=True,
        # Settings of its own code; transformers has this one network.
        fixed={
            "prenorm": (False,),
            "parallel_block": (False,),
            "causal": (False,),
            "use_rms_norm": (False, None),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "qkv_proj_bias": (False,),
            "mlp_fc1_bias": (False,),
            "mlp_fc2_bias": (False,),
            "moe_every_n_layers": (None, 0),
        },
        rotary=read_nomic,
        gated=True,
        activations={"swiglu": "silu", "silu": "silu", "swish": "silu"},
        default_activation="silu",
    ),
    "gte": Family("Gte", "gte.", **_GTE),
    # The same as its authors' own code calls it.
    "new": Family("New", "new.", **_GTE, torch="Gte"),
    "modernbert": Family(
        "ModernBert",
        "model.",
        head=Head("head.dense", "classifier", "gelu", norm="head.norm", poolings=("cls", "mean"), biased=False),
        layers="layers",
        parts={
            "attn_norm": "attention.LayerNorm",
            "attn.Wqkv": _QKV,
            "attn.Wo": "attention.output.dense",
            "mlp_norm": "intermediate.LayerNorm",
            "mlp.Wi": ("intermediate.gate", "intermediate.dense"),
            "mlp.Wo": "output.dense",
        },
        around={
            "embeddings.tok_embeddings": "embeddings.word_embeddings",
            "embeddings.norm": "embeddings.LayerNorm",
            "final_norm": "final.LayerNorm",
        },
        without_bias=(*_QKV, "attention.output.dense", "intermediate.dense", "intermediate.gate", "output.dense"),
        fields={"layer_norm_eps": "norm_eps", "hidden_act": "hidden_activation"},
        fixed={
            "attention_bias": (False,),
            "mlp_bias": (False,),
            "norm_bias": (False,),
            "classifier_bias": (False,),
            "classifier_activation": ("gelu",),
        },
        harmless=("head.", "decoder."),
        token_types=False,
        default_epsilon=1e-5,
        rotary=read_modernbert_global,
        gated=True,
        pre_norm=True,
        local=read_modernbert_local,
        activations={"gelu": "gelu", "silu": "silu"},
        pooler=False,
    ),
}
