"""LangChain: embeddings, a cross-encoder and a document compressor, in place of langchain-huggingface's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bgert.integrations.adapted import AdaptedEncoder, AdaptedReranker, imports_of, one_text
from bgert.model import check_whole

with imports_of("langchain-core"):
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.documents import BaseDocumentCompressor
    from langchain_core.embeddings import Embeddings
    from pydantic import ConfigDict, PrivateAttr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from langchain_core.documents import Document
    from typing_extensions import Unpack

    from bgert.integrations.adapted import EncoderOptions, RerankerOptions

__all__ = ["BgertCrossEncoder", "BgertEmbeddings", "BgertRerank"]


class BgertEmbeddings(Embeddings):
    """In place of `HuggingFaceEmbeddings` and `HuggingFaceBgeEmbeddings`; vectors are lists of floats.

    Args:
        model_name: a model folder, a checkpoint or a hub id.
        query_instruction: literal text before each query, `""` for nothing; None for the model's own.
        embed_instruction: the same for documents.
        model_kwargs: options below as `HuggingFaceEmbeddings` takes them, such as `{"device": "cpu"}`.
        encode_kwargs: the same, such as `{"normalize_embeddings": True}`.
        options: of `bgert.Encoder` and its `encode` (`bgert.integrations.adapted.EncoderOptions`).
    """

    def __init__(
        self,
        model_name: str,
        *,
        query_instruction: str | None = None,
        embed_instruction: str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        encode_kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[EncoderOptions],
    ) -> None:
        self.model_name = model_name
        self._model = AdaptedEncoder(
            model_name,
            {**(model_kwargs or {}), **(encode_kwargs or {}), **options},
            query_instruction=query_instruction,
            document_instruction=embed_instruction,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.model_name)!r})"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector of each text, with what the model puts before documents."""
        vectors: list[list[float]] = self._model.documents(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query, with what the model puts before queries."""
        vector: list[float] = self._model.queries(one_text(text))[0].tolist()
        return vector

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """As `embed_documents`; calls that wait run as one batch."""
        vectors: list[list[float]] = (await self._model.adocuments(texts)).tolist()
        return vectors

    async def aembed_query(self, text: str) -> list[float]:
        """As `embed_query`; calls that wait run as one batch."""
        vector: list[float] = (await self._model.aqueries(one_text(text)))[0].tolist()
        return vector


class BgertCrossEncoder(BaseCrossEncoder):
    """In place of `HuggingFaceCrossEncoder`: scores from 0 to 1, raw logits with `sigmoid=False`.

    Args:
        model_name: a model folder, a checkpoint or a hub id.
        model_kwargs: options below as `HuggingFaceCrossEncoder` takes them, such as `{"device": "cpu"}`.
        options: of `bgert.Reranker` and its `score` (`bgert.integrations.adapted.RerankerOptions`).
    """

    def __init__(
        self,
        model_name: str,
        *,
        model_kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[RerankerOptions],
    ) -> None:
        self.model_name = model_name
        self._model = AdaptedReranker(model_name, {**(model_kwargs or {}), **options})

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """The score of each (query, document)."""
        return self._model.score(text_pairs)


class BgertRerank(BaseDocumentCompressor):
    """Keeps the best `top_n` documents for a query, best first, with `relevance_score` in the metadata of copies.

    Args:
        model: a model folder, a checkpoint or a hub id.
        top_n: documents to keep; None for all.
        options: more of the options below, as a dictionary.
        more: of `bgert.Reranker` and its `score` (`bgert.integrations.adapted.RerankerOptions`).
    """

    model_config = ConfigDict(extra="forbid")

    model: str
    top_n: int | None = 3
    options: dict[str, Any]
    _model: AdaptedReranker = PrivateAttr()

    def __init__(
        self,
        model: str,
        *,
        top_n: int | None = 3,
        options: Mapping[str, Any] | None = None,
        **more: Unpack[RerankerOptions],
    ) -> None:
        if top_n is not None:
            check_whole("top_n", top_n, 1, None)
        options = {**(options or {}), **more}
        adapted = AdaptedReranker(model, options)
        super().__init__(model=str(model), top_n=top_n, options=options)
        self._model = adapted

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Any = None,  # noqa: ARG002 - LangChain's signature
    ) -> Sequence[Document]:
        """The best documents for a query."""
        if not documents:
            return []
        best = self._model.rank(query, [document.page_content for document in documents], self.top_n)
        return [
            documents[index].model_copy(update={"metadata": documents[index].metadata | {"relevance_score": score}})
            for index, score in best
        ]
