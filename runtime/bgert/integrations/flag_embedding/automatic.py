"""`FlagAutoModel` and `FlagAutoReranker`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bgert.errors import InvalidOptionError
from bgert.integrations.flag_embedding.encoder import FlagModel
from bgert.integrations.flag_embedding.m3 import BGEM3FlagModel
from bgert.integrations.flag_embedding.names import ENCODERS, RERANKERS, by_class_or_name
from bgert.integrations.flag_embedding.reranker import FlagReranker

if TYPE_CHECKING:
    from pathlib import Path

    from bgert.integrations.flag_embedding.conventions import Devices

__all__ = ["FlagAutoModel", "FlagAutoReranker"]


class FlagAutoModel:
    """`FlagEmbedding.FlagAutoModel`: pooling and instruction format by the name of the model's folder."""

    def __init__(self) -> None:
        raise InvalidOptionError("FlagAutoModel is made by FlagAutoModel.from_finetuned(model_name_or_path)")

    @classmethod
    def from_finetuned(
        cls,
        model_name_or_path: str | Path,
        model_class: Any = None,
        normalize_embeddings: bool = True,
        use_fp16: bool = True,
        use_bf16: bool = False,
        query_instruction_for_retrieval: str | None = None,
        devices: Devices = None,
        pooling_method: str | None = None,
        trust_remote_code: bool | None = None,
        query_instruction_format: str | None = None,
        truncate_dim: int | None = None,
        **kwargs: Any,
    ) -> FlagModel | BGEM3FlagModel:
        """A `FlagModel`, or for bge-m3 a `BGEM3FlagModel`, as FlagEmbedding would make it of the model's name.

        The name is the folder's, or that of the checkpoint which a model folder was exported from; with a `model_class`
        it does not count. `kwargs` are those of the class.

        Raises:
            InvalidOptionError: a name that FlagEmbedding does not know, without a `model_class`; or a model of its
                classes for language models.
        """
        known = by_class_or_name(model_name_or_path, model_class, ENCODERS)
        kind = BGEM3FlagModel if known.class_name == "BGEM3FlagModel" else FlagModel
        return kind(
            model_name_or_path,
            normalize_embeddings=normalize_embeddings,
            use_fp16=use_fp16,
            use_bf16=use_bf16,
            query_instruction_for_retrieval=query_instruction_for_retrieval,
            query_instruction_format=known.query_format
            if query_instruction_format is None
            else query_instruction_format,
            devices=devices,
            pooling_method=known.pooling if pooling_method is None else pooling_method,
            trust_remote_code=bool(trust_remote_code),
            truncate_dim=truncate_dim,
            **kwargs,
        )


class FlagAutoReranker:
    """`FlagEmbedding.FlagAutoReranker`."""

    def __init__(self) -> None:
        raise InvalidOptionError("FlagAutoReranker is made by FlagAutoReranker.from_finetuned(model_name_or_path)")

    @classmethod
    def from_finetuned(
        cls,
        model_name_or_path: str | Path,
        model_class: Any = None,
        use_fp16: bool = False,
        trust_remote_code: bool | None = None,
        **kwargs: Any,
    ) -> FlagReranker:
        """A `FlagReranker`, by class or name as in `FlagAutoModel`; `kwargs` are those of `FlagReranker`.

        Raises:
            InvalidOptionError: as there.
        """
        by_class_or_name(model_name_or_path, model_class, RERANKERS)
        return FlagReranker(model_name_or_path, use_fp16=use_fp16, trust_remote_code=bool(trust_remote_code), **kwargs)
