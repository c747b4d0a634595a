"""What `encode` and `score` return: plain arrays that also say what happened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.errors import InvalidOptionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Embeddings", "RunInfo", "ScoreInfo", "Scores"]


@dataclass(frozen=True)
class RunInfo:
    """How a result came about."""

    device: str
    precision: str
    engine: str
    tokens: int
    """Tokens that the model saw, special tokens counted."""
    truncated: NDArray[np.bool_]
    """bool[n]: which inputs were longer than `max_length` and lost their end."""
    padding: int = field(default=0, kw_only=True)
    """Slots that the engine computed beside the tokens; 0 on engines that take packed texts."""


@dataclass(frozen=True)
class ScoreInfo(RunInfo):
    """How scores came about."""

    score_kind: str
    """`logit` (raw) or `sigmoid`."""
    truncation: str
    """The convention by which long pairs were cut."""


class Embeddings(np.ndarray[Any, Any]):
    """A numpy array with an `info`; arithmetic and slices on it give arrays whose `info` is None."""

    info: RunInfo | None

    @classmethod
    def of(cls, values: NDArray[Any], info: RunInfo) -> Embeddings:
        """View `values` as a result, without a copy."""
        result = values.view(cls)
        result.info = info
        return result

    def __array_finalize__(self, source: object) -> None:
        self.info = None


class Scores(np.ndarray[Any, Any]):
    """As `Embeddings`, for the scores of pairs."""

    info: ScoreInfo | None

    @classmethod
    def of(cls, values: NDArray[Any], info: ScoreInfo) -> Scores:
        """View `values` as a result, without a copy."""
        result = np.asarray(values).view(cls)
        result.info = info
        return result

    def __array_finalize__(self, source: object) -> None:
        self.info = None


DTYPES = ("float32", "float16", "int8", "ubinary")


def output_shape(dimensions: int, dtype: str) -> tuple[int, type[Any]]:
    """Columns and numpy type of an embedding in a dtype.

    Raises:
        InvalidOptionError: unknown dtype, or `ubinary` with dimensions that fill no whole bytes.
    """
    if dtype not in DTYPES:
        raise InvalidOptionError(f"unknown dtype {dtype!r}: use one of {', '.join(DTYPES)}")
    if dtype == "ubinary":
        if dimensions % 8:
            raise InvalidOptionError(f"ubinary packs 8 dimensions a byte, {dimensions} is not a multiple of 8")
        return dimensions // 8, np.uint8
    return dimensions, {"float32": np.float32, "float16": np.float16, "int8": np.int8}[dtype]


def shorten(vectors: NDArray[np.float32], dimensions: int | None, normalize: bool) -> NDArray[np.float32]:
    """Keep the first `dimensions` columns, of length one again if the model normalises."""
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    vectors = vectors[:, :dimensions]
    if not normalize:
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float32)
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, np.float32(1e-12))
    return unit


def convert(vectors: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Store float32[n, d] in another dtype.

    `int8` scales each row so that its largest component is +-127: cosines survive, lengths do not, and a row does
    not depend on its neighbours. `ubinary` keeps one bit a dimension (1 where positive), most significant first,
    as `numpy.packbits` and the sentence-transformers format of that name.
    """
    if dtype == "float16":
        return vectors.astype(np.float16)
    if dtype == "int8":
        largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0.0)
        return np.rint(vectors * (127 / np.where(largest > 0, largest, 1))).astype(np.int8)
    if dtype == "ubinary":
        return np.packbits(vectors > 0, axis=1)
    return vectors
