"""`FlagReranker`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.errors import InvalidOptionError
from bgert.inputs import as_list
from bgert.integrations.flag_embedding.conventions import (
    closed,
    ignore_batch_size,
    instructed,
    open_model,
    refuse_cache,
)
from bgert.reranker import Reranker, logistic

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bgert.integrations.flag_embedding.conventions import Devices

__all__ = ["FlagReranker"]


class FlagReranker:
    """`FlagEmbedding.FlagReranker`: scores of a cross-encoder with one label.

    Args:
        model_name_or_path: as in `bgert.Reranker`: a model folder, a checkpoint or a hub id.
        use_fp16: as in `FlagModel`.
        query_instruction_for_rerank: put before each query by the format. The model's own prompts are not used.
        query_instruction_format: takes instruction and text by `str.format`; a literal backslash n is a new line.
        passage_instruction_for_rerank: as the query's.
        passage_instruction_format: as the query's.
        trust_remote_code: not needed: no code of a checkpoint is ever run.
        cache_dir: refused: BGERT_CACHE names the cache.
        devices: as in `FlagModel`.
        batch_size: ignored, with one warning where it is given: batches are cut by tokens.
        query_max_length: tokens of a query without special ones; None for 3/4 of `max_length`.
        max_length: tokens of a pair, special tokens counted.
        normalize: scores from 0 to 1 instead of raw logits.

    Raises:
        InvalidOptionError: the model has several labels, or an option that is not there.
        BgertError: as `bgert.Reranker`.
    """

    def __init__(
        self,
        model_name_or_path: str | Path,
        use_fp16: bool = False,
        query_instruction_for_rerank: str | None = None,
        query_instruction_format: str = "{}{}",
        passage_instruction_for_rerank: str | None = None,
        passage_instruction_format: str = "{}{}",
        trust_remote_code: bool = False,  # noqa: ARG002 - none is run
        cache_dir: str | None = None,
        devices: Devices = None,
        batch_size: int = 128,
        query_max_length: int | None = None,
        max_length: int = 512,
        normalize: bool = False,
    ) -> None:
        refuse_cache(cache_dir)
        ignore_batch_size(None if batch_size == 128 else batch_size)
        self.reranker = open_model(Reranker, model_name_or_path, devices, use_fp16=use_fp16)
        if self.reranker.num_labels != 1:
            raise InvalidOptionError(f"this model gives {self.reranker.num_labels} scores a pair: use bgert.Reranker")
        self.query_instruction_for_rerank = query_instruction_for_rerank
        self.query_instruction_format = query_instruction_format
        self.passage_instruction_for_rerank = passage_instruction_for_rerank
        self.passage_instruction_format = passage_instruction_format
        self.query_max_length = query_max_length
        self.max_length = max_length
        self.normalize = normalize
        self._instructed(("", ""))  # refuses a format

    def compute_score(
        self,
        sentence_pairs: Iterable[tuple[str, str]] | tuple[str, str],
        batch_size: int | None = None,
        query_max_length: int | None = None,
        max_length: int | None = None,
        normalize: bool | None = None,
    ) -> list[float]:
        """Score pairs of (query, passage), cut as FlagEmbedding cuts them.

        Returns:
            A score a pair, in their order; one also for one pair.

        Raises:
            BgertError: as `bgert.Reranker.score`.
        """
        ignore_batch_size(batch_size)
        pairs: Any = as_list(sentence_pairs, "sentence_pairs", "(query, passage)", 2)
        if pairs and isinstance(pairs[0], str):
            pairs = [pairs]
        if self.query_instruction_for_rerank is not None or self.passage_instruction_for_rerank is not None:
            pairs = [self._instructed(pair) for pair in pairs]
        limit = self.max_length if max_length is None else max_length
        of_query = self.query_max_length if query_max_length is None else query_max_length
        options: dict[str, Any] = {} if of_query in (None, limit * 3 // 4) else {"query_max_length": of_query}
        scores = self.reranker.score(pairs, prefix="", max_length=limit, truncation="flag_embedding", **options)
        logits = np.asarray(scores, np.float64)
        sigmoid = self.normalize if normalize is None else normalize
        values: list[float] = (logistic(logits) if sigmoid else logits).tolist()  # type: ignore[arg-type]
        return values

    def _instructed(self, pair: Any) -> Any:
        """A pair with the instructions; what is none stays, for the model to refuse by its index."""
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            return pair
        query, passage = pair
        if self.query_instruction_for_rerank is not None:
            query = instructed(self.query_instruction_format, self.query_instruction_for_rerank, query)
        if self.passage_instruction_for_rerank is not None:
            passage = instructed(self.passage_instruction_format, self.passage_instruction_for_rerank, passage)
        return query, passage

    def stop_self_pool(self) -> None:
        """Free the engine; it is opened again on the next use."""
        self.reranker = closed(self.reranker)
