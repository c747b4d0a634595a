"""`bgert bench-serve`: what `bgert serve` does on this machine with a folder, up to more load than it can take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bgert.commands.options import engine_options, numbers
from bgert.encoder import Encoder
from bgert.errors import InvalidOptionError
from bgert.loadtest import stages
from bgert.loadtest.requests import embeddings, mixed_texts
from bgert.loadtest.server_process import bgert_server
from bgert.paths import user_path

if TYPE_CHECKING:
    import argparse

__all__ = ["add_options", "report", "run"]

LOADS = "0.5,0.8,1,2,10"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("folder", help="model folder of an encoder")
    parser.add_argument(
        "--load",
        default=LOADS,
        metavar="X,X,...",
        help=f"requests offered, as multiples of capacity (default: {LOADS})",
    )
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of each load (default: 10)")
    parser.add_argument("--texts", type=int, default=8, metavar="N", help="mixed texts a request (default: 8)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    engine_options(parser)


def run(args: argparse.Namespace) -> int:
    """Start a server on a free port of the loopback, load it, print."""
    loads = numbers("--load", args.load, float)
    if not all(0 < load <= 100 for load in loads):
        raise InvalidOptionError(f"--load is {args.load!r}: use multiples above 0 and up to 100")
    if not 0.5 <= args.seconds <= 3600 or not 1 <= args.texts <= 2048:
        raise InvalidOptionError("--seconds takes 0.5 to 3600, --texts 1 to 2048")
    folder = user_path(args.folder, "the model folder")
    options = ["--device", args.device, "--precision", args.precision]
    options += [] if args.threads is None else ["--threads", str(args.threads)]
    result = measure(folder, options, args, loads)
    print(json.dumps(result, indent=2) if args.json else report(result))
    return 0


def measure(folder: Any, options: list[str], args: argparse.Namespace, loads: list[float]) -> dict[str, Any]:
    """All loads, least first."""
    encoder = Encoder(folder, device=args.device, precision=args.precision, threads=args.threads)
    texts = mixed_texts(encoder, max(512, 4 * args.texts))
    jobs = embeddings(encoder, texts, args.texts)
    with bgert_server(folder, *options) as server:
        stages.capacity(server, jobs, 1.0)
        cost = stages.cost(server, jobs, stages.FILLING, min(args.seconds, 5.0))
        full = cost["requests_per_second"]
        found = [
            (stages.overload if load > 1 else stages.offered)(server, jobs, full, load, args.seconds)
            for load in sorted(loads)
        ]
    share = cost["tokens_per_cpu_second"] / stages.encoder_cost(encoder, texts, 2.0)
    return {
        "texts_each": args.texts,
        "precision": encoder.precision,
        "capacity_requests_per_second": full,
        "tokens_per_cpu_second_of_encoder": round(share, 4),
        "capacity": cost,
        "loads": found,
    }


def report(result: dict[str, Any]) -> str:
    """The result as a table to read."""
    lines = [
        f"capacity: {result['capacity_requests_per_second']:.1f} requests/s of {result['texts_each']} texts, "
        f"{result['tokens_per_cpu_second_of_encoder']:.0%} of Encoder's tokens per CPU second "
        f"({result['precision']}, {stages.FILLING} clients that wait)",
        "  load  offered/s  200/s  of capacity   p50 ms   p95 ms   p99 ms   max ms  replies",
    ]
    for load in result["loads"]:
        times = load["latency_ms"] or dict.fromkeys(("p50", "p95", "p99", "max"), float("nan"))
        replies = " ".join(f"{status}:{count}" for status, count in load["statuses"].items())
        lines.append(
            f"{load['times_capacity']:>5g}x {load['offered_per_second']:>10.1f} {load['goodput_per_second']:>6.1f} "
            f"{load['share_of_capacity']:>12.0%} {times['p50']:>8.1f} {times['p95']:>8.1f} {times['p99']:>8.1f} "
            f"{times['max']:>8.1f}  {replies}"
        )
    own = max(load["client_share_of_cpu"] for load in result["loads"])
    lines.append(
        f"latency counts from when a request was due; the load generator took at most {own:.0%} of the CPU time"
    )
    return "\n".join(lines)
