"""The activation between the two layers of a classifier, of standard operators that every engine has, in float32."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bgert_export.graphs.builder import GraphBuilder

__all__ = ["activated"]


def activated(b: GraphBuilder, rows: str, name: str, activation: str) -> str:
    """`tanh`, `relu` or the exact `gelu`, `x / 2 * (1 + erf(x / sqrt(2)))`, of float32 rows."""
    output = f"{name}.{activation}"
    if activation == "tanh":
        return b.node("Tanh", [rows], output)
    if activation == "relu":
        return b.node("Relu", [rows], output)
    half, one, slope = (
        b.constant(f"{output}.{part}", np.array(value, np.float32))
        for part, value in (("half", 0.5), ("one", 1), ("slope", math.sqrt(0.5)))
    )
    erf = b.node("Erf", [b.node("Mul", [rows, slope], f"{output}.scaled")], f"{output}.erf")
    gate = b.node("Add", [erf, one], f"{output}.gate")
    return b.node("Mul", [b.node("Mul", [rows, half], f"{output}.halved"), gate], output)
