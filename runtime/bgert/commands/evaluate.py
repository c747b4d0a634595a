"""`bgert eval`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bgert.commands.options import engine_options
from bgert.errors import InvalidOptionError
from bgert.evaluation.collection import load_collection
from bgert.evaluation.retrieval import RERANK_TOP_K, evaluate
from bgert.jobs.atomic_file import atomic_file
from bgert.paths import user_path

if TYPE_CHECKING:
    import argparse

    from bgert.evaluation.retrieval import EvaluationResult

__all__ = ["add_options", "report", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("folder", help="model folder, checkpoint folder or hub id of an encoder")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="corpus.jsonl, queries.jsonl and judgments")
    parser.add_argument("--qrels", metavar="FILE", help="judgments, if not FOLDER/qrels/test.tsv or FOLDER/qrels.tsv")
    parser.add_argument("--reranker", metavar="DIR", help="model folder of a reranker for the encoder's best")
    parser.add_argument(
        "--top-k", type=int, metavar="N", help=f"documents a query for the reranker (default: {RERANK_TOP_K})"
    )
    parser.add_argument("--reranker-precision", default="auto", help="precision of the reranker's graph")
    parser.add_argument(
        "--ignore-identical-ids",
        action="store_true",
        help="leave out the document that has the query's id, as BEIR does",
    )
    parser.add_argument("--json", metavar="FILE", help="write the result, figures of each query included")
    engine_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print and perhaps write."""
    from bgert.encoder import Encoder
    from bgert.reranker import Reranker

    if args.reranker is None and (args.top_k is not None or args.reranker_precision != "auto"):
        raise InvalidOptionError("--top-k and --reranker-precision are for a reranker: name one with --reranker")
    collection = load_collection(args.data, args.qrels)
    encoder = Encoder(args.folder, device=args.device, precision=args.precision, threads=args.threads)
    reranker = None
    if args.reranker is not None:
        reranker = Reranker(args.reranker, device=args.device, precision=args.reranker_precision, threads=args.threads)
    result = evaluate(
        encoder,
        collection,
        reranker=reranker,
        rerank_top_k=RERANK_TOP_K if args.top_k is None else args.top_k,
        ignore_identical_ids=args.ignore_identical_ids,
    )
    if args.json is not None:
        body = {"model": args.folder, "reranker_model": args.reranker, "data": args.data} | result.as_dict()
        with atomic_file(user_path(args.json, "--json")) as file:
            file.write(json.dumps(body, ensure_ascii=False, indent=2).encode() + b"\n")
    print(report(result))
    return 0


def report(result: EvaluationResult) -> str:
    """The result as a table to read."""
    left_out = f"{result.queries_without_relevant} without a relevant document and {result.queries_unjudged} unjudged"
    rows = {f"encoder, {result.encoder['device']} {result.encoder['precision']}": result.metrics}
    if result.reranker is not None and result.reranked_metrics is not None:
        engine = f"{result.reranker['device']} {result.reranker['precision']}"
        rows[f"+ reranker of the best {result.rerank_top_k}, {engine}"] = result.reranked_metrics
    width = max(map(len, rows))
    lines = [f"{result.documents:,} documents, {result.queries:,} queries ({left_out} left out)"]
    lines.append(" " * width + "".join(f"{name:>12}" for name in result.metrics))
    lines += [f"{name:<{width}}" + "".join(f"{v:>12.4f}" for v in row.values()) for name, row in rows.items()]
    cut = [f"{result.truncated_documents} documents", f"{result.truncated_queries} queries"]
    if result.truncated_pairs is not None:
        cut.append(f"{result.truncated_pairs} pairs")
    lines.append(f"cut at the models' limits: {', '.join(cut)}")
    return "\n".join(lines)
