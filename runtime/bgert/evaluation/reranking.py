"""Candidates of each query to order, in the format of MTEB, C-MTEB and FlagEmbedding, scored as mteb scores them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.encoder import Encoder
from bgert.errors import InvalidOptionError
from bgert.evaluation.json_lines import CollectionError, records, string_field, strings_field
from bgert.evaluation.metrics import parse_metric, score_rankings
from bgert.evaluation.retrieval import description, for_cosine, means
from bgert.model import WINDOW
from bgert.paths import user_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.option_types import Truncation
    from bgert.reranker import Reranker

__all__ = ["RERANKING_METRICS", "Candidates", "RerankingResult", "evaluate_reranking", "load_candidates"]

RERANKING_METRICS = ("map@1000", "mrr@10")
FIELDS = (("positive", "negative"), ("pos", "neg"))


@dataclass(frozen=True)
class Candidates:
    """A query, and texts of which it is known whether they answer it."""

    name: str
    """Of the query: the number of its line."""
    query: str
    positive: Sequence[str]
    negative: Sequence[str]

    def texts(self) -> list[str]:
        """All candidates, the positive ones first; a text that occurs twice is two candidates."""
        return [*self.positive, *self.negative]


@dataclass(frozen=True)
class RerankingResult:
    """What was measured, and on what."""

    metrics: dict[str, float]
    """Metric to its mean over the queries."""
    per_query: dict[str, dict[str, float]]
    """Number of a query's line to metric to value."""
    model: dict[str, Any]
    """`kind`, `source`, `device`, `precision`, `engine`."""
    truncation: str | None
    """How a reranker's pairs were cut; None for an encoder."""
    queries: int
    """Queries that were evaluated: those with a positive and a negative candidate."""
    queries_left_out: int
    """The others."""
    candidates: int
    truncated_queries: int | None
    """Queries that were longer than the encoder's limit; None for a reranker."""
    truncated_candidates: int
    """Candidates that lost their end: as a document, or in a reranker's pair."""

    def as_dict(self) -> dict[str, Any]:
        """All fields, of types that JSON has."""
        return asdict(self)


def load_candidates(path: str | Path) -> list[Candidates]:
    """Read and check a .jsonl file, an object a query.

    Its fields are `query`, `positive` and `negative`, as MTEB and C-MTEB name them, or `query`, `pos` and `neg`, as
    FlagEmbedding does: a text and two lists of texts. Others are left alone.

    Raises:
        InputFileError: the file is missing, cannot be read or is not UTF-8.
        CollectionError: a line is no JSON, lacks a field or has one of the wrong type, or there are none.
    """
    path = user_path(path, "the candidates")
    found = [_candidates(record, where) for record, where, _ in records(path)]
    if not found:
        raise CollectionError(f"{path}: no queries")
    return found


def evaluate_reranking(
    model: Encoder | Reranker,
    candidates: Sequence[Candidates],
    *,
    metrics: Sequence[str] = RERANKING_METRICS,
    truncation: Truncation = "longest_first",
) -> RerankingResult:
    """Order each query's candidates by the model, and compare with what is known of them.

    An encoder orders by cosine, with the model's `query` and `document` prompts. As in mteb 2, queries without a
    positive or without a negative candidate are left out, and of equal scores a negative's comes first.

    Args:
        model: an encoder, or a reranker with one label.
        candidates: see `load_candidates`.
        metrics: names with cutoffs, as in `evaluate`. MAP@1000 is what mteb reports; it is MAP up to 1,000 candidates.
        truncation: how a reranker's pairs are cut, as in `Reranker.score`.

    Raises:
        InvalidOptionError: an unknown metric or truncation, or a reranker with several labels.
        CollectionError: no query has candidates of both kinds.
    """
    for name in metrics:
        parse_metric(name)
    if not metrics:
        raise InvalidOptionError("metrics is empty: name one, as map@1000")
    judged = [item for item in candidates if item.positive and item.negative]
    if not judged:
        raise CollectionError("no query has a positive and a negative candidate")
    scorer = _ByCosine(model) if isinstance(model, Encoder) else _ByPair(model, truncation)
    rankings: dict[str, list[str]] = {}
    for block in _blocks(judged):
        for item, scores in zip(block, scorer.scores(block), strict=True):
            is_positive = np.arange(len(scores)) < len(item.positive)
            rankings[item.name] = [str(index) for index in np.lexsort((is_positive, -scores))]
    qrels = {item.name: {str(index): 1 for index in range(len(item.positive))} for item in judged}
    per_query = score_rankings(rankings, qrels, metrics)
    return RerankingResult(
        metrics=means(per_query, metrics),
        per_query=per_query,
        model={"kind": model.kind} | description(model),
        truncation=None if isinstance(model, Encoder) else truncation,
        queries=len(judged),
        queries_left_out=len(candidates) - len(judged),
        candidates=sum(len(ranking) for ranking in rankings.values()),
        truncated_queries=scorer.truncated_queries,
        truncated_candidates=scorer.truncated,
    )


class _ByCosine:
    """Scores of an encoder: cosines, as float32."""

    def __init__(self, encoder: Encoder) -> None:
        self.truncated_queries: int | None = 0
        self.truncated = 0
        self._encoder = encoder

    def scores(self, block: Sequence[Candidates]) -> Iterator[NDArray[np.float32]]:
        queries = self._encoder.encode_queries([item.query for item in block], show_progress=False)
        texts = self._encoder.encode_corpus([text for item in block for text in item.texts()], show_progress=False)
        self.truncated_queries = (self.truncated_queries or 0) + queries.info.n_truncated
        self.truncated += texts.info.n_truncated
        of_queries, of_texts = (for_cosine(self._encoder, rows).astype(np.float64) for rows in (queries, texts))
        # Sums by row: equal vectors have equal scores, wherever they stand.
        return (
            (rows * query).sum(axis=1).astype(np.float32)
            for query, rows in zip(of_queries, _parts(of_texts, block), strict=True)
        )


class _ByPair:
    """Scores of a reranker: raw logits."""

    def __init__(self, reranker: Reranker, truncation: Truncation) -> None:
        if reranker.num_labels != 1:
            raise InvalidOptionError(f"the reranker gives {reranker.num_labels} scores a pair: one is needed to rank")
        self.truncated_queries: int | None = None
        self.truncated = 0
        self._reranker = reranker
        self._truncation: Truncation = truncation

    def scores(self, block: Sequence[Candidates]) -> Iterator[NDArray[np.float32]]:
        pairs = [(item.query, text) for item in block for text in item.texts()]
        scores = self._reranker.score(pairs, truncation=self._truncation, show_progress=False)
        self.truncated += scores.info.n_truncated
        return _parts(np.asarray(scores), block)


def _parts(rows: NDArray[Any], block: Sequence[Candidates]) -> Iterator[NDArray[Any]]:
    """The rows of each item's candidates."""
    ends = np.cumsum([len(item.positive) + len(item.negative) for item in block])
    return iter(np.split(rows, ends[:-1]))


def _blocks(items: Sequence[Candidates]) -> Iterator[list[Candidates]]:
    """Items whose candidates fill about a window."""
    block: list[Candidates] = []
    size = 0
    for item in items:
        block.append(item)
        size += len(item.positive) + len(item.negative)
        if size >= WINDOW:
            yield block
            block, size = [], 0
    if block:
        yield block


def _candidates(record: dict[str, Any], where: str) -> Candidates:
    names = [pair for pair in FIELDS if pair[0] in record or pair[1] in record]
    if len(names) != 1:
        trouble = "fields of both formats" if names else "neither format's fields"
        raise CollectionError(f"{where}: {trouble}: query, positive and negative, or query, pos and neg, are read")
    positive, negative = (strings_field(record, name, where) for name in names[0])
    return Candidates(where.rpartition(":")[2], string_field(record, "query", where), positive, negative)
