"""Options of the commands that read files of rows and write a row for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bgert.errors import InvalidOptionError
from bgert.model import WINDOW

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from bgert.jobs.job import Job, Report

__all__ = ["input_options", "job_of", "output_options", "summary"]


def input_options(parser: argparse.ArgumentParser) -> None:
    """What is read."""
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        action="extend",
        metavar="FILE",
        help=".parquet, .jsonl or .txt (a text a line): files, patterns, folders; or - for stdin",
    )
    parser.add_argument("--stdin", choices=("txt", "jsonl"), default="txt", help="what comes on stdin (default: txt)")
    parser.add_argument(
        "--text-column", "--field", default="text", metavar="NAME", help="column or JSON field of texts (default: text)"
    )
    parser.add_argument(
        "--nulls", choices=("fail", "drop"), default="fail", help="rows without a text: an error, or left out"
    )


def output_options(parser: argparse.ArgumentParser, column: str) -> None:
    """What is written; `column` is the usual name of what is new in it."""
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help=".parquet, .npy or .jsonl, replaced only on success; FOLDER/ for parts; - for .jsonl on stdout",
    )
    parser.add_argument(
        "--keep", metavar="COLUMNS", help="`id,title`, all or none, to be in the output too (default: all for .parquet)"
    )
    parser.add_argument(
        f"--{column}-column",
        dest="result_column",
        default=column,
        metavar="NAME",
        help=f"column or field of the output with the {column} (default: {column})",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="write parts, in FILE.parts or in FOLDER, and go on from those of an earlier run of the same job",
    )
    parser.add_argument(
        "--part-rows", type=int, default=WINDOW, metavar="N", help=f"rows of a part at the most (default: {WINDOW})"
    )


def job_of(args: argparse.Namespace, texts: Sequence[str]) -> Job:
    """The job that the options describe, its inputs looked at.

    Raises:
        InvalidOptionError: they do not fit together.
    """
    from bgert.jobs.job import Job, Output
    from bgert.jobs.rows import Columns

    if args.part_rows < 1:
        raise InvalidOptionError(f"--part-rows is {args.part_rows}: use a whole number from 1")
    output = Output.named(args.output)
    names = ("all" if output.kind == "parquet" else "none") if args.keep is None else args.keep
    keep = None if names in ("all", "none") else [name.strip() for name in names.split(",")]
    if keep is not None and not all(keep):
        raise InvalidOptionError(f"--keep is {names!r}: use names of columns, as id,title, or all, or none")
    columns = Columns(texts, keep, [args.result_column], drop_nulls=args.nulls == "drop")
    return Job(
        args.input,
        output,
        columns,
        keeps=names != "none",
        block_rows=args.part_rows,
        resume=args.resume,
        stdin=args.stdin,
    )


def summary(what: str, report: Report, job: Job, where: str) -> str:
    """The last line of the command."""
    output = job.output
    place = "on stdout" if output.path is None else f"in {output.path}"
    if report.parts is not None:
        place = f"in {report.parts} {'part' if report.parts == 1 else 'parts'} {place}"
    more = f"; {report.earlier} rows were done before" if report.earlier else ""
    if report.nulls:
        more += f"; {report.nulls} {'row' if report.nulls == 1 else 'rows'} without a text left out"
    return f"{what} {place} ({where}){more}"
