"""Quality of a model on judged texts: a collection in BEIR's format, searched exactly, or candidates to order."""

from bgert.evaluation.collection import Collection, load_collection
from bgert.evaluation.exact_search import search
from bgert.evaluation.json_lines import CollectionError
from bgert.evaluation.metrics import (
    DEFAULT_METRICS,
    average_precision,
    ndcg,
    recall,
    reciprocal_rank,
    score_rankings,
)
from bgert.evaluation.reranking import Candidates, RerankingResult, evaluate_reranking, load_candidates
from bgert.evaluation.retrieval import EvaluationResult, evaluate, rerank

__all__ = [
    "DEFAULT_METRICS",
    "Candidates",
    "Collection",
    "CollectionError",
    "EvaluationResult",
    "RerankingResult",
    "average_precision",
    "evaluate",
    "evaluate_reranking",
    "load_candidates",
    "load_collection",
    "ndcg",
    "recall",
    "reciprocal_rank",
    "rerank",
    "score_rankings",
    "search",
]
