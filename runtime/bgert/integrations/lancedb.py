"""LanceDB: an embedding function, registered as `bgert`, in place of `sentence-transformers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bgert.integrations.adapted import (
    AdaptedEncoder,
    EncoderOptions,
    checked_options,
    imports_of,
    one_text,
    path_text,
    shared_encoder,
)

with imports_of("lancedb"):
    from lancedb.embeddings import TextEmbeddingFunction, register
    from pydantic import PrivateAttr

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["BgertEmbeddings"]


@register("bgert")
class BgertEmbeddings(TextEmbeddingFunction):
    """`BgertEmbeddings.create(name=...)`, or `get_registry().get("bgert").create(name=...)`.

    A table keeps these arguments, the model's path too. A process that opens it again imports this module first.

    Args:
        name: a model folder, a checkpoint or a hub id; opened on first use.
        query_instruction: literal text before each query, `""` for nothing; None for the model's own.
        document_instruction: the same for the source column.
        options: of `bgert.Encoder` and its `encode` (`bgert.integrations.adapted.EncoderOptions`).
    """

    name: str
    query_instruction: str | None = None
    document_instruction: str | None = None
    _options: dict[str, Any] = PrivateAttr()
    _model: AdaptedEncoder | None = PrivateAttr(None)

    def __init__(
        self,
        name: str,
        *,
        query_instruction: str | None = None,
        document_instruction: str | None = None,
        **options: Unpack[EncoderOptions],
    ) -> None:
        given = checked_options(options, EncoderOptions)
        super().__init__(
            name=path_text(name), query_instruction=query_instruction, document_instruction=document_instruction
        )
        self._options = given

    def _opened(self) -> AdaptedEncoder:
        if self._model is None:
            self._model = shared_encoder(
                self.name,
                self._options,
                query_instruction=self.query_instruction,
                document_instruction=self.document_instruction,
            )
        return self._model

    def ndims(self) -> int:
        """Numbers in a vector."""
        return self._opened().dimensions

    def generate_embeddings(self, texts: Any, *_: Any, **__: Any) -> list[Any]:
        """float32 vectors of documents."""
        return list(self._opened().documents(texts))

    def compute_query_embeddings(self, query: str, *_: Any, **__: Any) -> list[Any]:
        """The float32 vector of a query, in a list."""
        return list(self._opened().queries(one_text(query, "query")))

    def compute_query_embeddings_with_retry(self, *arguments: Any, **options: Any) -> list[Any]:
        """Without: what fails here fails again."""
        return self.compute_query_embeddings(*arguments, **options)

    def compute_source_embeddings_with_retry(self, *arguments: Any, **options: Any) -> list[Any]:
        """Without: what fails here fails again."""
        return list(self.compute_source_embeddings(*arguments, **options))
