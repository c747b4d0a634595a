"""LlamaIndex: an embedding and a node postprocessor, in place of those of its Hugging Face packages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bgert.errors import InvalidTextError
from bgert.integrations.adapted import AdaptedEncoder, AdaptedReranker, imports_of, one_text
from bgert.model import check_whole

with imports_of("llama-index-core"):
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.callbacks import CBEventType, EventPayload
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Unpack

    from bgert.integrations.adapted import RerankerOptions

__all__ = ["BgertEmbedding", "BgertRerank"]

# What BaseEmbedding takes beside the model's name.
_OF_LLAMA_INDEX = ("embed_batch_size", "callback_manager", "num_workers", "embeddings_cache", "rate_limiter")
_MOST_TEXTS = 2048  # the most that BaseEmbedding allows; bgert cuts batches by tokens itself


class BgertEmbedding(BaseEmbedding):
    """In place of `HuggingFaceEmbedding`.

    Args:
        model_name: a model folder, a checkpoint or a hub id.
        query_instruction: literal text before each query, `""` for nothing; None for the model's own.
        text_instruction: the same for texts.
        options: more of the options below, as a dictionary.
        more: of `bgert.Encoder` and its `encode` (`bgert.integrations.adapted.EncoderOptions`), and of `BaseEmbedding`.
    """

    query_instruction: str | None = None
    text_instruction: str | None = None
    options: dict[str, Any]
    _model: AdaptedEncoder = PrivateAttr()

    def __init__(
        self,
        model_name: str,
        *,
        query_instruction: str | None = None,
        text_instruction: str | None = None,
        options: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        own = {"embed_batch_size": _MOST_TEXTS} | {name: more.pop(name) for name in _OF_LLAMA_INDEX if name in more}
        options = {**(options or {}), **more}
        model = AdaptedEncoder(
            model_name, options, query_instruction=query_instruction, document_instruction=text_instruction
        )
        super().__init__(
            model_name=str(model_name),
            query_instruction=query_instruction,
            text_instruction=text_instruction,
            options=options,
            **own,
        )
        self._model = model

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex keeps it."""
        return "BgertEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self._model.queries(one_text(query))[0].tolist()
        return vector

    async def _aget_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = (await self._model.aqueries(one_text(query)))[0].tolist()
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings(one_text(text))[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings(one_text(text)))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._model.documents(texts).tolist()
        return vectors

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = (await self._model.adocuments(texts)).tolist()
        return vectors


class BgertRerank(BaseNodePostprocessor):
    """In place of `SentenceTransformerRerank`: the best `top_n` nodes, best first, as new `NodeWithScore`.

    Args:
        model: a model folder, a checkpoint or a hub id.
        top_n: nodes to keep.
        keep_retrieval_score: put the score so far into the metadata of a copy, as `retrieval_score`.
        options: more of the options below, as a dictionary.
        more: of `bgert.Reranker` and its `score` (`bgert.integrations.adapted.RerankerOptions`).
    """

    model: str
    top_n: int = 2
    keep_retrieval_score: bool = False
    options: dict[str, Any]
    _model: AdaptedReranker = PrivateAttr()

    def __init__(
        self,
        model: str,
        *,
        top_n: int = 2,
        keep_retrieval_score: bool = False,
        callback_manager: Any = None,
        options: Mapping[str, Any] | None = None,
        **more: Unpack[RerankerOptions],
    ) -> None:
        check_whole("top_n", top_n, 1, None)
        options = {**(options or {}), **more}
        adapted = AdaptedReranker(model, options)
        own = {} if callback_manager is None else {"callback_manager": callback_manager}
        super().__init__(
            model=str(model), top_n=top_n, keep_retrieval_score=keep_retrieval_score, options=options, **own
        )
        self._model = adapted

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex keeps it."""
        return "BgertRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InvalidTextError("there is no query: pass query_str or query_bundle")
        if not nodes:
            return []
        payload = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
            best = [
                NodeWithScore(node=self._kept(nodes[index]), score=score)
                for index, score in self._model.rank(query_bundle.query_str, texts, self.top_n)
            ]
            event.on_end(payload={EventPayload.NODES: best})
        return best

    def _kept(self, scored: NodeWithScore) -> Any:
        if not self.keep_retrieval_score:
            return scored.node
        return scored.node.model_copy(update={"metadata": scored.node.metadata | {"retrieval_score": scored.score}})
