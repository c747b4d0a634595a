"""A job from its files to its output: in one go, or in parts that a later run goes on from."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.errors import InvalidOptionError, TruncationWarning
from bgert.jobs.atomic_file import atomic_file
from bgert.jobs.formats import JsonLinesFormat, NpyFormat
from bgert.jobs.inputs import find_inputs
from bgert.jobs.parquet import ParquetFormat, ParquetSource, empty_schema, schema_of_records
from bgert.jobs.parts import open_parts
from bgert.jobs.rows import TextSource, blocks_of
from bgert.paths import user_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from bgert.jobs.formats import Format
    from bgert.jobs.inputs import InputFile
    from bgert.jobs.parts import Parts
    from bgert.jobs.rows import Block, Columns
    from bgert.model import Model
    from bgert.results import RunInfo

__all__ = ["Job", "Output", "Report", "Results", "model_digest"]

ENDINGS = (".npy", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Output:
    """Where results go."""

    name: str
    """As the user wrote it."""
    kind: str
    """`npy`, `jsonl` or `parquet`."""
    path: Path | None
    """None for stdout."""
    is_folder: bool
    """A folder of parts, in place of one file."""

    @classmethod
    def named(cls, name: str) -> Output:
        """Where `--output NAME` is.

        Raises:
            InvalidOptionError: no such thing can be written.
        """
        if name == "-":
            return cls(name, "jsonl", None, False)
        path = user_path(name, "output")
        if path.is_dir() or name.endswith("/"):
            return cls(name, "parquet", path, True)
        if path.suffix.lower() not in ENDINGS:
            raise InvalidOptionError(
                f"{name}: output must end in {', '.join(ENDINGS)}, or be - for .jsonl on stdout, or be a folder, which "
                "is named with / at its end"
            )
        return cls(name, path.suffix.lower()[1:], path, False)

    @property
    def parts(self) -> Path | None:
        """The folder of the parts."""
        return self.path if self.path is None or self.is_folder else self.path.with_name(f"{self.path.name}.parts")


@dataclass(frozen=True)
class Results:
    """What is computed of the texts."""

    compute: Callable[[Iterator[Any]], Iterator[NDArray[Any]]]
    """Takes texts, gives arrays with an `info`: together a row each, in order."""
    name: str
    """Of their column."""
    dtype: type[Any]
    width: int | None
    """Numbers a row; None for one that is no list."""
    depends_on: dict[str, Any]
    """All else that decides what they are: `model` and options."""


@dataclass
class Report:
    """What a run did."""

    rows: int = 0
    """Rows of the output."""
    earlier: int = 0
    """Rows of the input that earlier runs had done."""
    nulls: int = 0
    """Rows that were left out."""
    texts: int = 0
    truncated: int = 0
    tokens: int = 0
    parts: int | None = None
    """Of a folder."""

    def saw(self, block: Block) -> None:
        """Count a block that is done."""
        self.nulls += block.stop - block.start - len(block.texts)
        self.texts += len(block.texts)

    def ran(self, info: RunInfo) -> None:
        """Count what the model did."""
        self.truncated += info.n_truncated
        self.tokens += info.tokens


@dataclass
class Job:
    """Files of rows, what to read and keep of them, and where results go.

    Args:
        names: the inputs, as `find_inputs` takes them.
        output: where results go.
        columns: what to read and keep.
        keeps: whether the output has columns of the input.
        block_rows: rows of a part at the most.
        resume: work in parts, and go on from those that are there.
        stdin: what comes there, `txt` or `jsonl`.

    Raises:
        InputFileError: an input is not there, or is not read as what its ending says.
        InvalidOptionError: what is asked for does not fit together.
        EngineNotInstalledError: `.parquet` is named and pyarrow is not installed.
    """

    names: Sequence[str]
    output: Output
    columns: Columns
    keeps: bool
    block_rows: int
    resume: bool = False
    stdin: str = "txt"
    files: list[InputFile] = field(init=False)
    source: TextSource | ParquetSource = field(init=False)
    _earlier: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.files = find_inputs(self.names, stdin=self.stdin)
        self._check_places()
        kind = ParquetSource if self.files[0].kind == "parquet" else TextSource
        self.source = kind(self.files, self.columns, self.block_rows, keeps=self.keeps)

    def _check_places(self) -> None:
        output, parts = self.output, self.output.parts
        if output.kind == "npy" and self.keeps:
            raise InvalidOptionError("an .npy holds numbers alone: without --keep, or with --output .jsonl or .parquet")
        if output.path is None or parts is None:
            if self.resume:
                raise InvalidOptionError("--resume needs a file or a folder to write: stdout cannot be gone on with")
            return
        whole, beside = (Path(os.path.realpath(path)) for path in (output.path, parts))
        for file in self.files:
            path = Path(os.path.realpath(file.name))
            if file.name != "-" and (path == whole or beside in path.parents):
                raise InvalidOptionError(f"{file.name} is both input and output: name another output")
        if output.is_folder and not self.resume and output.path.is_dir() and any(output.path.iterdir()):
            raise InvalidOptionError(f"{output.path} is not empty: --resume goes on with a job that was stopped there")

    def left(self) -> int | None:
        """Rows of the input that this run has to do; None where they cannot be counted before they are read."""
        rows = self.source.count()
        return None if rows is None else rows - self._earlier

    def run(self, results: Results) -> Report:
        """Compute and write.

        Raises:
            InputFileError: an input changes meanwhile, or is broken further on.
            InvalidTextError: a row has no text.
            OutputFileError: the output cannot be written to its end.
        """
        report = Report()
        form = self._format(results)
        if self.output.path is None:
            report.rows = form.write(sys.stdout.buffer, self._pairs(results, report))
        elif self.resume or self.output.is_folder:
            self._run_parts(form, results, report)
        else:
            with atomic_file(self.output.path) as file:
                report.rows = form.write(file, self._pairs(results, report))
        return report

    def _format(self, results: Results) -> Format:
        if self.output.kind == "npy":
            return NpyFormat(results.width, results.dtype)
        if self.output.kind == "jsonl":
            return JsonLinesFormat(results.name if self.keeps else None)
        if isinstance(self.source, ParquetSource):
            kept = self.source.schema
        else:
            kept = schema_of_records(self.source) if self.keeps else empty_schema()
        return ParquetFormat(kept, results.name, results.dtype, results.width, results.depends_on)

    def _run_parts(self, form: Format, results: Results, report: Report) -> None:
        folder, path = self.output.parts, self.output.path
        if folder is None or path is None:
            raise AssertionError("stdout has no parts")
        job = {
            "inputs": [[file.digest(), file.keys] for file in self.files],
            "columns": list(self.columns.texts),
            "keep": self.keeps and (self.columns.keep is None or list(self.columns.keep)),
            "name": results.name,
            "drop_nulls": self.columns.drop_nulls,
            **results.depends_on,
            "about": {"inputs": [file.name for file in self.files]},
        }
        with open_parts(folder, f".{self.output.kind}", job) as parts:
            report.earlier = self._earlier = parts.rows
            for block, values in self._blocks(results, report, parts.holes()):
                self._add(parts, form, block.start, block.stop, values, block.kept)
            for file in self.files:
                file.check_unchanged()
            if self.output.is_folder:
                if not len(parts):  # a reader finds the columns
                    self._add(parts, form, 0, 0, _no_rows(results), [])
                report.parts = len(parts)
                report.rows = form.count(parts.paths()) if isinstance(form, ParquetFormat) else 0
                return
            with atomic_file(path, folder / "whole") as whole:
                report.rows = form.join(whole, parts.paths())
            parts.remove()

    def _add(self, parts: Parts, form: Format, start: int, stop: int, values: NDArray[Any], kept: list[Any]) -> None:
        with atomic_file(parts.path(start, stop)) as file:
            form.write(file, [(values, kept)] if len(values) else [])
            for one in self.files:
                one.check_unchanged()
        parts.add(start, stop)

    def _pairs(self, results: Results, report: Report) -> Iterator[tuple[NDArray[Any], list[Any]]]:
        return ((values, block.kept) for block, values in self._blocks(results, report, [(0, None)]))

    def _blocks(
        self, results: Results, report: Report, holes: list[tuple[int, int | None]]
    ) -> Iterator[tuple[Block, NDArray[Any]]]:
        """Blocks with what was computed of their texts."""
        waiting: deque[Block] = deque()

        def texts() -> Iterator[Any]:
            for block in blocks_of(self.source, holes):
                waiting.append(block)
                yield from block.texts

        have = [_no_rows(results)]
        arrays = results.compute(texts())
        while True:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TruncationWarning)  # said once, at the end
                array = next(arrays, None)
            if array is not None:
                report.ran(array.info)  # type: ignore[attr-defined]
                have.append(np.asarray(array))
            while waiting and sum(map(len, have)) >= len(waiting[0].texts):
                block = waiting.popleft()
                rows = np.concatenate(have)
                have = [rows[len(block.texts) :]]
                report.saw(block)
                yield block, rows[: len(block.texts)]
            if array is None:
                return


def _no_rows(results: Results) -> NDArray[Any]:
    return np.empty((0,) if results.width is None else (0, results.width), results.dtype)


def model_digest(model: Model) -> str:
    """Hex SHA-256 of all of a model that decides what it computes on its device."""
    manifest = model.manifest
    target = model.device.partition(":")[0].partition("-")[0]
    graph = manifest.graph(target, model.precision)
    parts = {
        "kind": manifest.kind,
        "device": target,
        "precision": model.precision,
        "graph": [entry.sha256 for entry in graph.files] if graph else [],
        "tokenizer": [manifest.tokenizer, [entry.sha256 for entry in manifest.tokenizer_files]],
        "numbers": [manifest.max_tokens, manifest.pooling, manifest.normalize, manifest.columns],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
