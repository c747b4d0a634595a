"""From the last hidden states of padded texts to vectors, of standard operators, in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bgert_export.graphs.builder import FLOAT

if TYPE_CHECKING:
    from bgert_export.graphs.builder import GraphBuilder

__all__ = ["mean", "normalized", "pooled"]


def pooled(b: GraphBuilder, rows: str, mask: str, pooling: str) -> str:
    """The rows [B, S, H] of each text as one, [B, H]: its `cls` or the `mean` of its own."""
    if pooling == "mean":
        return mean(b, rows, mask)
    first = b.constant("pooling.first", np.array(0, np.int64))
    return b.node("Gather", [rows, first], "pooling.cls", attributes={"axis": 1})


def mean(b: GraphBuilder, rows: str, mask: str) -> str:
    """Mean over each text's own tokens, float32[B, S, H] to float32[B, H]."""
    real = b.node("Cast", [mask], "pooling.real", attributes={"to": FLOAT})
    axis = b.constant("pooling.axis", np.array([1], np.int64))
    last = b.constant("pooling.last", np.array([2], np.int64))
    own = b.node("Mul", [rows, b.node("Unsqueeze", [real, last], "pooling.column")], "pooling.own")
    total = b.node("ReduceSum", [own, axis], "pooling.sum", attributes={"keepdims": 0})
    count = b.node("ReduceSum", [real, axis], "pooling.count", attributes={"keepdims": 1})
    return b.node("Div", [total, count], "pooling.mean")


def normalized(b: GraphBuilder, rows: str) -> str:
    """float32[B, H] at length one, as `torch.nn.functional.normalize`."""
    axis = b.constant("norm.axis", np.array([1], np.int64))
    norm = b.node("ReduceL2", [rows, axis], "norm", attributes={"keepdims": 1})
    least = b.constant("norm.least", np.array([[1e-12]], np.float32))
    return b.node("Div", [rows, b.node("Max", [norm, least], "norm.safe")], "embeddings")
