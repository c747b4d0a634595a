"""Embedding and scoring columns of Arrow tables: what a worker of Ray, Spark or Dask runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.encoder import Encoder
from bgert.errors import EngineNotInstalledError, InvalidOptionError, InvalidTextError, install_extra
from bgert.reranker import Reranker
from bgert.results import dtype_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from typing import Literal, TypeVar

    from numpy.typing import NDArray

    from bgert.model import Model
    from bgert.option_types import Dtype, Truncation

    AnyModel = TypeVar("AnyModel", bound=Model)
    Role = Literal["query", "document"]

__all__ = ["Embed", "Score"]

_models: dict[str, tuple[str, Model]] = {}
_opening = threading.Lock()


def opened(kind: type[AnyModel], folder: str | Path, options: dict[str, Any]) -> AnyModel:
    """A model of this process, opened once: workers call a stage once a partition, and pickled it comes anew each time.

    One model of a kind is kept, so a worker that goes on to another one does not hold both.
    """
    key = f"{folder} {sorted(options.items())}"
    with _opening:
        known, model = _models.get(kind.kind, ("", None))
        if not isinstance(model, kind) or known != key:
            model = kind(folder, **options)
            _models[kind.kind] = key, model
        return model


class Embed:
    """A column of texts to a column of vectors beside it: `Embed(folder)(table)`.

    It holds settings alone and pickles as them; the model is opened on first use, once a process.

    Args:
        folder: a model folder, at the same path on every machine, or a hub id.
        column: of the texts, strings without nulls.
        output: of the vectors, a fixed-size list of the dtype; `ubinary` is a list of uint8.
        role: `document` (`Encoder.encode_corpus`) or `query` (`encode_queries`): which prompt goes before each text.
        prefix: literal text before each instead of the prompt; `""` for nothing.
        dtype: as in `Encoder.encode`.
        dimensions: as in `Encoder.encode`.
        max_length: as in `Encoder.encode`.
        truncated: name of a boolean column that tells which texts were cut; None for none. (A warning is given in
            any case, in the log of the worker that met the text.)
        **options: what `Encoder` takes besides: device, precision, threads, gpu_memory_limit ...

    Raises:
        InvalidOptionError: an unknown role or dtype, or a column has the name of another (raised by the call).
        InvalidTextError: the column holds nulls or no strings (raised by the call).
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        column: str = "text",
        output: str = "embedding",
        role: Role = "document",
        prefix: str | None = None,
        dtype: Dtype = "float32",
        dimensions: int | None = None,
        max_length: int | None = None,
        truncated: str | None = None,
        **options: Any,
    ) -> None:
        if role not in ("query", "document"):
            raise InvalidOptionError(f"unknown role {role!r}: query or document; prefix= takes any other text")
        self.folder, self.options = folder, options
        self.column, self.output, self.truncated = column, output, truncated
        self.role, self.prefix = role, prefix
        self.dtype = dtype_name(dtype)
        self.dimensions, self.max_length = dimensions, max_length

    @property
    def needed(self) -> list[str]:
        """Names of the columns that a call reads."""
        return [self.column]

    @property
    def added(self) -> list[str]:
        """Names of the columns that a call adds."""
        return [self.output, *([self.truncated] if self.truncated else [])]

    @property
    def model(self) -> Encoder:
        """The encoder of this process."""
        return opened(Encoder, self.folder, self.options)

    def __call__(self, table: Any) -> Any:
        """A `pyarrow.Table` or `RecordBatch` with the column of vectors at its end."""
        check_names(table.schema.names, self.needed, self.added)
        encode = self.model.encode_queries if self.role == "query" else self.model.encode_corpus
        rows = encode(
            texts_of(table, self.column),
            prefix=self.prefix,
            max_length=self.max_length,
            dimensions=self.dimensions,
            dtype=self.dtype,  # type: ignore[arg-type]
            show_progress=False,
        )
        table = table.append_column(self.output, self.array(np.asarray(rows)))
        if self.truncated and rows.info is not None:
            table = table.append_column(self.truncated, arrow().array(rows.info.truncated))
        return table

    def array(self, rows: NDArray[Any]) -> Any:
        """Rows [n, dim] as an Arrow array."""
        return arrow().FixedSizeListArray.from_arrays(arrow().array(rows.ravel()), rows.shape[1])


class Score:
    """A column of queries and one of documents to a column of a reranker's scores: `Score(folder)(table)`.

    Args:
        folder: a reranker's model folder, at the same path on every machine, or a hub id.
        query: column of the queries. Rows with the same query next to each other cost least.
        document: column of the documents.
        output: of the scores: float32, or a fixed-size list of them for a model with several labels.
        prefix: as in `Reranker.score`.
        max_length: as in `Reranker.score`.
        truncation: as in `Reranker.score`.
        sigmoid: as in `Reranker.score`.
        truncated: as in `Embed`.
        **options: what `Reranker` takes besides.

    Raises:
        InvalidOptionError: a column has the name of another (raised by the call).
        InvalidTextError: a column holds nulls or no strings (raised by the call).
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        query: str = "query",
        document: str = "document",
        output: str = "score",
        prefix: str | None = None,
        max_length: int | None = None,
        truncation: Truncation = "longest_first",
        sigmoid: bool = False,
        truncated: str | None = None,
        **options: Any,
    ) -> None:
        self.folder, self.options = folder, options
        self.query, self.document, self.output, self.truncated = query, document, output, truncated
        self.prefix, self.max_length, self.truncation, self.sigmoid = prefix, max_length, truncation, sigmoid

    @property
    def needed(self) -> list[str]:
        """Names of the columns that a call reads."""
        return [self.query, self.document]

    @property
    def added(self) -> list[str]:
        """Names of the columns that a call adds."""
        return [self.output, *([self.truncated] if self.truncated else [])]

    @property
    def model(self) -> Reranker:
        """The reranker of this process."""
        return opened(Reranker, self.folder, self.options)

    def __call__(self, table: Any) -> Any:
        """A `pyarrow.Table` or `RecordBatch` with the column of scores at its end."""
        check_names(table.schema.names, self.needed, self.added)
        scores = self.model.score(
            list(zip(texts_of(table, self.query), texts_of(table, self.document), strict=True)),
            prefix=self.prefix,
            max_length=self.max_length,
            truncation=self.truncation,
            sigmoid=self.sigmoid,
            show_progress=False,
        )
        table = table.append_column(self.output, self.array(np.asarray(scores)))
        if self.truncated and scores.info is not None:
            table = table.append_column(self.truncated, arrow().array(scores.info.truncated))
        return table

    def array(self, scores: NDArray[Any]) -> Any:
        """Scores [n] or [n, labels] as an Arrow array."""
        if scores.ndim == 1:
            return arrow().array(scores)
        return arrow().FixedSizeListArray.from_arrays(arrow().array(scores.ravel()), scores.shape[1])


def check_names(names: Sequence[str], needed: Iterable[str], added: Iterable[str]) -> None:
    """Raise InvalidOptionError unless a table has the `needed` columns and none of those to be `added`."""
    have = list(names)
    for name in needed:
        if name not in have:
            raise InvalidOptionError(f"there is no column {name!r}: the table has {', '.join(have)}")
    for name in added:
        if name in have:
            raise InvalidOptionError(f"the table has a column {name!r} already: give what is added another name")
        have.append(name)


def texts_of(table: Any, column: str) -> list[str]:
    """The texts of a column.

    Raises:
        InvalidTextError: it holds nulls, or something else than strings.
    """
    values, types = table[column], arrow().types
    if types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    check_texts(column, values.type)
    if values.null_count:
        raise InvalidTextError(
            f"column {column!r} has {values.null_count} nulls in a batch of {len(values)} rows: drop or fill them first"
        )
    texts: list[str] = values.to_pylist()
    return texts


def check_texts(column: str, kind: Any) -> None:
    """Raise InvalidTextError unless a column of this Arrow type holds strings."""
    types = arrow().types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        raise InvalidTextError(f"column {column!r} holds {kind}: texts are strings")


def arrow() -> Any:
    """The library."""
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise EngineNotInstalledError(f"this needs {error.name}: {install_extra('arrow')}") from None
    return pyarrow
