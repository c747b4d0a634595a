"""Rows of a job's files: the texts, and what is kept beside them, cut into blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bgert.errors import InvalidOptionError, InvalidTextError
from bgert.jobs.text_files import checked_text, count_records, read_lines, read_records

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bgert.jobs.inputs import InputFile

__all__ = ["BLOCK_SIZE", "Block", "Columns", "Piece", "Source", "TextSource", "blocks_of"]

BLOCK_SIZE = 1 << 25  # characters of texts, or bytes of JSON, in a block


@dataclass(frozen=True)
class Columns:
    """Which columns of the input a job reads and keeps."""

    texts: Sequence[str]
    """The column of texts; or of queries, and of documents."""
    keep: Sequence[str] | None
    """Columns that the output has too; None for all."""
    added: Sequence[str] = ()
    """Names of the columns that the output has besides."""
    drop_nulls: bool = False
    """Leave out rows whose text is null, or an error?"""

    def check_names(self, names: Sequence[str], where: str, *, keeps: bool) -> list[str]:
        """The names that are kept of those that are there; none without `keeps`.

        Raises:
            InvalidOptionError: one is missing, comes twice, or is the name of what is added.
        """
        kept = [] if not keeps else list(names) if self.keep is None else list(dict.fromkeys(self.keep))
        for name in [*kept, *self.texts]:
            if name not in names:
                have = ", ".join(map(repr, names[:20]))
                option = "--text-column" if name in self.texts else "--keep"
                raise InvalidOptionError(f"{where}: no column {name!r} among {have} ({option} names another)")
            if names.count(name) > 1:
                raise InvalidOptionError(f"{where}: {names.count(name)} columns are named {name!r}: rename them")
        for name in self.added:
            if name in kept:
                raise InvalidOptionError(
                    f"{where}: has a column {name!r} already: leave it out of --keep, or give the new one another name"
                )
        return kept


@dataclass(frozen=True)
class Piece:
    """Some rows as they come from a file."""

    texts: list[Any]
    """`str` a row; or (query, document); None where one of them is null."""
    kept: Any
    """Objects of JSON in a list, or a table of Arrow."""
    sizes: list[int]
    """What each row adds to a block, of BLOCK_SIZE."""


@dataclass(frozen=True)
class Block:
    """Rows [start, stop) of the input; those whose text is null are left out."""

    start: int
    stop: int
    texts: list[Any]
    kept: list[Any]
    """Of each piece."""


class Source(Protocol):
    """Reads the rows of files of one kind."""

    block_rows: int
    """Rows of a block at the most."""

    def count(self) -> int | None:
        """Rows of all files; None where they can be read only once."""

    def pieces(self, start: int) -> Iterator[Piece]:
        """Rows from `start` on."""


class TextSource:
    """Rows of `.txt` or `.jsonl`.

    Args:
        files: of one of these kinds.
        columns: what is read of them. A line of `.txt` is an object with the first of the texts' columns alone.
        block_rows: rows of a block at the most.
        keeps: whether anything but the texts is asked for.
    """

    def __init__(self, files: Sequence[InputFile], columns: Columns, block_rows: int, *, keeps: bool) -> None:
        self._files, self._columns, self._keeps = files, columns, keeps
        self.block_rows = block_rows
        self._counts: dict[str, int] = {}

    def count(self) -> int | None:
        """Rows of all files; None where they can be read only once."""
        if self._files[0].name == "-":
            return None
        return sum(self._count(file) for file in self._files)

    def _count(self, file: InputFile) -> int:
        if file.name not in self._counts:
            self._counts[file.name] = count_records(file.name)
        return self._counts[file.name]

    def pieces(self, start: int) -> Iterator[Piece]:
        """Rows from `start` on, one at a time."""
        for file in self._files:
            if start and start >= (rows := self._count(file)):
                start -= rows
                continue
            for record, where, size in self._records(file, start):
                yield Piece([self._text(record, where)], [self._select(record, where)], [size])
            start = 0

    def _records(self, file: InputFile, skip: int) -> Iterator[tuple[dict[str, Any], str, int]]:
        keys = file.keys
        if file.kind == "txt":
            for text, where in read_lines(file.name, skip):
                yield {self._columns.texts[0]: text, **keys}, where, len(text)
        else:
            for record, where, size in read_records(file.name, skip):
                if twice := keys.keys() & record.keys():
                    raise InvalidTextError(f"{where}: has a field {min(twice)!r}, and so has the name of its folder")
                yield {**record, **keys} if keys else record, where, size

    def _text(self, record: dict[str, Any], where: str) -> Any:
        names = self._columns.texts
        if self._columns.drop_nulls and any(record.get(name) is None for name in names):
            return None
        texts = tuple(checked_text(record, name, where) for name in names)
        return texts[0] if len(texts) == 1 else texts

    def _select(self, record: dict[str, Any], where: str) -> dict[str, Any]:
        if not self._keeps:
            return {}
        for name in self._columns.keep or ():
            if name not in record:
                raise InvalidTextError(f"{where}: no field {name!r}, which --keep names")
        kept = record if self._columns.keep is None else {name: record[name] for name in self._columns.keep}
        for name in self._columns.added:
            if name in kept:
                raise InvalidTextError(
                    f"{where}: has a field {name!r} already: leave it out of --keep, or give the new one another name"
                )
        return kept


def blocks_of(source: Source, holes: Sequence[tuple[int, int | None]] = ((0, None),)) -> Iterator[Block]:
    """Blocks of the rows in `holes`: from a row to before another, or to the end.

    Where a block ends depends on the rows from its start alone.
    """
    for start, end in holes:
        yield from _blocks(source, start, end)


def _blocks(source: Source, start: int, end: int | None) -> Iterator[Block]:
    texts: list[Any] = []
    kept: list[Any] = []
    first, size = start, 0
    row = start
    for piece in source.pieces(start):
        taken = 0
        for index, (text, weight) in enumerate(zip(piece.texts, piece.sizes, strict=True)):
            row += 1
            size += weight
            if text is None:
                if taken < index:
                    kept.append(piece.kept[taken:index])
                taken = index + 1
            else:
                texts.append(text)
            full = row - first >= source.block_rows or size > BLOCK_SIZE
            if full or row == end:
                if taken <= index:
                    kept.append(piece.kept[taken : index + 1])
                    taken = index + 1
                yield Block(first, row, texts, kept)
                if row == end:
                    return
                texts, kept, first, size = [], [], row, 0
        if taken < len(piece.texts):
            kept.append(piece.kept[taken:])
    if row > first:
        yield Block(first, row, texts, kept)
