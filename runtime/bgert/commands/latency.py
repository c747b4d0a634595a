"""`bgert bench --latency`: how long single calls take, by batch size and text length."""

from __future__ import annotations

import math
import platform
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgert.cpu_count import available_cpus
from bgert.encoder import Encoder
from bgert.errors import InvalidOptionError, TruncationWarning
from bgert.evaluation.sample_texts import sample_texts
from bgert.exported_models import targets_for
from bgert.hub import locate
from bgert.model_folder import Manifest
from bgert.progress import progress_bar
from bgert.reranker import Reranker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Points", "measure", "percentiles", "report"]

QUERY = "how to copy a folder"  # of a reranker's pairs
SHARES = {"p50": (50, 1), "p90": (90, 10), "p95": (95, 20), "p99": (99, 100)}
"""Percentile: its per cents, and how many calls it takes for one of them to lie above it (p50: one is enough)."""


@dataclass(frozen=True)
class Points:
    """What is timed: every batch size with every length.

    Raises:
        InvalidOptionError: a number below 1, or none.
    """

    batches: Sequence[int]
    lengths: Sequence[int] | None
    """Tokens of a text (of a pair), special tokens counted; None for 16, 128 and 512, or the model's limit."""
    calls: int
    warm_up: int
    """Calls before, which are not counted; at least one."""

    def __post_init__(self) -> None:
        least = min((*self.batches, *(self.lengths or ()), self.calls, self.warm_up))
        if not self.batches or self.lengths == [] or least < 1:
            raise InvalidOptionError("--batch, --length, --calls and --warm-up take whole numbers from 1")


def measure(
    folder: str | Path,
    points: Points,
    *,
    device: str,
    precision: str,
    threads: int | None,
    mode: str,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Open a model and time its calls one after another, from texts to vectors or scores.

    Returns:
        `load_seconds`, `peak_rss_mb` (None where the system does not tell) and a list of `points`: milliseconds
        (percentiles by the nearest rank, so each is a call that was measured; None where there are too few calls to
        say), texts and tokens per second.

    Raises:
        InvalidOptionError: a length that the model does not take.
        BgertError: the model cannot be opened here.
    """
    path = locate(folder, targets_for(device, precision))
    kind = {"encoder": Encoder, "reranker": Reranker}[Manifest.read(path).kind]
    begun = time.perf_counter()
    model: Any = kind(path, device=device, precision=precision, threads=threads, mode=mode)
    load_seconds = time.perf_counter() - begun
    lengths = points.lengths or sorted({min(length, model.max_length) for length in (16, 128, 512)})
    for length in lengths:
        model.check_max_length(length)
    pairs = [(batch, length) for length in lengths for batch in points.batches]
    total = sum(batch * length for batch, length in pairs) * (points.calls + points.warm_up)
    with progress_bar(total, show_progress, unit="token") as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # texts are cut to the length
        found = [_point(model, batch, length, points, advance) for batch, length in pairs]
    return {
        "kind": model.kind,
        "engine": model.engine,
        "device": model.device,
        "precision": model.precision,
        "mode": mode,
        "threads": threads or available_cpus(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "load_seconds": round(load_seconds, 3),
        "peak_rss_mb": peak_rss_mb(),
        "warm_up": points.warm_up,
        "points": found,
    }


def _point(
    model: Encoder | Reranker, batch: int, length: int, points: Points, advance: Callable[[int], object] | None
) -> dict[str, Any]:
    texts = _texts(length)
    seconds, tokens = [], 0
    for call in range(points.warm_up + points.calls):
        inputs = [texts[(call * batch + number) % len(texts)] for number in range(batch)]
        run = _call(model, inputs, length)
        begun = time.perf_counter()
        result = run()
        taken = time.perf_counter() - begun
        if call >= points.warm_up:
            seconds.append(taken)
            tokens += result.info.tokens
        if advance is not None:
            advance(batch * length)
    return {
        "batch": batch,
        "length": length,
        "tokens_a_call": tokens / points.calls,
        **percentiles(seconds),
        "texts_per_second": round(batch * points.calls / sum(seconds), 1),
        "tokens_per_second": round(tokens / sum(seconds)),
    }


def _call(model: Encoder | Reranker, texts: list[str], length: int) -> Callable[[], Any]:
    if isinstance(model, Reranker):
        pairs = [(QUERY, text) for text in texts]
        return lambda: model.score(pairs, max_length=length, show_progress=False)
    return lambda: model.encode(texts, max_length=length, show_progress=False)


def _texts(length: int, count: int = 64) -> list[str]:
    """Other texts for each call, of words enough for `length` tokens and not many more; the encoder cuts them."""
    words = " ".join(sample_texts(500)).split()
    step = len(words) // count
    doubled = words * (2 + length // len(words))
    return [" ".join(doubled[number * step : number * step + length]) for number in range(count)]


def percentiles(seconds: Sequence[float]) -> dict[str, Any]:
    """Milliseconds by the nearest rank, the least and the largest, of how many calls; None for what they cannot say."""
    ordered = [round(1e3 * value, 4) for value in sorted(seconds)]
    ranks = {
        f"{name}_ms": ordered[math.ceil(percent * len(ordered) / 100) - 1] if len(ordered) >= least else None
        for name, (percent, least) in SHARES.items()
    }
    return {"calls": len(ordered), "min_ms": ordered[0], **ranks, "max_ms": ordered[-1]}


def peak_rss_mb() -> float | None:
    """Largest resident memory of this process so far, libraries included; None where the system does not tell."""
    try:  # Linux: of this program alone, where getrusage would count the one that started it
        status = Path("/proc/self/status").read_text()
        return round(int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6, 1)
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def report(result: dict[str, Any]) -> str:
    """The result as a table to read."""
    memory = "" if result["peak_rss_mb"] is None else f", peak memory {result['peak_rss_mb']:,.0f} MB"
    lines = [
        f"{result['engine']}, {result['device']} {result['precision']}, mode {result['mode']}, {result['threads']} "
        f"threads, {result['machine']}",
        f"loaded in {result['load_seconds']:.2f} s{memory}; milliseconds a call after {result['warm_up']} to warm up:",
    ]
    names = ["min", *SHARES, "max"]
    lines.append("batch length   calls" + "".join(f"{name:>10}" for name in names) + "   texts/s")
    for point in result["points"]:
        cells = [point[f"{name}_ms"] for name in names]
        lines.append(
            f"{point['batch']:>5} {point['length']:>6} {point['calls']:>7}"
            + "".join(f"{'-' if cell is None else f'{cell:.2f}':>10}" for cell in cells)
            + f"{point['texts_per_second']:>10,.1f}"
        )
    if any(None in point.values() for point in result["points"]):
        lines.append("- : too few calls to say (--calls)")
    return "\n".join(lines)
