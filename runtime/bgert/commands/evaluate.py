"""`bgert eval`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bgert.commands.options import engine_options
from bgert.errors import InvalidOptionError
from bgert.evaluation.collection import load_collection
from bgert.evaluation.reranking import evaluate_reranking, load_candidates
from bgert.evaluation.retrieval import RERANK_TOP_K, evaluate
from bgert.exported_models import targets_for
from bgert.hub import locate
from bgert.jobs.atomic_file import atomic_file
from bgert.model_folder import Manifest
from bgert.option_types import Truncation, values_of
from bgert.paths import user_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any

    from bgert.evaluation.reranking import RerankingResult
    from bgert.evaluation.retrieval import EvaluationResult

__all__ = ["add_options", "report", "reranking_report", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("folder", help="model folder, checkpoint folder or hub id of an encoder")
    parser.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="a folder of corpus.jsonl, queries.jsonl and judgments (BEIR), or a .jsonl file of candidates to order: "
        "query, positive and negative (MTEB, C-MTEB), or query, pos and neg (FlagEmbedding); for such a file the model "
        "may be a reranker too",
    )
    parser.add_argument("--qrels", metavar="FILE", help="judgments, if not FOLDER/qrels/test.tsv or FOLDER/qrels.tsv")
    parser.add_argument(
        "--reranker", metavar="DIR", help="model folder of a reranker: for the encoder's best, or all candidates"
    )
    parser.add_argument(
        "--top-k", type=int, metavar="N", help=f"documents a query for the reranker (default: {RERANK_TOP_K})"
    )
    parser.add_argument(
        "--truncation",
        choices=values_of(Truncation),
        help="how a reranker's pairs of candidates are cut, as Reranker.score",
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
    if user_path(args.data, "--data").is_file():
        return _rerank_candidates(args)
    if args.truncation is not None:
        raise InvalidOptionError("--truncation is for a file of candidates, and --data is none")
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
        _write(args.json, {"model": args.folder, "reranker_model": args.reranker, "data": args.data} | result.as_dict())
    print(report(result))
    return 0


def _rerank_candidates(args: argparse.Namespace) -> int:
    """Each model alone on a file of candidates."""
    from bgert.encoder import Encoder
    from bgert.reranker import Reranker

    if args.qrels is not None or args.top_k is not None or args.ignore_identical_ids:
        raise InvalidOptionError(
            "--qrels, --top-k and --ignore-identical-ids are for a collection, and --data is a file of candidates"
        )
    folder = locate(args.folder, targets_for(args.device, args.precision))
    kinds: list[Any] = [Encoder if Manifest.read(folder).kind == "encoder" else Reranker]
    asked = [(folder, args.precision)]
    if args.reranker is not None:
        kinds.append(Reranker)
        asked.append((args.reranker, args.reranker_precision))
    if args.truncation is not None and Reranker not in kinds:
        raise InvalidOptionError("--truncation is for a reranker, and there is none")
    candidates = load_candidates(args.data)
    results = []
    for kind, (path, precision) in zip(kinds, asked, strict=True):
        with kind(path, device=args.device, precision=precision, threads=args.threads) as model:
            results.append(evaluate_reranking(model, candidates, truncation=args.truncation or "longest_first"))
    if args.json is not None:
        names = (args.folder, args.reranker)
        runs = [{"model": name} | result.as_dict() for name, result in zip(names, results, strict=False)]
        _write(args.json, {"data": args.data, "runs": runs})
    print(reranking_report(results))
    return 0


def _write(path: str, body: dict[str, Any]) -> None:
    with atomic_file(user_path(path, "--json")) as file:
        file.write(json.dumps(body, ensure_ascii=False, indent=2).encode() + b"\n")


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


def reranking_report(results: Sequence[RerankingResult]) -> str:
    """Results on one file of candidates as a table to read."""
    first = results[0]
    left_out = f"{first.queries_left_out} without a positive or a negative left out"
    lines = [f"{first.queries:,} queries ({left_out}), {first.candidates:,} candidates"]
    names, cut = [], []
    for result in results:
        name = result.model["kind"]
        names.append(f"{name}, {result.model['device']} {result.model['precision']}")
        if result.truncation is None:
            cut += [f"{result.truncated_candidates} documents", f"{result.truncated_queries} queries"]
        else:
            cut.append(f"{result.truncated_candidates} pairs ({result.truncation})")
    width = max(map(len, names))
    lines.append(" " * width + "".join(f"{name:>12}" for name in first.metrics))
    for name, result in zip(names, results, strict=True):
        lines.append(f"{name:<{width}}" + "".join(f"{value:>12.4f}" for value in result.metrics.values()))
    lines.append(f"cut at the models' limits: {', '.join(cut)}")
    return "\n".join(lines)
