"""nDCG, recall, average precision and reciprocal rank of a ranking, as trec_eval defines them and BEIR and MTEB report.

A ranking is a sequence of document ids, best first, none twice. Judgments give a document's grade: from 1 it is
relevant; 0, a negative grade and no judgment are all not relevant.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from bgert.errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Ranking = Sequence[str]
    Judgments = Mapping[str, int]

__all__ = [
    "DEFAULT_METRICS",
    "average_precision",
    "has_relevant",
    "ndcg",
    "parse_metric",
    "recall",
    "reciprocal_rank",
    "score_rankings",
]

DEFAULT_METRICS = ("ndcg@10", "recall@100", "mrr@10")


def ndcg(ranking: Ranking, judgments: Judgments, k: int) -> float:
    """Normalised discounted cumulative gain of the first `k`: `ndcg_cut` of trec_eval.

    DCG@k is the sum over ranks i from 1 to k of grade_i / log2(i + 1), with the grade itself as the gain (Järvelin
    and Kekäläinen 2002, with the discount at rank 1 too; not the 2^grade - 1 of Burges et al. 2005). It is divided
    by the DCG@k of all judged documents in the order of their grades.

    Returns:
        0 to 1; 0 where no document is relevant.
    """
    ideal = _dcg(sorted((max(grade, 0) for grade in judgments.values()), reverse=True)[:k])
    return _dcg([max(judgments.get(document, 0), 0) for document in ranking[:k]]) / ideal if ideal else 0.0


def recall(ranking: Ranking, judgments: Judgments, k: int) -> float:
    """Share of all relevant documents among the first `k`: `recall` of trec_eval.

    Returns:
        0 to 1; 0 where no document is relevant.
    """
    relevant = sum(grade > 0 for grade in judgments.values())
    return sum(judgments.get(document, 0) > 0 for document in ranking[:k]) / relevant if relevant else 0.0


def average_precision(ranking: Ranking, judgments: Judgments, k: int) -> float:
    """Mean of the precisions at the ranks of all relevant documents, 0 for one not among the first `k`: `map_cut`.

    Its mean over queries is MAP@k, which is MAP where no ranking is longer than k.

    Returns:
        0 to 1; 0 where no document is relevant.
    """
    relevant = sum(grade > 0 for grade in judgments.values())
    ranks = [rank for rank, document in enumerate(ranking[:k], 1) if judgments.get(document, 0) > 0]
    return math.fsum(found / rank for found, rank in enumerate(ranks, 1)) / relevant if relevant else 0.0


def reciprocal_rank(ranking: Ranking, judgments: Judgments, k: int) -> float:
    """1 / rank of the first relevant document, 0 where none is among the first `k`.

    `recip_rank` of trec_eval on a run cut at `k`; its mean over queries is MRR@k (Voorhees 1999).
    """
    ranks = (rank for rank, document in enumerate(ranking[:k], 1) if judgments.get(document, 0) > 0)
    return 1 / next(ranks, math.inf)


def _dcg(grades: Sequence[int]) -> float:
    return math.fsum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, 1))


_METRICS: dict[str, Callable[[Ranking, Judgments, int], float]] = {
    "ndcg": ndcg,
    "recall": recall,
    "map": average_precision,
    "mrr": reciprocal_rank,
}


def parse_metric(name: str) -> tuple[Callable[[Ranking, Judgments, int], float], int]:
    """The function and the cutoff of a metric such as `ndcg@10`.

    Raises:
        InvalidOptionError: it is none.
    """
    match = re.fullmatch(r"(\w+)@([1-9][0-9]{0,8})", name)
    if match is None or match[1] not in _METRICS:
        raise InvalidOptionError(f"unknown metric {name!r}: use one of {', '.join(_METRICS)} with a cutoff, as ndcg@10")
    return _METRICS[match[1]], int(match[2])


def has_relevant(judgments: Judgments) -> bool:
    """Whether any document is relevant."""
    return any(grade > 0 for grade in judgments.values())


def score_rankings(
    rankings: Mapping[str, Ranking],
    qrels: Mapping[str, Judgments],
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> dict[str, dict[str, float]]:
    """Metrics of each query that has a relevant document; a query without a ranking scores 0.

    Args:
        rankings: query id to document ids, best first.
        qrels: query id to document id to grade.
        metrics: names such as `ndcg@10`, `recall@100`, `map@1000`, `mrr@10`.

    Returns:
        Query id to metric to value. A query without relevant documents is not in it.

    Raises:
        InvalidOptionError: an unknown metric.
    """
    parsed = {name: parse_metric(name) for name in metrics}
    return {
        query: {name: function(rankings.get(query, ()), judgments, k) for name, (function, k) in parsed.items()}
        for query, judgments in qrels.items()
        if has_relevant(judgments)
    }
