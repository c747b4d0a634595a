"""`bgert rerank`: documents by their score for a query, or a score for each row of files of pairs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.commands.job_options import documents_of, input_options, job_of, output_options, summary, warn_cut
from bgert.commands.options import bars, engine_options, quiet_option
from bgert.errors import InvalidOptionError
from bgert.model import bounded
from bgert.progress import token_bar

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from bgert.reranker import Reranker
    from bgert.results import Scores

__all__ = ["add_options", "run"]

PART_ROWS = 4096
CALL_ROWS = 1024  # pairs that are scored together: between two calls the bar moves


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("folder", help="model folder, checkpoint folder or hub id of a reranker")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--query", metavar="TEXT", help="one query: its documents are printed, best first")
    which.add_argument("--query-column", metavar="NAME", help="a query a row: --output gets a score a row")
    input_options(parser)
    output_options(parser, "score", PART_ROWS, required=False)
    parser.add_argument("--top-k", type=int, metavar="N", help="print the best N (default: all)")
    parser.add_argument("--prompt", help="name of the prompt to put before the query (default: the model's)")
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens a pair may have")
    parser.add_argument("--truncation", default="longest_first", help="which side of a long pair loses its end")
    parser.add_argument("--sigmoid", action="store_true", help="scores in (0, 1) instead of raw logits")
    parser.add_argument("--json", action="store_true", help="a JSON object a line, with what --keep names")
    quiet_option(parser)
    engine_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print documents by score, or write a score a row."""
    if args.query_column is not None:
        if args.output is None or args.top_k is not None or args.json:
            raise InvalidOptionError("--query-column needs --output, and --top-k and --json go with --query")
        return _score_rows(args)
    if args.output is not None or args.resume:
        raise InvalidOptionError("--output and --resume go with --query-column; the documents of --query are printed")
    return _rank(args)


def _open(args: argparse.Namespace) -> Reranker:
    from bgert.reranker import Reranker

    return Reranker(args.folder, device=args.device, precision=args.precision, threads=args.threads)


def _rank(args: argparse.Namespace) -> int:
    job = documents_of(args)
    documents, rows, records = [], [], []
    row = 0
    for piece in job.source.pieces(0):
        kept = piece.kept if isinstance(piece.kept, list) else piece.kept.to_pylist()
        for number, text in enumerate(piece.texts):
            if text is not None:
                documents.append(text)
                rows.append(row)
                records.append(kept[number] if job.keeps else {})
            row += 1
    ranked = _open(args).rank(
        args.query,
        documents,
        top_k=args.top_k,
        prompt=args.prompt,
        max_length=args.max_length,
        truncation=args.truncation,
        sigmoid=args.sigmoid,
        show_progress=bars(args),
    )
    kind = "sigmoid" if args.sigmoid else "logit"
    for index, score in ranked:
        if args.json:
            line = {**records[index], "index": rows[index], "score": score, "score_kind": kind}
            print(json.dumps({**line, "text": documents[index]}, ensure_ascii=False))
        else:
            print(f"{score:9.4f}  {rows[index] + 1:>6}  {' '.join(documents[index].split())[:100]}")
    return 0


def _score_rows(args: argparse.Namespace) -> int:
    from bgert.jobs.job import Results, model_digest

    job = job_of(args, [args.query_column, args.text_column])
    reranker = _open(args)
    show = bars(args)

    def compute(pairs: Iterator[Any]) -> Iterator[Scores]:
        with token_bar(job.left() if show else None, show) as bar:
            for some in bounded(pairs, CALL_ROWS):
                scores = reranker.score(
                    some,
                    prompt=args.prompt,
                    max_length=args.max_length,
                    truncation=args.truncation,
                    sigmoid=args.sigmoid,
                    show_progress=False,
                )
                if bar is not None:
                    bar.window(len(some), scores.info.tokens)
                    bar.advance(scores.info.tokens)
                yield scores

    results = Results(
        compute,
        args.result_column,
        np.float32,
        None if reranker.num_labels == 1 else reranker.num_labels,
        {
            "model": model_digest(reranker),
            "text before": reranker.prompt_text(args.prompt),
            "max_length": args.max_length or reranker.max_length,
            "truncation": args.truncation,
            "score_kind": "sigmoid" if args.sigmoid else "logit",
        },
    )
    report = job.run(results)
    warn_cut(report, "pairs", args.max_length or reranker.max_length)
    what = f"{report.rows} {'score' if report.rows == 1 else 'scores'}"
    line = summary(what, report, job, f"{reranker.device}, {reranker.precision}")
    print(line, file=sys.stderr if args.output == "-" else sys.stdout)
    return 0
