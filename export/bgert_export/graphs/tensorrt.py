"""The graph for TensorRT: padded rows [B, S], standard operators, 16-bit arithmetic with float32 where it matters.

TensorRT takes every type from this file (strongly typed networks), so the file says where to round: matrix products,
attention and GELU are float16 or bfloat16; residual + LayerNorm, pooling, normalisation and the classifier are float32.
Attention is spelled in the one form whose fusion is documented for all of TensorRT 10 and 11: MatMul, one Add of a
finite mask, Softmax, MatMul, all in one type, with 1 / sqrt(head size) folded into the query weights. Values of more
than 16 bits live between LayerNorms only: what a layer hands to the next is 16 bits wide, which is what the next
matrix product reads anyway. Rotary positions turn query and key before the Transpose that orders them by head, so that
attention looks the same.

Inputs, all int32: `input_ids` [B, S], `position_ids` [B, S] (rows of the position table, see
`bgert.backends.padded_layout`), `attention_mask` [B, S] (1 on tokens, 0 on padding, at least one 1 a row), and
`token_type_ids` [B, S] where the graph needs it. `tensorrt_rules` proves the rules on the written file.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bgert_export.graphs import tensorrt_rules
from bgert_export.graphs.builder import BFLOAT16, FLOAT, FLOAT16, INT32, GraphBuilder
from bgert_export.graphs.head import activated, projected
from bgert_export.graphs.padded_head import normalized
from bgert_export.graphs.padded_pooling import PaddedPooling
from bgert_export.pooling import modes_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert_export.graphs.builder import Written
    from bgert_export.network import Network
    from bgert_export.projections import Projection
    from bgert_export.rotary import Rotary

    Array = NDArray[np.float32]

__all__ = ["IR_VERSION", "MINIMUM_ENGINE", "OPSET", "Body", "stem", "write_encoder", "write_reranker"]

OPSET = {"ai.onnx": 20}  # Gelu; the parser of TensorRT 10.0 reads 9 to 20
IR_VERSION = 9
MINIMUM_ENGINE = "tensorrt 10.3"  # with several profiles 10.8, see bgert_export.tensorrt.engine
MASKED = -10_000.0  # exp of it is 0, and no score added to it leaves the range of float16
_TYPES = {"fp16": FLOAT16, "bf16": BFLOAT16, "fp32": FLOAT}
_PARTS = ("query", "key", "value")


def stem(precision: str) -> str:
    """Name of the graph's file without `.onnx`."""
    return f"tensorrt-{precision}"


def write_encoder(
    network: Network,
    folder: Path,
    *,
    precision: str,
    pooling: str,
    projections: Sequence[Projection] = (),
    normalize: bool,
    version: str,
) -> Written:
    """Write the graph of an embedding model, whose output is `embeddings` float32[B, columns].

    Args:
        network: an encoder.
        folder: existing folder to write into.
        precision: `fp16` or `bf16`.
        pooling: as `bgert_export.pooling`, but for `lasttoken` and `weightedmean`.
        projections: dense layers behind it.
        normalize: divide by the L2 norm, or by 1e-12 where that is larger.
        version: bgert's version, for the graph's header.

    Raises:
        UnsupportedCheckpointError: a weight is outside float16, or the pooling is another.
        GraphRuleError: what was written breaks a rule of TensorRT.
    """
    with GraphBuilder(folder, stem(precision)) as builder:
        body = Body(builder, network, precision)
        modes = modes_of(pooling)
        pooled = body.cls_rows() if modes == ["cls"] else PaddedPooling(builder, body.mask).pooled(body.all_rows, modes)
        pooled = projected(builder, pooled, projections, body.dense)
        output = normalized(builder, pooled) if normalize else builder.node("Identity", [pooled], "embeddings")
        columns = projections[-1].columns if projections else len(modes) * network.architecture.hidden_size
        return _finish(builder, folder, network, precision, output, columns, version)


def write_reranker(network: Network, folder: Path, *, precision: str, version: str) -> Written:
    """Write the graph of a sequence classifier, whose output is `logits` float32[B, labels]: raw, no sigmoid.

    Raises:
        UnsupportedCheckpointError: a weight is outside float16.
        GraphRuleError: what was written breaks a rule of TensorRT.
    """
    arch = network.architecture
    with GraphBuilder(folder, stem(precision)) as builder:
        body = Body(builder, network, precision)
        dense = arch.head.dense
        hidden = activated(builder, body.head(body.cls_rows(), dense), dense, arch.head.activation)
        output = builder.node("Identity", [body.head(hidden, arch.head.out)], "logits")
        return _finish(builder, folder, network, precision, output, arch.num_labels or 0, version)


def _finish(
    builder: GraphBuilder, folder: Path, network: Network, precision: str, output: str, columns: int, version: str
) -> Written:
    kind = network.architecture.kind
    written = builder.finish_model(output, columns, name=kind, version=version, opset=OPSET, ir_version=IR_VERSION)
    layers = network.architecture.num_hidden_layers
    tensorrt_rules.check(folder / written.files[0], layers=layers, half=_TYPES[precision])
    return written


class Body:
    """Embeddings and transformer layers. `all_rows` and `cls_rows` emit the last layer in two ways, in float32."""

    target = "the target tensorrt"

    def __init__(self, builder: GraphBuilder, network: Network, precision: str) -> None:
        network.architecture.require_gelu(self.target)
        network.architecture.require_absolute_positions(self.target)
        self._b = builder
        self._net = network
        self._half = _TYPES[precision]
        self._shapes = network.architecture.weight_shapes()
        self._hidden = network.architecture.hidden_size
        self._heads = network.architecture.num_attention_heads
        self._ids = self._input("input_ids")
        self._positions = self._position_ids()
        self.mask = self._input("attention_mask")
        self._split = self._integers("shape.heads", [0, -1, self._heads, self._hidden // self._heads])
        self._scale = 1 / math.sqrt(self._hidden // self._heads)
        self._split_all = self._integers("shape.all_heads", [0, -1, 3 * self._heads, self._hidden // self._heads])
        self._join = self._integers("shape.joined", [0, -1, self._hidden])
        self._rotary = network.architecture.rotary
        self._turns: list[str] = []

    def _input(self, name: str) -> str:
        return self._b.input(name, INT32, ["texts", "length"])

    def _position_ids(self) -> str:
        return self._input("position_ids")

    def all_rows(self) -> str:
        """The last hidden state of every token, float32[B, S, H]."""
        rows = self._embeddings()
        last = self._net.architecture.num_hidden_layers - 1
        self._additive_mask()
        for layer in range(last):
            rows = self._narrow(self._layer(rows, layer))
        return self._layer(rows, last)

    def cls_rows(self) -> str:
        """The last hidden state of the first token of every text, float32[B, H].

        In the last layer only that token asks, so query, output and feed-forward are computed for it alone.
        """
        b = self._b
        last = self._net.architecture.num_hidden_layers - 1
        rows = self._embeddings()
        self._additive_mask()
        for layer in range(last):
            rows = self._narrow(self._layer(rows, layer))
        index = b.constant("cls.index", np.array([0], np.int32))
        first = b.node("Gather", [rows, index], "cls", attributes={"axis": 1})
        whole = self._tail(self._attention(first, rows, last), first, last)
        return b.node("Reshape", [whole, self._integers("shape.rows", [-1, self._hidden])], "cls.rows")

    def head(self, rows: str, name: str) -> str:
        """A float32 linear layer of the classifier."""
        product = self._b.node("MatMul", [rows, self._matrix(name, FLOAT)], f"{name}.product")
        return self._b.node("Add", [product, self._vector(f"{name}.bias", self._net.read(f"{name}.bias"))], name)

    def dense(self, rows: str, name: str, weight: Array, bias: Array) -> str:
        """`rows @ weight.T + bias`, float32."""
        turned = self._vector(f"{name}.weight", np.ascontiguousarray(weight.T))
        product = self._b.node("MatMul", [rows, turned], f"{name}.product")
        return self._b.node("Add", [product, self._vector(f"{name}.bias", bias)], name)

    def _embeddings(self) -> str:
        """16-bit [B, S, H]."""
        b, net = self._b, self._net
        table = net.position_table()
        positions = b.weight("embeddings.positions_and_types", table.shape, [table], self._half)
        index = self._positions
        if self._rotary is not None:
            self._turns = self._cosines_and_sines(self._rotary)
            none = b.constant("embeddings.none", self._whole([[0]]))
            index = b.node("Mul", [index, none], "embeddings.first_type")
        if net.token_types > 1:
            types = self._input("token_type_ids")
            stride = b.constant("embeddings.type_stride", self._whole([[len(table) // net.token_types]]))
            first = b.node("Mul", [types, stride], "embeddings.first_position")
            index = b.node("Add", [first, index], "embeddings.index")
        name = "embeddings.word_embeddings.weight"
        words = b.weight(name, self._shapes[name], net.blocks(name), self._half)
        word_rows = self._wide(b.node("Gather", [words, self._ids], "embeddings.words"))
        position_rows = self._wide(b.node("Gather", [positions, index], "embeddings.positions"))
        total = b.node("Add", [word_rows, position_rows], "embeddings.sum")
        return self._narrow(self._layer_norm(total, "embeddings.LayerNorm"))

    def _cosines_and_sines(self, rotary: Rotary) -> list[str]:
        """Of every token's angles, 16-bit [B, S, 1, D / 2] each."""
        b, arch = self._b, self._net.architecture
        turns = rotary.turns(arch.head_size, arch.max_tokens)
        axes = self._integers("rotary.axes", [2])
        found = []
        for name, table in zip(("cosines", "sines"), np.split(turns, 2, axis=1), strict=True):
            stored = b.weight(f"rotary.{name}.table", table.shape, [table], self._half)
            rows = b.node("Gather", [stored, self._positions], f"rotary.{name}.rows")
            found.append(b.node("Unsqueeze", [rows, axes], f"rotary.{name}"))
        return found

    def _turned(self, split: str, turns: list[str]) -> str:
        """Heads [B, S, N, D], each turned by its token's position."""
        b = self._b
        cosines, sines = turns
        parts = [f"{split}.{half}" for half in ("first", "second")]
        first, second = b.nodes("Split", [split], parts, attributes={"axis": 3, "num_outputs": 2})

        def product(half: str, by: str) -> str:
            return b.node("Mul", [half, by], f"{half}.{by}")

        left = b.node("Sub", [product(first, cosines), product(second, sines)], f"{first}.turned")
        right = b.node("Add", [product(second, cosines), product(first, sines)], f"{second}.turned")
        return b.node("Concat", [left, right], f"{split}.turned", attributes={"axis": 3})

    def _additive_mask(self) -> None:
        """(1 - mask) * MASKED as 16-bit [B, 1, 1, S], made once for all layers."""
        b = self._b
        real = b.node("Cast", [self.mask], "mask.real", attributes={"to": self._half})
        one, masked = (
            b.weight(f"mask.{name}", [1, 1], [np.full((1, 1), value, np.float32)], self._half)
            for name, value in (("one", 1.0), ("masked", MASKED))
        )
        scaled = b.node("Mul", [b.node("Sub", [one, real], "mask.padding"), masked], "mask.additive")
        self._added = b.node("Unsqueeze", [scaled, self._integers("mask.axes", [1, 2])], "mask.broadcast")

    def _layer(self, rows: str, layer: int) -> str:
        """One transformer layer over every token, 16-bit [B, S, H] to float32 [B, S, H]."""
        return self._tail(self._attention(rows, rows, layer), rows, layer)

    def _attention(self, asking: str, rows: str, layer: int) -> str:
        """Attention of [B, Q, H] over [B, S, H], to [B, Q, H], all 16-bit.

        The key's bias adds the same number to every score of a query, which Softmax does not see; the value's goes
        through attention unchanged and is part of the output's bias.
        """
        b, at = self._b, f"encoder.layer.{layer}.attention"
        heads = self._heads_of_all(rows, at) if asking == rows else self._heads_of_one(asking, rows, at)
        query_heads, key_heads, value_heads = heads
        scores = b.node("MatMul", [query_heads, key_heads], f"{at}.scores")
        masked = b.node("Add", [scores, self._added], f"{at}.masked")
        shares = b.node("Softmax", [masked], f"{at}.shares", attributes={"axis": -1})
        context = b.node("MatMul", [shares, value_heads], f"{at}.heads")
        context = b.node("Transpose", [context], f"{at}.joined", attributes={"perm": [0, 2, 1, 3]})
        return b.node("Reshape", [context, self._join], f"{at}.context")

    def _heads_of_all(self, rows: str, at: str) -> list[str]:
        """Query and value as [B, N, S, D] and key as [B, N, D, S], of one product and one Transpose.

        Two kernels fewer a layer than three products (TensorRT for RTX 1.7): the bias goes into the product, and three
        copies by head are one.
        """
        b, name = self._b, f"{at}.self.all"
        scale = self._scale
        weights = [self._weight(f"{at}.self.{part}", scale if part == "query" else 1) for part in _PARTS]
        whole = np.concatenate(weights, axis=1)
        product = b.node(
            "MatMul", [rows, b.weight(f"{name}.weight", whole.shape, [whole], self._half)], f"{name}.product"
        )
        bias = np.concatenate([self._query_bias(at), self._key_bias(at), np.zeros(self._hidden, np.float32)])
        added = b.node("Add", [product, b.weight(f"{name}.bias", bias.shape, [bias], self._half)], name)
        split = b.node("Reshape", [added, self._split_all], f"{name}.split")
        if self._turns:
            sizes = self._integers(f"{name}.sizes", [2 * self._heads, self._heads])
            halves = [f"{name}.turning", f"{name}.standing"]
            turning, standing = b.nodes("Split", [split, sizes], halves, attributes={"axis": 2})
            split = b.node(
                "Concat", [self._turned(turning, self._turns), standing], f"{name}.both", attributes={"axis": 2}
            )
        by_head = b.node("Transpose", [split], f"{name}.by_head", attributes={"perm": [0, 2, 1, 3]})
        parts = [f"{at}.self.{part}.by_head" for part in _PARTS]
        query, key, value = b.nodes("Split", [by_head], parts, attributes={"axis": 1, "num_outputs": 3})
        return [query, b.node("Transpose", [key], f"{key}.turned", attributes={"perm": [0, 1, 3, 2]}), value]

    def _heads_of_one(self, asking: str, rows: str, at: str) -> list[str]:
        """The same where the first token asks, which rotary positions leave as it is: query of [B, 1, H]."""
        b, name = self._b, f"{at}.self.query"
        query = b.node("MatMul", [asking, self._matrix(name, self._half, self._scale)], f"{name}.product")
        bias = self._query_bias(at)
        query = b.node("Add", [query, b.weight(f"{name}.bias", bias.shape, [bias], self._half)], name)
        key, value = (
            b.node("MatMul", [rows, self._matrix(f"{at}.self.{part}", self._half)], f"{at}.self.{part}")
            for part in ("key", "value")
        )
        if (bias := self._key_bias(at)).any():
            key = b.node("Add", [key, b.weight(f"{key}.bias", bias.shape, [bias], self._half)], f"{key}.biased")
        orders = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        turns: tuple[list[str], ...] = ([], self._turns, [])
        return [self._by_head(*parts) for parts in zip((query, key, value), orders, turns, strict=True)]

    def _query_bias(self, at: str) -> Array:
        bias = self._net.bias(f"{at}.self.query").astype(np.float64) * self._scale
        return bias.astype(np.float32)

    def _key_bias(self, at: str) -> Array:
        """Zeros where it changes nothing."""
        bias = self._net.key_bias(int(at.split(".")[2]))
        return np.zeros(self._hidden, np.float32) if bias is None else bias

    def _by_head(self, rows: str, perm: list[int], turns: list[str]) -> str:
        split = self._b.node("Reshape", [rows, self._split], f"{rows}.split")
        if turns:
            split = self._turned(split, turns)
        return self._b.node("Transpose", [split], f"{rows}.by_head", attributes={"perm": perm})

    def _tail(self, context: str, residual: str, layer: int) -> str:
        """Attention's output projection and the feed-forward network, to float32."""
        at = f"encoder.layer.{layer}"
        projected = self._linear(context, f"{at}.attention.output.dense", self._net.attention_output_bias(layer))
        attended = self._residual_norm(projected, residual, f"{at}.attention.output")
        attended = self._narrow(attended)
        wide = self._linear(attended, f"{at}.intermediate.dense")
        if self._net.architecture.gated:
            wide = self._gated(self._linear(attended, f"{at}.intermediate.gate"), wide, f"{at}.intermediate")
        else:
            wide = self._gelu(wide, f"{at}.intermediate.gelu")
        return self._residual_norm(self._linear(wide, f"{at}.output.dense"), attended, f"{at}.output")

    def _gated(self, gate: str, up: str, name: str) -> str:
        b = self._b
        if self._net.architecture.activation == "silu":
            sigmoid = b.node("Sigmoid", [gate], f"{name}.sigmoid")
            activated = b.node("Mul", [gate, sigmoid], f"{name}.silu")
        else:
            activated = self._gelu(gate, f"{name}.gelu")
        return b.node("Mul", [activated, up], name)

    def _gelu(self, rows: str, name: str) -> str:
        return self._b.node("Gelu", [rows], name)

    def _whole(self, value: list[list[int]]) -> NDArray[np.int32] | NDArray[np.int64]:
        """Numbers of the type of the inputs."""
        return np.array(value, np.int32)

    def _residual_norm(self, rows: str, residual: str, name: str) -> str:
        total = self._b.node("Add", [self._wide(rows), self._wide(residual, f"{name}.residual")], f"{name}.sum")
        return self._layer_norm(total, f"{name}.LayerNorm")

    def _layer_norm(self, rows: str, name: str) -> str:
        """float32 to float32."""
        parts = [self._vector(f"{name}.{part}", self._net.read(f"{name}.{part}")) for part in ("weight", "bias")]
        attributes = {"axis": -1, "epsilon": self._net.architecture.layer_norm_eps}
        return self._b.node("LayerNormalization", [rows, *parts], name, attributes=attributes)

    def _linear(self, rows: str, name: str, bias: Array | None = None) -> str:
        """16-bit `rows @ weight.T + bias`."""
        bias = self._net.bias(name) if bias is None else bias
        if not bias.any():
            return self._b.node("MatMul", [rows, self._matrix(name, self._half)], name)
        product = self._b.node("MatMul", [rows, self._matrix(name, self._half)], f"{name}.product")
        return self._b.node("Add", [product, self._b.weight(f"{name}.bias", bias.shape, [bias], self._half)], name)

    def _matrix(self, name: str, dtype: int, scale: float = 1.0) -> str:
        """The weight of a linear layer as [in, out], times `scale` before it is rounded."""
        weight = self._weight(name, scale)
        return self._b.weight(f"{name}.weight", weight.shape, [weight], dtype)

    def _weight(self, name: str, scale: float = 1.0) -> Array:
        weight = self._net.read(f"{name}.weight").T
        return weight if scale == 1 else (weight.astype(np.float64) * scale).astype(np.float32)

    def _vector(self, name: str, value: Array) -> str:
        return self._b.weight(name, value.shape, [value])

    def _integers(self, name: str, value: list[int]) -> str:
        return self._b.constant(name, np.array(value, np.int64))

    def _wide(self, rows: str, name: str | None = None) -> str:
        return self._b.node("Cast", [rows], f"{name or rows}.float32", attributes={"to": FLOAT})

    def _narrow(self, rows: str) -> str:
        return self._b.node("Cast", [rows], f"{rows}.half", attributes={"to": self._half})
