"""`FlagModel`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.encoder import Encoder
from bgert.errors import EngineNotInstalledError, InvalidOptionError
from bgert.integrations.flag_embedding.conventions import (
    all_instructed,
    closed,
    ignore_batch_size,
    instructed,
    open_model,
    refuse_cache,
)
from bgert.integrations.instructions import warn_if_other_instruction
from bgert.model import check_whole
from bgert.results import Embeddings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from bgert.integrations.flag_embedding.conventions import Devices

__all__ = ["FlagModel"]


class FlagModel:
    """`FlagEmbedding.FlagModel`: vectors of an encoder.

    Args:
        model_name_or_path: as in `bgert.Encoder`: a model folder, a checkpoint or a hub id.
        normalize_embeddings: vectors at length one. False is refused where the model folder normalises.
        use_fp16: on a GPU the fp16 graph and float16 vectors. On the CPU vectors are fp32, without FlagEmbedding's
            rounding of the weights, and a warning says so once. False asks for an fp32 graph.
        use_bf16: the bf16 graph, which the folder has to have.
        query_instruction_for_retrieval: what `encode_queries` puts before each text, by the format.
        query_instruction_format: takes instruction and text by `str.format`; a literal backslash n is a new line.
        devices: `cpu`, `cuda:1`, 1, or a list of GPUs; None for the first GPU, or the CPU.
        pooling_method: `cls` or `mean`; refused where it is not the folder's.
        trust_remote_code: not needed: no code of a checkpoint is ever run.
        cache_dir: refused: BGERT_CACHE names the cache.
        batch_size: ignored, with one warning where it is given: batches are cut by tokens.
        query_max_length: tokens of a query, special tokens counted.
        passage_max_length: tokens of a text of `encode_corpus` and `encode`.
        convert_to_numpy: False for torch tensors, on the CPU.
        truncate_dim: keep the first so many numbers of a vector.
        passage_instruction_for_retrieval: as the query's, for `encode_corpus`.
        passage_instruction_format: as the query's.

    Raises:
        InvalidOptionError: pooling, normalisation, a format or an option that is not there.
        BgertError: as `bgert.Encoder`.
    """

    def __init__(
        self,
        model_name_or_path: str | Path,
        normalize_embeddings: bool = True,
        use_fp16: bool = True,
        use_bf16: bool = False,
        query_instruction_for_retrieval: str | None = None,
        query_instruction_format: str = "{}{}",
        devices: Devices = None,
        pooling_method: str = "cls",
        trust_remote_code: bool = False,  # noqa: ARG002 - none is run
        cache_dir: str | None = None,
        batch_size: int = 256,
        query_max_length: int = 512,
        passage_max_length: int = 512,
        convert_to_numpy: bool = True,
        truncate_dim: int | None = None,
        *,
        passage_instruction_for_retrieval: str | None = None,
        passage_instruction_format: str = "{}{}",
    ) -> None:
        refuse_cache(cache_dir)
        ignore_batch_size(None if batch_size == 256 else batch_size)
        self.encoder = open_model(Encoder, model_name_or_path, devices, use_fp16=use_fp16, use_bf16=use_bf16)
        manifest = self.encoder.manifest
        if pooling_method != manifest.pooling:
            raise InvalidOptionError(
                f"pooling_method is {pooling_method!r} and this model pools by {manifest.pooling!r}: pass "
                f"pooling_method={manifest.pooling!r}, or export the checkpoint with `--pooling {pooling_method}`"
            )
        if manifest.normalize and not normalize_embeddings:
            raise InvalidOptionError(
                "normalize_embeddings is False and this model normalises: export the checkpoint with `--no-normalize`"
            )
        if truncate_dim is not None:
            check_whole("truncate_dim", truncate_dim, 1, self.encoder.dimensions)
        for prompt, instruction, template in (
            ("query", query_instruction_for_retrieval, query_instruction_format),
            ("document", passage_instruction_for_retrieval, passage_instruction_format),
        ):
            if instruction is not None:
                before = instructed(template, instruction, "")
                warn_if_other_instruction(self.encoder, before, prompt)
        self.normalize_embeddings = normalize_embeddings
        self.query_instruction_for_retrieval = query_instruction_for_retrieval
        self.query_instruction_format = query_instruction_format
        self.passage_instruction_for_retrieval = passage_instruction_for_retrieval
        self.passage_instruction_format = passage_instruction_format
        self.query_max_length = query_max_length
        self.passage_max_length = passage_max_length
        self.convert_to_numpy = convert_to_numpy
        self.truncate_dim = truncate_dim

    def encode_queries(
        self,
        queries: str | Iterable[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        convert_to_numpy: bool | None = None,
    ) -> Any:
        """As `encode`, with the query instruction if there is one, cut at `query_max_length`."""
        ignore_batch_size(batch_size)
        limit = self.query_max_length if max_length is None else max_length
        instruction = (self.query_instruction_for_retrieval, self.query_instruction_format)
        return self._encode(queries, limit, convert_to_numpy, *instruction)

    def encode_corpus(
        self,
        corpus: str | Iterable[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        convert_to_numpy: bool | None = None,
    ) -> Any:
        """As `encode`, with the passage instruction if there is one."""
        ignore_batch_size(batch_size)
        limit = self.passage_max_length if max_length is None else max_length
        instruction = (self.passage_instruction_for_retrieval, self.passage_instruction_format)
        return self._encode(corpus, limit, convert_to_numpy, *instruction)

    def encode(
        self,
        sentences: str | Iterable[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        convert_to_numpy: bool | None = None,
        *,
        instruction: str | None = None,
        instruction_format: str = "{}{}",
    ) -> Any:
        """Embed texts, with nothing before them but the `instruction` that is given here.

        Returns:
            `[dim]` for a `str`, `[n, dim]` for a list: a numpy array with an `info`, as `bgert.Encoder` gives, or a
            torch tensor; float16 where an fp16 graph runs, else float32.

        Raises:
            EngineNotInstalledError: tensors are asked for without torch.
            BgertError: as `bgert.Encoder.encode`.
        """
        ignore_batch_size(batch_size)
        limit = self.passage_max_length if max_length is None else max_length
        return self._encode(sentences, limit, convert_to_numpy, instruction, instruction_format)

    def _encode(
        self,
        texts: str | Iterable[str],
        max_length: int,
        to_numpy: bool | None,
        instruction: str | None,
        template: str,
    ) -> Any:
        to_tensor = _from_numpy() if not (self.convert_to_numpy if to_numpy is None else to_numpy) else None
        items = all_instructed(template, instruction, texts)
        rows = self.encoder.encode(items, prefix="", max_length=max_length, dimensions=self.truncate_dim)
        info = rows.info
        if self.normalize_embeddings and not self.encoder.manifest.normalize:
            rows = Embeddings.of(
                rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), np.float32(1e-12)), info
            )
        if self.encoder.precision == "fp16":
            rows = Embeddings.of(rows.astype(np.float16), info)
        return rows if to_tensor is None else to_tensor(np.asarray(rows))

    def stop_self_pool(self) -> None:
        """Free the engine; it is opened again on the next use."""
        self.encoder = closed(self.encoder)


def _from_numpy() -> Callable[[Any], Any]:
    try:
        import torch
    except ModuleNotFoundError:
        raise EngineNotInstalledError(
            "convert_to_numpy is False and torch, whose tensors that gives, is not installed"
        ) from None
    make: Callable[[Any], Any] = torch.from_numpy
    return make
