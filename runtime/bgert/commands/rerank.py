"""`bgert rerank`: documents by their score for a query."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bgert.commands.options import bars, engine_options, quiet_option
from bgert.jobs.text_files import read_texts

if TYPE_CHECKING:
    import argparse

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("folder", help="model folder, checkpoint folder or hub id of a reranker")
    parser.add_argument("--query", required=True, metavar="TEXT", help="the query")
    parser.add_argument("--input", required=True, metavar="FILE", help="documents: .txt, .jsonl or - for stdin")
    parser.add_argument("--field", default="text", help="field of a .jsonl line that holds the document")
    parser.add_argument("--top-k", type=int, metavar="N", help="print the best N (default: all)")
    parser.add_argument("--prompt", help="name of the prompt to put before the query (default: the model's)")
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens a pair may have")
    parser.add_argument("--truncation", default="longest_first", help="which side of a long pair loses its end")
    parser.add_argument("--sigmoid", action="store_true", help="scores in (0, 1) instead of raw logits")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    quiet_option(parser)
    engine_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print documents by score."""
    from bgert.reranker import Reranker

    documents = list(read_texts(args.input, args.field))
    reranker = Reranker(args.folder, device=args.device, precision=args.precision, threads=args.threads)
    ranked = reranker.rank(
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
            line = {"index": index, "score": score, "score_kind": kind, "text": documents[index]}
            print(json.dumps(line, ensure_ascii=False))
        else:
            print(f"{score:9.4f}  {index + 1:>6}  {' '.join(documents[index].split())[:100]}")
    return 0
