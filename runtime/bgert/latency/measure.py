"""All that `bgert bench --latency` measures of one model."""

from __future__ import annotations

import platform
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from bgert.cpu_count import threads_of
from bgert.encoder import Encoder
from bgert.energy import meter_for
from bgert.errors import EngineError, TruncationWarning
from bgert.exported_models import targets_for
from bgert.hub import locate
from bgert.latency.calls import QUERY, Points
from bgert.latency.closed_loop import closed_loop
from bgert.latency.cold_start import cold_starts
from bgert.latency.open_loop import open_loop
from bgert.model_folder import Manifest
from bgert.progress import progress_bar
from bgert.reranker import Reranker

__all__ = ["measure", "peak_rss_mb"]

FIRST_TEXT = "a new process reads this text"


def measure(
    folder: str | Path,
    points: Points,
    *,
    device: str,
    precision: str,
    threads: int | None,
    mode: str,
    processes: int = 0,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Open a model and time its calls, from texts to vectors or scores: one after another, or by a clock.

    Args:
        folder: model folder, checkpoint folder or hub id.
        points: what is timed.
        device: as `Model`.
        precision: as `Model`.
        threads: as `Model`.
        mode: as `Model`.
        processes: how many new processes are timed before, to their first vector.
        show_progress: a bar.

    Returns:
        `loop` (`closed` or `open`), `cold_start` (None without), `load_seconds`, `peak_rss_mb` (None where the system
        does not tell) and a list of `points` as `closed_loop` or `open_loop` give them.

    Raises:
        InvalidOptionError: a length that the model does not take.
        BgertError: the model cannot be opened here.
    """
    path = locate(folder, targets_for(device, precision))
    kind = {"encoder": Encoder, "reranker": Reranker}[Manifest.read(path).kind]
    options = {"device": device, "precision": precision, "threads": threads, "mode": mode}
    cold = None
    try:
        # Before the model is open here, for its memory; and before its files have been read.
        first = (QUERY, FIRST_TEXT) if kind is Reranker else FIRST_TEXT
        cold = cold_starts(kind.__name__, path, options, first, processes)
    except EngineError:
        kind(path, **options)  # which may say it better
        raise
    begun = time.perf_counter()
    model: Any = kind(path, **options)
    load_seconds = time.perf_counter() - begun
    lengths = points.lengths or sorted({min(length, model.max_length) for length in (16, 128, 512)})
    for length in lengths:
        model.check_max_length(length)
    meter = meter_for(model.device)
    shapes = [(batch, length) for length in lengths for batch in points.batches]
    total = sum(batch * length for batch, length in shapes) * (points.calls + points.warm_up)
    with (
        progress_bar(total * max(1, len(points.rates)), show_progress, unit="token") as advance,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", TruncationWarning)  # texts are cut to the length
        if points.rates:
            found = [
                open_loop(model, batch, length, rate, points, meter, advance)
                for batch, length in shapes
                for rate in points.rates
            ]
        else:
            found = [closed_loop(model, batch, length, points, meter, advance) for batch, length in shapes]
    return {
        "loop": "open" if points.rates else "closed",
        "kind": model.kind,
        "engine": model.engine,
        "device": model.device,
        "precision": model.precision,
        "mode": mode,
        "threads": threads_of(threads),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "cold_start": cold,
        "load_seconds": round(load_seconds, 3),
        "peak_rss_mb": peak_rss_mb(),
        "warm_up": points.warm_up,
        "points": found,
    }


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
