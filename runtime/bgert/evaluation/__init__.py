"""Retrieval quality of a model on a judged collection in BEIR's format: nDCG, recall and MRR, searched exactly."""

from bgert.evaluation.collection import Collection, CollectionError, load_collection
from bgert.evaluation.exact_search import search
from bgert.evaluation.metrics import DEFAULT_METRICS, ndcg, recall, reciprocal_rank, score_rankings
from bgert.evaluation.retrieval import EvaluationResult, evaluate, rerank

__all__ = [
    "DEFAULT_METRICS",
    "Collection",
    "CollectionError",
    "EvaluationResult",
    "evaluate",
    "load_collection",
    "ndcg",
    "recall",
    "reciprocal_rank",
    "rerank",
    "score_rankings",
    "search",
]
