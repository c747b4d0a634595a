"""Options of the commands that read files of rows and write a row for each."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from bgert.errors import InvalidOptionError, TruncationWarning

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from bgert.jobs.job import Job, Output, Report

__all__ = ["documents_of", "input_options", "job_of", "output_options", "summary", "warn_cut"]


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


def keep_option(parser: argparse.ArgumentParser) -> None:
    """Which columns of the input are in the output too."""
    parser.add_argument(
        "--keep", metavar="COLUMNS", help="`id,title`, all or none, to be in the output too (default: all for .parquet)"
    )


def output_options(parser: argparse.ArgumentParser, column: str, part_rows: int, *, required: bool = True) -> None:
    """What is written; `column` is the usual name of what is new in it."""
    parser.add_argument(
        "--output",
        required=required,
        metavar="FILE",
        help=".parquet, .npy or .jsonl, replaced only on success; FOLDER/ for parts; - for .jsonl on stdout",
    )
    keep_option(parser)
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
    help_ = f"rows of a part at the most (default: {part_rows})"
    parser.add_argument("--part-rows", type=int, default=part_rows, metavar="N", help=help_)


def job_of(args: argparse.Namespace, texts: Sequence[str]) -> Job:
    """The job that the options describe, its inputs looked at.

    Raises:
        InvalidOptionError: they do not fit together.
    """
    from bgert.jobs.job import Output

    if args.part_rows < 1:
        raise InvalidOptionError(f"--part-rows is {args.part_rows}: use a whole number from 1")
    output = Output.named(args.output)
    return _job(args, texts, output, [args.result_column])


def documents_of(args: argparse.Namespace) -> Job:
    """As `job_of`, of a command that reads and writes no file."""
    from bgert.jobs.job import Output

    return _job(args, [args.text_column], Output.named("-"), ["index", "score", "score_kind"])


def _job(args: argparse.Namespace, texts: Sequence[str], output: Output, added: Sequence[str]) -> Job:
    from bgert.jobs.job import Job
    from bgert.jobs.rows import Columns

    names = ("all" if output.kind == "parquet" else "none") if args.keep is None else args.keep
    keep = None if names in ("all", "none") else [name.strip() for name in names.split(",")]
    if keep is not None and not all(keep):
        raise InvalidOptionError(f"--keep is {names!r}: use names of columns, as id,title, or all, or none")
    columns = Columns(texts, keep, added, drop_nulls=args.nulls == "drop")
    return Job(
        args.input,
        output,
        columns,
        keeps=names != "none",
        block_rows=args.part_rows,
        resume=args.resume,
        stdin=args.stdin,
    )


def warn_cut(report: Report, what: str, limit: int) -> None:
    """Say once of all parts that inputs lost their end."""
    if report.truncated:
        warnings.warn(
            f"{report.truncated} of {report.texts} {what} were longer than {limit} tokens and lost their end",
            TruncationWarning,
            stacklevel=2,
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
