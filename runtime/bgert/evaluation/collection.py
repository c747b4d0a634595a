"""Judged collections in BEIR's format: `corpus.jsonl`, `queries.jsonl` and `qrels/test.tsv` or `qrels.tsv`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from bgert.errors import InputFileError
from bgert.evaluation.json_lines import CollectionError, decode, open_file, parse, records, string_field
from bgert.paths import user_path

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Collection", "CollectionError", "load_collection"]

QRELS = ("qrels/test.tsv", "qrels.tsv")


@dataclass(frozen=True)
class Collection:
    """Documents, queries and judgments."""

    document_ids: Sequence[str]
    """n ids, none twice."""
    documents: Sequence[str]
    """The n texts, in the same order."""
    queries: Mapping[str, str]
    """Query id to text."""
    qrels: Mapping[str, Mapping[str, int]]
    """Query id to document id to grade: the higher the more relevant, relevant from 1."""


def load_collection(folder: str | Path, qrels: str | Path | None = None) -> Collection:
    """Read and check a collection. Document texts stay on disk and are read as they are needed.

    A document is its title and text with a space between, without white space at either end, as BEIR, MTEB and
    sentence-transformers' NanoBEIR join them; the title may be missing, and the whole may be empty.

    Judgments are lines of `query-id corpus-id score` with tabs, with or without a header, or TREC's
    `query-id 0 corpus-id score` with any white space. Grades are taken as they are: a collection in which a smaller
    number is the better one has to be converted first.

    Args:
        folder: holds the files.
        qrels: the file of judgments, where it is neither `qrels/test.tsv` nor `qrels.tsv` of the folder.

    Raises:
        InputFileError: a file is missing, cannot be read or is not UTF-8.
        CollectionError: a line is no JSON or lacks a field, an id occurs twice, a query is empty, a grade is no whole
            number, or a judgment names a query or a document that is not there.
    """
    folder = user_path(folder, "the collection")
    documents = JsonlDocuments(folder / "corpus.jsonl")
    queries: dict[str, str] = {}
    path = folder / "queries.jsonl"
    for record, where, _ in records(path):
        query = string_field(record, "_id", where)
        if query in queries:
            raise CollectionError(f"{where}: query {query!r} occurs twice")
        queries[query] = string_field(record, "text", where)
        if not queries[query].strip():
            raise CollectionError(f"{where}: query {query!r} is empty")
    if not documents.ids or not queries:
        raise CollectionError(f"{folder}: no {'queries' if documents.ids else 'documents'}")
    judgments = _read_qrels(
        _find_qrels(folder) if qrels is None else user_path(qrels, "qrels"), queries, frozenset(documents.ids)
    )
    return Collection(documents.ids, documents, queries, judgments)


class JsonlDocuments(Sequence[str]):
    """The texts of a `corpus.jsonl`, read from disk whenever they are asked for; `ids` are kept in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ids: list[str] = []
        seen: set[str] = set()
        offsets: list[int] = []
        for record, where, offset in records(path):
            document = string_field(record, "_id", where)
            if document in seen:
                raise CollectionError(f"{where}: document {document!r} occurs twice")
            _text_of(record, where)
            seen.add(document)
            self.ids.append(document)
            offsets.append(offset)
        self._offsets: NDArray[np.int64] = np.array(offsets, np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return (_text_of(record, where) for record, where, _ in records(self.path))

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        where = f"{self.path}: document {self.ids[index]!r}"
        with open_file(self.path) as file:
            file.seek(int(self._offsets[index]))
            return _text_of(parse(file.readline(), where), where)


def _text_of(record: dict[str, Any], where: str) -> str:
    title = "" if record.get("title") is None else string_field(record, "title", where)
    return f"{title} {string_field(record, 'text', where)}".strip()


def _find_qrels(folder: Path) -> Path:
    found = [folder / name for name in QRELS if (folder / name).exists()]
    if len(found) != 1:
        trouble = "both are there" if found else "neither is there"
        raise InputFileError(f"{folder}: {' or '.join(QRELS)}: {trouble}; name the file of judgments (--qrels)")
    return found[0]


def _read_qrels(path: Path, queries: Mapping[str, str], documents: frozenset[str]) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    with open_file(path) as file:
        for number, raw in enumerate(file, 1):
            where = f"{path}:{number}"
            line = decode(raw, where).strip()
            if not line:
                continue
            fields = line.split("\t") if line.count("\t") == 2 else line.split()
            if len(fields) not in (3, 4):
                raise CollectionError(f"{where}: {len(fields)} fields: 3 (BEIR) or 4 (TREC) are read")
            query, document, grade = fields[0], fields[-2], fields[-1]
            known = (query in queries, document in documents)
            if number == 1 and not any(known) and not re.search("[0-9]", grade):
                continue  # a header
            if re.fullmatch("[+-]?[0-9]{1,9}", grade) is None:
                raise CollectionError(f"{where}: relevance {grade!r} is not a whole number")
            if not all(known):
                missing = f"document {document!r}" if known[0] else f"query {query!r}"
                raise CollectionError(f"{where}: {missing} is not in the collection")
            judged = qrels.setdefault(query, {})
            if judged.setdefault(document, int(grade)) != int(grade):
                raise CollectionError(f"{where}: query {query!r} and document {document!r} have another grade above")
    if not qrels:
        raise CollectionError(f"{path}: no judgments")
    return qrels
