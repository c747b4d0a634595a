"""The fp32 graph for ONNX Runtime's CPU provider: packed rows, padding only inside attention.

Linear layers see the tokens of all texts end to end, [T, H]. Around attention rows are gathered to [B, S, H] and
back. Choices that were measured: one Gemm for query, key and value; Add + LayerNormalization and not the contrib
SkipLayerNormalization, which is several times slower on the CPU; weights as [out, in] with `transB`, which ONNX
Runtime packs once when it loads them, so nothing is transposed here.

Inputs, all int32: `input_ids` [T], `position_ids` [T] (from 0 in each text), `padded_rows` [B, S] (packed row of each
padded slot), `packed_slots` [T] (`b * S + s` of each packed row), `sequence_lengths` [B], and where the graph needs
them `cls_rows` [B] (row of each text's first token) and `token_type_ids` [T].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bgert_export.graphs.builder import FLOAT, INT32, MICROSOFT, GraphBuilder

if TYPE_CHECKING:
    from pathlib import Path

    from bgert_export.network import Network

__all__ = ["IR_VERSION", "MINIMUM_ENGINE", "OPSET", "STEM", "write_encoder"]

STEM = "cpu-fp32"
OPSET = {"ai.onnx": 17, MICROSOFT: 1}
IR_VERSION = 8
MINIMUM_ENGINE = "onnxruntime 1.20"


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
        body = _Body(builder, network, types=1)
        pooled = body.cls_rows() if pooling == "cls" else _mean(builder, body.all_rows())
        output = _normalized(builder, pooled) if normalize else builder.node("Identity", [pooled], "embeddings")
        return _finish(builder, output, network.architecture.hidden_size, "encoder", version)


class Written:
    """What a writer wrote."""

    def __init__(self, files: list[str], inputs: list[str], output: str) -> None:
        self.files = files
        """Names in the folder, the graph first."""
        self.inputs = inputs
        self.output = output


def _finish(builder: GraphBuilder, output: str, columns: int, name: str, version: str) -> Written:
    builder.output(output, FLOAT, ["texts", columns])
    files = builder.finish(name=name, producer_version=version, opset=OPSET, ir_version=IR_VERSION)
    return Written(files, builder.input_names, output)


class _Body:
    """Embeddings and transformer layers. `all_rows` and `cls_rows` emit the last layer in two ways."""

    def __init__(self, builder: GraphBuilder, network: Network, *, types: int) -> None:
        self._b = builder
        self._net = network
        arch = network.architecture
        self._hidden = arch.hidden_size
        self._layers = arch.num_hidden_layers
        self._epsilon = arch.layer_norm_eps
        self._ids = builder.input("input_ids", INT32, ["tokens"])
        self._positions = builder.input("position_ids", INT32, ["tokens"])
        self._padded_rows = builder.input("padded_rows", INT32, ["texts", "longest"])
        self._packed_slots = builder.input("packed_slots", INT32, ["tokens"])
        self._lengths = builder.input("sequence_lengths", INT32, ["texts"])
        self._two_dimensional = builder.constant("shape.rows", np.array([-1, self._hidden], np.int64))
        self._types = types

    def all_rows(self) -> str:
        """The last hidden state of every token, [T, H]."""
        rows = self._embeddings()
        for layer in range(self._layers):
            rows = self._layer(rows, layer)
        return rows

    def cls_rows(self) -> str:
        """The last hidden state of the first token of every text, [B, H].

        In the last layer only that token asks, so query, output and feed-forward are computed for it alone.
        """
        cls_rows = self._b.input("cls_rows", INT32, ["texts"])
        rows = self._embeddings()
        for layer in range(self._layers - 1):
            rows = self._layer(rows, layer)
        return self._cls_layer(rows, cls_rows, self._layers - 1)

    def _embeddings(self) -> str:
        b, net, arch = self._b, self._net, self._net.architecture
        name = "embeddings.word_embeddings.weight"
        words = b.weight(name, (arch.vocab_size, self._hidden), net.blocks(name))
        table = net.position_table(self._types)
        positions = b.weight("embeddings.positions_and_types", table.shape, [table])
        index = self._positions
        if self._types > 1:
            types = b.input("token_type_ids", INT32, ["tokens"])
            stride = b.constant("embeddings.types.stride", np.array(arch.max_tokens, np.int32))
            first = b.node("Mul", [types, stride], "embeddings.types.first")
            index = b.node("Add", [first, index], "embeddings.index")
        word_rows = b.node("Gather", [words, self._ids], "embeddings.words")
        position_rows = b.node("Gather", [positions, index], "embeddings.positions")
        total = b.node("Add", [word_rows, position_rows], "embeddings.sum")
        return self._layer_norm(total, "embeddings.LayerNorm")

    def _layer(self, rows: str, layer: int) -> str:
        at = f"encoder.layer.{layer}"
        b, hidden = self._b, self._hidden
        qkv = self._gemm(rows, f"{at}.qkv", 3 * hidden, hidden, self._qkv_weight(layer), self._qkv_bias(layer))
        padded = b.node("Gather", [qkv, self._padded_rows], f"{at}.qkv.padded")
        query, key, value = b.nodes(
            "Split", [padded], [f"{at}.query", f"{at}.key", f"{at}.value"], attributes={"axis": 2}
        )
        context = self._attention(query, key, value, at)
        packed = b.node("Gather", [context, self._packed_slots], f"{at}.context.packed")
        return self._tail(packed, rows, layer)

    def _cls_layer(self, rows: str, cls_rows: str, layer: int) -> str:
        at = f"encoder.layer.{layer}"
        b, hidden = self._b, self._hidden
        asking = b.node("Gather", [rows, cls_rows], f"{at}.cls")
        query = self._linear(asking, f"{at}.attention.self.query", hidden, hidden)
        one_each = b.constant("shape.one_query", np.array([-1, 1, hidden], np.int64))
        query = b.node("Reshape", [query, one_each], f"{at}.query")
        weight = (block for part in ("key", "value") for block in self._net.blocks(self._self_name(layer, part)))
        key_value = self._gemm(rows, f"{at}.kv", 2 * hidden, hidden, weight, None)
        padded = b.node("Gather", [key_value, self._padded_rows], f"{at}.kv.padded")
        key, value = b.nodes("Split", [padded], [f"{at}.key", f"{at}.value"], attributes={"axis": 2})
        return self._tail(self._attention(query, key, value, at), asking, layer)

    def _attention(self, query: str, key: str, value: str, at: str) -> str:
        """Attention within each text; [B, Q, H] with [B, S, H] to [B * Q, H]."""
        context = self._b.node(
            "MultiHeadAttention",
            [query, key, value, "", self._lengths],
            f"{at}.context.heads",
            attributes={"num_heads": self._net.architecture.num_attention_heads},
            domain=MICROSOFT,
        )
        return self._b.node("Reshape", [context, self._two_dimensional], f"{at}.context")

    def _tail(self, context: str, residual: str, layer: int) -> str:
        """Attention's output projection and the feed-forward network, each with residual and LayerNorm."""
        at, b, hidden = f"encoder.layer.{layer}", self._b, self._hidden
        inner = self._net.architecture.intermediate_size
        name = f"{at}.attention.output"
        bias = self._net.attention_output_bias(layer)
        projected = self._gemm(context, f"{name}.dense", hidden, hidden, self._net.blocks(f"{name}.dense.weight"), bias)
        total = b.node("Add", [projected, residual], f"{name}.sum")
        attended = self._layer_norm(total, f"{name}.LayerNorm")
        wide = self._linear(attended, f"{at}.intermediate.dense", inner, hidden)
        wide = b.node("Gelu", [wide], f"{at}.intermediate.gelu", domain=MICROSOFT)
        narrow = self._linear(wide, f"{at}.output.dense", hidden, inner)
        total = b.node("Add", [narrow, attended], f"{at}.output.sum")
        return self._layer_norm(total, f"{at}.output.LayerNorm")

    def _qkv_weight(self, layer: int) -> Any:
        for part in ("query", "key", "value"):
            yield from self._net.blocks(self._self_name(layer, part))

    def _qkv_bias(self, layer: int) -> Any:
        bias = np.zeros(3 * self._hidden, np.float32)
        bias[: self._hidden] = self._net.read(f"encoder.layer.{layer}.attention.self.query.bias")
        return bias

    @staticmethod
    def _self_name(layer: int, part: str) -> str:
        return f"encoder.layer.{layer}.attention.self.{part}.weight"

    def _linear(self, rows: str, name: str, columns: int, inner: int) -> str:
        net = self._net
        return self._gemm(rows, name, columns, inner, net.blocks(f"{name}.weight"), net.read(f"{name}.bias"))

    def _gemm(self, rows: str, name: str, columns: int, inner: int, weight: Any, bias: Any) -> str:
        inputs = [rows, self._b.weight(f"{name}.weight", (columns, inner), weight)]
        if bias is not None:
            inputs.append(self._b.weight(f"{name}.bias", (columns,), [bias]))
        return self._b.node("Gemm", inputs, name, attributes={"transB": 1})

    def _layer_norm(self, rows: str, name: str) -> str:
        parts = [
            self._b.weight(f"{name}.{part}", (self._hidden,), self._net.blocks(f"{name}.{part}"))
            for part in ("weight", "bias")
        ]
        attributes = {"axis": -1, "epsilon": self._epsilon}
        return self._b.node("LayerNormalization", [rows, *parts], name, attributes=attributes)


def _mean(b: GraphBuilder, rows: str) -> str:
    """Mean over each text's own tokens, [T, H] to [B, H].

    Every text is one product of its own weights, 1 / length where there is a token and 0 on padding, with its own
    rows: what other texts a batch holds changes nothing but the number of zeros.
    """
    padded = b.node("Gather", [rows, "padded_rows"], "pooling.padded")
    shape = b.node("Shape", ["padded_rows"], "pooling.shape")
    zero, one = (b.constant(f"pooling.{n}", np.array(n, np.int64)) for n in (0, 1))
    longest = b.node("Gather", [shape, one], "pooling.longest")
    slots = b.node("Range", [zero, longest, one], "pooling.slots")
    axis = b.constant("pooling.axis", np.array([1], np.int64))
    lengths = b.node("Unsqueeze", ["sequence_lengths", axis], "pooling.lengths")
    wide = b.node("Cast", [lengths], "pooling.lengths.int64", attributes={"to": 7})
    inside = b.node("Less", [slots, wide], "pooling.inside")
    counts = b.node("Cast", [lengths], "pooling.counts", attributes={"to": FLOAT})
    share = b.node("Reciprocal", [counts], "pooling.share")
    nothing = b.constant("pooling.nothing", np.array(0, np.float32))
    weights = b.node("Where", [inside, share, nothing], "pooling.weights")
    weights = b.node("Unsqueeze", [weights, axis], "pooling.weights.row")
    sums = b.node("MatMul", [weights, padded], "pooling.mean.row")
    return b.node("Squeeze", [sums, axis], "pooling.mean")


def _normalized(b: GraphBuilder, rows: str) -> str:
    norm = b.node("ReduceL2", [rows], "norm", attributes={"axes": [1], "keepdims": 1})
    least = b.constant("norm.least", np.array(1e-12, np.float32))
    return b.node("Div", [rows, b.node("Max", [norm, least], "norm.safe")], "embeddings")
