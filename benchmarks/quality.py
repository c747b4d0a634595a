"""How near a peer's outputs are to PyTorch's, and what its vectors find."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bgert.evaluation.metrics import has_relevant, ndcg

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bgert.evaluation import Collection

__all__ = ["against_reference", "ndcg_at_10"]


def against_reference(outputs: NDArray[np.float32], truth: NDArray[np.float32]) -> dict[str, float]:
    """Cosines of rows `[n, dim]`, or differences of scores `[n]`, to the reference.

    Raises:
        ValueError: shapes differ or a value is not finite.
    """
    if outputs.shape != truth.shape:
        raise ValueError(f"shape {outputs.shape}, the reference has {truth.shape}")
    if not np.isfinite(outputs).all():
        raise ValueError("outputs are not finite")
    ours, theirs = outputs.astype(np.float64), truth.astype(np.float64)
    if ours.ndim == 1:
        return {"max_score_difference": float(np.abs(ours - theirs).max()), "score_std": float(theirs.std())}
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = (ours * theirs).sum(1) / lengths
    return {"cosine_mean": round(float(cosines.mean()), 9), "cosine_min": round(float(cosines.min()), 9)}


def ndcg_at_10(collection: Collection, documents: NDArray[np.float32], queries: NDArray[np.float32]) -> float:
    """Mean nDCG@10 of cosine search, rows in the collection's order, by `bgert.evaluation`."""
    found = np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :10]
    values = []
    for query, order in zip(collection.queries, found, strict=True):
        judgments = collection.qrels.get(query, {})
        if has_relevant(judgments):
            values.append(ndcg([collection.document_ids[place] for place in order], judgments, 10))
    return round(float(np.mean(values)), 5)
