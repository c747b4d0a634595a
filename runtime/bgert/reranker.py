"""Pairs of query and document to scores."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np

from bgert.errors import InvalidOptionError, InvalidTextError
from bgert.inputs import as_list, naming
from bgert.model import WINDOW, Model, bounded, check_whole, warn_truncated
from bgert.option_types import Truncation, values_of
from bgert.progress import progress_bar
from bgert.results import ScoreInfo, Scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.option_types import Device, Mode, Pair, Precision
    from bgert.tokenizer import TokenBatch

    ScoreKind = Literal["logit", "sigmoid", "softmax"]

__all__ = ["Reranker", "logistic", "softmax_of"]


class Cut(NamedTuple):
    """How long pairs are cut."""

    max_length: int
    truncation: Truncation
    query_max_length: int | None


class Reranker(Model):
    """A cross-encoder loaded from a folder that `bgert export` wrote. Arguments and errors are those of `Model`.

    Two more are what `score` and `rank` do unless told otherwise:

    Args:
        truncation: which side of a long pair loses its end: `longest_first` (as sentence-transformers, TEI,
            infinity), `only_first`, `only_second`, or `flag_embedding` (FlagEmbedding: the query may have
            `query_max_length` tokens, then the document gives way).
        query_max_length: tokens of a query, without special ones, by `flag_embedding`; None for 3/4 of `max_length`.
    """

    kind = "reranker"

    def __init__(
        self,
        path: str | Path,
        *,
        device: Device | Sequence[Device] | None = "auto",
        precision: Precision = "auto",
        threads: int | None = None,
        mode: Mode = "throughput",
        gpu_memory_limit: int | None = None,
        split_special_tokens: bool = False,
        max_length: int | None = None,
        truncation: Truncation = "longest_first",
        query_max_length: int | None = None,
    ) -> None:
        self.truncation: Truncation = _check_truncation(truncation, query_max_length)
        self.query_max_length = query_max_length
        super().__init__(
            path,
            device=device,
            precision=precision,
            threads=threads,
            mode=mode,
            gpu_memory_limit=gpu_memory_limit,
            split_special_tokens=split_special_tokens,
            max_length=max_length,
        )

    @property
    def num_labels(self) -> int:
        """Numbers that a pair gets."""
        return self._runner.columns

    def score(
        self,
        pairs: tuple[str, str] | Iterable[Pair],
        *,
        prompt: str | None = None,
        prefix: str | None = None,
        max_length: int | None = None,
        truncation: Truncation | None = None,
        query_max_length: int | None = None,
        sigmoid: bool = False,
        softmax: bool = False,
        show_progress: bool | None = None,
    ) -> Scores:
        """Score pairs of (query, document).

        Args:
            pairs: a list or another iterable of pairs (`zip(queries, documents)`, two columns of a table), or one
                pair as a tuple. A query that many pairs share, next to each other, is tokenized once.
            prompt: name of a prompt of the manifest to put before every query; None for the model's default, if it
                has one.
            prefix: literal text to put before every query instead of a prompt; `""` for nothing.
            max_length: tokens a pair may have, special tokens counted, up to the model's table of positions; longer
                pairs are cut with a `TruncationWarning`. None for `self.max_length`.
            truncation: which side of a long pair loses its end, as in the constructor; None for `self.truncation`.
            query_max_length: tokens of a query by `flag_embedding`, as in the constructor; None for
                `self.query_max_length`.
            sigmoid: scores from 0 to 1 instead of raw logits. In float32 all logits from about 17 on become 1.0.
            softmax: probabilities of a model's several labels instead of raw logits, which add up to 1.
            show_progress: a progress bar; None for one on long work in a terminal or a notebook.

        Returns:
            float32[n] in the caller's order, raw logits unless told otherwise; float32[n, num_labels] for a model with
            several labels; without the n for one pair. Its `info` tells score kind, truncation, device, precision
            and which pairs were cut.

        Raises:
            InvalidTextError: an item is not a pair of `str`, or a side that is not to be cut leaves the other no room.
            InvalidOptionError: an unknown prompt or truncation, a length out of range, `query_max_length` without
                `flag_embedding`, or `softmax` with `sigmoid` or for a model of one label.
            NonFiniteOutputError: the model produced NaN or infinity.
        """
        items: Any = as_list(pairs, "pairs", "(query, document)", 2)
        # Two strings in a list may be pairs without their brackets as well.
        single = isinstance(pairs, tuple) and len(pairs) == 2 and all(isinstance(side, str) for side in pairs)
        if single:
            items = [pairs]
        before = self.text_before(prompt, prefix)
        cut = self._truncation(max_length, truncation, query_max_length)
        kind = self._score_kind(sigmoid=sigmoid, softmax=softmax)
        scores = self._score(items, len(items), before, cut, kind, show_progress, _pair_place)
        warn_truncated(scores.info.truncated, cut.max_length)
        return Scores.of(scores[0], scores.info) if single else scores

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_k: int | None = None,
        prompt: str | None = None,
        prefix: str | None = None,
        max_length: int | None = None,
        truncation: Truncation | None = None,
        query_max_length: int | None = None,
        sigmoid: bool = False,
        show_progress: bool | None = None,
    ) -> list[tuple[int, float]]:
        """Order documents by their score for a query.

        Args:
            query: one text.
            documents: texts: a list, an array, a pandas column, a generator.
            top_k: keep the best so many; None for all.
            prompt: as in `score`.
            prefix: as in `score`.
            max_length: as in `score`.
            truncation: as in `score`.
            query_max_length: as in `score`.
            sigmoid: as in `score`; the order is that of the logits all the same.
            show_progress: as in `score`.

        Returns:
            (index into documents, score), best first; equal logits stay in the order of the documents.

        Raises:
            InvalidOptionError: the model has several labels, or as in `score`.
            InvalidTextError: as in `score`.
            NonFiniteOutputError: as in `score`.
        """
        if self.num_labels != 1:
            raise InvalidOptionError(f"this model gives {self.num_labels} scores a pair: rank them from score()")
        if not isinstance(query, str):
            raise InvalidTextError(f"query is {type(query).__name__}: pass one str")
        documents = as_list(documents, "documents")
        if top_k is not None:
            check_whole("top_k", top_k, 1, None)
        pairs = ((query, document) for document in documents)
        before = self.text_before(prompt, prefix)
        cut = self._truncation(max_length, truncation, query_max_length)
        logits = self._score(pairs, len(documents), before, cut, "logit", show_progress, _rank_place)
        warn_truncated(logits.info.truncated, cut.max_length)
        best = np.argsort(-np.asarray(logits), kind="stable")[:top_k]  # sigmoids of large logits are all 1.0
        scores = logistic(np.asarray(logits)) if sigmoid else logits
        return [(int(index), float(scores[index])) for index in best]

    def _score(
        self,
        pairs: Iterable[Pair],
        count: int,
        prefix: str,
        cut: Cut,
        kind: ScoreKind,
        show_progress: bool | None,
        place: Callable[[str, int], str],
    ) -> Scores:
        """Scores of pairs, which a `place` names by side and number in errors; warns of nothing."""
        rows = np.empty((count, self.num_labels), np.float32)
        truncated = np.zeros(count, np.bool_)
        tokens, padding, done, tokenizing, running = 0, 0, 0, 0.0, 0.0
        tokenize = self._tokenize(prefix, cut, place)
        with progress_bar(count, show_progress) as advance:
            for window in self._runner.windows(bounded(pairs, WINDOW), tokenize):
                stop = done + len(window)
                start = perf_counter()
                self._runner.run(window, rows[done:stop].__setitem__, advance)
                running += perf_counter() - start
                tokenizing += window.tokenize_seconds
                truncated[done:stop] = window.truncated
                tokens += window.tokens
                padding += window.plan.padding
                done = stop
        if kind != "logit":
            rows = (logistic if kind == "sigmoid" else softmax_of)(rows)
        info = ScoreInfo(
            self.device,
            self.precision,
            self.engine,
            tokens,
            truncated,
            padding=padding,
            tokenize_seconds=tokenizing,
            run_seconds=running,
            verified=self.verified,
            score_kind=kind,
            truncation=cut.truncation,
        )
        return Scores.of(rows[:, 0] if self.num_labels == 1 else rows, info)

    def _score_kind(self, *, sigmoid: bool, softmax: bool) -> ScoreKind:
        if softmax and (sigmoid or self.num_labels == 1):
            why = "sigmoid is too" if sigmoid else "this model has one label, whose softmax is 1: pass sigmoid"
            raise InvalidOptionError(f"softmax is asked for and {why}")
        return "sigmoid" if sigmoid else "softmax" if softmax else "logit"

    def _truncation(self, max_length: int | None, truncation: str | None, query_max_length: int | None) -> Cut:
        """How a call cuts, which without a word is what the constructor was told."""
        self.check_max_length(max_length)
        chosen = _check_truncation(self.truncation if truncation is None else truncation, query_max_length)
        if query_max_length is None and chosen == "flag_embedding":
            query_max_length = self.query_max_length
        return Cut(max_length or self.max_length, chosen, query_max_length)

    def _tokenize(
        self, prefix: str, cut: Cut, place: Callable[[str, int], str]
    ) -> Callable[[list[Pair], int, int], TokenBatch]:
        def tokenize(pairs: list[Pair], first: int, cores: int) -> TokenBatch:
            for index, pair in enumerate(pairs, first):
                if isinstance(pair, (str, bytes)) or not isinstance(pair, (tuple, list)) or len(pair) != 2:
                    size = f" of {len(pair)}" if isinstance(pair, (tuple, list)) else ""
                    raise InvalidTextError(
                        f"pair {index} is a {type(pair).__name__}{size}: pass (query, document) for each; "
                        "one pair alone is a tuple"
                    )
            try:
                return self.tokenizer.encode_batch(
                    _with_prompt([query for query, _ in pairs], prefix),
                    [document for _, document in pairs],
                    max_length=cut.max_length,
                    truncation=cut.truncation,
                    query_max_length=cut.query_max_length,
                    split_special_tokens=self.split_special_tokens,
                    threads=cores,
                )
            except InvalidTextError as error:
                raise naming(error, lambda side, index: place(side, first + index), prefix) from None

        return tokenize


def _check_truncation(truncation: object, query_max_length: int | None) -> Truncation:
    """The name of a truncation; InvalidOptionError where it is unknown, or does not go with `query_max_length`."""
    known = values_of(Truncation)
    if not isinstance(truncation, str) or truncation not in known:
        raise InvalidOptionError(f"unknown truncation {truncation!r} for a model: use one of {', '.join(known)}")
    if query_max_length is not None:
        check_whole("query_max_length", query_max_length, 1, None)
        if truncation != "flag_embedding":
            raise InvalidOptionError(f"query_max_length is for truncation 'flag_embedding', and this is {truncation!r}")
    return cast("Truncation", truncation)


def _pair_place(side: str, number: int) -> str:
    """What `score` calls a text that the tokenizer names."""
    return f"pairs[{number}]" + {"texts": ": the query", "pairs": ": the document"}.get(side, "")


def _rank_place(side: str, number: int) -> str:
    """What `rank` calls it."""
    return "query" if side == "texts" else f"documents[{number}]"


def _with_prompt(queries: list[str], prefix: str) -> list[str]:
    """Put the prompt before every query; items that are no str stay, for the tokenizer to refuse by index."""
    return [prefix + query if isinstance(query, str) else query for query in queries] if prefix else queries


def logistic(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)) without overflow at either end."""
    small = np.exp(-np.abs(logits))
    result: NDArray[np.float32] = np.where(logits >= 0, 1, small) / (1 + small)
    return result


def softmax_of(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over the labels of each row."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    result: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return result
