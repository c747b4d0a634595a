"""Exact search by blockwise matrix product."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bgert.errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["search", "unit_rows"]

QUERIES, DOCUMENTS = 1024, 4096  # a matrix product: 32 MB of scores
SIGN = np.uint32(1 << 31)


def search(
    queries: NDArray[np.float32],
    blocks: Iterable[NDArray[np.float32]],
    document_ids: Sequence[str],
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The `k` documents with the largest inner product for each query.

    Products are summed in float64 and rounded to float32, so that equal vectors have equal scores; float32 sums differ
    in the last bit from place to place in a block. Equal scores are ordered as trec_eval orders them: the id that is
    larger by code points comes first. The order does not depend on how documents are cut into blocks.

    Args:
        queries: float32[q, d].
        blocks: float32[any, d] each, joined the vectors of all documents; each is dropped before the next is taken.
        document_ids: n ids, none twice, in the order of the vectors.
        k: documents to keep.

    Returns:
        int64[q, min(k, n)] positions in `document_ids`, best first, and float32[q, min(k, n)] scores.

    Raises:
        InvalidOptionError: the blocks have more or fewer rows than there are ids.
    """
    by_id = np.array(sorted(range(len(document_ids)), key=document_ids.__getitem__), np.int64)
    ranks = np.empty(len(document_ids), np.uint64)
    ranks[by_id] = np.arange(len(document_ids), dtype=np.uint64)
    best = np.empty((len(queries), 0), np.uint64)
    wide = queries.astype(np.float64)
    done = 0
    for block in _cut(blocks):
        stop = done + len(block)
        if stop > len(document_ids):
            raise InvalidOptionError(f"there are {stop} vectors or more for {len(document_ids)} documents")
        columns = block.astype(np.float64).T
        kept = np.empty((len(queries), min(k, best.shape[1] + len(block))), np.uint64)
        for start in range(0, len(queries), QUERIES):
            rows = slice(start, start + QUERIES)
            keys = _keys((wide[rows] @ columns).astype(np.float32), ranks[done:stop])
            kept[rows] = _largest(np.concatenate([best[rows], keys], axis=1), k)
        best, done = kept, stop
    if done != len(document_ids):
        raise InvalidOptionError(f"there are {done} vectors for {len(document_ids)} documents")
    best = np.sort(best, axis=1)[:, ::-1]
    return by_id[(best & np.uint64(0xFFFFFFFF)).astype(np.int64)], _scores(best)


def _cut(blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    for block in blocks:
        for start in range(0, len(block), DOCUMENTS):
            yield block[start : start + DOCUMENTS]


def _keys(scores: NDArray[np.float32], ranks: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Whole numbers in the order of (score, rank of the id): a float's bits, made to ascend, above the rank."""
    bits = (scores + np.float32(0)).view(np.uint32)  # -0.0 + 0 is 0.0, and equal scores need equal bits
    ascending = np.where(bits & SIGN, ~bits, bits | SIGN)
    return (ascending.astype(np.uint64) << np.uint64(32)) | ranks


def _scores(keys: NDArray[np.uint64]) -> NDArray[np.float32]:
    ascending = (keys >> np.uint64(32)).astype(np.uint32)
    return np.where(ascending & SIGN, ascending ^ SIGN, ~ascending).view(np.float32)


def _largest(keys: NDArray[np.uint64], k: int) -> NDArray[np.uint64]:
    """The `k` largest of each row, in any order."""
    return keys if keys.shape[1] <= k else np.partition(keys, keys.shape[1] - k, axis=1)[:, -k:]


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[n, d] with each row at length one, so that inner products are cosines; zero rows stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, np.float32(1e-12))
    return unit
