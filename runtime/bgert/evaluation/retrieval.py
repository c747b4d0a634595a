"""A collection through an encoder, and through a reranker after it, to metrics."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.errors import InvalidOptionError
from bgert.evaluation.exact_search import search, unit_rows
from bgert.evaluation.json_lines import CollectionError
from bgert.evaluation.metrics import DEFAULT_METRICS, has_relevant, parse_metric, score_rankings
from bgert.model import WINDOW, Model, check_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from bgert.encoder import Encoder
    from bgert.evaluation.collection import Collection
    from bgert.reranker import Reranker

__all__ = ["EvaluationResult", "description", "evaluate", "for_cosine", "means", "rerank"]

RERANK_TOP_K = 100


@dataclass(frozen=True)
class EvaluationResult:
    """What was measured, and on what."""

    metrics: dict[str, float]
    """The encoder alone: metric to its mean over the queries."""
    reranked_metrics: dict[str, float] | None
    """The same after the reranker; None without one."""
    per_query: dict[str, dict[str, float]]
    """Query id to metric to value, for the encoder alone."""
    reranked_per_query: dict[str, dict[str, float]] | None
    """The same after the reranker; None without one."""
    encoder: dict[str, Any]
    """`source`, `device`, `precision`, `engine`."""
    reranker: dict[str, Any] | None
    """The same of the reranker."""
    rerank_top_k: int | None
    """Documents a query that the reranker scored; None without one."""
    ignore_identical_ids: bool
    """Whether a document with the id of the query was left out of its ranking."""
    documents: int
    queries: int
    """Queries that were evaluated: those with a relevant document."""
    queries_without_relevant: int
    """Queries with judgments of which none is relevant: not evaluated."""
    queries_unjudged: int
    """Queries without judgments, as those of another split: not evaluated."""
    truncated_documents: int
    """Documents that were longer than the encoder's limit and lost their end."""
    truncated_queries: int
    truncated_pairs: int | None
    """Pairs that were longer than the reranker's limit; None without one."""

    def as_dict(self) -> dict[str, Any]:
        """All fields, of types that JSON has."""
        return asdict(self)


def evaluate(
    encoder: Encoder,
    collection: Collection,
    *,
    reranker: Reranker | None = None,
    rerank_top_k: int = RERANK_TOP_K,
    metrics: Sequence[str] = DEFAULT_METRICS,
    ignore_identical_ids: bool = False,
) -> EvaluationResult:
    """Rank the collection's documents for each query by cosine, and compare with the judgments.

    Queries and documents get the model's `query` and `document` prompts, as `encode_queries` and `encode_corpus` give
    them. The search is exact. Documents pass in blocks, so memory does not grow with their number but for ids.
    Queries without a relevant document are left out of the means and counted.

    Args:
        encoder: gives the first ranking.
        collection: see `load_collection`.
        reranker: orders the first `rerank_top_k` of that ranking anew; what follows keeps its place, so that
            recall@k for a k beyond `rerank_top_k` is the encoder's.
        rerank_top_k: from 1.
        metrics: names with cutoffs: `ndcg@10`, `recall@100`, `mrr@10`.
        ignore_identical_ids: leave a document out of the ranking of the query that has its id, as BEIR does. It is
            for collections whose queries are documents (ArguAna, Quora). By default nothing is left out, as in
            trec_eval: elsewhere equal ids mean nothing, and leaving out would drop a right answer.

    Raises:
        InvalidOptionError: an unknown metric, or a reranker with several labels.
        CollectionError: no query has a relevant document.
    """
    cutoffs = [parse_metric(name)[1] for name in metrics]
    if not cutoffs:
        raise InvalidOptionError("metrics is empty: name one, as ndcg@10")
    if reranker is not None:
        check_whole("rerank_top_k", rerank_top_k, 1, None)
        if reranker.num_labels != 1:
            raise InvalidOptionError(f"the reranker gives {reranker.num_labels} scores a pair: one is needed to rank")
        cutoffs.append(rerank_top_k)
    judged = [query for query in collection.queries if query in collection.qrels]
    queries = [query for query in judged if has_relevant(collection.qrels[query])]
    if not queries:
        raise CollectionError("no query has a relevant document: relevant is a grade from 1")
    vectors = encoder.encode_queries([collection.queries[query] for query in queries], show_progress=False)
    blocks = _DocumentVectors(encoder, collection)
    depth = max(cutoffs) + ignore_identical_ids
    indices, _ = search(for_cosine(encoder, vectors), blocks, collection.document_ids, depth)
    rankings = {
        query: [
            int(index) for index in row if not (ignore_identical_ids and collection.document_ids[int(index)] == query)
        ]
        for query, row in zip(queries, indices, strict=True)
    }
    per_query = score_rankings(_with_ids(rankings, collection), collection.qrels, metrics)
    reranked_per_query, truncated_pairs = None, None
    if reranker is not None:
        rankings, truncated_pairs = rerank(reranker, collection, rankings, rerank_top_k)
        reranked_per_query = score_rankings(_with_ids(rankings, collection), collection.qrels, metrics)
    info = vectors.info
    return EvaluationResult(
        metrics=means(per_query, metrics),
        reranked_metrics=None if reranked_per_query is None else means(reranked_per_query, metrics),
        per_query=per_query,
        reranked_per_query=reranked_per_query,
        encoder=description(encoder),
        reranker=None if reranker is None else description(reranker),
        rerank_top_k=None if reranker is None else rerank_top_k,
        ignore_identical_ids=ignore_identical_ids,
        documents=len(collection.document_ids),
        queries=len(queries),
        queries_without_relevant=len(judged) - len(queries),
        queries_unjudged=len(collection.queries) - len(judged),
        truncated_documents=blocks.truncated,
        truncated_queries=0 if info is None else int(info.truncated.sum()),
        truncated_pairs=truncated_pairs,
    )


def rerank(
    reranker: Reranker, collection: Collection, rankings: Mapping[str, Sequence[int]], top_k: int
) -> tuple[dict[str, list[int]], int]:
    """Order the first `top_k` of each ranking by the reranker's score; what follows keeps its place.

    Args:
        reranker: a model with one label.
        collection: holds the texts.
        rankings: query id to positions in `collection.document_ids`, best first.
        top_k: from 1.

    Returns:
        The new rankings (equal scores: the larger id first, as in `search`) and the number of pairs that were cut.
    """
    new: dict[str, list[int]] = {}
    truncated = 0
    for names in _batches(rankings, max(1, WINDOW // top_k)):
        heads = [rankings[name][:top_k] for name in names]
        pairs = [
            (collection.queries[name], collection.documents[index])
            for name, head in zip(names, heads, strict=True)
            for index in head
        ]
        scores = reranker.score(pairs, show_progress=False)
        truncated += 0 if scores.info is None else int(scores.info.truncated.sum())
        of_pair = iter(scores.tolist())
        for name, head in zip(names, heads, strict=True):
            keys = [(next(of_pair), collection.document_ids[index], index) for index in head]
            new[name] = [index for _, _, index in sorted(keys, reverse=True)] + list(rankings[name][top_k:])
    return new, truncated


class _DocumentVectors:
    """Blocks of the corpus's vectors, and how many documents were cut on the way."""

    def __init__(self, encoder: Encoder, collection: Collection) -> None:
        self.truncated = 0
        self._encoder = encoder
        self._documents = collection.documents

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for block in self._encoder.stream(self._documents, prompt="document"):
            self.truncated += 0 if block.info is None else int(block.info.truncated.sum())
            yield for_cosine(self._encoder, block)


def for_cosine(encoder: Encoder, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of which inner products are cosines."""
    plain = np.asarray(vectors)
    return plain if encoder.manifest.normalize else unit_rows(plain)


def _with_ids(rankings: Mapping[str, Sequence[int]], collection: Collection) -> dict[str, list[str]]:
    return {query: [collection.document_ids[index] for index in ranking] for query, ranking in rankings.items()}


def means(per_query: Mapping[str, Mapping[str, float]], metrics: Sequence[str]) -> dict[str, float]:
    """Each metric's mean over the queries."""
    return {name: float(np.mean([values[name] for values in per_query.values()])) for name in metrics}


def description(model: Model) -> dict[str, Any]:
    """What a result says of the model that made it."""
    return {
        "source": model.manifest.source,
        "device": model.device,
        "precision": model.precision,
        "engine": model.engine,
    }


def _batches(names: Mapping[str, object], size: int) -> Iterator[list[str]]:
    every = list(names)
    return (every[start : start + size] for start in range(0, len(every), size))
