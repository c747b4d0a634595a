"""What stands behind pooling, of standard operators that every engine has, in float32: activations, dense layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from bgert_export.graphs.builder import GraphBuilder
    from bgert_export.network import Network
    from bgert_export.projections import Projection

    Array = NDArray[np.float32]
    Linear = Callable[[str, str, Array, Array], str]
    """Rows, name, weight [out, in] and bias to `rows @ weight.T + bias` of that name."""

__all__ = ["activated", "projected"]


def activated(b: GraphBuilder, rows: str, name: str, activation: str) -> str:
    """One of `projections.ACTIVATIONS`' values, or an architecture's, of float32 rows.

    `gelu` is exact, `x / 2 * (1 + erf(x / sqrt(2)))`.
    """
    output = f"{name}.{activation}"
    if activation == "identity":
        return rows
    if activation == "gelu_tanh":
        return _gelu_tanh(b, rows, output)
    if activation in ("tanh", "relu", "sigmoid"):
        return b.node({"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid"}[activation], [rows], output)
    if activation == "silu":
        return b.node("Mul", [rows, b.node("Sigmoid", [rows], f"{output}.gate")], output)
    half, one, slope = (
        b.constant(f"{output}.{part}", np.array(value, np.float32))
        for part, value in (("half", 0.5), ("one", 1), ("slope", math.sqrt(0.5)))
    )
    erf = b.node("Erf", [b.node("Mul", [rows, slope], f"{output}.scaled")], f"{output}.erf")
    gate = b.node("Add", [erf, one], f"{output}.gate")
    return b.node("Mul", [b.node("Mul", [rows, half], f"{output}.halved"), gate], output)


def projected(
    b: GraphBuilder, rows: str, projections: Sequence[Projection], linear: Linear, name: str = "dense"
) -> str:
    """Rows [B, in] through dense layers, one after the other."""
    for number, layer in enumerate(projections):
        at = f"{name}.{number}"
        bias = np.zeros(layer.columns, np.float32) if layer.bias is None else layer.bias
        through = activated(b, linear(rows, at, layer.weight, bias), at, layer.activation)
        if layer.residual:
            added = rows
            if layer.residual_weight is not None:
                added = linear(rows, f"{at}.residual", layer.residual_weight, np.zeros(layer.columns, np.float32))
            through = b.node("Add", [through, added], f"{at}.sum")
        rows = through
    return rows


def _gelu_tanh(b: GraphBuilder, x: str, at: str) -> str:
    """`x / 2 * (1 + tanh(sqrt(2 / pi) * x * (1 + 0.044715 * x * x)))`."""
    half, one, cubic, slope = (
        b.constant(f"{at}.{name}", np.array(value, np.float32))
        for name, value in (("half", 0.5), ("one", 1), ("cubic", 0.044715), ("slope", math.sqrt(2 / math.pi)))
    )
    square = b.node("Mul", [x, x], f"{at}.square")
    bent = b.node("Add", [b.node("Mul", [square, cubic], f"{at}.term"), one], f"{at}.bent")
    inner = b.node("Mul", [b.node("Mul", [x, slope], f"{at}.scaled"), bent], f"{at}.inner")
    gate = b.node("Add", [b.node("Tanh", [inner], f"{at}.tanh"), one], f"{at}.gate")
    return b.node("Mul", [b.node("Mul", [x, half], f"{at}.halved"), gate], at)


def gemm(b: GraphBuilder, network: Network, rows: str, name: str, output: str) -> str:
    """A linear layer of float32 rows, in one operator with its bias."""
    shape = network.architecture.weight_shapes()[f"{name}.weight"]
    weight = b.weight(f"{name}.weight", shape, network.blocks(f"{name}.weight"))
    bias = b.weight(f"{name}.bias", shape[:1], network.blocks(f"{name}.bias"))
    return b.node("Gemm", [rows, weight, bias], output, attributes={"transB": 1})
