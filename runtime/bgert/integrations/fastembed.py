"""fastembed, and through it qdrant-client: models of `TextEmbedding` that bgert runs."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bgert.errors import EngineNotInstalledError, InvalidOptionError
from bgert.inputs import as_list
from bgert.integrations.adapted import AdaptedEncoder, EncoderOptions, checked_options, imports_of, shared_encoder

with imports_of("fastembed"):
    from fastembed import TextEmbedding
    from fastembed.common.model_description import DenseModelDescription, ModelSource
    from fastembed.text.text_embedding_base import TextEmbeddingBase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from typing_extensions import Unpack

__all__ = ["BgertTextEmbedding", "add_model"]


def add_model(
    name: str,
    path: str | Path | None = None,
    *,
    query_instruction: str | None = None,
    document_instruction: str | None = None,
    **options: Unpack[EncoderOptions],
) -> None:
    """Let bgert run `name` in `fastembed.TextEmbedding` and in qdrant-client's `models.Document`, from now on.

    A model of fastembed's own with this name gives way to it. fastembed looks models up in `EMBEDDINGS_REGISTRY`, which
    is no documented part of it: this is tested with fastembed 0.9.1 and qdrant-client 1.20.0.

    Args:
        name: what `TextEmbedding` and `models.Document` will call the model.
        path: a model folder, a checkpoint or a hub id; None where `name` is one. It is opened at once.
        query_instruction: literal text before each query, `""` for nothing; None for the model's own.
        document_instruction: the same for documents.
        options: of `bgert.Encoder` and its `encode` (`bgert.integrations.adapted.EncoderOptions`).

    Raises:
        EngineNotInstalledError: this fastembed has no such registry.
        BgertError: as in `bgert.Encoder`.
    """
    registry = getattr(TextEmbedding, "EMBEDDINGS_REGISTRY", None)
    if not isinstance(registry, list):
        raise EngineNotInstalledError("this fastembed has no EMBEDDINGS_REGISTRY: 0.9.1 has")
    given = checked_options(options, EncoderOptions)
    instructions = {"query_instruction": query_instruction, "document_instruction": document_instruction}
    model = shared_encoder(name if path is None else path, given, **instructions)
    BgertTextEmbedding.models[name.lower()] = (name, model)
    if BgertTextEmbedding not in registry:
        registry.insert(0, BgertTextEmbedding)


class BgertTextEmbedding(TextEmbeddingBase):
    """What `TextEmbedding(name)` runs for a name that `add_model` was given. Vectors come one by one, in order.

    Raises:
        InvalidOptionError: `providers`, `cuda`, `device_ids` or `threads` is given: they are options of `add_model`.
    """

    models: ClassVar[dict[str, tuple[str, AdaptedEncoder]]] = {}

    def __init__(
        self,
        model_name: str,
        cache_dir: str | None = None,
        threads: int | None = None,
        providers: Any = None,
        cuda: Any = False,
        device_ids: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(model_name, cache_dir, threads, **options)
        if providers or device_ids or threads or cuda is True:
            raise InvalidOptionError("give device= and threads= to add_model, in place of providers, cuda, device_ids")
        self._encoder = self.models[model_name.lower()][1]

    @classmethod
    def _list_supported_models(cls) -> list[Any]:
        return [
            DenseModelDescription(
                model=name,
                sources=ModelSource(hf=name),
                model_file="",
                description="run by bgert",
                license="",
                size_in_GB=0.0,
                dim=encoder.dimensions,
            )
            for name, encoder in cls.models.values()
        ]

    @classmethod
    def get_embedding_size(cls, model_name: str) -> int:
        """Numbers in a vector."""
        return cls.models[model_name.lower()][1].dimensions

    @property
    def embedding_size(self) -> int:
        """Numbers in a vector."""
        return self._encoder.dimensions

    def embed(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,  # noqa: ARG002 - fastembed's signature; batches are cut by tokens
        parallel: int | None = None,
        **_: Any,
    ) -> Iterator[NDArray[np.float32]]:
        """float32[dim] of each document; any number of them, in bounded memory."""
        if parallel is not None:
            warnings.warn("parallel is ignored: threads= of add_model says how many cores", stacklevel=2)
        for block in self._encoder.stream([documents] if isinstance(documents, str) else documents):
            yield from np.asarray(block)

    def query_embed(self, query: str | Iterable[str], **_: Any) -> Iterator[NDArray[np.float32]]:
        """float32[dim] of each query."""
        yield from np.asarray(self._encoder.queries([query] if isinstance(query, str) else query))

    def token_count(self, texts: str | Iterable[str], **_: Any) -> int:
        """Tokens of the texts together, special tokens counted, instructions not."""
        listed = [texts] if isinstance(texts, str) else as_list(texts, "texts")
        return int(self._encoder.encoder.tokenizer.count(listed).sum())
