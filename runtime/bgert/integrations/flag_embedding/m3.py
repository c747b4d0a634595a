"""`BGEM3FlagModel`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.encoder import Encoder
from bgert.errors import InvalidOptionError
from bgert.inputs import as_list
from bgert.integrations.flag_embedding.conventions import (
    all_instructed,
    closed,
    ignore_batch_size,
    instructed,
    open_model,
    refuse_cache,
)
from bgert.integrations.instructions import warn_if_other_instruction
from bgert.model import check_whole, warn_truncated
from bgert.output_run import run_outputs
from bgert.outputs import EncoderOutputs, SparseVector, max_sim
from bgert.results import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from bgert.integrations.flag_embedding.conventions import Devices

    Array = NDArray[np.float32]
    Weights = dict[str, float]

__all__ = ["BGEM3FlagModel"]


class BGEM3FlagModel:
    """`FlagEmbedding.BGEM3FlagModel`: dense vectors, lexical weights and ColBERT vectors of bge-m3.

    Args:
        model_name_or_path: as in `FlagModel`.
        normalize_embeddings: vectors at length one. False is refused where the model folder normalises.
        use_fp16: as in `FlagModel`; the graphs for GPUs have dense vectors alone.
        use_bf16: the bf16 graph, which the folder has to have.
        query_instruction_for_retrieval: what `encode_queries` puts before each text, by the format.
        query_instruction_format: takes instruction and text by `str.format`.
        devices: as in `FlagModel`.
        pooling_method: refused where it is not the folder's.
        trust_remote_code: not needed: no code of a checkpoint is ever run.
        cache_dir: refused: BGERT_CACHE names the cache.
        colbert_dim: refused where it is not the folder's; -1 for that.
        batch_size: ignored, with one warning where it is given: batches are cut by tokens.
        query_max_length: tokens of a query, special tokens counted.
        passage_max_length: tokens of a text of `encode_corpus` and `encode`.
        return_dense: whether `dense_vecs` are given unless a call says otherwise.
        return_sparse: the same of `lexical_weights`.
        return_colbert_vecs: the same of `colbert_vecs`.
        truncate_dim: keep the first so many numbers of dense and ColBERT vectors.

    Raises:
        InvalidOptionError: pooling, normalisation or an option that is not there.
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
        colbert_dim: int = -1,
        batch_size: int = 256,
        query_max_length: int = 512,
        passage_max_length: int = 512,
        return_dense: bool = True,
        return_sparse: bool = False,
        return_colbert_vecs: bool = False,
        truncate_dim: int | None = None,
    ) -> None:
        refuse_cache(cache_dir)
        ignore_batch_size(None if batch_size == 256 else batch_size)
        self.encoder = open_model(Encoder, model_name_or_path, devices, use_fp16=use_fp16, use_bf16=use_bf16)
        manifest = self.encoder.manifest
        if pooling_method != manifest.pooling:
            raise InvalidOptionError(
                f"pooling_method is {pooling_method!r} and this model pools by {manifest.pooling!r}"
            )
        if manifest.normalize != normalize_embeddings:
            raise InvalidOptionError(
                f"normalize_embeddings is {normalize_embeddings} and the model folder has {manifest.normalize}: export "
                "the checkpoint with `--normalize` or `--no-normalize`"
            )
        columns = [output.columns for output in manifest.token_outputs if output.name == "multi_vector"]
        if colbert_dim > 0 and columns and colbert_dim != columns[0]:
            raise InvalidOptionError(f"colbert_dim is {colbert_dim} and this model's vectors have {columns[0]}")
        if truncate_dim is not None:
            check_whole("truncate_dim", truncate_dim, 1, min([self.encoder.dimensions, *columns]))
        if query_instruction_for_retrieval is not None:
            before = instructed(query_instruction_format, query_instruction_for_retrieval, "")
            warn_if_other_instruction(self.encoder, before, "query")
        self.normalize_embeddings = normalize_embeddings
        self.query_instruction_for_retrieval = query_instruction_for_retrieval
        self.query_instruction_format = query_instruction_format
        self.query_max_length = query_max_length
        self.passage_max_length = passage_max_length
        self.return_dense, self.return_sparse = return_dense, return_sparse
        self.return_colbert_vecs = return_colbert_vecs
        self.truncate_dim = truncate_dim

    def encode_queries(
        self,
        queries: str | Iterable[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool | None = None,
        return_sparse: bool | None = None,
        return_colbert_vecs: bool | None = None,
    ) -> dict[str, Any]:
        """As `encode`, with the query instruction if there is one, cut at `query_max_length`."""
        ignore_batch_size(batch_size)
        queries = all_instructed(self.query_instruction_format, self.query_instruction_for_retrieval, queries)
        limit = self.query_max_length if max_length is None else max_length
        return self._encode(queries, limit, return_dense, return_sparse, return_colbert_vecs)

    def encode_corpus(
        self,
        corpus: str | Iterable[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool | None = None,
        return_sparse: bool | None = None,
        return_colbert_vecs: bool | None = None,
    ) -> dict[str, Any]:
        """The same as `encode`: there is no instruction for passages."""
        return self.encode(corpus, batch_size, max_length, return_dense, return_sparse, return_colbert_vecs)

    def encode(
        self,
        sentences: str | Iterable[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool | None = None,
        return_sparse: bool | None = None,
        return_colbert_vecs: bool | None = None,
    ) -> dict[str, Any]:
        """Embed texts, with nothing before them.

        Returns:
            `dense_vecs` float32[n, dim], `lexical_weights` a list of dictionaries of weight by token id as text, and
            `colbert_vecs` a list of float32[tokens, dim]; None for what was not asked for. For a `str` they are that
            text's alone.

        Raises:
            BgertError: as `bgert.Encoder.encode_outputs`.
        """
        ignore_batch_size(batch_size)
        limit = self.passage_max_length if max_length is None else max_length
        return self._encode(sentences, limit, return_dense, return_sparse, return_colbert_vecs)

    def _encode(
        self,
        texts: str | Iterable[str],
        max_length: int,
        dense: bool | None,
        sparse: bool | None,
        colbert: bool | None,
    ) -> dict[str, Any]:
        asked = {
            "dense": self.return_dense if dense is None else dense,
            "sparse": self.return_sparse if sparse is None else sparse,
            "multi_vector": self.return_colbert_vecs if colbert is None else colbert,
        }
        items = [texts] if isinstance(texts, str) else as_list(texts, "texts")
        found = self._run(items, [name for name, wanted in asked.items() if wanted], max_length)
        result: dict[str, Any] = {
            "dense_vecs": None if found.dense is None else np.asarray(self._shortened(np.asarray(found.dense))),
            "lexical_weights": None if found.sparse is None else [_weights(vector) for vector in _listed(found)],
            "colbert_vecs": None
            if found.multi_vector is None
            else [self._shortened(vectors) for vectors in found.multi_vector],
        }
        if not isinstance(texts, str):
            return result
        return {name: None if values is None else values[0] for name, values in result.items()}

    def compute_score(
        self,
        sentence_pairs: Iterable[tuple[str, str]] | tuple[str, str],
        batch_size: int | None = None,
        max_query_length: int | None = None,
        max_passage_length: int | None = None,
        weights_for_different_modes: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """Scores of pairs by each output, and their weighted means.

        Args:
            sentence_pairs: a list of (query, passage), or one pair.
            batch_size: ignored.
            max_query_length: tokens of a query; None for `query_max_length`.
            max_passage_length: tokens of a passage; None for `passage_max_length`.
            weights_for_different_modes: of dense, sparse and ColBERT scores, in this order; None for 1 each.

        Returns:
            `colbert`, `sparse`, `dense`, `sparse+dense` and `colbert+sparse+dense`: lists of float, or floats for one
            pair.
        """
        ignore_batch_size(batch_size)
        items: Any = as_list(sentence_pairs, "pairs", "(query, passage)", 2)
        single = len(items) == 2 and all(isinstance(side, str) for side in items)
        pairs = [tuple(items)] if single else items
        weights = [1.0, 1.0, 1.0] if weights_for_different_modes is None else list(weights_for_different_modes)
        if len(weights) != 3 or not sum(weights) or not weights[0] + weights[1]:
            raise InvalidOptionError(f"weights_for_different_modes is {weights}: pass three, dense, sparse and ColBERT")
        limits = (max_query_length or self.query_max_length, max_passage_length or self.passage_max_length)
        names = ["dense", "sparse", "multi_vector"]
        queries, passages = (self._run([pair[side] for pair in pairs], names, limits[side]) for side in (0, 1))
        dense = (np.asarray(queries.dense) * np.asarray(passages.dense)).sum(axis=1)
        sparse, colbert = np.zeros_like(dense), np.zeros_like(dense)
        vectors: Any = (queries.multi_vector, passages.multi_vector)
        for number, (query, passage) in enumerate(zip(_listed(queries), _listed(passages), strict=True)):
            sparse[number] = float(query.values @ passage.toarray()[query.indices])
            colbert[number] = self.colbert_score(vectors[0][number], vectors[1][number])
        both = (weights[0] * dense + weights[1] * sparse) / (weights[0] + weights[1])
        every = (weights[0] * dense + weights[1] * sparse + weights[2] * colbert) / sum(weights)
        scores = {"colbert": colbert, "sparse": sparse, "dense": dense, "sparse+dense": both}
        scores["colbert+sparse+dense"] = every
        listed = {name: values.tolist() for name, values in scores.items()}
        return {name: values[0] for name, values in listed.items()} if single else listed

    def compute_lexical_matching_score(
        self,
        lexical_weights_1: Weights | list[Weights],
        lexical_weights_2: Weights | list[Weights],
    ) -> float | NDArray[np.float64]:
        """The sum over shared tokens of the products of their weights; [n, m] for two lists.

        Raises:
            InvalidOptionError: one of them is a list and the other is not.
        """
        if isinstance(lexical_weights_1, dict) and isinstance(lexical_weights_2, dict):
            return _matching(lexical_weights_1, lexical_weights_2)
        if isinstance(lexical_weights_1, dict) or isinstance(lexical_weights_2, dict):
            raise InvalidOptionError("lexical weights are one dictionary and a list: pass two of either")
        return np.array([[_matching(one, other) for other in lexical_weights_2] for one in lexical_weights_1])

    def colbert_score(self, q_reps: ArrayLike, p_reps: ArrayLike) -> float:
        """For each of the query's vectors the largest inner product with one of the passage's; their mean."""
        count = len(np.asarray(q_reps))
        return max_sim(q_reps, p_reps) / count if count else 0.0

    def convert_id_to_token(self, lexical_weights: Weights | list[Weights]) -> Any:
        """The weights by the text of the token; a list of one dictionary becomes that dictionary."""
        listed = [lexical_weights] if isinstance(lexical_weights, dict) else lexical_weights
        decode = self.encoder.tokenizer.decode
        named = [{decode([int(token)]): weight for token, weight in item.items()} for item in listed]
        return named[0] if len(named) == 1 else named

    def stop_self_pool(self) -> None:
        """Free the engine; it is opened again on the next use."""
        self.encoder = closed(self.encoder)

    def _run(self, items: Sequence[str], names: list[str], max_length: int) -> EncoderOutputs:
        found = run_outputs(self.encoder, items, names, "", max_length, None)
        warn_truncated(found.info.truncated, max_length)
        return found

    def _shortened(self, vectors: Array) -> Array:
        return shorten(vectors, self.truncate_dim, self.normalize_embeddings)


def _listed(outputs: EncoderOutputs) -> Any:
    return outputs.sparse


def _weights(vector: SparseVector) -> Weights:
    return {str(token): weight for token, weight in vector.as_dict().items()}


def _matching(one: Weights, other: Weights) -> float:
    return float(sum(weight * other[token] for token, weight in one.items() if token in other))
