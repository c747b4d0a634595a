"""The fp32 graph for ONNX Runtime's CPU provider: packed rows throughout, no padding anywhere.

Every layer sees the tokens of all texts end to end, [T, H]. Matrices are ONNX Gemm, with weights as [out, in] and
`transB`, which ONNX Runtime packs once when it loads them, so nothing is transposed here; one each for query, key and
value, because one for all three costs a copy to split them. The rest are bgert's own operators (domain `bgert`,
runtime/src/kernels): attention over packed rows, residual + LayerNorm, GELU and mean pooling.

Inputs, all int32: `input_ids` [T], `position_ids` [T] (from 0 in each text), `cu_seqlens` [B + 1] (text b is the rows
from `cu_seqlens[b]` to `cu_seqlens[b + 1]`), and where the graph needs them `cls_rows` [B] (row of each text's first
token) and `token_type_ids` [T].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bgert_export.graphs.builder import BGERT, FLOAT, INT32, GraphBuilder

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert_export.network import Network

__all__ = ["IR_VERSION", "MINIMUM_ENGINE", "OPSET", "STEM", "Written", "write_encoder", "write_reranker"]

STEM = "cpu-fp32"
OPSET = {"ai.onnx": 17, BGERT: 1}
IR_VERSION = 8
MINIMUM_ENGINE = "onnxruntime 1.20"


@dataclass(frozen=True)
class Written:
    """What a writer wrote."""

    files: list[str]
    """Names in the folder, the graph first."""
    inputs: list[str]
    output: str


def write_encoder(network: Network, folder: Path, *, pooling: str, normalize: bool, version: str) -> Written:
    """Write the graph of an embedding model, whose output is `embeddings` float32[B, H].

    Args:
        network: an encoder.
        folder: existing folder to write into.
        pooling: `cls` or `mean`.
        normalize: divide by the L2 norm, or by 1e-12 where that is larger, as `torch.nn.functional.normalize`.
        version: bgert's version, for the graph's header.
    """
    with GraphBuilder(folder, STEM) as builder:
        body = _Body(builder, network)
        pooled = body.cls_rows() if pooling == "cls" else body.mean_rows()
        output = _normalized(builder, pooled) if normalize else builder.node("Identity", [pooled], "embeddings")
        return _finish(builder, output, network.architecture.hidden_size, "encoder", version)


def write_reranker(network: Network, folder: Path, *, version: str) -> Written:
    """Write the graph of a sequence classifier, whose output is `logits` float32[B, labels]: raw, no sigmoid.

    BERT's pooler + classifier and XLM-RoBERTa's head are the same two layers on the first token: tanh, then linear.
    """
    arch = network.architecture
    with GraphBuilder(folder, STEM) as builder:
        body = _Body(builder, network)
        dense, out = arch.head_names()
        hidden = builder.node("Tanh", [body.linear(body.cls_rows(), dense)], f"{dense}.tanh")
        output = builder.node("Identity", [body.linear(hidden, out)], "logits")
        return _finish(builder, output, arch.num_labels or 0, "reranker", version)


def _finish(builder: GraphBuilder, output: str, columns: int, name: str, version: str) -> Written:
    builder.output(output, FLOAT, ["texts", columns])
    files = builder.finish(name=name, producer_version=version, opset=OPSET, ir_version=IR_VERSION)
    return Written(files, builder.input_names, output)


class _Body:
    """Embeddings and transformer layers. `all_rows` and `cls_rows` emit the last layer in two ways."""

    def __init__(self, builder: GraphBuilder, network: Network) -> None:
        self._b = builder
        self._net = network
        self._shapes = network.architecture.weight_shapes()
        self._hidden = network.architecture.hidden_size
        self._ids = builder.input("input_ids", INT32, ["tokens"])
        self._positions = builder.input("position_ids", INT32, ["tokens"])
        self._cu_seqlens = builder.input("cu_seqlens", INT32, ["texts_and_one"])

    def mean_rows(self) -> str:
        """The mean of the last hidden states of each text, [B, H]."""
        rows = self._embeddings()
        for layer in range(self._net.architecture.num_hidden_layers):
            rows = self._layer(rows, layer)
        return self._b.node("MeanPool", [rows, self._cu_seqlens], "mean", domain=BGERT)

    def cls_rows(self) -> str:
        """The last hidden state of the first token of every text, [B, H].

        In the last layer only that token asks, so query, output and feed-forward are computed for it alone.
        """
        last = self._net.architecture.num_hidden_layers - 1
        rows = self._embeddings()
        for layer in range(last):
            rows = self._layer(rows, layer)
        cls_rows = self._b.input("cls_rows", INT32, ["texts"])
        asking = self._b.node("Gather", [rows, cls_rows], "cls")
        query = self.linear(asking, f"encoder.layer.{last}.attention.self.query")
        return self._tail(self._attention(query, rows, last), asking, last)

    def linear(self, rows: str, name: str) -> str:
        """`rows @ weight.T + bias`."""
        return self._gemm(rows, name, self._net.read(f"{name}.bias"))

    def _embeddings(self) -> str:
        b, net = self._b, self._net
        table = net.position_table()
        positions = b.weight("embeddings.positions_and_types", table.shape, [table])
        index = self._positions
        if net.architecture.model_type == "xlm-roberta":
            index = self._positions_without_padding()
        if net.token_types > 1:
            types = b.input("token_type_ids", INT32, ["tokens"])
            stride = b.constant("embeddings.type_stride", np.array(len(table) // net.token_types, np.int32))
            first = b.node("Mul", [types, stride], "embeddings.first_position")
            index = b.node("Add", [first, index], "embeddings.index")
        word_rows = b.node("Gather", [self._weight("embeddings.word_embeddings.weight"), self._ids], "embeddings.words")
        position_rows = b.node("Gather", [positions, index], "embeddings.positions")
        return self._add_layer_norm(word_rows, position_rows, "embeddings.LayerNorm")

    def _positions_without_padding(self) -> str:
        """Rows of XLM-RoBERTa's position table, which does not count padding tokens.

        They occur in a packed text only where someone wrote `<pad>` into it. As transformers'
        `create_position_ids_from_input_ids`: tokens count from 1, padding tokens have row 0.
        """
        b = self._b
        pad = b.constant("positions.pad", np.array(self._net.architecture.pad_token_id, np.int32))
        is_pad = b.node("Equal", [self._ids, pad], "positions.is_pad")
        counted = b.node(
            "Cast", [b.node("Not", [is_pad], "positions.counts")], "positions.one", attributes={"to": INT32}
        )
        zero, one = (b.constant(f"positions.{n}", np.array(n, np.int64)) for n in (0, 1))
        so_far = b.node("CumSum", [counted, zero], "positions.so_far")
        before = b.node("Sub", [so_far, counted], "positions.before")
        # A token's text starts as many rows before it as its position says.
        count = b.node("Squeeze", [b.node("Shape", [self._ids], "positions.shape")], "positions.count")
        rows = b.node("Range", [zero, count, one], "positions.rows")
        rows = b.node("Cast", [rows], "positions.rows.int32", attributes={"to": INT32})
        starts = b.node("Sub", [rows, self._positions], "positions.starts")
        earlier = b.node("Gather", [before, starts], "positions.earlier")
        position = b.node("Sub", [so_far, earlier], "positions.position")
        return b.node("Mul", [position, counted], "positions.index")

    def _layer(self, rows: str, layer: int) -> str:
        """One transformer layer over every token, [T, H] to [T, H]."""
        query = self.linear(rows, f"encoder.layer.{layer}.attention.self.query")
        return self._tail(self._attention(query, rows, layer), rows, layer)

    def _attention(self, query: str, rows: str, layer: int) -> str:
        """Attention of every token, or of one a text, over the tokens of its own text: like `query`."""
        at = f"encoder.layer.{layer}.attention"
        key, value = (self._gemm(rows, f"{at}.self.{part}", None) for part in ("key", "value"))
        return self._b.node(
            "PackedAttention",
            [query, key, value, self._cu_seqlens],
            f"{at}.context",
            attributes={"num_heads": self._net.architecture.num_attention_heads},
            domain=BGERT,
        )

    def _tail(self, context: str, residual: str, layer: int) -> str:
        """Attention's output projection and the feed-forward network, each with residual and LayerNorm."""
        at, b = f"encoder.layer.{layer}", self._b
        projected = self._gemm(context, f"{at}.attention.output.dense", self._net.attention_output_bias(layer))
        attended = self._add_layer_norm(projected, residual, f"{at}.attention.output.LayerNorm")
        wide = self.linear(attended, f"{at}.intermediate.dense")
        wide = b.node("Gelu", [wide], f"{at}.intermediate.gelu", domain=BGERT)
        narrow = self.linear(wide, f"{at}.output.dense")
        return self._add_layer_norm(narrow, attended, f"{at}.output.LayerNorm")

    def _gemm(self, rows: str, name: str, bias: NDArray[np.float32] | None) -> str:
        inputs = [rows, self._weight(f"{name}.weight")]
        if bias is not None:
            inputs.append(self._b.weight(f"{name}.bias", bias.shape, [bias]))
        return self._b.node("Gemm", inputs, name, attributes={"transB": 1})

    def _add_layer_norm(self, rows: str, residual: str, name: str) -> str:
        inputs = [rows, residual, self._weight(f"{name}.weight"), self._weight(f"{name}.bias")]
        attributes = {"epsilon": self._net.architecture.layer_norm_eps}
        return self._b.node("AddLayerNorm", inputs, name, attributes=attributes, domain=BGERT)

    def _weight(self, name: str) -> str:
        return self._b.weight(name, self._shapes[name], self._net.blocks(name))


def _normalized(b: GraphBuilder, rows: str) -> str:
    norm = b.node("ReduceL2", [rows], "norm", attributes={"axes": [1], "keepdims": 1})
    least = b.constant("norm.least", np.array(1e-12, np.float32))
    return b.node("Div", [rows, b.node("Max", [norm, least], "norm.safe")], "embeddings")
