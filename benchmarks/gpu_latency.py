"""Small batches with bgert's CUDA graphs and without, in turns: one at a time, from text, and from many threads."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert import Encoder
from gpu_measure import batch_of, clocked, percentiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpu_bench import Bench

__all__ = ["stage_graphs"]

# Lengths of a batch: alone, together, and the largest that are graphs.
SHAPES = {"32": [32], "128": [128], "512": [512], "8 x 32": [32] * 8, "16 x 64": [64] * 16, "31 x 64": [64] * 31}
THREADS = 8
LARGEST_DIFFERENCE = 2e-3  # of numbers of a unit vector: roundings to float16
TEXT = "how do i copy a folder with everything in it to another place and keep its dates"


def stage_graphs(bench: Bench) -> dict[str, Any]:
    """`passed`: the same vectors. `shapes`: ms a batch; `text`: ms a text; `threads`: texts/s of 32 tokens."""
    opened, backends = {}, {}
    for name, graphs in (("graphs", True), ("plain", False)):
        begun = time.perf_counter()
        backends[name] = bench.backend(graphs=graphs) if bench.on_gpu else bench.backend()
        opened[name] = round(time.perf_counter() - begun, 2)
    found: dict[str, Any] = {"opened_seconds": opened, "shapes": {}, "largest_difference": 0.0}
    for shape, lengths in SHAPES.items():
        batch = batch_of(lengths, 30000)
        rows = [backend.run(batch) for backend in backends.values()]
        difference = float(np.abs(rows[0] - rows[1]).max())
        found["largest_difference"] = max(found["largest_difference"], round(difference, 6))
        found["shapes"][shape] = _in_turns(
            {name: partial(backend.run, batch) for name, backend in backends.items()}, bench.seconds(0.5)
        )
    encoder = Encoder(bench.folder("encoder"), device="cpu" if not bench.on_gpu else bench.device)

    def encode(name: str) -> None:
        encoder._runner.backend = backends[name]
        encoder.encode(TEXT)

    found["text"] = _in_turns({name: partial(encode, name) for name in backends}, bench.seconds(1))
    one = batch_of([32], 30000)
    found["threads"] = {"threads": THREADS} | {
        name: round(_rate(partial(backend.run, one), bench.seconds(1)), 1) for name, backend in backends.items()
    }
    found["passed"] = bench.rehearsal or found["largest_difference"] <= LARGEST_DIFFERENCE
    return found


def _in_turns(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, Any]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(4):
        for name, call in calls.items():
            times[name] += clocked(call, seconds=seconds / (4 * len(calls)))
    return {name: percentiles(entry) for name, entry in times.items()}


def _rate(call: Callable[[], object], seconds: float) -> float:
    """Calls a second of all threads together."""
    counts = [0] * THREADS
    stop = time.perf_counter() + seconds

    def work(number: int) -> None:
        while time.perf_counter() < stop:
            call()
            counts[number] += 1

    begun = time.perf_counter()
    threads = [threading.Thread(target=work, args=[number]) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begun)
