"""`bgert bench --latency`: how long single calls take, by batch size and text length, or by calls a second."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgert.commands.options import numbers
from bgert.errors import InvalidOptionError
from bgert.jobs.atomic_file import atomic_file
from bgert.latency.calls import SHARES, Points
from bgert.latency.chart import chart
from bgert.latency.measure import measure
from bgert.paths import user_path

if TYPE_CHECKING:
    import argparse

__all__ = ["OPTIONS", "add_options", "report", "run"]

OPTIONS = ("batch", "length", "calls", "warm_up", "rate", "seed", "cold_starts", "plot")
"""Those that are for --latency alone; each is None where it is not given."""
TOO_FEW = "(- : too few calls to say, see --calls):"
CALLS, WARM_UP, SEED, COLD_STARTS = 200, 20, 0, 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that go with --latency."""
    group = parser.add_argument_group("with --latency")
    group.add_argument("--batch", metavar="N,N,...", help="texts a call (default: 1)")
    group.add_argument("--length", metavar="N,N,...", help="tokens a text (default: 16,128,512)")
    group.add_argument("--calls", type=int, metavar="N", help=f"timed calls each (default: {CALLS})")
    group.add_argument("--warm-up", type=int, metavar="N", help=f"calls before (default: {WARM_UP})")
    group.add_argument(
        "--rate",
        metavar="X,X,...",
        help="open loop: so many calls a second come by a clock, and latency counts from when each was due "
        "(default: closed loop, one call after the other)",
    )
    group.add_argument(
        "--seed", type=int, metavar="N", help=f"of the times between the calls of --rate (default: {SEED})"
    )
    group.add_argument(
        "--cold-starts",
        type=int,
        metavar="N",
        help=f"new processes to time up to their first vector (default: {COLD_STARTS})",
    )
    group.add_argument("--plot", metavar="FILE.svg", help="draw p50 and p99 into a file")


def run(args: argparse.Namespace, engine: dict[str, Any]) -> dict[str, Any]:
    """Measure, and draw if asked to."""
    points = Points(
        numbers("--batch", "1" if args.batch is None else args.batch, int),
        None if args.length is None else numbers("--length", args.length, int),
        CALLS if args.calls is None else args.calls,
        WARM_UP if args.warm_up is None else args.warm_up,
        () if args.rate is None else numbers("--rate", args.rate, float),
        SEED if args.seed is None else args.seed,
    )
    if args.seed is not None and args.rate is None:
        raise InvalidOptionError("--seed is of the calls of --rate, and there is none")
    processes = COLD_STARTS if args.cold_starts is None else args.cold_starts
    if processes < 0:
        raise InvalidOptionError(f"--cold-starts is {processes}: use a whole number, 0 for none")
    file = None if args.plot is None else _svg(args.plot)
    result = measure(args.folder, points, processes=processes, **engine)
    if file is not None:
        with atomic_file(file) as out:
            out.write(chart(result, Path(args.folder).name or str(args.folder)).encode())
    return result


def _svg(name: str) -> Path:
    """The file to draw into, looked at before anything is measured."""
    file = user_path(name, "--plot")
    if file.suffix.lower() != ".svg":
        raise InvalidOptionError(f"--plot is {name!r}: name a file that ends in .svg")
    if not file.parent.is_dir() or file.is_dir():
        raise InvalidOptionError(f"--plot is {name!r}: {file.parent} is no folder, or it is a folder itself")
    return file


def report(result: dict[str, Any]) -> str:
    """The result as a table to read."""
    memory = "" if result["peak_rss_mb"] is None else f", peak memory {result['peak_rss_mb']:,.0f} MB"
    lines = [
        f"{result['engine']}, {result['device']} {result['precision']}, mode {result['mode']}, {result['threads']} "
        f"threads, {result['machine']}"
    ]
    if (cold := result["cold_start"]) is not None:
        what = "score" if result["kind"] == "reranker" else "vector"
        lines.append(
            f"cold start {cold['total_seconds']:.2f} s to the first {what} of a new process: Python "
            f"{cold['python_seconds']:.2f}, import {cold['import_seconds']:.2f}, opening {cold['open_seconds']:.2f}, "
            f"first call {cold['first_call_seconds']:.2f}" + _of(len(cold["runs"]))
        )
    lines.append(f"loaded in {result['load_seconds']:.2f} s{memory}")
    lines += _open(result) if result["loop"] == "open" else _closed(result)
    lines += _energy(result["points"])
    return "\n".join(lines)


def _of(runs: int) -> str:
    return f" (medians of {runs})" if runs > 1 else ""


def _closed(result: dict[str, Any]) -> list[str]:
    names = ["min", *SHARES, "max"]
    few = any(point["p99_ms"] is None for point in result["points"])
    lines = [
        f"one call after the other, milliseconds after {result['warm_up']} to warm up{' ' + TOO_FEW if few else ':'}",
        "batch length   calls" + "".join(f"{name:>10}" for name in names) + "   texts/s    J/call",
    ]
    for point in result["points"]:
        cells = [point[f"{name}_ms"] for name in names]
        lines.append(
            f"{point['batch']:>5} {point['length']:>6} {point['calls']:>7}"
            + "".join(map(_cell, cells))
            + f"{point['texts_per_second']:>10,.1f}{_joules(point)}"
        )
    return lines


def _open(result: dict[str, Any]) -> list[str]:
    points = result["points"]
    names = (*SHARES, "max")
    few = any(point["latency"]["p99_ms"] is None for point in points)
    lines = [
        f"calls by the clock (Poisson, seed {points[0]['seed']}), {points[0]['calls']} each after {result['warm_up']} "
        f"to warm up; latency in ms from when a call was due{' ' + TOO_FEW if few else ':'}",
        "batch length    rate  done/s" + "".join(f"{name:>10}" for name in names) + "   call p50  call p99    J/call",
    ]
    for point in points:
        latency, service = point["latency"], point["service"]
        lines.append(
            f"{point['batch']:>5} {point['length']:>6} {point['rate']:>7g} {point['achieved_per_second']:>7.4g}"
            + "".join(_cell(latency[f"{name}_ms"]) for name in names)
            + f" {_cell(service['p50_ms'])}{_cell(service['p99_ms'])}{_joules(point)}"
        )
    lines += [
        f"ABOVE CAPACITY: {point['rate']:g} calls/s of {point['batch']} x {point['length']}, and "
        f"{point['capacity_per_second']:.4g}/s are what it can do: up to {point['longest_queue']} calls were in the "
        "queue, and it grows, and latency with it, as long as calls come so fast"
        for point in points
        if point["above_capacity"]
    ]
    return lines


def _cell(value: float | None) -> str:
    return f"{'-' if value is None else f'{value:.2f}':>10}"


def _joules(point: dict[str, Any]) -> str:
    """By the counter that is the device's own."""
    joules = point["energy"][0]["joules_a_call"]
    return f"{'-' if joules is None else f'{joules:.4g}':>10}"


def _energy(points: list[dict[str, Any]]) -> list[str]:
    """Which counters spoke, and why the others did not: each thing once."""
    said: dict[str, None] = {}
    for point in points:
        for entry in point["energy"]:
            if entry["why"] is None:
                said[f"energy: {entry['counter']} ({entry['covers']}, with all else that it feeds)"] = None
            else:
                said[f"energy: not by {entry['counter'].split()[0]}: {entry['why']}"] = None
    return list(said)
