"""Haystack's ranker on bgert, in place of that of sentence-transformers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bgert.errors import InvalidOptionError
from bgert.integrations.adapted import AdaptedReranker, RerankerOptions, checked_options, imports_of, opening, path_text
from bgert.model import check_whole
from haystack_integrations.components.embedders.bgert import document_texts, plain_options

with imports_of("haystack-ai"):
    from haystack import Document, component, default_from_dict, default_to_dict

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["BgertRanker"]


@component
class BgertRanker:
    """Orders documents by their score for a query, in place of `SentenceTransformersSimilarityRanker`.

    Args:
        model: a model folder, a checkpoint or a hub id; opened by `warm_up`, or on first use.
        top_k: documents to keep.
        scale_score: scores from 0 to 1, the sigmoids of the raw logits.
        score_threshold: drop documents whose score is lower.
        meta_fields_to_embed: fields of the metadata whose values stand before the text.
        embedding_separator: what stands between these and the text.
        options: of `bgert.Reranker` and its `score` (`bgert.integrations.adapted.RerankerOptions`).
    """

    def __init__(
        self,
        model: str,
        *,
        top_k: int = 10,
        scale_score: bool = True,
        score_threshold: float | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        **options: Unpack[RerankerOptions],
    ) -> None:
        check_whole("top_k", top_k, 1, None)
        if "sigmoid" in options:
            raise InvalidOptionError("sigmoid is scale_score here")
        self.model, self.top_k, self.scale_score, self.score_threshold = (
            path_text(model),
            top_k,
            scale_score,
            score_threshold,
        )
        self.meta_fields_to_embed = list(meta_fields_to_embed or [])
        self.embedding_separator = embedding_separator
        self.options = checked_options(plain_options(options), RerankerOptions)
        self._reranker: AdaptedReranker | None = None

    def to_dict(self) -> dict[str, Any]:
        """What a pipeline's file says of it."""
        data: dict[str, Any] = default_to_dict(
            self,
            model=self.model,
            top_k=self.top_k,
            scale_score=self.scale_score,
            score_threshold=self.score_threshold,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
            **self.options,
        )
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BgertRanker:
        """The component that `to_dict` described."""
        made: BgertRanker = default_from_dict(cls, data)
        return made

    def warm_up(self) -> None:
        """Open the model."""
        with opening.lock:
            if self._reranker is None:
                self._reranker = AdaptedReranker(self.model, {**self.options, "sigmoid": self.scale_score})

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, Any]:
        """The best `documents`, best first, as copies with their `score`."""
        texts = document_texts(documents, self.meta_fields_to_embed, self.embedding_separator)
        self.warm_up()
        assert self._reranker is not None  # noqa: S101
        least = self.score_threshold if score_threshold is None else score_threshold
        best = self._reranker.rank(query, texts, self.top_k if top_k is None else top_k)
        return {
            "documents": [
                replace(documents[index], score=score) for index, score in best if least is None or score >= least
            ]
        }

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, Any]:
        """As `run`, in a thread."""
        result: dict[str, Any] = await asyncio.to_thread(self.run, query, documents, top_k, score_threshold)
        return result
