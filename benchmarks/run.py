"""Measure bgert beside its peers and write one JSON, from which `benchmarks/report.py` makes tables and plots.

    python benchmarks/run.py --models minilm,bge-small --peers all --sets all --rounds 5

Every peer runs in a process and a virtual environment of its own (`benchmarks/peers/*.txt`), on the same texts, cut at
the same length. All are warmed up, then take turns for several rounds in rotating order while the others sleep. A peer
that fails is listed with its error. `--quick` compares bgert with sentence-transformers from the environment that runs
this, on a few texts: a check of the harness, no measurement.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import machine
import models
import results
import text_sets
import tokenizer as tokenizer_benchmark
from bgert.cpu_count import available_cpus
from bgert.evaluation import load_collection
from measure import Job, measure_group
from peer_list import PEERS, Peer, choose
from peer_process import PeerFailedError
from prepare import Workshop, free_gib
from summary import rounded

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """The arguments, names checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="minilm", help=f"comma-separated, of {', '.join(models.MODELS)}")
    parser.add_argument("--peers", default="all", help=f"all, or comma-separated of {', '.join(PEERS)}")
    parser.add_argument("--sets", default="all", help=f"all, or comma-separated of {', '.join(text_sets.SETS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="texts and calls, as a multiple of the usual")
    parser.add_argument("--corpora", type=Path, help="folder with zh/ and cranfield/")
    parser.add_argument("--tokenizers", type=Path, help="folder with xlm-roberta-base/ and bge-small-zh-v1.5/")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench", help="environments, models, logs")
    parser.add_argument("--output", type=Path, help="JSON; results/DATE-MACHINE.json by default")
    parser.add_argument("--resume", action="store_true", help="add what the JSON lacks, same commit and machine")
    parser.add_argument("--no-tokenizer", action="store_false", dest="tokenizer", help="without the tokenizer's part")
    parser.add_argument("--limit", type=float, default=900, help="seconds a peer may take for one command")
    parser.add_argument("--quick", action="store_true", help="see above")
    args = parser.parse_args(argv)
    args.models = args.models.split(",")
    args.sets = list(text_sets.SETS) if args.sets == "all" else args.sets.split(",")
    for given, known in ((args.models, models.MODELS), (args.sets, text_sets.SETS)):
        if unknown := sorted(set(given) - set(known)):
            parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    if args.rounds < 1:
        parser.error("--rounds takes whole numbers from 1")
    if args.quick:
        args.peers, args.sets, args.rounds, args.tokenizer = "sentence-transformers", ["short", "mixed"], 2, False
        args.scale = min(args.scale, 0.05)
    try:
        args.peers = choose(args.peers)
    except ValueError as error:
        parser.error(str(error))
    return args


def text_sets_of(
    args: argparse.Namespace, model: models.Model, tokenizer: Any, say: Callable[[str], None]
) -> list[text_sets.TextSet]:
    """The sets that can be had; the others are named."""
    for name in args.sets:
        if (lacking := text_sets.lacking(name, args.corpora)) is not None:
            say(f"  text set {name} {lacking}")
    return [
        text_sets.make(name, tokenizer, tokens=int(model.tokens * args.scale), kind=model.kind, corpora=args.corpora)
        for name in args.sets
        if text_sets.lacking(name, args.corpora) is None
    ]


def measure_model(
    args: argparse.Namespace, shop: Workshop, model: models.Model, peers: list[Peer], result: dict[str, Any]
) -> None:
    """One model with the peers that can run it, in groups that fit into memory; every group has bgert in it."""
    checkpoint = models.checkpoint_of(model, shop.folder / "checkpoints", args.tokenizers)
    architecture = models.architecture_of(checkpoint)
    tokenizer = shop.tokenizer(checkpoint, model.max_length)
    sets = text_sets_of(args, model, tokenizer, shop.say)
    weights = (checkpoint / "model.safetensors").stat().st_size
    facts = {
        "kind": model.kind,
        "weights": "trained" if model.trained else "random, seed 0",
        "layers": architecture.num_hidden_layers,
        "hidden": architecture.hidden_size,
        "pooling": model.pooling if model.kind == "encoder" else "classifier",
        "max_length": model.max_length,
        "rounds": args.rounds,
        "sets": {texts.name: texts.facts() for texts in sets},
    }
    collection = None
    extra: dict[str, list[Any]] = {}
    if model.trained and args.corpora is not None and (args.corpora / "cranfield").is_dir():
        collection = load_collection(args.corpora / "cranfield")
        extra = {
            "cranfield_documents": list(collection.documents),
            "cranfield_queries": list(collection.queries.values()),
        }
    calls = tuple(int(count * max(args.scale, 0.2)) for count in model.calls)
    if any(calls) and all(texts.name != "short" for texts in sets):
        made = text_sets.make("short", tokenizer, tokens=1, kind=model.kind, corpora=None)
        extra["short"] = made.texts
    task = shop.task(model, checkpoint, architecture)
    lengths = sorted({min(length, model.max_length) for length in (16, 64, 512)})
    job = Job(
        task=task,
        sets=sets,
        single={length: text_sets.latency_text(tokenizer, length, model.kind) for length in lengths},
        flop={texts.name: models.flop(architecture, texts.lengths) for texts in sets},
        rounds=args.rounds,
        calls=(calls[0], calls[1], calls[2]),
        python={},
        gemm=shop.gemm(architecture),
        folder=Path(task["texts"]),
        log=shop.log,
        limit=args.limit,
        say=shop.say,
        extra=extra,
    )
    failed: dict[str, Any] = {}
    ready = []
    for peer in peers:
        try:
            job.python[peer.name] = shop.ready(peer, model, task, result["environments"])
            ready.append(peer)
        except (RuntimeError, OSError) as error:  # noqa: PERF203 - once a peer
            failed[peer.name] = {"precision": peer.precision, "error": str(error)[-400:]}
            shop.say(f"  {peer.name} cannot run: {failed[peer.name]['error']}")
    results.merge_group(result, model.name, facts, {"gemm": {}, "peers": failed})
    if not ready or ready[0].name != "bgert":
        return
    # A peer holds the weights about three times while it loads, and its libraries besides.
    room = max(1, int(0.7 * free_gib() / (3 * weights / 2**30 + 0.8)) - 1)
    others = ready[1:]
    for start in range(0, max(len(others), 1), room):
        group = [ready[0], *others[start : start + room]]
        shop.say(f"{model.name}: {', '.join(peer.name for peer in group)}")
        measured = measure_group(job, group)
        for peer in group:
            entry = measured["peers"][peer.name]
            if "error" in entry:
                continue
            try:
                entry["quality"] = shop.quality(job, peer, collection)
                if model.trained:
                    entry["cold_start_seconds"] = rounded(shop.cold_start(job, peer))
            except (PeerFailedError, ValueError, OSError) as error:
                measured["peers"][peer.name] = {"precision": peer.precision, "error": str(error)[-400:]}
        results.merge_group(result, model.name, facts, measured)


def main(argv: list[str] | None = None) -> int:
    """Measure what was asked for; the JSON is written after every model."""
    args = parsed(argv)
    machine_facts, commit = machine.describe(), machine.commit()
    date = datetime.date.today().isoformat()
    output = args.output or results.RESULTS / f"{date}-{machine.label(machine_facts)}.json"
    result = results.begin(date, commit, machine_facts)
    if args.resume and output.exists():
        result = results.resumed(output, commit, machine_facts)
    with Workshop(args.folder, available_cpus(), current=args.quick) as shop:
        for name in args.models:
            model = models.MODELS[name]
            wanted = [peer for peer in args.peers if model.kind in peer.kinds]
            missing = results.missing_peers(result, name, [peer.name for peer in wanted])
            if not missing:
                continue
            peers = [peer for peer in wanted if peer.name in {"bgert", *missing}]
            try:
                measure_model(args, shop, model, peers, result)
            except models.ModelUnavailableError as error:
                result["models"][name] = {"error": str(error), "peers": {}}
                shop.say(f"{name}: {error}")
            results.write(result, output)
    if args.tokenizer and result["tokenizer"] is None:
        result["tokenizer"] = tokenizer_part(args)
        results.write(result, output)
    print(output)
    return int(any("error" in entry["peers"].get("bgert", entry) for entry in result["models"].values()))


def tokenizer_part(args: argparse.Namespace) -> dict[str, Any]:
    """The tokenizer benchmark with what the same options bring."""
    arguments = []
    if args.corpora is not None:
        arguments += ["--corpora", str(args.corpora)]
        for option, folder in (("--chinese", "bge-small-zh-v1.5"), ("--multilingual", "xlm-roberta-base")):
            if args.tokenizers is not None and (args.tokenizers / folder).is_dir():
                arguments += [option, str(args.tokenizers / folder)]
    measured: dict[str, Any] = tokenizer_benchmark.measure(arguments)
    return measured


if __name__ == "__main__":
    sys.exit(main())
