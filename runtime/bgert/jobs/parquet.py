"""Parquet in and out. pyarrow is imported when a `.parquet` is named, and not before."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from bgert.errors import EngineNotInstalledError, InputFileError, InvalidOptionError, InvalidTextError, install_extra
from bgert.jobs.rows import Piece, blocks_of
from bgert.jobs.text_files import reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.jobs.inputs import InputFile
    from bgert.jobs.rows import Block, Columns, TextSource

__all__ = ["ParquetFormat", "ParquetSource", "empty_schema", "finite", "json_value", "schema_of_records"]

_PIECE_ROWS = 1024
_PIECE_BYTES = 1 << 22
_BLOCK_BYTES = 1 << 27
"""Of a block's columns together, by the sizes in the files' own tables."""


def _arrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise EngineNotInstalledError(f".parquet needs pyarrow: {install_extra('parquet')}") from None
    return pyarrow, parquet


class ParquetSource:
    """Rows of Parquet files with the same columns.

    Args:
        files: in order.
        columns: what is read of them.
        block_rows: rows of a block at the most; fewer where rows are large.
        keeps: whether anything but the texts is asked for.

    Raises:
        InputFileError: a file cannot be read, or is no Parquet.
        InvalidOptionError: a column is missing or twice there, holds no texts, or differs from file to file.
    """

    def __init__(self, files: Sequence[InputFile], columns: Columns, block_rows: int, *, keeps: bool) -> None:
        self._pa, self._pq = _arrow()
        self._files, self._columns = files, columns
        self._rows: list[int] = []
        schema, kept, largest = None, [], 1.0
        for file in files:
            with self._open(file) as opened:
                names = [*opened.schema_arrow.names, *file.keys]
                kept = columns.check_names(names, file.name, keeps=keeps)
                own = self._with_keys(opened.schema_arrow, file)
                for name in columns.texts:
                    self._check_text(own.field(name).type, name, file.name)
                mine = self._pa.schema([own.field(name).remove_metadata() for name in kept])
                if schema is None:
                    schema = mine
                elif mine != schema:
                    raise InvalidOptionError(_difference(mine, schema, file.name, files[0].name))
                self._rows.append(opened.metadata.num_rows)
                largest = max([largest, *(_row_bytes(opened.metadata.row_group(number)) for number in _groups(opened))])
                pandas = (opened.schema_arrow.metadata or {}).get(b"pandas")
        self._names, self._read = kept, list(dict.fromkeys([*kept, *columns.texts]))
        # What pandas wrote of its index fits only where all columns are there.
        whole = keeps and columns.keep is None and pandas is not None and len(files) == 1
        self.schema = schema.with_metadata({b"pandas": pandas}) if whole and schema is not None else schema
        self.block_rows = max(1, min(block_rows, int(_BLOCK_BYTES / largest)))

    def count(self) -> int:
        """Rows of all files."""
        return sum(self._rows)

    def pieces(self, start: int) -> Iterator[Piece]:
        """Rows from `start` on, some hundred at a time."""
        for file, rows in zip(self._files, self._rows, strict=True):
            if start and start >= rows:
                start -= rows
                continue
            yield from self._pieces(file, start)
            start = 0

    def _pieces(self, file: InputFile, start: int) -> Iterator[Piece]:
        with self._open(file) as opened:
            here = [name for name in self._read if name not in file.keys]
            first = 0
            for number in _groups(opened):
                group = opened.metadata.row_group(number)
                if first + group.num_rows <= start:
                    first += group.num_rows
                    continue
                batch_rows = max(1, min(_PIECE_ROWS, int(_PIECE_BYTES / _row_bytes(group))))
                batches = opened.iter_batches(batch_rows, row_groups=[number], columns=here, use_threads=False)
                for batch in batches:
                    skip = max(0, start - first)
                    if skip < batch.num_rows:
                        yield self._piece(batch.slice(skip), file, first + skip)
                    first += batch.num_rows

    def _piece(self, batch: Any, file: InputFile, first: int) -> Piece:
        table = self._pa.Table.from_batches([batch])
        for name, value in file.keys.items():
            table = table.append_column(name, self._pa.array([value] * table.num_rows, self._pa.string()))
        sides = []
        for name in self._columns.texts:
            try:
                sides.append(table.column(name).to_pylist())
            except UnicodeDecodeError:
                rows = f"{first + 1} to {first + table.num_rows}"
                raise InvalidTextError(f"{file.name}: rows {rows}: column {name!r} is not all UTF-8") from None
            if None in sides[-1] and not self._columns.drop_nulls:
                row = first + sides[-1].index(None) + 1
                raise InvalidTextError(
                    f"{file.name}: row {row} has null in column {name!r}; --nulls drop leaves such rows out"
                )
        if len(sides) == 1:
            texts, sizes = sides[0], [len(text or "") for text in sides[0]]
        else:
            texts = [None if None in row else row for row in zip(*sides, strict=True)]
            sizes = [sum(len(text) for text in row or ()) for row in texts]
        return Piece(texts, table.select(self._names).cast(self.schema), sizes)

    def _with_keys(self, schema: Any, file: InputFile) -> Any:
        for name in file.keys:
            schema = schema.append(self._pa.field(name, self._pa.string()))
        return schema

    def _check_text(self, kind: Any, name: str, where: str) -> None:
        types = self._pa.types
        inner = kind.value_type if types.is_dictionary(kind) else kind
        views = getattr(types, "is_string_view", lambda _: False)
        if not (types.is_string(inner) or types.is_large_string(inner) or views(inner) or types.is_null(inner)):
            raise InvalidOptionError(f"{where}: column {name!r} is {kind}, not of texts (--text-column names another)")

    @contextmanager
    def _open(self, file: InputFile) -> Iterator[Any]:
        with reading(file.name):
            try:
                # A buffer: otherwise a column of a row group is held whole.
                opened = self._pq.ParquetFile(file.name, buffer_size=1 << 20, pre_buffer=False)
                with opened:
                    yield opened
            except self._pa.ArrowException as error:
                raise InputFileError(f"{file.name}: not read as Parquet: {error}") from None


def _groups(opened: Any) -> range:
    return range(opened.metadata.num_row_groups)


def _row_bytes(group: Any) -> float:
    """Bytes of a row before compression, by the table of the file."""
    return float(max(1.0, group.total_byte_size / max(1, group.num_rows)))


def _difference(one: Any, other: Any, name: str, first: str) -> str:
    if one.names != other.names:
        odd = sorted({*one.names} ^ {*other.names})
        what = f"column {odd[0]!r} is in one of them alone" if odd else "their columns have another order"
    else:
        field = next(field for field in one.names if one.field(field) != other.field(field))
        what = f"column {field!r} is {one.field(field).type} and {other.field(field).type}"
    return f"{name} and {first} do not fit together: {what}; --keep names columns that they share"


def schema_of_records(source: TextSource) -> Any:
    """What columns the objects of `.jsonl` have, all of them read once.

    Raises:
        InvalidOptionError: a field is of several types that no column can hold.
    """
    pa, _ = _arrow()
    schema = pa.schema([])
    for block in blocks_of(source):
        records = [record for piece in block.kept for record in piece]
        for name in dict.fromkeys(name for record in records for name in record):
            with _as_column(pa, name, block):
                kind = pa.array([record.get(name) for record in records]).type
                schema = pa.unify_schemas([schema, pa.schema([(name, kind)])], promote_options="permissive")
    return schema


@contextmanager
def _as_column(pa: Any, name: str, block: Block) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OverflowError, UnicodeError, TypeError) as error:
        raise InvalidOptionError(
            f"field {name!r} of rows {block.start + 1} to {block.stop} is no column of Parquet ({error}): "
            "leave it out with --keep"
        ) from None


class ParquetFormat:
    """Kept columns, and the results as a column of lists of one length, or of numbers.

    Args:
        kept: schema of the kept columns.
        name: of the column of results.
        dtype: numpy type of its numbers.
        width: numbers in a row; None for a column of numbers.
        notes: what the file says about itself, as JSON under the key `bgert`.
    """

    def __init__(self, kept: Any, name: str, dtype: type[Any], width: int | None, notes: dict[str, Any]) -> None:
        self._pa, self._pq = _arrow()
        self._kept = kept
        kind = self._pa.from_numpy_dtype(np.dtype(dtype))
        if width is not None:
            kind = self._pa.list_(self._pa.field("element", kind, nullable=False), width)
        self._added = self._pa.field(name, kind, nullable=False)
        about = {**(kept.metadata or {}), b"bgert": json.dumps(notes, sort_keys=True).encode()}
        self._schema = self._pa.schema([*kept, self._added], metadata=about)

    def write(self, file: IO[bytes], blocks: Iterable[tuple[NDArray[Any], list[Any]]]) -> int:
        """Write a row group a block; returns the number of rows."""
        with self._writer(file) as writer:
            rows = 0
            for results, kept in blocks:
                if len(results):
                    writer.write_table(self._table(results, kept), row_group_size=len(results))
                rows += len(results)
        return rows

    def join(self, file: IO[bytes], parts: Iterable[Path]) -> int:
        """Write the row groups of other such files; returns the number of rows."""
        with self._writer(file) as writer:
            rows = 0
            for path in parts:
                with self._pq.ParquetFile(path, pre_buffer=False) as part:
                    for number in _groups(part):
                        table = part.read_row_group(number, use_threads=False)
                        writer.write_table(self._whole(table.cast(self._schema)), row_group_size=table.num_rows)
                        rows += table.num_rows
        return rows

    def count(self, parts: Iterable[Path]) -> int:
        """Rows of such files."""
        return sum(self._pq.read_metadata(path).num_rows for path in parts)

    def _writer(self, file: IO[bytes]) -> Any:
        # Vectors repeat nothing: no dictionary for them.
        return self._pq.ParquetWriter(file, self._schema, use_dictionary=self._kept.names or False)

    def _table(self, results: NDArray[Any], kept: list[Any]) -> Any:
        pa = self._pa
        if kept and isinstance(kept[0], pa.Table):
            columns = self._whole(pa.concat_tables(kept)).columns
        else:
            records = [record for piece in kept for record in piece]
            columns = [pa.array([record.get(field.name) for record in records], field.type) for field in self._kept]
        numbers = pa.array(np.ascontiguousarray(results).reshape(-1))
        if results.ndim == 2:
            numbers = pa.FixedSizeListArray.from_arrays(numbers, type=self._added.type)
        return pa.Table.from_arrays([*columns, numbers], schema=self._schema)

    def _whole(self, table: Any) -> Any:
        """One chunk a column, so that a file's bytes do not depend on how its rows came."""
        return table.unify_dictionaries().combine_chunks()


def json_value(value: Any) -> Any:
    """For `json.dumps`: what a cell of Parquet is in JSON, where that is plain.

    Raises:
        InvalidOptionError: it is nothing that JSON has.
    """
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    raise InvalidOptionError(f"JSON has no {type(value).__name__}: leave the column out of --keep, or write .parquet")


def finite(value: Any) -> Any:
    """The value with null for NaN and infinity, which JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def empty_schema() -> Any:
    """Of no columns."""
    return _arrow()[0].schema([])
