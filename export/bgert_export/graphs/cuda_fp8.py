"""The graph of the target `cuda-fp8`: matrices in E4M3, for compute capability 8.9 and 9.0.

Packed rows throughout, in bgert's own operators for ONNX Runtime's CUDA provider (domain `bgert`,
runtime/src/cuda_ops). Activations are quantised row by row, by the operator that writes them where that is one of ours,
weights by output channel (`bgert_export.fp8.arithmetic`). Matrices that are named in `in_fp16` are not. Nor are those
that have a row for a whole text: what the last layer of a model that reads the first token alone computes for it.

Below `LEAST_TOKENS` rows FP8 is slower than fp16, whose tiles may be smaller. There the operators that quantise give an
operand without rows, and `LinearFp8` multiplies the fp16 rows by fp16 weights. So a text that runs in a small batch has
the vector of the fp16 graph, and in a larger one that of FP8, whatever is beside it in either.

Operators that `LinearFp16`, `AddLayerNormFp16` and so on of operators.h do not explain; E4M3 goes as uint8, whatever
types ONNX Runtime was built with:

- `QuantizeFp8`: rows fp16[T, K] -> operand uint8[T, K], scales float32[T];
- `AddLayerNormFp8`: x, residual fp16[T, K], gamma, beta fp16[K] -> LayerNorm(x + residual) fp16[T, K], operand, scales;
- `GeluFp8`: rows fp16[T, K] -> GELU fp16[T, K] or [0, K] where there is an operand, operand, scales;
- `GeluFp16`: rows fp16[T, K] -> GELU fp16[T, K];
- `LinearFp8`: operand, scales, rows fp16, weights uint8[N, K], their scales float32[N], weights fp16[N, K], bias
  fp16[N] -> fp16[T, N].

Inputs, all int32: `input_ids` [1, T]; `position_ids` or `position_ids_without_padding` [1, T]; `token_type_ids` [1, T],
rerankers of BERT alone; `cu_seqlens` [B + 1]. They may be larger than the batch, see `cuda.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bgert_export.errors import UnsupportedCheckpointError
from bgert_export.fp8.arithmetic import encode, quantize_rows
from bgert_export.graphs.builder import BGERT, FLOAT16, INT32, UINT8, GraphBuilder
from bgert_export.graphs.head import activated, gemm

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert_export.graphs.builder import Written
    from bgert_export.network import Network
    from bgert_export.projections import Projection

    Array = NDArray[np.float32]
    Quantized = Mapping[str, tuple[NDArray[np.uint8], Array]]

__all__ = ["IR_VERSION", "LEAST_TOKENS", "MINIMUM_ENGINE", "OPSET", "STEM", "write_encoder", "write_reranker"]

STEM = "cuda-fp8"
OPSET = {"ai.onnx": 17, BGERT: 1}
IR_VERSION = 8
MINIMUM_ENGINE = "onnxruntime-gpu 1.31"
LEAST_TOKENS = 2048
_LEAST = {"least_tokens": LEAST_TOKENS}
_MULTIPLE = 16  # of K and N, for cuBLASLt
_MOST_COLUMNS = {"hidden_size": 1024, "intermediate_size": 4096}
_HEAD_SIZES = (32, 64)


def write_encoder(
    network: Network,
    folder: Path,
    in_fp16: Collection[str] = (),
    quantized: Quantized | None = None,
    *,
    pooling: str,
    projections: Sequence[Projection] = (),
    normalize: bool,
    version: str,
) -> Written:
    """Write the graph of an embedding model, whose output is `embeddings` float32[B, H].

    Args:
        network: an encoder.
        folder: existing folder to write into.
        in_fp16: matrices that stay in fp16, by the names of their weights without `.weight`; query, key and value of a
            layer together.
        quantized: bits and scales of matrices by name; those that it has not are rounded to what is nearest.
        pooling: `cls` or `mean`.
        projections: dense layers behind it, which this graph does not have.
        normalize: divide by the L2 norm.
        version: bgert's version, for the graph's header.

    Raises:
        UnsupportedCheckpointError: a weight overflows float16, or the network is of a shape that this target does not
            take, or there is another pooling or a dense layer.
    """
    if pooling not in ("cls", "mean") or projections:
        what = "dense layers are" if projections else f"the pooling {pooling} is"
        raise UnsupportedCheckpointError(f"{what} not in the target cuda-fp8: export the target cuda or cpu")
    with GraphBuilder(folder, STEM) as builder:
        body = _Body(builder, network, in_fp16, quantized or {})
        rows = body.first_rows() if pooling == "cls" else body.all_rows()
        output = body.pooled(rows, "embeddings", mean=pooling == "mean", normalize=normalize)
        return _finished(builder, output, network.architecture.hidden_size, "encoder", version)


def write_reranker(
    network: Network,
    folder: Path,
    in_fp16: Collection[str] = (),
    quantized: Quantized | None = None,
    *,
    version: str,
) -> Written:
    """Write the graph of a sequence classifier, whose output is `logits` float32[B, labels]: raw, no sigmoid.

    Raises:
        UnsupportedCheckpointError: as `write_encoder`.
    """
    arch = network.architecture
    with GraphBuilder(folder, STEM) as builder:
        body = _Body(builder, network, in_fp16, quantized or {})
        dense = arch.head.dense
        rows = body.pooled(body.first_rows(), "cls", mean=False, normalize=False)
        hidden = activated(builder, body.head(rows, dense, dense), dense, arch.head.activation)
        output = body.head(hidden, arch.head.out, "logits")
        return _finished(builder, output, arch.num_labels or 0, "reranker", version)


def _finished(builder: GraphBuilder, output: str, columns: int, name: str, version: str) -> Written:
    return builder.finish_model(output, columns, name=name, version=version, opset=OPSET, ir_version=IR_VERSION)


class _Body:
    """Embeddings and transformer layers. `all_rows` and `first_rows` write the last layer in two ways."""

    def __init__(self, builder: GraphBuilder, network: Network, in_fp16: Collection[str], quantized: Quantized) -> None:
        arch = network.architecture
        arch.require_gelu("the target cuda-fp8")
        arch.require_absolute_positions("the target cuda-fp8")
        arch.require_table_of_positions("the target cuda-fp8")
        for name in ("hidden_size", "intermediate_size"):
            if (width := getattr(arch, name)) % _MULTIPLE or width > _MOST_COLUMNS[name]:
                raise UnsupportedCheckpointError(
                    f"{name} is {width}: the target cuda-fp8 takes multiples of {_MULTIPLE} up to "
                    f"{_MOST_COLUMNS[name]}; use the target cuda"
                )
        if (size := arch.hidden_size // arch.num_attention_heads) not in _HEAD_SIZES:
            raise UnsupportedCheckpointError(
                f"attention heads of {size} do not fit the target cuda-fp8, which takes 32 and 64; use the target cuda"
            )
        self._b, self._net = builder, network
        self._last = arch.num_hidden_layers - 1
        self._in_fp16, self._quantized = frozenset(in_fp16), quantized
        self._operands: dict[str, list[str]] = {}  # of rows: their numbers and scales
        self._heads = {"num_heads": arch.num_attention_heads}
        self._ids = builder.input("input_ids", INT32, [1, "tokens"])
        self._cu_seqlens = builder.input("cu_seqlens", INT32, ["texts + 1"])
        self._tiles = ""

    def all_rows(self) -> str:
        """The last hidden state of every token, fp16[T, H]."""
        rows = self._embeddings()
        for layer in range(self._last + 1):
            rows = self._layer(rows, layer)
        return rows

    def first_rows(self) -> str:
        """The last hidden state of the first token of every text, fp16[B, H]: in the last layer it alone asks."""
        rows = self._embeddings()
        for layer in range(self._last):
            rows = self._layer(rows, layer)
        at = f"encoder.layer.{self._last}"
        first = self._node("FirstRowsFp16", [rows, self._cu_seqlens], "first.rows")
        query, *told = self._self_attention(self._last)
        queries = self._in_half(first, [query], f"{at}.first.query", self._bias(query))
        keys = self._matrix(rows, told, f"{at}.keys", np.zeros(2 * self._net.architecture.hidden_size, np.float32))
        context = self._node("FirstTokenAttentionFp16", [queries, keys, self._cu_seqlens], f"{at}.context", self._heads)
        return self._tail(context, first, self._last, half=True)

    def pooled(self, rows: str, name: str, *, mean: bool, normalize: bool) -> str:
        """float32[B, H] of every token's rows, or of one row a text."""
        attributes = {"mean": int(mean), "normalize": int(normalize)}
        return self._node("PoolFp16", [rows, self._cu_seqlens], name, attributes)

    def head(self, rows: str, name: str, output: str) -> str:
        """A float32 linear layer of the classifier."""
        return gemm(self._b, self._net, rows, name, output)

    def _embeddings(self) -> str:
        """The rows that enter the first layer, fp16[T, H]."""
        b, net = self._b, self._net
        skips_padding = net.architecture.position_offset > 0
        index = b.input("position_ids_without_padding" if skips_padding else "position_ids", INT32, [1, "tokens"])
        table, at = net.position_table(), "embeddings.LayerNorm"
        inputs = [
            *(self._ids, index, self._weight("embeddings.word_embeddings.weight")),
            b.weight("embeddings.positions_and_types", table.shape, [table], FLOAT16),
            *(self._weight(f"{at}.{part}") for part in ("weight", "bias")),
        ]
        attributes = {"epsilon": net.architecture.layer_norm_eps}
        if net.token_types == 1:
            return self._node("EmbeddingLayerNormFp16", inputs, at, attributes)
        inputs.append(b.input("token_type_ids", INT32, [1, "tokens"]))
        attributes["rows_a_type"] = len(table) // net.token_types
        return self._node("TypedEmbeddingLayerNormFp16", inputs, at, attributes)

    def _layer(self, rows: str, layer: int) -> str:
        at = f"encoder.layer.{layer}"
        names = self._self_attention(layer)
        bias = np.zeros((3, self._net.architecture.hidden_size), np.float32)
        bias[0] = self._bias(names[0])
        qkv = self._matrix(rows, names, f"{at}.qkv", bias.ravel())
        if not self._tiles:
            self._tiles = self._node("AttentionTiles", [self._cu_seqlens, self._ids], "attention.tiles")
        inputs = [qkv, self._cu_seqlens, self._tiles]
        context = self._node("PackedSelfAttentionFp16", inputs, f"{at}.context", self._heads)
        return self._tail(context, rows, layer)

    def _tail(self, context: str, residual: str, layer: int, *, half: bool = False) -> str:
        """Attention's output projection and the feed-forward network, each with residual and LayerNorm."""
        at = f"encoder.layer.{layer}"
        matrix = self._in_half if half else self._matrix
        attended_name, inner, outer = f"{at}.attention.output", f"{at}.intermediate.dense", f"{at}.output"
        name = f"{attended_name}.dense"
        projected = matrix(context, [name], name, self._net.attention_output_bias(layer))
        quantized = not half and inner not in self._in_fp16
        attended = self._add_layer_norm(projected, residual, f"{attended_name}.LayerNorm", quantized)
        wide = self._feed_forward_inner(attended, at, half)
        name = f"{outer}.dense"
        narrow = matrix(wide, [name], name, self._bias(name))
        quantized = layer < self._last and not self._in_fp16.issuperset(self._self_attention(layer + 1))
        return self._add_layer_norm(narrow, attended, f"{outer}.LayerNorm", quantized)

    def _feed_forward_inner(self, rows: str, at: str, half: bool) -> str:
        """GELU of the first matrix of the feed-forward network, quantised if the second one is to read that."""
        inner, gelu = f"{at}.intermediate.dense", f"{at}.intermediate.gelu"
        bias = self._bias(inner)
        last_in_half = half or f"{at}.output.dense" in self._in_fp16
        if last_in_half and (half or inner in self._in_fp16):
            return self._in_half(rows, [inner], gelu, bias, operator="LinearGeluFp16")
        wide = self._matrix(rows, [inner], inner, bias)
        if last_in_half:
            return self._node("GeluFp16", [wide], gelu)
        return self._quantizing("GeluFp8", [wide], gelu)

    def _add_layer_norm(self, rows: str, residual: str, name: str, quantized: bool) -> str:
        """LayerNorm of rows + residual, quantised beside that if an FP8 matrix reads it."""
        inputs = [rows, residual, *(self._weight(f"{name}.{part}") for part in ("weight", "bias"))]
        attributes = {"epsilon": self._net.architecture.layer_norm_eps}
        if quantized:
            return self._quantizing("AddLayerNormFp8", inputs, name, attributes)
        return self._node("AddLayerNormFp16", inputs, name, attributes)

    def _quantizing(
        self, operator: str, inputs: Sequence[str], name: str, attributes: Mapping[str, float] | None = None
    ) -> str:
        """An operator that gives rows, operand and scales."""
        self._operands[name] = [f"{name}.fp8", f"{name}.scales"]
        outputs = [name, *self._operands[name]]
        self._b.nodes(operator, inputs, outputs, attributes={**(attributes or {}), **_LEAST}, domain=BGERT)
        return name

    def _matrix(self, rows: str, names: list[str], output: str, bias: Array) -> str:
        """`rows @ weights.T + bias` of matrices put together, fp16[T, N]."""
        if self._in_fp16.issuperset(names):
            return self._in_half(rows, names, output, bias)
        if rows not in self._operands:  # whoever wrote them has not quantised them
            self._operands[rows] = [f"{rows}.fp8", f"{rows}.scales"]
            self._b.nodes("QuantizeFp8", [rows], self._operands[rows], attributes=_LEAST, domain=BGERT)
        weights = np.concatenate([self._net.read(f"{name}.weight") for name in names])
        b, parts = self._b, [self._bits(name) for name in names]
        bits, scales = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
        matrix = [
            b.weight(f"{output}.weight.fp8", bits.shape, [bits], UINT8),
            b.weight(f"{output}.weight.scales", scales.shape, [scales]),
            b.weight(f"{output}.weight", weights.shape, [weights], FLOAT16),
            b.weight(f"{output}.bias", bias.shape, [bias], FLOAT16),
        ]
        return self._node("LinearFp8", [*self._operands[rows], rows, *matrix], output)

    def _in_half(self, rows: str, names: list[str], output: str, bias: Array, operator: str = "LinearFp16") -> str:
        weights = np.concatenate([self._net.read(f"{name}.weight") for name in names])
        matrix = [
            self._b.weight(f"{output}.weight", weights.shape, [weights], FLOAT16),
            self._b.weight(f"{output}.bias", bias.shape, [bias], FLOAT16),
        ]
        return self._node(operator, [rows, *matrix], output)

    def _self_attention(self, layer: int) -> list[str]:
        return [f"encoder.layer.{layer}.attention.self.{part}" for part in ("query", "key", "value")]

    def _bits(self, name: str) -> tuple[NDArray[np.uint8], Array]:
        if name in self._quantized:
            return self._quantized[name]
        numbers, scales = quantize_rows(self._net.read(f"{name}.weight"))
        return encode(numbers), scales

    def _bias(self, name: str) -> Array:
        return self._net.read(f"{name}.bias")

    def _weight(self, name: str) -> str:
        shape = self._net.architecture.weight_shapes()[name]
        return self._b.weight(name, shape, self._net.blocks(name), FLOAT16)

    def _node(
        self, operator: str, inputs: Sequence[str], output: str, attributes: Mapping[str, float] | None = None
    ) -> str:
        return self._b.node(operator, inputs, output, attributes=attributes, domain=BGERT)
