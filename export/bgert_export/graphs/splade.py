"""SPLADE's pooling (arXiv:2109.10086): `log(1 + relu(score))` of every id of the vocabulary, over a text's tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bgert_export.graphs.head import activated

if TYPE_CHECKING:
    from collections.abc import Callable

    from bgert_export.graphs.builder import GraphBuilder
    from bgert_export.graphs.head import Linear
    from bgert_export.mlm_head import MlmHead

__all__ = ["splade_rows"]


def splade_rows(
    b: GraphBuilder,
    rows: str,
    head: MlmHead,
    pooling: str,
    linear: Linear,
    pool: Callable[[str, str], str],
) -> str:
    """The last hidden states [T, H] to float32[B, V], 0 for most ids.

    Args:
        b: the graph.
        rows: float32.
        head: gives the scores.
        pooling: of `bgert_export.pooling.SPLADES`.
        linear: as of dense layers.
        pool: the maximum of each text's rows, or their sum for `splade_sum`.
    """
    hidden = activated(b, linear(rows, "mlm.dense", *head.dense), "mlm.dense", head.activation)
    norm = [b.weight(f"mlm.norm.{part}", value.shape, [value]) for part, value in zip("wb", head.norm, strict=True)]
    attributes = {"axis": -1, "epsilon": head.epsilon}
    hidden = b.node("LayerNormalization", [hidden, *norm], "mlm.norm", attributes=attributes)
    scores = linear(hidden, "mlm.decoder", *head.decoder)
    if pooling == "splade_sum":
        return pool(_saturated(b, scores, "splade.token"), "splade.sum")
    # Both functions rise, so the largest score gives the largest result.
    largest = _saturated(b, pool(scores, "splade.max"), "splade.text")
    return _log1p(b, largest, "splade.twice") if pooling == "splade_log1p" else largest


def _saturated(b: GraphBuilder, scores: str, name: str) -> str:
    return _log1p(b, b.node("Relu", [scores], f"{name}.relu"), name)


def _log1p(b: GraphBuilder, rows: str, name: str) -> str:
    one = b.constant(f"{name}.one", np.array(1, np.float32))
    return b.node("Log", [b.node("Add", [rows, one], f"{name}.more")], f"{name}.log")
