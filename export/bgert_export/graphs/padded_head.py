"""What follows pooling in graphs of padded texts, of standard operators, in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bgert_export.graphs.builder import GraphBuilder

__all__ = ["normalized"]


def normalized(b: GraphBuilder, rows: str) -> str:
    """float32[B, H] at length one, as `torch.nn.functional.normalize`."""
    axis = b.constant("norm.axis", np.array([1], np.int64))
    norm = b.node("ReduceL2", [rows, axis], "norm", attributes={"keepdims": 1})
    least = b.constant("norm.least", np.array([[1e-12]], np.float32))
    return b.node("Div", [rows, b.node("Max", [norm, least], "norm.safe")], "embeddings")
