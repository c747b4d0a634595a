"""Chroma: an embedding function, in place of `SentenceTransformerEmbeddingFunction`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bgert.integrations.adapted import EncoderOptions, checked_options, imports_of, shared_encoder

with imports_of("chromadb"):
    from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
    from chromadb.utils.embedding_functions import register_embedding_function

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["BgertEmbeddingFunction"]


@register_embedding_function
class BgertEmbeddingFunction(EmbeddingFunction[Documents]):
    """Documents and queries each with what the model puts before them, compared by cosine.

    A collection keeps these arguments, the model's path too. A process that opens it again imports this module first.

    Args:
        model_name: a model folder, a checkpoint or a hub id.
        query_instruction: literal text before each query, `""` for nothing; None for the model's own.
        document_instruction: the same for documents.
        options: of `bgert.Encoder` and its `encode` (`bgert.integrations.adapted.EncoderOptions`).
    """

    def __init__(
        self,
        model_name: str,
        *,
        query_instruction: str | None = None,
        document_instruction: str | None = None,
        **options: Unpack[EncoderOptions],
    ) -> None:
        given = checked_options(options, EncoderOptions)
        instructions = {"query_instruction": query_instruction, "document_instruction": document_instruction}
        self._model = shared_encoder(model_name, given, **instructions)
        self._config = {"model_name": str(model_name), **instructions, **given}

    def __call__(self, input: Documents) -> Embeddings:  # noqa: A002 - Chroma looks for this name
        """float32 vectors of documents."""
        return list(self._model.documents(input))

    def embed_query(self, input: Documents) -> Embeddings:  # noqa: A002
        """float32 vectors of queries."""
        return list(self._model.queries(input))

    @staticmethod
    def name() -> str:
        """The name under which a collection keeps it."""
        return "bgert"

    def default_space(self) -> Space:
        """Cosine, which is right whether the model normalises or not."""
        return "cosine"

    def get_config(self) -> dict[str, Any]:
        """The arguments it was made with, as JSON has them."""
        return dict(self._config)

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> BgertEmbeddingFunction:
        """The function that `get_config` described."""
        return BgertEmbeddingFunction(**config)
