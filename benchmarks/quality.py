"""How near a peer's outputs are to PyTorch's, and what its vectors find."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Collection", "against_reference", "load_collection", "ndcg_at_10"]


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


@dataclass(frozen=True)
class Collection:
    """A judged collection in BEIR's layout: texts by id and grades by query id and document id."""

    documents: dict[str, str]
    queries: dict[str, str]
    judgments: dict[str, dict[str, int]]


def load_collection(folder: Path) -> Collection:
    """Read `corpus.jsonl`, `queries.jsonl` and `qrels.tsv`; queries without a judgment are left out."""
    judgments: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines():
        query, document, grade, *_ = line.split("\t")
        if grade.lstrip("-").isdigit():  # the first line names the columns
            judgments.setdefault(query, {})[document] = int(grade)
    queries = {row["_id"]: row["text"] for row in rows(folder / "queries.jsonl") if row["_id"] in judgments}
    documents = {row["_id"]: f"{row.get('title') or ''} {row['text']}".strip() for row in rows(folder / "corpus.jsonl")}
    return Collection(documents, queries, judgments)


def rows(path: Path) -> list[dict[str, str]]:
    """Objects of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def ndcg_at_10(collection: Collection, documents: NDArray[np.float32], queries: NDArray[np.float32]) -> float:
    """Mean nDCG@10 of cosine search (rows in the collection's order), as trec_eval: linear gain, log2 discount."""
    names = list(collection.documents)
    found = np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :10]
    values = []
    for query, order in zip(collection.queries, found, strict=True):
        grades = collection.judgments[query]
        gained = [max(grades.get(names[place], 0), 0) for place in order]
        best = sorted((max(grade, 0) for grade in grades.values()), reverse=True)[:10]
        if best and best[0] > 0:
            values.append(discounted(gained) / discounted(best))
    return round(float(np.mean(values)), 5)


def discounted(gains: list[int]) -> float:
    """Sum of gains over log2(rank + 1), ranks from 1."""
    return sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains))
