"""The fp16 graph for ONNX Runtime's CUDA provider: packed rows throughout, no padding at all.

Attention is com.microsoft PackedMultiHeadAttention with separate query, key and value and without its bias input:
on sm_80 and later that is the one route that reaches FlashAttention with no copy of the three. The key bias is
dropped and the value bias folded (see `bgert_export.network`), so only the query's is left, as the C of a Gemm. All
other biases belong to BiasGelu and SkipLayerNormalization, because a Gemm with C first broadcasts it into its output.
Rotary positions turn query and key, whose bias then stays, by com.microsoft RotaryEmbedding: each token is a sequence
of its own there, because a sequence may be no longer than the table, and all texts together are. Gates are QuickGelu
with a slope of one, which is SiLU, or Gelu. Weights stay [out, in] with `transB`. Pooling, normalisation and the
classifier are float32, and so is the output.

Inputs, all int32 but `mean_weights`; T, B and S may be larger than the batch, and what fills them up must be texts
of their own, whose output rows are to be ignored:

- `input_ids` [1, T];
- `position_ids` [1, T], from 0 in each text; for XLM-RoBERTa `position_ids_without_padding` [1, T], as transformers'
  `create_position_ids_from_input_ids` less the padding id: tokens count from 1, padding tokens have 0;
- `token_type_ids` [1, T], rerankers of BERT alone;
- `token_offset` [B, S]: slots `b * S + s` of the tokens in order, then the slots that hold none. S is at least the
  longest text;
- `cu_seqlens` [B + 1]: text b is rows `cu_seqlens[b]` to `cu_seqlens[b + 1]`, which may be none;
- `cls_rows` [B], the row of each text's first token; for mean pooling `padded_rows` [B, S], the packed row of each
  slot, any row where there is none, and `mean_weights` float32 [B, 1, S], 1 / length where there is a token, else 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bgert_export.errors import UnsupportedCheckpointError
from bgert_export.graphs.builder import FLOAT, FLOAT16, INT32, INT64, MICROSOFT, GraphBuilder
from bgert_export.graphs.head import activated, gemm, projected
from bgert_export.graphs.packed_pooling import PackedPooling
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

__all__ = ["IR_VERSION", "MINIMUM_ENGINE", "OPSET", "STEM", "write_encoder", "write_reranker"]

STEM = "cuda-fp16"
OPSET = {"ai.onnx": 17, MICROSOFT: 1}
IR_VERSION = 8
MINIMUM_ENGINE = "onnxruntime-gpu 1.31"
_MOST_HEAD_SIZE = 256  # of FlashAttention-2


def write_encoder(
    network: Network,
    folder: Path,
    *,
    pooling: str,
    projections: Sequence[Projection] = (),
    normalize: bool,
    version: str,
) -> Written:
    """Write the graph of an embedding model, whose output is `embeddings` float32[B, columns].

    Args:
        network: an encoder.
        folder: existing folder to write into.
        pooling: as `bgert_export.pooling`.
        projections: dense layers behind it.
        normalize: divide by the L2 norm, or by 1e-12 where that is larger, as `torch.nn.functional.normalize`.
        version: bgert's version, for the graph's header.

    Raises:
        UnsupportedCheckpointError: a weight overflows float16, the head size is one FlashAttention does not take, or
            the pooling is a maximum.
    """
    with GraphBuilder(folder, STEM) as builder:
        body = _Body(builder, network)
        modes = modes_of(pooling)
        pooled = projected(builder, body.pooled(modes), projections, body.dense)
        output = _normalized(builder, pooled) if normalize else builder.node("Identity", [pooled], "embeddings")
        return builder.finish_model(
            output,
            projections[-1].columns if projections else len(modes) * network.architecture.hidden_size,
            name="encoder",
            version=version,
            opset=OPSET,
            ir_version=IR_VERSION,
        )


def write_reranker(network: Network, folder: Path, *, version: str) -> Written:
    """Write the graph of a sequence classifier, whose output is `logits` float32[B, labels]: raw, no sigmoid.

    Raises:
        UnsupportedCheckpointError: as `write_encoder`.
    """
    arch = network.architecture
    with GraphBuilder(folder, STEM) as builder:
        body = _Body(builder, network)
        dense = arch.head.dense
        hidden = activated(builder, body.head(body.cls_rows(), dense, dense), dense, arch.head.activation)
        output = body.head(hidden, arch.head.out, "logits")
        return builder.finish_model(
            output, arch.num_labels or 0, name="reranker", version=version, opset=OPSET, ir_version=IR_VERSION
        )


class _Body:
    """Embeddings and transformer layers. `all_rows` and `cls_rows` emit the last layer in two ways."""

    def __init__(self, builder: GraphBuilder, network: Network) -> None:
        arch = network.architecture
        size = arch.hidden_size // arch.num_attention_heads
        if size % 8 or size > _MOST_HEAD_SIZE:
            raise UnsupportedCheckpointError(
                f"attention heads of {size} do not fit the cuda target: FlashAttention takes multiples of 8 up to "
                f"{_MOST_HEAD_SIZE}"
            )
        arch.require_gelu("the target cuda")
        arch.require_absolute_positions("the target cuda")
        self._b = builder
        self._net = network
        self._shapes = arch.weight_shapes()
        self._token_offset = builder.input("token_offset", INT32, ["texts", "longest"])
        self._cu_seqlens = builder.input("cu_seqlens", INT32, ["texts + 1"])
        self._turns: list[str] = []

    def pooled(self, modes: list[str]) -> str:
        """One row a text of its last hidden states, float32[B, H * modes]."""
        if modes == ["cls"]:
            return self.cls_rows()
        if "max" in modes:  # a reduction over the packed axis wants cuDNN
            raise UnsupportedCheckpointError("the pooling max is not in the target cuda: export the target cpu")
        pooling = PackedPooling(
            self._b, self._cu_seqlens, _Mean(self._b), _Mean(self._b), self._first_rows, self._positions
        )
        return pooling.pooled(self.all_rows(), modes)

    def dense(self, rows: str, name: str, weight: Array, bias: Array) -> str:
        """`rows @ weight.T + bias`, float32."""
        both = (("weight", weight), ("bias", bias))
        stored = [self._b.weight(f"{name}.{part}", value.shape, [value]) for part, value in both]
        return self._b.node("Gemm", [rows, *stored], name, attributes={"transB": 1})

    def all_rows(self) -> str:
        """The last hidden state of every token, float32[T, H]."""
        rows = self._embeddings()
        for layer in range(self._net.architecture.num_hidden_layers):
            rows = self._tail(self._attention(rows, layer), rows, layer)
        return self._wide(rows)

    def cls_rows(self) -> str:
        """The last hidden state of the first token of every text, float32[B, H].

        In the last layer attention still asks for every token, because PackedMultiHeadAttention wants as many queries
        as keys; what comes after it is computed for that token alone.
        """
        last = self._net.architecture.num_hidden_layers - 1
        rows = self._embeddings()
        for layer in range(last):
            rows = self._tail(self._attention(rows, layer), rows, layer)
        cls_rows = self._first_rows()
        context = self._b.node("Gather", [self._attention(rows, last), cls_rows], "cls.context")
        residual = self._b.node("Gather", [rows, cls_rows], "cls.residual")
        return self._wide(self._tail(context, residual, last))

    def _first_rows(self) -> str:
        return self._b.input("cls_rows", INT32, ["texts"])

    def _positions(self) -> str:
        """An input of the embeddings too, where their positions count padding."""
        name = "position_ids"
        return name if name in self._b.input_names else self._b.input(name, INT32, [1, "tokens"])

    def head(self, rows: str, name: str, output: str) -> str:
        """A float32 linear layer of the classifier."""
        return gemm(self._b, self._net, rows, name, output)

    def _embeddings(self) -> str:
        """The rows that enter the first layer, [T, H]."""
        b, net = self._b, self._net
        skips_padding = net.architecture.position_offset > 0
        ids = b.input("input_ids", INT32, [1, "tokens"])
        index = b.input("position_ids_without_padding" if skips_padding else "position_ids", INT32, [1, "tokens"])
        if (rotary := net.architecture.rotary) is not None:
            index = self._rotary(rotary, index)
        table = net.position_table()
        positions = b.weight("embeddings.positions_and_types", table.shape, [table], FLOAT16)
        if net.token_types > 1:
            types = b.input("token_type_ids", INT32, [1, "tokens"])
            stride = b.constant("embeddings.type_stride", np.array(len(table) // net.token_types, np.int32))
            first = b.node("Mul", [types, stride], "embeddings.first_position")
            index = b.node("Add", [first, index], "embeddings.index")
        at = "embeddings.LayerNorm"
        rows, _ = b.nodes(
            "EmbedLayerNormalization",
            [
                ids, "", self._weight("embeddings.word_embeddings.weight"), positions, "",
                self._weight(f"{at}.weight"), self._weight(f"{at}.bias"), "", index,
            ],
            [at, f"{at}.mask_index"],
            attributes={"epsilon": net.architecture.layer_norm_eps},
            domain=MICROSOFT,
        )  # fmt: skip
        shape = b.constant("shape.rows", np.array([-1, net.architecture.hidden_size], np.int64))
        return b.node("Reshape", [rows, shape], "embeddings.rows")

    def _rotary(self, rotary: Rotary, positions: str) -> str:
        """Make what turns queries and keys; returns the row of the token types' table that single texts have."""
        b, arch = self._b, self._net.architecture
        turns = rotary.turns(arch.head_size, arch.max_tokens)
        half = arch.head_size // 2
        wide = b.node("Cast", [positions], "rotary.positions.int64", attributes={"to": INT64})
        column = b.node("Reshape", [wide, b.constant("shape.column", np.array([-1, 1], np.int64))], "rotary.positions")
        parts = (("cosines", turns[:, :half]), ("sines", turns[:, half:]))
        self._turns = [column, *(b.weight(f"rotary.{name}", part.shape, [part], FLOAT16) for name, part in parts)]
        self._alone = b.constant("shape.alone", np.array([-1, 1, arch.hidden_size], np.int64))
        return b.node("Mul", [positions, b.constant("embeddings.none", np.array(0, np.int32))], "embeddings.first_type")

    def _turned(self, rows: str) -> str:
        b = self._b
        alone = b.node("Reshape", [rows, self._alone], f"{rows}.alone")
        turned = b.node("RotaryEmbedding", [alone, *self._turns], f"{rows}.turned.alone", domain=MICROSOFT)
        return b.node("Reshape", [turned, "shape.rows"], f"{rows}.turned")

    def _attention(self, rows: str, layer: int) -> str:
        """Attention of every token over its own text, before the output projection, [T, H]."""
        at = f"encoder.layer.{layer}.attention"
        names = self._net.weight_map.names
        bias = f"{at}.self.query.bias"
        query = self._gemm(rows, f"{at}.self.query", *([self._weight(bias)] if bias in names else []))
        key_bias = [self._weight(f"{at}.self.key.bias")] if self._net.key_bias(layer) is not None else []
        key = self._gemm(rows, f"{at}.self.key", *key_bias)
        value = self._gemm(rows, f"{at}.self.value")
        if self._turns:
            query, key = self._turned(query), self._turned(key)
        return self._b.node(
            "PackedMultiHeadAttention",
            [query, key, value, "", self._token_offset, self._cu_seqlens],
            f"{at}.context",
            attributes={"num_heads": self._net.architecture.num_attention_heads},
            domain=MICROSOFT,
        )

    def _tail(self, context: str, residual: str, layer: int) -> str:
        """Attention's output projection and the feed-forward network, each with residual and LayerNorm."""
        at, b = f"encoder.layer.{layer}", self._b
        name = f"{at}.attention.output"
        bias = self._net.attention_output_bias(layer)
        folded = b.weight(f"{name}.dense.bias", bias.shape, [bias], FLOAT16)
        attended = self._skip_layer_norm(self._gemm(context, f"{name}.dense"), residual, folded, f"{name}.LayerNorm")
        if self._net.architecture.gated:
            wide = self._gated(attended, f"{at}.intermediate")
        else:
            name = f"{at}.intermediate.dense"
            wide = b.node(
                "BiasGelu",
                [self._gemm(attended, name), self._weight(f"{name}.bias")],
                f"{at}.intermediate.gelu",
                domain=MICROSOFT,
            )
        name = f"{at}.output"
        bias = self._net.bias(f"{name}.dense")
        bias_name = b.weight(f"{name}.dense.bias", bias.shape, [bias], FLOAT16)
        return self._skip_layer_norm(self._gemm(wide, f"{name}.dense"), attended, bias_name, f"{name}.LayerNorm")

    def _gated(self, rows: str, name: str) -> str:
        """The activation of the gate times the other half; neither has a bias in any family."""
        b = self._b
        gate, up = (self._gemm(rows, f"{name}.{half}") for half in ("gate", "dense"))
        silu = self._net.architecture.activation == "silu"
        activated = b.node(
            "QuickGelu" if silu else "Gelu",
            [gate],
            f"{name}.activated",
            attributes={"alpha": 1.0} if silu else None,
            domain=MICROSOFT,
        )
        return b.node("Mul", [activated, up], name)

    def _skip_layer_norm(self, rows: str, residual: str, bias: str, name: str) -> str:
        """LayerNorm of rows + bias + residual."""
        return self._b.node(
            "SkipLayerNormalization",
            [rows, residual, self._weight(f"{name}.weight"), self._weight(f"{name}.bias"), bias],
            name,
            attributes={"epsilon": self._net.architecture.layer_norm_eps},
            domain=MICROSOFT,
        )

    def _gemm(self, rows: str, name: str, *bias: str) -> str:
        return self._b.node("Gemm", [rows, self._weight(f"{name}.weight"), *bias], name, attributes={"transB": 1})

    def _weight(self, name: str) -> str:
        return self._b.weight(name, self._shapes[name], self._net.blocks(name), FLOAT16)

    def _wide(self, rows: str) -> str:
        return self._b.node("Cast", [rows], f"{rows}.float32", attributes={"to": FLOAT})


class _Mean:
    """Mean over each text's own tokens, float32[T, H] to float32[B, H].

    One batched product, each text's weights with its own rows: no reduction over the packed axis, which would want
    cuDNN or atomic additions, and no text meets another's rows.
    """

    def __init__(self, builder: GraphBuilder) -> None:
        self._b = builder

    def __call__(self, rows: str, name: str) -> str:
        b = self._b
        if "padded_rows" not in b.input_names:
            b.input("padded_rows", INT32, ["texts", "longest"])
            b.input("mean_weights", FLOAT, ["texts", 1, "longest"])
        padded = b.node("Gather", [rows, "padded_rows"], f"{name}.padded")
        return _squeezed(b, b.node("MatMul", ["mean_weights", padded], f"{name}.row"), name)


def _normalized(b: GraphBuilder, rows: str) -> str:
    """Rows of length one; the squares are summed by a product, because CUDA's reductions want cuDNN."""
    axes = [b.constant(f"norm.axis.{n}", np.array([n], np.int64)) for n in (1, 2)]
    row, column = (
        b.node("Unsqueeze", [rows, axis], f"norm.{n}") for n, axis in zip(("row", "column"), axes, strict=True)
    )
    squares = _squeezed(b, b.node("MatMul", [row, column], "norm.squares.row"), "norm.squares")
    norm = b.node("Sqrt", [squares], "norm")
    least = b.constant("norm.least", np.array(1e-12, np.float32))
    return b.node("Div", [rows, b.node("Max", [norm, least], "norm.safe")], "embeddings")


def _squeezed(b: GraphBuilder, rows: str, name: str) -> str:
    """[B, 1, n] to [B, n]."""
    axis = b.constant(f"{name}.axis", np.array([1], np.int64))
    return b.node("Squeeze", [rows, axis], name)
