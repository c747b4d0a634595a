"""How the CPU graph writes its matrices: float32, bfloat16 or 8-bit integers.

A matrix reads an *operand*: the activations in the form its precision wants, which the operator before it makes. In
float32 that is the rows themselves. In bfloat16 it is the rows rounded. In int8 it is unsigned bytes with a scale and
a zero point for each row by itself, so that a row's numbers never depend on its batch mates and need no calibration;
weights are signed bytes with a scale for each output column. Sums of products are exact in 32 bits.

Weights are stored in panels of 32 output columns, as the kernels read them (runtime/src/cpu_ops).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bgert_export.errors import UnsupportedCheckpointError
from bgert_export.graphs.builder import BFLOAT16, BGERT, INT8, INT32
from bgert_export.graphs.head import activated

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from bgert_export.graphs.builder import GraphBuilder
    from bgert_export.network import Network

    Array = NDArray[np.float32]
    Quantized = tuple[NDArray[np.int8], Array]

__all__ = ["Bf16Linears", "Fp32Linears", "Int8Linears", "Linears", "in_steps", "nearest_byte", "quantize_columns"]

PANEL = 32  # kPanelColumns of runtime/src/cpu_ops/kernels.h


class Linears(Protocol):
    """The operators around matrices, in one precision. Names are those of the network's weights, without `.weight`."""

    def add_layer_norm(self, rows: str, residual: str, name: str) -> tuple[str, str]:
        """LayerNormalization(rows + residual) as float32 rows, and as an operand."""
        ...

    def gather(self, rows: str, operand: str, index: str, name: str) -> tuple[str, str]:
        """Some of the rows, in both forms."""
        ...

    def attention(self, inputs: list[str], name: str, window: int | None, *, seen: bool = False) -> str:
        """Attention's context as the operand of `{name}.output.dense`.

        `inputs` are query, key, value, cu_seqlens and perhaps the relative position biases, or with `seen` how many
        tokens of each text are keys; with a window a token sees as many others on either side of it.
        """
        ...

    def linear(self, operand: str, name: str, bias: Array | None) -> str:
        """`operand @ weight.T + bias`, float32."""
        ...

    def feed_forward(self, operand: str, name: str) -> str:
        """The activation of `{name}.intermediate.dense`, then `{name}.output.dense`, float32.

        With a gate it is the activation of `{name}.intermediate.gate`, times `{name}.intermediate.dense`.
        """
        ...


@dataclass(frozen=True)
class Fp32Linears:
    """Everything in float32. Matrices whose width is no multiple of a panel's are ONNX Gemm."""

    builder: GraphBuilder
    network: Network

    def add_layer_norm(self, rows: str, residual: str, name: str) -> tuple[str, str]:
        """See `Linears`."""
        (out,) = self.norm("AddLayerNorm", rows, residual, name, [name])
        return out, out

    def gather(self, rows: str, operand: str, index: str, name: str) -> tuple[str, str]:
        """See `Linears`."""
        out = self.builder.node("Gather", [rows, index], name)
        if operand == rows:
            return out, out
        # Where LayerNorm comes first, matrices read it and not the rows.
        return out, self.builder.node("Gather", [operand, index], f"{name}.operand")

    def attention(self, inputs: list[str], name: str, window: int | None, *, seen: bool = False) -> str:
        """See `Linears`."""
        return self.packed_attention("", inputs, name, window, seen=seen)

    def linear(self, operand: str, name: str, bias: Array | None) -> str:
        """See `Linears`."""
        return self._linear("LinearFp32", operand, name, bias)

    def linear_activated(self, operand: str, name: str) -> str:
        """The network's activation of the matrix and its own bias, float32."""
        bias = self.network.bias(name)
        activation = self.network.architecture.activation
        if activation == "relu":
            return self.builder.node("Relu", [self.linear(operand, name, bias)], f"{name}.relu")
        if activation == "gelu_tanh":
            return activated(self.builder, self.linear(operand, name, bias), name, "gelu_tanh")
        if len(bias) % PANEL == 0:
            return self._linear("LinearGeluFp32", operand, name, bias)
        return self.builder.node("Gelu", [self.linear(operand, name, bias)], f"{name}.gelu", domain=BGERT)

    def feed_forward(self, operand: str, name: str) -> str:
        """See `Linears`."""
        inner = f"{name}.intermediate.dense"
        wide = self.gated(operand, name) if self.network.architecture.gated else self.linear_activated(operand, inner)
        return self.linear(wide, f"{name}.output.dense", self.network.bias(f"{name}.output.dense"))

    def gated(self, operand: str, name: str) -> str:
        """The activation of the gate times the other half, float32."""
        if self.network.architecture.intermediate_size % PANEL:
            gate, up = f"{name}.intermediate.gate", f"{name}.intermediate.dense"
            halves = [self.linear(operand, half, self.network.bias(half)) for half in (gate, up)]
            return self.gate_rows(halves[0], halves[1], f"{name}.intermediate")
        weight, bias = gated_weights(self.network, name)
        at, panels = f"{name}.intermediate", _panels(weight, group=1)
        inputs = [
            operand,
            self.builder.weight(f"{at}.weight", panels.shape, [panels]),
            self.builder.weight(f"{at}.bias", bias.shape, [bias]),
        ]
        return self.builder.node(gated_operator(self.network, "Fp32"), inputs, at, domain=BGERT)

    def gate_rows(self, gate: str, up: str, name: str) -> str:
        """The activation of float32 rows times others."""
        b = self.builder
        if self.network.architecture.activation == "silu":
            activated = b.node("Mul", [gate, b.node("Sigmoid", [gate], f"{name}.sigmoid")], f"{name}.activated")
        else:
            activated = b.node("Gelu", [gate], f"{name}.activated", domain=BGERT)
        return b.node("Mul", [activated, up], name)

    def dense(self, rows: str, name: str, weight: Array, bias: Array) -> str:
        """`rows @ weight.T + bias` of a matrix that is none of the network's.

        A width that is no multiple of a panel's is filled up with columns of zeros: what ONNX Runtime's own Gemm gives
        for a row depends on how many there are.
        """
        columns = len(weight)
        spare = -columns % PANEL
        panels = _panels(np.pad(weight, ((0, spare), (0, 0))), group=1)
        filled = np.pad(bias, (0, spare))
        inputs = [
            rows,
            self.builder.weight(f"{name}.weight", panels.shape, [panels]),
            self.builder.weight(f"{name}.bias", filled.shape, [filled]),
        ]
        if not spare:
            return self.builder.node("LinearFp32", inputs, name, domain=BGERT)
        wide = self.builder.node("LinearFp32", inputs, f"{name}.wide", domain=BGERT)
        ends = [
            self.builder.constant(f"{name}.{part}", np.array([value], np.int64))
            for part, value in (("start", 0), ("stop", columns), ("axis", 1))
        ]
        return self.builder.node("Slice", [wide, *ends], name)

    def _linear(self, operator: str, operand: str, name: str, bias: Array | None) -> str:
        columns, _ = self.network.architecture.weight_shapes()[f"{name}.weight"]
        bias = np.zeros(columns, np.float32) if bias is None else bias
        inputs = [operand, f"{name}.weight", self.builder.weight(f"{name}.bias", bias.shape, [bias])]
        if columns % PANEL:
            self.weight(f"{name}.weight")
            return self.builder.node("Gemm", inputs, name, attributes={"transB": 1})
        panels = _panels(self.network.read(f"{name}.weight"), group=1)
        self.builder.weight(f"{name}.weight", panels.shape, [panels])
        return self.builder.node(operator, inputs, name, domain=BGERT)

    def norm(
        self, operator: str, rows: str, residual: str, name: str, outputs: list[str], more: Collection[str] = ()
    ) -> list[str]:
        """One of the LayerNorm operators."""
        bias = self.network.bias(name)
        beta = self.builder.weight(f"{name}.bias", bias.shape, [bias])
        inputs = [rows, residual, self.weight(f"{name}.weight"), beta, *more]
        attributes = {"epsilon": self.network.architecture.layer_norm_eps}
        return list(self.builder.nodes(operator, inputs, outputs, attributes=attributes, domain=BGERT))

    def packed_attention(
        self, form: str, inputs: list[str], name: str, window: int | None, *, seen: bool = False
    ) -> str:
        """One of the attention operators, whose output has the form that its name ends in."""
        attributes = {"num_heads": self.network.architecture.num_attention_heads}
        operator = "PackedAttention" if len(inputs) == 4 else "PackedRelativeAttention"
        if seen:
            operator = "PackedSeenAttention"
        if window is not None:
            attributes["window"] = window
            operator = "PackedLocalSeenAttention" if seen else "PackedLocalAttention"
        return self.builder.node(operator + form, inputs, f"{name}.context", attributes=attributes, domain=BGERT)

    def weight(self, name: str) -> str:
        """A weight as the checkpoint has it, in float32."""
        shape = self.network.architecture.weight_shapes()[name]
        return self.builder.weight(name, shape, self.network.blocks(name))


class Bf16Linears:
    """Matrices in bfloat16 with sums in float32; the rest stays float32."""

    def __init__(self, builder: GraphBuilder, network: Network) -> None:
        _check(network)
        self._b, self._net = builder, network
        self._fp32 = Fp32Linears(builder, network)

    def add_layer_norm(self, rows: str, residual: str, name: str) -> tuple[str, str]:
        """See `Linears`."""
        out, operand = self._fp32.norm("AddLayerNormBf16", rows, residual, name, [name, f"{name}.bf16"])
        return out, operand

    def gather(self, rows: str, operand: str, index: str, name: str) -> tuple[str, str]:
        """See `Linears`."""
        out = self._b.node("Gather", [rows, index], name)
        return out, self._b.node("Gather", [operand, index], f"{name}.bf16")

    def attention(self, inputs: list[str], name: str, window: int | None, *, seen: bool = False) -> str:
        """See `Linears`."""
        return self._fp32.packed_attention("Bf16", inputs, name, window, seen=seen)

    def linear(self, operand: str, name: str, bias: Array | None) -> str:
        """See `Linears`."""
        return self._b.node("LinearBf16", [operand, *self._matrix(name, bias)], name, domain=BGERT)

    def feed_forward(self, operand: str, name: str) -> str:
        """See `Linears`."""
        inner, outer = f"{name}.intermediate.dense", f"{name}.output.dense"
        if self._net.architecture.gated:
            inner, operator = f"{name}.intermediate", gated_operator(self._net, "Bf16")
            matrix = self._stored(inner, *gated_weights(self._net, name))
        else:
            matrix, operator = self._matrix(inner, self._net.bias(inner)), "LinearGeluBf16"
        wide = self._b.node(operator, [operand, *matrix], inner, domain=BGERT)
        return self.linear(wide, outer, self._net.bias(outer))

    def _matrix(self, name: str, bias: Array | None) -> list[str]:
        return self._stored(name, self._net.read(f"{name}.weight"), bias)

    def _stored(self, name: str, weight: Array, bias: Array | None) -> list[str]:
        panels = _panels(weight, group=2)
        bias = np.zeros(len(panels) * PANEL, np.float32) if bias is None else bias
        return [
            self._b.weight(f"{name}.weight", panels.shape, [panels], BFLOAT16),
            self._b.weight(f"{name}.bias", bias.shape, [bias]),
        ]


class Int8Linears:
    """Matrices in 8 bits, but for those that are named in `in_fp32`.

    Args:
        builder: of the graph.
        network: whose matrices they are.
        smoothing: what activations are multiplied by before they are quantised, float32[K], and the weights that read
            them divided by: under the name of the LayerNorm that makes them, or `{layer}.intermediate.gelu`.
        in_fp32: matrices that stay in float32.
        quantized: bytes int8[N, K] and scales float32[N] of matrices, as divided; of others each weight is rounded to
            what is nearest.
    """

    def __init__(
        self,
        builder: GraphBuilder,
        network: Network,
        smoothing: Mapping[str, Array] | None = None,
        in_fp32: Collection[str] = (),
        quantized: Mapping[str, Quantized] | None = None,
    ) -> None:
        _check(network)
        self._b, self._net = builder, network
        self._fp32 = Fp32Linears(builder, network)
        self._smoothing = smoothing or {}
        self._quantized = quantized or {}
        self._in_fp32 = frozenset(in_fp32)
        # Of each operand: the float32 rows it was made from, and what they were multiplied by.
        self._rows: dict[str, str] = {}
        self._factors: dict[str, Array | None] = {}

    def add_layer_norm(self, rows: str, residual: str, name: str) -> tuple[str, str]:
        """See `Linears`."""
        factors = self._add_factors(name, self._net.architecture.hidden_size)
        out, operand = self._fp32.norm("AddLayerNormInt8", rows, residual, name, [name, f"{name}.int8"], [factors])
        self._rows[operand], self._factors[operand] = out, self._smoothing.get(name)
        return out, operand

    def gather(self, rows: str, operand: str, index: str, name: str) -> tuple[str, str]:
        """See `Linears`."""
        out = self._b.node("Gather", [rows, index], name)
        gathered = self._b.node("Gather", [operand, index], f"{name}.int8")
        made_from = self._rows[operand]  # others than `rows` where LayerNorm comes first
        same = made_from == rows
        self._rows[gathered] = out if same else self._b.node("Gather", [made_from, index], f"{name}.operand")
        self._factors[gathered] = self._factors[operand]
        return out, gathered

    def attention(self, inputs: list[str], name: str, window: int | None, *, seen: bool = False) -> str:
        """See `Linears`."""
        if f"{name}.output.dense" in self._in_fp32:
            return self._fp32.packed_attention("", inputs, name, window, seen=seen)
        operand = self._fp32.packed_attention("Int8", inputs, name, window, seen=seen)
        self._factors[operand] = None
        return operand

    def linear(self, operand: str, name: str, bias: Array | None) -> str:
        """See `Linears`."""
        if name in self._in_fp32:
            return self._fp32.linear(self._rows.get(operand, operand), name, bias)
        return self._b.node(
            "LinearInt8", [operand, *self._matrix(name, bias, self._factors[operand])], name, domain=BGERT
        )

    def feed_forward(self, operand: str, name: str) -> str:
        """See `Linears`."""
        inner, outer = f"{name}.intermediate.dense", f"{name}.output.dense"
        if self._net.architecture.gated:
            return self._gated(operand, name)
        if not self._in_fp32 & {inner, outer}:
            matrix = self._matrix(inner, self._net.bias(inner), self._factors[operand])
            gelu = f"{name}.intermediate.gelu"
            factors = self._add_factors(gelu, self._net.architecture.intermediate_size)
            wide = self._b.node("LinearGeluInt8", [operand, *matrix, factors], gelu, domain=BGERT)
            self._factors[wide] = self._smoothing.get(gelu)
            return self.linear(wide, outer, self._net.bias(outer))
        # GELU's output has no float32 form when it is quantised at once, so the second matrix stays in float32 too.
        if inner in self._in_fp32:
            wide = self._fp32.linear_activated(self._rows[operand], inner)
        else:
            wide = self.linear(operand, inner, self._net.bias(inner))
            wide = self._b.node("Gelu", [wide], f"{name}.intermediate.gelu", domain=BGERT)
        return self._fp32.linear(wide, outer, self._net.bias(outer))

    def _gated(self, operand: str, name: str) -> str:
        at, outer = f"{name}.intermediate", f"{name}.output.dense"
        if outer in self._in_fp32:  # which reads float32 rows
            halves = [self.linear(operand, half, self._net.bias(half)) for half in (f"{at}.gate", f"{at}.dense")]
            wide = self._fp32.gate_rows(halves[0], halves[1], at)
            return self._fp32.linear(wide, outer, self._net.bias(outer))
        halves = [f"{at}.gate", f"{at}.dense"]
        quantized, scales = zip(*(self._numbers(half, self._factors[operand]) for half in halves), strict=True)
        bias = np.concatenate([self._net.bias(half) for half in halves])
        matrix = self._stored(at, np.concatenate(quantized), np.concatenate(scales), bias)
        factors = self._add_factors(f"{at}.gated", self._net.architecture.intermediate_size)
        wide = self._b.node(gated_operator(self._net, "Int8"), [operand, *matrix, factors], at, domain=BGERT)
        self._factors[wide] = self._smoothing.get(f"{at}.gated")
        return self.linear(wide, outer, self._net.bias(outer))

    def _add_factors(self, name: str, size: int) -> str:
        factors = self._smoothing.get(name, np.ones(size, np.float32))
        return self._b.weight(f"{name}.smoothing", factors.shape, [factors])

    def _matrix(self, name: str, bias: Array | None, factors: Array | None) -> list[str]:
        return self._stored(name, *self._numbers(name, factors), bias)

    def _numbers(self, name: str, factors: Array | None) -> Quantized:
        if name in self._quantized:
            return self._quantized[name]
        weights = self._net.read(f"{name}.weight")
        return quantize_columns(weights if factors is None else weights / factors)

    def _stored(self, name: str, quantized: NDArray[np.int8], scales: Array, bias: Array | None) -> list[str]:
        bias = np.zeros(len(quantized), np.float32) if bias is None else bias
        sums = quantized.sum(1, dtype=np.int32)
        panels = _panels(quantized, group=4)
        return [
            self._b.weight(f"{name}.weight", panels.shape, [panels], INT8),
            self._b.weight(f"{name}.scales", scales.shape, [scales]),
            self._b.weight(f"{name}.sums", sums.shape, [sums], INT32),
            self._b.weight(f"{name}.bias", bias.shape, [bias]),
        ]


def gated_weights(network: Network, name: str) -> tuple[Array, Array]:
    """The gate's weights and biases and then the other half's, [2 * intermediate, H] and [2 * intermediate]."""
    halves = [f"{name}.intermediate.{half}" for half in ("gate", "dense")]
    weights = [network.read(f"{half}.weight") for half in halves]
    return np.concatenate(weights), np.concatenate([network.bias(half) for half in halves])


def gated_operator(network: Network, precision: str) -> str:
    """What runs a gated matrix."""
    return ("LinearSwiglu" if network.architecture.activation == "silu" else "LinearGeglu") + precision


def quantize_columns(weights: Array) -> tuple[NDArray[np.int8], Array]:
    """float32[N, K] to int8[N, K] from -127 to 127 and float32[N]: `weights` is about `quantized * scales[:, None]`.

    Symmetric, a scale for each output column; a column of zeros has scale 0.
    """
    steps, scales = in_steps(weights)
    return nearest_byte(steps).astype(np.int8), scales


def in_steps(weights: Array) -> tuple[Array, Array]:
    """float32[N, K] in steps of float32[N], so that each row's largest is 127."""
    scales: Array = np.abs(weights).max(1) / np.float32(127)
    divisors: Array = np.where(scales > 0, scales, np.float32(1)).astype(np.float32)
    return weights / divisors[:, None], scales


def nearest_byte(steps: Array) -> Array:
    """The whole numbers from -127 to 127 next to them, float32."""
    nearest: Array = np.clip(np.rint(steps), -127, 127)
    return nearest


def _panels(matrix: NDArray[Any], *, group: int) -> NDArray[Any]:
    """[N, K] to [N / 32, K / group * 32 * group]: 32 columns at a time, `group` numbers of a column side by side."""
    columns, depth = matrix.shape
    cut = matrix.reshape(columns // PANEL, PANEL, depth // group, group).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(cut).reshape(columns // PANEL, -1)


def _check(network: Network) -> None:
    architecture = network.architecture
    architecture.require_gelu("bfloat16 and int8")
    for name in ("hidden_size", "intermediate_size"):
        width = getattr(architecture, name)
        if width % PANEL:
            raise UnsupportedCheckpointError(
                f"{name} is {width}: bfloat16 and int8 need a multiple of {PANEL}; this checkpoint has fp32 alone"
            )
