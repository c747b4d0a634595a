"""What `encode` and `score` return: plain arrays that also say what happened."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bgert.errors import InvalidOptionError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Embeddings", "RunInfo", "ScoreInfo", "Scores"]


@dataclass(frozen=True, repr=False)
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
    tokenize_seconds: float = field(default=0.0, kw_only=True)
    """Wall time of tokenizing, which runs beside the model where texts fill several windows."""
    run_seconds: float = field(default=0.0, kw_only=True)
    """Wall time of running the model."""

    verified: bool = field(default=False, kw_only=True)
    """Whether export compared the graph with PyTorch."""

    @property
    def n_truncated(self) -> int:
        """How many inputs lost their end."""
        return int(np.count_nonzero(self.truncated))

    def to_dict(self) -> dict[str, Any]:
        """All fields as what JSON has; `truncated` as the indices of the inputs that were cut."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**values, "truncated": np.flatnonzero(self.truncated).tolist()}

    def __repr__(self) -> str:
        values = {**self.to_dict(), "truncated": f"{self.n_truncated} of {len(self.truncated)}"}
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in values.items())})"


@dataclass(frozen=True, repr=False)
class ScoreInfo(RunInfo):
    """How scores came about."""

    score_kind: str
    """`logit` (raw), `sigmoid` or `softmax`."""
    truncation: str
    """The convention by which long pairs were cut."""


class _Result(np.ndarray[Any, Any]):
    """An array with an `info` that pickle and copies keep, and that nothing computed from it has."""

    info: RunInfo

    def __array_finalize__(self, source: object) -> None:
        # What encode and score return has one; only what is computed from it has none.
        self.info = cast("RunInfo", None)

    def __reduce__(self) -> tuple[Any, ...]:
        make, arguments, state = cast("tuple[Any, Any, Any]", super().__reduce__())
        return make, arguments, (state, self.info)

    def __setstate__(self, state: Any) -> None:
        array, self.info = state
        super().__setstate__(array)

    def copy(self, *arguments: Any, **options: Any) -> Any:
        """As in numpy, with the `info`."""
        return self._with_info(super().copy(*arguments, **options))

    def __copy__(self) -> Any:
        return self._with_info(super().__copy__())

    def __deepcopy__(self, memo: dict[int, Any] | None) -> Any:
        return self._with_info(super().__deepcopy__(memo))

    def _with_info(self, other: Any) -> Any:
        if isinstance(other, _Result):
            other.info = self.info
        return other


class Embeddings(_Result):
    """A numpy array with an `info`, which pickle and copies keep.

    Slices and what is computed from it have None there: the `info` tells of all inputs together.
    """

    @classmethod
    def of(cls, values: NDArray[Any], info: RunInfo) -> Embeddings:
        """View `values` as a result, without a copy."""
        result = values.view(cls)
        result.info = info
        return result


class Scores(_Result):
    """As `Embeddings`, for the scores of pairs."""

    info: ScoreInfo

    @classmethod
    def of(cls, values: NDArray[Any], info: ScoreInfo) -> Scores:
        """View `values` as a result, without a copy."""
        result = np.asarray(values).view(cls)
        result.info = info
        return result


_NUMPY_TYPES: dict[str, type[Any]] = {
    "float32": np.float32,
    "float16": np.float16,
    "int8": np.int8,
    "binary": np.int8,
    "ubinary": np.uint8,
}


def dtype_name(dtype: object) -> str:
    """The name of a dtype that was given as a name or as numpy's type, such as `np.float16`."""
    if isinstance(dtype, str):
        return dtype
    if dtype in (np.float32, np.float16, np.int8):
        return str(np.dtype(cast("Any", dtype)).name)
    raise InvalidOptionError(f"unknown dtype {dtype!r}: use one of {', '.join(_NUMPY_TYPES)}")


def output_shape(dimensions: int, dtype: str) -> tuple[int, type[Any]]:
    """Columns and numpy type of an embedding in a dtype.

    Raises:
        InvalidOptionError: unknown dtype, or packed bits with dimensions that fill no whole bytes.
    """
    numpy_type = _NUMPY_TYPES.get(dtype)
    if numpy_type is None:
        raise InvalidOptionError(f"unknown dtype {dtype!r}: use one of {', '.join(_NUMPY_TYPES)}")
    if dtype not in ("binary", "ubinary"):
        return dimensions, numpy_type
    if dimensions % 8:
        raise InvalidOptionError(f"{dtype} packs 8 dimensions a byte, {dimensions} is not a multiple of 8")
    return dimensions // 8, numpy_type


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
    as `numpy.packbits` and the sentence-transformers format of that name; `binary` is that less 128, as int8.
    """
    if dtype == "float16":
        return vectors.astype(np.float16)
    if dtype == "int8":
        largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0.0)
        return np.rint(vectors * (127 / np.where(largest > 0, largest, 1))).astype(np.int8)
    if dtype == "ubinary":
        return np.packbits(vectors > 0, axis=1)
    if dtype == "binary":
        return (np.packbits(vectors > 0, axis=1) ^ np.uint8(128)).view(np.int8)
    return vectors


def cosines(first: ArrayLike, second: ArrayLike) -> NDArray[np.float32]:
    """Cosines of rows with rows, float32[n, m] of [n, d] and [m, d]; a vector counts as one row.

    Raises:
        InvalidOptionError: packed bits, or shapes that do not fit.
    """
    rows = []
    for values in (first, second):
        array = np.asarray(values)
        if array.dtype.kind not in "fi" or array.ndim not in (1, 2):
            raise InvalidOptionError(
                f"embeddings are {array.dtype} of shape {array.shape}: pass float or int8, [dim] or [n, dim]"
            )
        wide = np.atleast_2d(array).astype(np.float32)
        rows.append(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.float32(1e-12)))
    if rows[0].shape[1] != rows[1].shape[1]:
        raise InvalidOptionError(f"embeddings have {rows[0].shape[1]} and {rows[1].shape[1]} dimensions")
    product: NDArray[np.float32] = rows[0] @ rows[1].T
    return product
