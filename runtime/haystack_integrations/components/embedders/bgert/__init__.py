"""Haystack's embedders on bgert, in place of those of sentence-transformers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bgert.errors import InvalidTextError
from bgert.integrations.adapted import (
    AdaptedEncoder,
    EncoderOptions,
    checked_options,
    imports_of,
    one_text,
    opening,
    path_text,
)

with imports_of("haystack-ai"):
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.utils import ComponentDevice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

__all__ = ["BgertDocumentEmbedder", "BgertTextEmbedder", "document_texts", "plain_options"]


@component
class BgertTextEmbedder:
    """Embeds a query, in place of `SentenceTransformersTextEmbedder`.

    Args:
        model: a model folder, a checkpoint or a hub id; opened by `warm_up`, or on first use.
        prefix: literal text before each query, `""` for nothing; None for the model's own.
        options: of `bgert.Encoder` and its `encode` (`bgert.integrations.adapted.EncoderOptions`).
    """

    def __init__(self, model: str, *, prefix: str | None = None, **options: Unpack[EncoderOptions]) -> None:
        self.model, self.prefix = path_text(model), prefix
        self.options = checked_options(plain_options(options), EncoderOptions)
        self._encoder: AdaptedEncoder | None = None

    def to_dict(self) -> dict[str, Any]:
        """What a pipeline's file says of it."""
        data: dict[str, Any] = default_to_dict(self, model=self.model, prefix=self.prefix, **self.options)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BgertTextEmbedder:
        """The component that `to_dict` described."""
        made: BgertTextEmbedder = default_from_dict(cls, data)
        return made

    def warm_up(self) -> None:
        """Open the model."""
        with opening.lock:
            if self._encoder is None:
                self._encoder = AdaptedEncoder(self.model, self.options, query_instruction=self.prefix)

    def _opened(self) -> AdaptedEncoder:
        self.warm_up()
        assert self._encoder is not None  # noqa: S101
        return self._encoder

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        """The `embedding` of a query, a list of floats."""
        return {"embedding": self._opened().queries(one_text(text))[0].tolist()}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, Any]:
        """As `run`; calls that wait run as one batch."""
        encoder = await asyncio.to_thread(self._opened)
        return {"embedding": (await encoder.aqueries(one_text(text)))[0].tolist()}


@component
class BgertDocumentEmbedder:
    """Embeds documents, in place of `SentenceTransformersDocumentEmbedder`.

    Args:
        model: a model folder, a checkpoint or a hub id; opened by `warm_up`, or on first use.
        prefix: literal text before each document, `""` for nothing; None for the model's own.
        meta_fields_to_embed: fields of the metadata whose values stand before the text.
        embedding_separator: what stands between these and the text.
        options: of `bgert.Encoder` and its `encode` (`bgert.integrations.adapted.EncoderOptions`).
    """

    def __init__(
        self,
        model: str,
        *,
        prefix: str | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        **options: Unpack[EncoderOptions],
    ) -> None:
        self.model, self.prefix = path_text(model), prefix
        self.meta_fields_to_embed = list(meta_fields_to_embed or [])
        self.embedding_separator = embedding_separator
        self.options = checked_options(plain_options(options), EncoderOptions)
        self._encoder: AdaptedEncoder | None = None

    def to_dict(self) -> dict[str, Any]:
        """What a pipeline's file says of it."""
        data: dict[str, Any] = default_to_dict(
            self,
            model=self.model,
            prefix=self.prefix,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
            **self.options,
        )
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BgertDocumentEmbedder:
        """The component that `to_dict` described."""
        made: BgertDocumentEmbedder = default_from_dict(cls, data)
        return made

    def warm_up(self) -> None:
        """Open the model."""
        with opening.lock:
            if self._encoder is None:
                self._encoder = AdaptedEncoder(self.model, self.options, document_instruction=self.prefix)

    def _opened(self) -> AdaptedEncoder:
        self.warm_up()
        assert self._encoder is not None  # noqa: S101
        return self._encoder

    def _texts(self, documents: Sequence[Document]) -> list[str]:
        return document_texts(documents, self.meta_fields_to_embed, self.embedding_separator)

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Copies of the `documents` with their `embedding`."""
        vectors = self._opened().documents(self._texts(documents)).tolist()
        return {"documents": [replace(one, embedding=vector) for one, vector in zip(documents, vectors, strict=True)]}

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """As `run`; calls that wait run as one batch."""
        encoder = await asyncio.to_thread(self._opened)
        vectors = (await encoder.adocuments(self._texts(documents))).tolist()
        return {"documents": [replace(one, embedding=vector) for one, vector in zip(documents, vectors, strict=True)]}


def document_texts(documents: Sequence[Document], fields: Sequence[str], separator: str) -> list[str]:
    """What is read of each document: the values of some fields of its metadata, then its text.

    Raises:
        InvalidTextError: it is no list of documents.
    """
    if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
        raise InvalidTextError("documents is no list of haystack.Document: a text goes to BgertTextEmbedder")
    return [
        separator.join([*(str(one.meta[name]) for name in fields if one.meta.get(name) is not None), one.content or ""])
        for one in documents
    ]


def plain_options(options: Any) -> dict[str, Any]:
    """The options with a Haystack device as bgert names it, so that they can stand in a file."""
    device = options.get("device")
    return {**options, "device": device.to_torch_str()} if isinstance(device, ComponentDevice) else dict(options)
