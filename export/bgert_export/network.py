"""A checkpoint's network under logical weight names, with everything that is constant folded together.

The folds, shared by all graph writers:

- Token-type rows are added to the position table: one lookup instead of two. A graph for single texts needs row 0
  alone; a graph for pairs gets one copy of the table a type.
- The key bias is dropped: `q . (k + b)` adds `q . b` to every score of a row, and softmax ignores what is equal in
  a row. Not so where positions turn keys: then it is another number for each of them.
- The value bias moves into the bias of attention's output: the weights of a softmax sum to one, so
  `sum(p * (v + b)) @ Wo + c = sum(p * v) @ Wo + (b @ Wo + c)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bgert_export.errors import CheckpointError
from bgert_export.weights import read_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bgert_export.architecture import Architecture, WeightMap
    from bgert_export.weights import Weights

    Array = NDArray[np.float32]

__all__ = ["Network", "relative_buckets"]


@dataclass(frozen=True)
class Network:
    """Architecture and weights. Arrays are float32; linear weights are [out, in]."""

    architecture: Architecture
    weights: Weights
    weight_map: WeightMap
    all_types: bool = False
    """An encoder's inputs tell types apart too."""

    def blocks(self, name: str) -> Iterator[Array]:
        """A weight in consecutive blocks along its first axis."""
        if name in self.weight_map.rows:
            return iter([self.read(name)])
        return self.weights.blocks(self.weight_map.names[name])

    def read(self, name: str) -> Array:
        """A whole weight."""
        whole = read_whole(self.weights, self.weight_map.names[name])
        first, last = self.weight_map.rows.get(name, (0, len(whole)))
        return whole[first:last]

    def bias(self, name: str) -> Array:
        """The bias of a linear layer or a LayerNorm, zeros where the network has none."""
        if f"{name}.bias" in self.weight_map.names:
            return self.read(f"{name}.bias")
        return np.zeros(self.architecture.weight_shapes()[f"{name}.weight"][0], np.float32)

    def key_bias(self, layer: int) -> Array | None:
        """float32[H] where it changes anything, see above; else None."""
        name = f"encoder.layer.{layer}.attention.self.key"
        turned = self.architecture.rotary is not None and f"{name}.bias" in self.weight_map.names
        return self.read(f"{name}.bias") if turned else None

    def check_finite(self) -> None:
        """Read every weight once and look for NaN and infinity: in the row of a rare word no text would show them.

        Raises:
            CheckpointError: there is one; the message names the weight and the row.
        """
        for actual in dict.fromkeys(self.weight_map.names.values()):
            first = 0
            for block in self.weights.blocks(actual):
                finite = np.isfinite(block).reshape(len(block), -1).all(axis=1)
                if not finite.all():
                    raise CheckpointError(
                        f"the weight {actual} has NaN or infinity in row {first + int(finite.argmin())}: the "
                        "checkpoint is damaged, or its training diverged"
                    )
                first += len(block)

    @property
    def token_types(self) -> int:
        """Token types that inputs tell apart: encoders read single texts, which are all of type 0."""
        return self.architecture.type_vocab_size if self.all_types or self.architecture.kind == "reranker" else 1

    def position_table(self) -> Array:
        """float32[token_types * P, H]: row `t * P + p` is row p of the positions plus row t of the token types.

        BERT: P is max_tokens, and p the position from 0. Where positions skip padding tokens: P is max_tokens + 1; row
        0 is for padding, and positions count from 1. Rotary positions: P is 1, the token types alone.
        """
        if self.architecture.rotary is not None:
            if not self.architecture.reads_token_types:
                return np.zeros((1, self.architecture.hidden_size), np.float32)
            return self.read("embeddings.token_type_embeddings.weight")[: self.token_types]
        positions = self.read("embeddings.position_embeddings.weight").astype(np.float64)
        positions = positions[max(0, self.architecture.position_offset - 1) :]
        if not self.architecture.reads_token_types:
            return positions.astype(np.float32)
        rows = self.read("embeddings.token_type_embeddings.weight").astype(np.float64)[: self.token_types]
        return (rows[:, None, :] + positions).reshape(-1, positions.shape[1]).astype(np.float32)

    def relative_bias(self) -> Array | None:
        """float32[heads, 2 * max_tokens - 1]: what attention adds to a score by how far the key is from the query.

        Column `max_tokens - 1 + j - i` is for key j and query i. None for networks without such a bias.
        """
        arch = self.architecture
        if arch.relative_attention_num_buckets is None or arch.family.relative_bias is None:
            return None
        distances = np.arange(1 - arch.max_tokens, arch.max_tokens)
        table = self.read(arch.family.relative_bias)
        return np.ascontiguousarray(table[relative_buckets(distances, arch.relative_attention_num_buckets)].T)

    def attention_output_bias(self, layer: int) -> Array:
        """float32[H]: bias of attention's output with the value bias folded in."""
        at = f"encoder.layer.{layer}.attention."
        value = self.bias(f"{at}self.value").astype(np.float64)
        output = self.bias(f"{at}output.dense").astype(np.float64)
        folded = output + self.read(f"{at}output.dense.weight").astype(np.float64) @ value
        return folded.astype(np.float32)


def relative_buckets(distances: NDArray[np.int64], buckets: int, furthest: int = 128) -> NDArray[np.int64]:
    """Rows of the table for the distances from a query to its keys: one each for near ones, shared by far ones.

    `MPNetEncoder.relative_position_bucket` of transformers, in float32 as there: where a logarithm falls on a whole
    number, a rounding decides. It goes back to T5 (arXiv:1910.10683, section 2.1).
    """
    half = buckets // 2
    exact = half // 2
    near = np.abs(distances)
    logs = np.log(np.maximum(near, 1).astype(np.float32) / np.float32(exact))
    far = logs / np.float32(math.log(furthest / exact)) * np.float32(half - exact)
    bucket = np.where(near < exact, near, np.minimum(exact + far.astype(np.int64), half - 1))
    return np.where(distances > 0, half, 0) + bucket
