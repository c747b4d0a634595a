"""`bgert encode`: files of texts to vectors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from bgert.commands.job_options import input_options, job_of, output_options, summary, warn_cut
from bgert.commands.options import bars, engine_options, quiet_option
from bgert.errors import InvalidOptionError
from bgert.model import WINDOW

if TYPE_CHECKING:
    import argparse

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("folder", help="model folder, checkpoint folder or hub id")
    input_options(parser)
    output_options(parser, "embedding", WINDOW)
    parser.add_argument(
        "--role", choices=("text", "query", "document"), default="text", help="as encode, encode_queries, encode_corpus"
    )
    parser.add_argument("--prompt", help="name of another prompt of the model")
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens a text may have")
    parser.add_argument("--dimensions", type=int, metavar="N", help="keep the first N dimensions")
    parser.add_argument("--dtype", default="float32", help="float32, float16, int8, ubinary or binary")
    quiet_option(parser)
    engine_options(parser)


def run(args: argparse.Namespace) -> int:
    """Embed files of texts."""
    from bgert.encoder import Encoder
    from bgert.jobs.job import Results, model_digest
    from bgert.results import output_shape

    if args.prompt is not None and args.role != "text":
        raise InvalidOptionError("--prompt and --role each name a prompt: use one of them")
    job = job_of(args, [args.text_column])
    encoder = Encoder(args.folder, device=args.device, precision=args.precision, threads=args.threads)
    encoder.require_pooled()
    prompt = args.prompt if args.role == "text" else args.role
    columns, dtype = output_shape(args.dimensions or encoder.dimensions, args.dtype)
    show = bars(args)
    results = Results(
        lambda texts: encoder.stream(
            texts,
            prompt=prompt,
            max_length=args.max_length,
            dimensions=args.dimensions,
            dtype=args.dtype,
            block=job.source.block_rows,
            show_progress=show,
            total=job.left() if show else None,
        ),
        args.result_column,
        dtype,
        columns,
        {
            "model": model_digest(encoder),
            "text before": encoder.prompt_text(prompt),
            "max_length": args.max_length or encoder.max_length,
            "dimensions": args.dimensions or encoder.dimensions,
            "dtype": args.dtype,
        },
    )
    report = job.run(results)
    warn_cut(report, "texts", args.max_length or encoder.max_length)
    noun = "embedding" if report.rows == 1 else "embeddings"
    what = f"{report.rows} {noun} of {columns} x {args.dtype}"
    line = summary(what, report, job, f"{encoder.device}, {encoder.precision}")
    print(line, file=sys.stderr if args.output == "-" else sys.stdout)
    return 0
