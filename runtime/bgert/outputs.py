"""Sparse and multi-vector outputs of an encoder: what they are, how they are made of a graph's rows, their scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from bgert.errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    from bgert.batching import PackedBatch
    from bgert.model_folder import TokenOutput
    from bgert.results import Embeddings, RunInfo

    Array = NDArray[np.float32]

__all__ = [
    "EncoderOutputs",
    "SparseEmbeddings",
    "SparseVector",
    "kept_tokens",
    "max_sim",
    "max_sims",
    "sparse_of_rows",
    "sparse_of_tokens",
]


@dataclass(frozen=True, eq=False)
class SparseVector:
    """A vector of which most numbers are 0, as vector databases take it."""

    indices: NDArray[np.int32]
    """int32[k], rising: token ids."""
    values: Array
    """float32[k], above 0."""
    size: int
    """Numbers in the whole vector: the vocabulary's."""

    def __len__(self) -> int:
        """How many numbers are not 0, k."""
        return len(self.indices)

    def as_dict(self) -> dict[int, float]:
        """Weight by token id."""
        return dict(zip(self.indices.tolist(), self.values.tolist(), strict=True))

    def toarray(self) -> Array:
        """The whole vector, float32[size]."""
        whole = np.zeros(self.size, np.float32)
        whole[self.indices] = self.values
        return whole


class SparseEmbeddings(Sequence[SparseVector]):
    """Sparse vectors of texts. `scipy.sparse.csr_array((x.values, x.indices, x.indptr), shape=x.shape)` is the same.

    Attributes:
        indptr: int64[n + 1]: vector i is `indices[indptr[i]:indptr[i + 1]]` with the `values` there.
        indices: int32[k], token ids, rising in each vector.
        values: float32[k], above 0.
        size: numbers in a whole vector.
    """

    def __init__(self, indptr: NDArray[np.int64], indices: NDArray[np.int32], values: Array, size: int) -> None:
        self.indptr, self.indices, self.values, self.size = indptr, indices, values, size

    @classmethod
    def of(cls, vectors: Sequence[SparseVector], size: int) -> SparseEmbeddings:
        """Vectors of one size, put together."""
        indptr = np.zeros(len(vectors) + 1, np.int64)
        np.cumsum([len(vector) for vector in vectors], out=indptr[1:])
        empty = SparseVector(np.empty(0, np.int32), np.empty(0, np.float32), size)
        parts = [*vectors, empty]
        return cls(
            indptr,
            np.concatenate([vector.indices for vector in parts]),
            np.concatenate([vector.values for vector in parts]),
            size,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Vectors, and numbers in a whole one."""
        return len(self), self.size

    def __len__(self) -> int:
        """How many vectors there are, n."""
        return len(self.indptr) - 1

    @overload
    def __getitem__(self, index: int) -> SparseVector: ...
    @overload
    def __getitem__(self, index: slice) -> SparseEmbeddings: ...
    def __getitem__(self, index: int | slice) -> SparseVector | SparseEmbeddings:
        """One vector, or those of a slice."""
        if isinstance(index, slice):
            return SparseEmbeddings.of([self[number] for number in range(*index.indices(len(self)))], self.size)
        number = range(len(self))[index]
        start, stop = self.indptr[number], self.indptr[number + 1]
        return SparseVector(self.indices[start:stop], self.values[start:stop], self.size)

    def __iter__(self) -> Iterator[SparseVector]:
        return (self[number] for number in range(len(self)))

    def toarray(self) -> Array:
        """All numbers, float32[n, size]."""
        whole = np.zeros(self.shape, np.float32)
        whole[np.repeat(np.arange(len(self)), np.diff(self.indptr)), self.indices] = self.values
        return whole

    def similarity(self, others: SparseEmbeddings | SparseVector) -> Array:
        """Inner products of every vector with every other, float32[n, m]: lexical matching scores.

        Raises:
            InvalidOptionError: the vectors have another size.
        """
        listed: Iterable[SparseVector] = [others] if isinstance(others, SparseVector) else others
        scores = np.zeros((len(self), 1 if isinstance(others, SparseVector) else len(others)), np.float32)
        row = np.repeat(np.arange(len(self)), np.diff(self.indptr))
        for column, other in enumerate(listed):
            if other.size != self.size:
                raise InvalidOptionError(f"vectors of {self.size} and {other.size} numbers: they are of two models")
            terms = self.values.astype(np.float64) * other.toarray()[self.indices]
            scores[:, column] = np.bincount(row, terms, len(self))
        return scores

    def __repr__(self) -> str:
        return f"SparseEmbeddings({len(self)} vectors of {self.size}, {len(self.values)} numbers above 0)"


@dataclass(frozen=True, eq=False)
class EncoderOutputs:
    """What `Encoder.encode_outputs` returns; what was not asked for is None. For a `str` each is that text's alone."""

    info: RunInfo
    """How it came about."""
    dense: Embeddings | None = None
    """float32[n, dim], what `encode` gives."""
    sparse: SparseEmbeddings | SparseVector | None = None
    """Weights by token id."""
    multi_vector: list[Array] | Array | None = None
    """float32[tokens, dim] a text."""


def max_sim(query: ArrayLike, document: ArrayLike) -> float:
    """For each of the query's vectors the largest inner product with one of the document's, summed (ColBERT's MaxSim).

    FlagEmbedding's `colbert_score` divides it by the number of the query's vectors.

    Args:
        query: float [q, dim], multi-vector output of one text.
        document: float [d, dim]; without vectors the score is 0.

    Raises:
        InvalidOptionError: shapes that do not fit.
    """
    first, second = (np.asarray(vectors, np.float32) for vectors in (query, document))
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise InvalidOptionError(f"vectors of shapes {first.shape} and {second.shape}: pass [q, dim] and [d, dim]")
    if not len(first) or not len(second):
        return 0.0
    return float((first @ second.T).max(1).astype(np.float64).sum())


def max_sims(queries: ArrayLike | Sequence[ArrayLike], documents: ArrayLike | Sequence[ArrayLike]) -> Array:
    """`max_sim` of every query with every document, float32[q, n].

    Args:
        queries: multi-vector outputs, a list of float [tokens, dim], or one of them.
        documents: the same.

    Raises:
        InvalidOptionError: as `max_sim`.
    """
    listed = [_several(queries), _several(documents)]
    return np.array([[max_sim(query, document) for document in listed[1]] for query in listed[0]], np.float32).reshape(
        len(listed[0]), len(listed[1])
    )


def _several(vectors: Any) -> list[Any]:
    return [vectors] if isinstance(vectors, np.ndarray) and vectors.ndim == 2 else list(vectors)


def kept_tokens(batch: PackedBatch, output: TokenOutput) -> NDArray[np.bool_]:
    """bool[T]: which tokens of a batch an output has something for."""
    kept = np.ones(len(batch.input_ids), np.bool_)
    if output.skip_first:
        starts, lengths = batch.cu_seqlens[:-1], np.diff(batch.cu_seqlens)
        kept &= np.arange(len(kept)) - np.repeat(starts, lengths) >= output.skip_first
    if output.skip_ids:
        kept &= ~np.isin(batch.input_ids, output.skip_ids)
    return kept


def sparse_of_tokens(batch: PackedBatch, weights: Array, output: TokenOutput) -> list[SparseVector]:
    """The largest weight above 0 of each token id of each text, of weights [T, 1]."""
    size = cast("int", output.size)
    flat = weights[:, 0]
    kept = kept_tokens(batch, output) & (flat > 0)
    text = np.repeat(np.arange(len(batch)), np.diff(batch.cu_seqlens))[kept]
    keys = (text << 32) | batch.input_ids[kept]
    order = np.argsort(keys, kind="stable")
    unique, first = np.unique(keys[order], return_index=True)
    values = np.maximum.reduceat(flat[kept][order], first) if len(first) else np.empty(0, np.float32)
    cuts = np.searchsorted(unique, np.arange(len(batch) + 1) << 32)
    ids = (unique & 0xFFFFFFFF).astype(np.int32)
    return [SparseVector(ids[a:b], values[a:b], size) for a, b in pairwise(cuts)]


def sparse_of_rows(rows: Array) -> list[SparseVector]:
    """Vectors of rows [B, size] whose numbers are 0 or more."""
    return [_nonzero(row) for row in rows]


def _nonzero(row: Any) -> SparseVector:
    indices = np.flatnonzero(row).astype(np.int32)
    return SparseVector(indices, row[indices], len(row))
