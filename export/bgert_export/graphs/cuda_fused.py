"""The fp16 graph of bgert's own operators on ONNX Runtime's CUDA provider (runtime/src/cuda_ops), on packed rows.

One product gives query, key and value of all heads, and attention reads them where they lie; biases and GELU belong to
the products, residual and LayerNorm are one pass over memory, and what leaves the model is made by one kernel. For CLS
pooling and rerankers the last layer asks, and goes on, for the first token of each text alone. Key biases are dropped
and value biases folded (see `bgert_export.network`). Weights stay [out, in], float16; a classifier is float32.

GELU is the tanh form where `exact_gelu` is false: cuBLAS has that one inside a product. It is within 4.7e-4 of erf's;
the exact one is a pass over memory of its own.

Inputs, all int32: `input_ids`, `position_ids` or `position_ids_without_padding`, and `token_type_ids`, [1, T], and
`cu_seqlens` [B + 1], as `bgert_export.graphs.cuda` describes them; nothing else.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from bgert_export.errors import UnsupportedCheckpointError
from bgert_export.graphs.builder import BGERT, FLOAT16, INT32, GraphBuilder
from bgert_export.graphs.head import activated, gemm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bgert_export.graphs.builder import Written
    from bgert_export.network import Network
    from bgert_export.projections import Projection

__all__ = ["IR_VERSION", "MINIMUM_ENGINE", "OPSET", "STEM", "write_encoder", "write_reranker"]

STEM = "cuda-fused-fp16"
OPSET = {"ai.onnx": 17, BGERT: 1}
IR_VERSION = 8
MINIMUM_ENGINE = "onnxruntime-gpu 1.31"
_HEAD_SIZES = (32, 64)  # that kernels of attention are compiled for
_MOST_COLUMNS = 4096


def write_encoder(
    network: Network,
    folder: Path,
    *,
    pooling: str,
    projections: Sequence[Projection] = (),
    normalize: bool,
    version: str,
    exact_gelu: bool = False,
) -> Written:
    """Write the graph of an embedding model, whose output is `embeddings` float32[B, H].

    Args:
        network: an encoder.
        folder: existing folder to write into.
        pooling: `cls` or `mean`.
        projections: dense layers behind it, which this graph does not have.
        normalize: divide by the L2 norm, or by 1e-12 where that is larger, as `torch.nn.functional.normalize`.
        version: bgert's version, for the graph's header.
        exact_gelu: erf's GELU, not its tanh form.

    Raises:
        UnsupportedCheckpointError: a weight overflows float16, a size is one that the operators do not take, or there
            is another pooling or a dense layer.
    """
    if pooling not in ("cls", "mean") or projections:
        what = "dense layers are" if projections else f"the pooling {pooling} is"
        raise UnsupportedCheckpointError(f"{what} not in the target cuda-fused: export the target cuda or cpu")
    with GraphBuilder(folder, STEM) as builder:
        body = _Body(builder, network, exact_gelu)
        rows = body.cls_rows() if pooling == "cls" else body.all_rows()
        output = body.pool(rows, "embeddings", mean=pooling == "mean", normalize=normalize)
        return builder.finish_model(
            output,
            network.architecture.hidden_size,
            name="encoder",
            version=version,
            opset=OPSET,
            ir_version=IR_VERSION,
        )


def write_reranker(network: Network, folder: Path, *, version: str, exact_gelu: bool = False) -> Written:
    """Write the graph of a sequence classifier, whose output is `logits` float32[B, labels]: raw, no sigmoid.

    Raises:
        UnsupportedCheckpointError: as `write_encoder`.
    """
    arch = network.architecture
    with GraphBuilder(folder, STEM) as builder:
        body = _Body(builder, network, exact_gelu)
        dense = arch.head.dense
        pooled = body.pool(body.cls_rows(), "cls.float32", mean=False, normalize=False)
        hidden = activated(builder, body.head(pooled, dense, dense), dense, arch.head.activation)
        output = body.head(hidden, arch.head.out, "logits")
        return builder.finish_model(
            output, arch.num_labels or 0, name="reranker", version=version, opset=OPSET, ir_version=IR_VERSION
        )


class _Body:
    """Embeddings and transformer layers, [T, H] between them."""

    def __init__(self, builder: GraphBuilder, network: Network, exact_gelu: bool) -> None:
        arch = network.architecture
        size = arch.hidden_size // arch.num_attention_heads
        if size not in _HEAD_SIZES or size * arch.num_attention_heads != arch.hidden_size:
            raise UnsupportedCheckpointError(
                f"attention heads of {size} do not fit the target cuda-fused, which takes "
                f"{' and '.join(map(str, _HEAD_SIZES))}: use the target cuda"
            )
        if arch.hidden_size > _MOST_COLUMNS or arch.intermediate_size % 8:
            raise UnsupportedCheckpointError(
                f"the target cuda-fused takes hidden sizes up to {_MOST_COLUMNS} and a feed-forward size that is a "
                f"multiple of 8, not {arch.hidden_size} and {arch.intermediate_size}: use the target cuda"
            )
        arch.require_gelu("the target cuda-fused")
        arch.require_absolute_positions("the target cuda-fused")
        arch.require_table_of_positions("the target cuda-fused")
        self._b = builder
        self._net = network
        self._shapes = arch.weight_shapes()
        self._gelu = "LinearGeluFp16" if exact_gelu else "LinearGeluTanhFp16"
        self._ids = builder.input("input_ids", INT32, [1, "tokens"])
        self._cu_seqlens = builder.input("cu_seqlens", INT32, ["texts + 1"])
        self._tiles = ""

    def all_rows(self) -> str:
        """The last hidden state of every token, float16[T, H]."""
        rows = self._embeddings()
        for layer in range(self._net.architecture.num_hidden_layers):
            rows = self._tail(self._attention(rows, layer), rows, layer)
        return rows

    def cls_rows(self) -> str:
        """The last hidden state of the first token of every text, float16[B, H]."""
        last = self._net.architecture.num_hidden_layers - 1
        rows = self._embeddings()
        for layer in range(last):
            rows = self._tail(self._attention(rows, layer), rows, layer)
        first = self._node("FirstRowsFp16", [rows, self._cu_seqlens], "cls.rows")
        at = f"encoder.layer.{last}.attention"
        query = self._linear(first, f"{at}.self.query", ["query"], last)
        told = self._linear(rows, f"{at}.self.key_value", ["key", "value"], last)
        context = self._node("FirstTokenAttentionFp16", [query, told, self._cu_seqlens], f"{at}.context", heads=True)
        return self._tail(context, first, last)

    def pool(self, rows: str, output: str, *, mean: bool, normalize: bool) -> str:
        """Rows of texts, float32[B, H]: means of float16[T, H], or float16[B, H] as they are."""
        attributes = {"mean": int(mean), "normalize": int(normalize)}
        return self._b.node("PoolFp16", [rows, self._cu_seqlens], output, attributes=attributes, domain=BGERT)

    def head(self, rows: str, name: str, output: str) -> str:
        """A float32 linear layer of the classifier."""
        return gemm(self._b, self._net, rows, name, output)

    def _embeddings(self) -> str:
        b, net = self._b, self._net
        skips_padding = net.architecture.position_offset > 0
        index = b.input("position_ids_without_padding" if skips_padding else "position_ids", INT32, [1, "tokens"])
        table = net.position_table()
        positions = b.weight("embeddings.positions_and_types", table.shape, [table], FLOAT16)
        at = "embeddings.LayerNorm"
        told = [
            self._ids, index, self._weight("embeddings.word_embeddings.weight"), positions,
            self._weight(f"{at}.weight"), self._weight(f"{at}.bias"),
        ]  # fmt: skip
        attributes = {"epsilon": net.architecture.layer_norm_eps}
        if net.token_types == 1:
            return b.node("EmbeddingLayerNormFp16", told, at, attributes=attributes, domain=BGERT)
        told.append(b.input("token_type_ids", INT32, [1, "tokens"]))
        attributes["rows_a_type"] = len(table) // net.token_types
        return b.node("TypedEmbeddingLayerNormFp16", told, at, attributes=attributes, domain=BGERT)

    def _attention(self, rows: str, layer: int) -> str:
        """Attention of every token over its own text, before the output projection, [T, H]."""
        at = f"encoder.layer.{layer}.attention"
        if not self._tiles:
            self._tiles = self._node("AttentionTiles", [self._cu_seqlens, self._ids], "attention.tiles")
        packed = self._linear(rows, f"{at}.self.query_key_value", ["query", "key", "value"], layer)
        told = [packed, self._cu_seqlens, self._tiles]
        return self._node("PackedSelfAttentionFp16", told, f"{at}.context", heads=True)

    def _tail(self, context: str, residual: str, layer: int) -> str:
        """Attention's output projection and the feed-forward network, each with residual and LayerNorm."""
        at, b = f"encoder.layer.{layer}", self._b
        name = f"{at}.attention.output"
        bias = self._net.attention_output_bias(layer)
        folded = b.weight(f"{name}.dense.bias", bias.shape, [bias], FLOAT16)
        projected = self._product("LinearFp16", context, f"{name}.dense", folded)
        attended = self._add_layer_norm(projected, residual, f"{name}.LayerNorm")
        name = f"{at}.intermediate.dense"
        wide = self._product(self._gelu, attended, name, self._weight(f"{name}.bias"))
        name = f"{at}.output"
        narrow = self._product("LinearFp16", wide, f"{name}.dense", self._weight(f"{name}.dense.bias"))
        return self._add_layer_norm(narrow, attended, f"{name}.LayerNorm")

    def _linear(self, rows: str, name: str, parts: list[str], layer: int) -> str:
        """One product for some of query, key and value; of their biases the query's alone is left."""
        net, b = self._net, self._b
        names = [f"encoder.layer.{layer}.attention.self.{part}" for part in parts]
        width = net.architecture.hidden_size
        shape = (width * len(parts), width)
        weight = b.weight(
            f"{name}.weight", shape, chain.from_iterable(net.blocks(f"{part}.weight") for part in names), FLOAT16
        )
        bias = np.zeros(shape[0], np.float32)
        if "query" in parts:
            bias[:width] = net.read(f"{names[0]}.bias")
        return self._node("LinearFp16", [rows, weight, b.weight(f"{name}.bias", bias.shape, [bias], FLOAT16)], name)

    def _product(self, operator: str, rows: str, name: str, bias: str) -> str:
        return self._node(operator, [rows, self._weight(f"{name}.weight"), bias], name)

    def _add_layer_norm(self, rows: str, residual: str, name: str) -> str:
        return self._b.node(
            "AddLayerNormFp16",
            [rows, residual, self._weight(f"{name}.weight"), self._weight(f"{name}.bias")],
            name,
            attributes={"epsilon": self._net.architecture.layer_norm_eps},
            domain=BGERT,
        )

    def _node(self, operator: str, inputs: list[str], output: str, *, heads: bool = False) -> str:
        attributes = {"num_heads": self._net.architecture.num_attention_heads} if heads else {}
        return self._b.node(operator, inputs, output, attributes=attributes, domain=BGERT)

    def _weight(self, name: str) -> str:
        return self._b.weight(name, self._shapes[name], self._net.blocks(name), FLOAT16)
