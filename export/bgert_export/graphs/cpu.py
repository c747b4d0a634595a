"""The graphs for ONNX Runtime's CPU provider: packed rows throughout, no padding anywhere.

Every layer sees the tokens of all texts end to end, [T, H]. Matrices are written by `linears.py` in the precision that
is asked for; one each for query, key and value, because one for all three costs a copy to split them. The rest is
float32 and mostly bgert's own operators (domain `bgert`, runtime/src/cpu_ops): attention over packed rows,
residual + LayerNorm, GELU, mean and maximum.

Inputs, all int32: `input_ids` [T], `position_ids` [T] (from 0 in each text), `cu_seqlens` [B + 1] (text b is the rows
from `cu_seqlens[b]` to `cu_seqlens[b + 1]`), and where the graph needs them `cls_rows` [B] (row of each text's first
token) and `token_type_ids` [T].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bgert_export.graphs.builder import BGERT, INT32, GraphBuilder
from bgert_export.graphs.head import activated, projected
from bgert_export.graphs.linears import Fp32Linears
from bgert_export.graphs.packed_pooling import PackedPooling
from bgert_export.graphs.splade import splade_rows
from bgert_export.pooling import modes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bgert_export.graphs.builder import Written
    from bgert_export.graphs.head import Linear
    from bgert_export.graphs.linears import Linears
    from bgert_export.mlm_head import MlmHead
    from bgert_export.network import Network
    from bgert_export.projections import Projection
    from bgert_export.rotary import Rotary
    from bgert_export.token_heads import TokenHead

    MakeLinears = Callable[[GraphBuilder, Network], Linears]

__all__ = ["IR_VERSION", "MINIMUM_ENGINE", "OPSET", "write_encoder", "write_reranker"]

OPSET = {"ai.onnx": 17, BGERT: 1}
IR_VERSION = 8
MINIMUM_ENGINE = "onnxruntime 1.20"


def write_encoder(
    network: Network,
    folder: Path,
    stem: str = "cpu-fp32",
    linears: MakeLinears = Fp32Linears,
    *,
    pooling: str,
    projections: Sequence[Projection] = (),
    heads: Sequence[TokenHead] = (),
    mlm_head: MlmHead | None = None,
    seen: bool = False,
    normalize: bool,
    version: str,
) -> Written:
    """Write the graph of an embedding model, whose output is `embeddings` float32[B, columns].

    Args:
        network: an encoder.
        folder: existing folder to write into.
        stem: the graph becomes `{stem}.onnx`, its weights `{stem}.onnx.data`.
        linears: makes what writes the matrices.
        pooling: as `bgert_export.pooling`.
        projections: dense layers behind it.
        mlm_head: for SPLADE's poolings; `embeddings` are then float32[B, V].
        heads: what is given for every token besides, float32[T, columns] each. Of the pooling `multi_vector` it is one,
            and `embeddings` are the means of a text's vectors, for checks alone.
        seen: an input `seen` int32[B] says how many tokens of each text attention sees.
        normalize: divide by the L2 norm, or by 1e-12 where that is larger, as `torch.nn.functional.normalize`.
        version: bgert's version, for the graph's header.
    """
    with GraphBuilder(folder, stem) as builder:
        body = _Body(builder, network, linears, seen=seen)
        dense = Fp32Linears(builder, network).dense
        rows = body.all_rows() if heads or mlm_head else None
        given = [(head, _token_rows(builder, str(rows), head, dense)) for head in heads]
        if pooling == "multi_vector":
            pooled, columns, normalize = body.means(given[0][1], "mean"), heads[0].entry.columns, False
        elif mlm_head is not None:
            pool = body.sums if pooling == "splade_sum" else body.maxima
            pooled = splade_rows(builder, str(rows), mlm_head, pooling, dense, pool)
            columns = network.architecture.vocab_size
        else:
            modes = modes_of(pooling)
            pooled = projected(builder, body.pooled(modes, rows), projections, dense)
            columns = projections[-1].columns if projections else len(modes) * network.architecture.hidden_size
        output = _normalized(builder, pooled) if normalize else builder.node("Identity", [pooled], "embeddings")
        return builder.finish_model(
            output,
            columns,
            name="encoder",
            version=version,
            opset=OPSET,
            ir_version=IR_VERSION,
            token_outputs={head.entry.output: head.entry.columns for head in heads},
        )


def _token_rows(builder: GraphBuilder, rows: str, head: TokenHead, dense: Linear) -> str:
    """What a head gives for every token, as the output that its entry names."""
    given = projected(builder, rows, head.projections, dense, f"{head.entry.name}.dense")
    if head.normalize:
        return _normalized(builder, given, head.entry.output, f"{head.entry.name}.norm")
    return builder.node("Identity", [given], head.entry.output)


def write_reranker(
    network: Network,
    folder: Path,
    stem: str = "cpu-fp32",
    linears: MakeLinears = Fp32Linears,
    *,
    version: str,
) -> Written:
    """Write the graph of a sequence classifier, whose output is `logits` float32[B, labels]: raw, no sigmoid.

    BERT's pooler + classifier and the heads of the others are two layers on the first token.
    """
    arch = network.architecture
    with GraphBuilder(folder, stem) as builder:
        body = _Body(builder, network, linears)
        dense, out = arch.head.dense, arch.head.out
        head = Fp32Linears(builder, network)
        pooled = body.pooled([arch.head_pooling])
        hidden = head.linear(pooled, dense, network.bias(dense))
        hidden = activated(builder, hidden, dense, arch.head.activation)
        if (norm := arch.head.norm) is not None:
            bias = network.bias(norm)
            parts = [head.weight(f"{norm}.weight"), builder.weight(f"{norm}.bias", bias.shape, [bias])]
            attributes = {"axis": -1, "epsilon": arch.layer_norm_eps}
            hidden = builder.node("LayerNormalization", [hidden, *parts], norm, attributes=attributes)
        scores = head.linear(hidden, out, network.read(f"{out}.bias"))
        output = builder.node("Identity", [scores], "logits")
        return builder.finish_model(
            output, arch.num_labels or 0, name="reranker", version=version, opset=OPSET, ir_version=IR_VERSION
        )


class _Body:
    """Embeddings and transformer layers. `all_rows` and `cls_rows` write the last layer in two ways.

    Between layers go pairs: the float32 rows, which are added to what a layer computes from them, and the operand that
    its matrices read.
    """

    def __init__(self, builder: GraphBuilder, network: Network, linears: MakeLinears, *, seen: bool = False) -> None:
        self._b = builder
        self._net = network
        self._linears = linears(builder, network)
        self._last = network.architecture.num_hidden_layers - 1
        self._ids = builder.input("input_ids", INT32, ["tokens"])
        self._positions = builder.input("position_ids", INT32, ["tokens"])
        self._cu_seqlens = builder.input("cu_seqlens", INT32, ["texts_and_one"])
        bias = network.relative_bias()
        self._relative_bias = [] if bias is None else [builder.weight("relative_bias", bias.shape, [bias])]
        self._seen = [builder.input("seen", INT32, ["texts"])] if seen else []
        self._turns: dict[Rotary, str] = {}  # tables of the angles in use

    def pooled(self, modes: list[str], rows: str | None = None) -> str:
        """One row a text of its last hidden states, [B, H * modes]; of `rows`, where those are there already."""
        if rows is None and modes == ["cls"]:
            return self.cls_rows()
        if rows is None and modes == ["lasttoken"]:
            return self._rows_at(self._pooling().last_rows(), "last")
        return self._pooling().pooled(rows or self.all_rows(), modes)

    def all_rows(self) -> str:
        """The last hidden state of every token, [T, H]."""
        rows, operand = self._before_last()
        return self._layer(rows, operand, operand, self._last, self._positions)[0]

    def cls_rows(self) -> str:
        """The last hidden state of the first token of every text, [B, H]."""
        return self._rows_at(self._first_rows(), "cls")

    def _rows_at(self, index: str, name: str) -> str:
        """The last hidden state of one token a text, whose row `index` says.

        In the last layer only that token asks, so query, output and feed-forward are computed for it alone, unless the
        layer sees neighbours alone.
        """
        rows, operand = self._before_last()
        if self._net.architecture.window_of(self._last) is not None:
            rows, _ = self._layer(rows, operand, operand, self._last, self._positions)
            return self._b.node("Gather", [rows, index], name)
        asking_rows, asking = self._linears.gather(rows, operand, index, name)
        rotary = self._net.architecture.rotary is not None
        positions = self._b.node("Gather", [self._positions, index], f"{name}.positions") if rotary else ""
        return self._layer(asking_rows, asking, operand, self._last, positions)[0]

    def _first_rows(self) -> str:
        return self._b.input("cls_rows", INT32, ["texts"])

    def maxima(self, rows: str, name: str) -> str:
        """The largest of each text's rows, [T, N] to [B, N]."""
        return self._b.node("MaxPool", [rows, self._cu_seqlens], name, domain=BGERT)

    def sums(self, rows: str, name: str) -> str:
        """The sum of each text's rows, [T, N] to [B, N]."""
        return self._pooling().sums(rows, name)

    def means(self, rows: str, name: str) -> str:
        """The mean of each text's rows, [T, N] to [B, N]."""
        return self._b.node("MeanPool", [rows, self._cu_seqlens], name, domain=BGERT)

    def _pooling(self) -> PackedPooling:
        return PackedPooling(
            self._b, self._cu_seqlens, self.means, self.maxima, self._first_rows, lambda: self._positions
        )

    def _before_last(self) -> tuple[str, str]:
        rows, operand = self._embeddings()
        for layer in range(self._last):
            rows, operand = self._layer(rows, operand, operand, layer, self._positions)
        return rows, operand

    def _layer(self, rows: str, asking: str, told: str, layer: int, positions: str) -> tuple[str, str]:
        """One transformer layer for `rows` at `positions`, whose operand is `asking`, over the tokens of `told`."""
        at, linears, net = f"encoder.layer.{layer}", self._linears, self._net
        attention = f"{at}.attention"
        query = linears.linear(asking, f"{attention}.self.query", net.bias(f"{attention}.self.query"))
        key = linears.linear(told, f"{attention}.self.key", net.key_bias(layer))
        value = linears.linear(told, f"{attention}.self.value", None)
        if (rotary := net.architecture.rotary_of(layer)) is not None:
            query, key = self._turned(query, positions, rotary), self._turned(key, self._positions, rotary)
        told_by = [query, key, value, self._cu_seqlens, *self._relative_bias, *self._seen]
        context = linears.attention(told_by, attention, net.architecture.window_of(layer), seen=bool(self._seen))
        projected = linears.linear(context, f"{attention}.output.dense", net.attention_output_bias(layer))
        if net.architecture.family.pre_norm:
            return self._pre_norm_tail(projected, rows, layer)
        rows, operand = linears.add_layer_norm(projected, rows, f"{attention}.output.LayerNorm")
        return linears.add_layer_norm(linears.feed_forward(operand, at), rows, f"{at}.output.LayerNorm")

    def _pre_norm_tail(self, projected: str, rows: str, layer: int) -> tuple[str, str]:
        """What follows attention where LayerNorm comes first: sums go on, and matrices read their LayerNorm.

        The last layer's rows are those of the LayerNorm behind it.
        """
        at, linears = f"encoder.layer.{layer}", self._linears
        attended = self._b.node("Add", [projected, rows], f"{at}.attended")
        _, operand = linears.add_layer_norm(projected, rows, f"{at}.intermediate.LayerNorm")
        wide = linears.feed_forward(operand, at)
        following = "final" if layer == self._last else f"encoder.layer.{layer + 1}.attention"
        normed, operand = linears.add_layer_norm(wide, attended, f"{following}.LayerNorm")
        return (normed if layer == self._last else self._b.node("Add", [wide, attended], f"{at}.sum")), operand

    def _embeddings(self) -> tuple[str, str]:
        b, net = self._b, self._net
        table = net.position_table()
        positions = b.weight("embeddings.positions_and_types", table.shape, [table])
        index = self._positions
        if net.architecture.position_offset > 0:
            index = self._positions_without_padding()
        if net.architecture.rotary is not None:
            none = b.constant("embeddings.none", np.array(0, np.int32))
            index = b.node("Mul", [index, none], "embeddings.first_type")
        if net.token_types > 1:
            types = b.input("token_type_ids", INT32, ["tokens"])
            stride = b.constant("embeddings.type_stride", np.array(len(table) // net.token_types, np.int32))
            first = b.node("Mul", [types, stride], "embeddings.first_position")
            index = b.node("Add", [first, index], "embeddings.index")
        name = "embeddings.word_embeddings.weight"
        words = b.weight(name, net.architecture.weight_shapes()[name], net.blocks(name))
        word_rows = b.node("Gather", [words, self._ids], "embeddings.words")
        position_rows = b.node("Gather", [positions, index], "embeddings.positions")
        return self._linears.add_layer_norm(word_rows, position_rows, "embeddings.LayerNorm")

    def _turned(self, rows: str, positions: str, rotary: Rotary) -> str:
        """Queries or keys, turned by their positions."""
        if rotary not in self._turns:
            table = rotary.turns(self._net.architecture.head_size, self._net.architecture.max_tokens)
            self._turns[rotary] = self._b.weight(f"turns.{len(self._turns)}", table.shape, [table])
        return self._b.node("Rotary", [rows, positions, self._turns[rotary]], f"{rows}.turned", domain=BGERT)

    def _positions_without_padding(self) -> str:
        """Rows of a position table that does not count padding tokens, XLM-RoBERTa's for one.

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


def _normalized(b: GraphBuilder, rows: str, output: str = "embeddings", name: str = "norm") -> str:
    norm = b.node("ReduceL2", [rows], name, attributes={"axes": [1], "keepdims": 1})
    least = b.constant(f"{name}.least", np.array(1e-12, np.float32))
    return b.node("Div", [rows, b.node("Max", [norm, least], f"{name}.safe")], output)
