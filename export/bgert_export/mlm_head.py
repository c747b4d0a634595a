"""The head of a masked language model, of which SPLADE models make their sparse vectors.

A layer of the hidden size, its activation and a LayerNorm, then a score for every id of the vocabulary. Sources: the
classes `...ForMaskedLM` of these families in transformers 5.23.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bgert_export.errors import CheckpointError, UnsupportedCheckpointError
from bgert_export.weights import read_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bgert_export.network import Network

    Array = NDArray[np.float32]

__all__ = ["MlmHead", "read_mlm_head"]


class _Names(NamedTuple):
    dense: str
    norm: str
    decoder: str
    bias: str
    own_activation: bool = True
    """Whether config.json says the activation; the others have exact GELU."""


_LM_HEAD = _Names("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias", own_activation=False)
_NAMES = {
    "bert": _Names(
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.decoder",
        "cls.predictions.bias",
    ),
    "distilbert": _Names("vocab_transform", "vocab_layer_norm", "vocab_projector", "vocab_projector.bias"),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert", "mpnet"), _LM_HEAD),
}


@dataclass(frozen=True)
class MlmHead:
    """Arrays are float32; linear weights are [out, in]."""

    dense: tuple[Array, Array]
    """Weight [H, H] and bias [H]."""
    activation: str
    """As `Architecture.activation`."""
    norm: tuple[Array, Array]
    """LayerNorm's weight and bias, [H]."""
    epsilon: float
    decoder: tuple[Array, Array]
    """Weight [V, H] and bias [V]."""
    used: frozenset[str]
    """The checkpoint's names of these weights."""


def read_mlm_head(network: Network, config: Mapping[str, Any]) -> MlmHead:
    """The head of a checkpoint of a class `...ForMaskedLM`.

    Raises:
        UnsupportedCheckpointError: a family whose head is another.
        CheckpointError: the checkpoint has no such head, or a weight of it is damaged or has another shape.
    """
    arch = network.architecture
    names = _NAMES.get(arch.model_type)
    if names is None:
        raise UnsupportedCheckpointError(
            f"the head of {arch.model_type}'s masked language model is not supported: bgert has those of "
            + ", ".join(_NAMES)
        )
    hidden, size = arch.hidden_size, arch.vocab_size
    reader = _Reader(network)
    words = "embeddings.word_embeddings.weight"
    # What is not tied has a weight and a bias of the decoder's own, whatever else is there.
    tied = config.get("tie_word_embeddings", True)
    decoder = network.read(words) if tied else reader.read(f"{names.decoder}.weight", (size, hidden))
    places = [names.bias, f"{names.decoder}.bias"][:: 1 if tied else -1]
    bias = next((name for name in places if reader.has(name)), places[0])
    return MlmHead(
        dense=(reader.read(f"{names.dense}.weight", (hidden, hidden)), reader.read(f"{names.dense}.bias", (hidden,))),
        activation=arch.activation if names.own_activation else "gelu",
        norm=(reader.read(f"{names.norm}.weight", (hidden,)), reader.read(f"{names.norm}.bias", (hidden,))),
        epsilon=arch.layer_norm_eps,
        decoder=(decoder, reader.read(bias, (size,))),
        used=frozenset(reader.used),
    )


class _Reader:
    """Weights by the names that Hugging Face gives them outside of the encoder."""

    def __init__(self, network: Network) -> None:
        self._weights = network.weights
        self._actual = {_modern(name): name for name in network.weights.shapes}
        self.used: set[str] = set()

    def has(self, name: str) -> bool:
        return name in self._actual

    def read(self, name: str, shape: tuple[int, ...]) -> Array:
        actual = self._actual.get(name)
        if actual is None:
            raise CheckpointError(
                f"the checkpoint has no weight {name}: it is no masked language model, as SPLADE needs"
            )
        if (found := self._weights.shapes[actual]) != shape:
            raise CheckpointError(f"the weight {actual} has shape {list(found)}, config.json asks for {list(shape)}")
        value = read_whole(self._weights, actual)
        if not np.isfinite(value).all():
            raise CheckpointError(f"the weight {actual} has NaN or infinity: the checkpoint is damaged")
        self.used.add(actual)
        return value


def _modern(name: str) -> str:
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
