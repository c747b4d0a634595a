"""Timing of one model on one device: kernels by events, whole calls by the clock, arithmetic by counting."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.backends.cuda.backend import OnnxCudaBackend
from bgert.backends.cuda.packed_layout import bucket_of
from bgert.batching import PackedBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bgert.backends.protocol import Backend

__all__ = ["BusyTime", "batch_of", "clocked", "flops", "kernel_seconds", "percentiles", "random_batches"]


def flops(architecture: dict[str, Any], lengths: Sequence[int], *, cls: bool) -> float:
    """Floating-point operations of the matrix products of a batch, one multiply-add counted as two.

    With `cls` the last layer's output projection and feed-forward count for one token a text, as they are computed.
    """
    hidden, inner = int(architecture["hidden_size"]), int(architecture["intermediate_size"])
    layers, tokens, texts = int(architecture["num_hidden_layers"]), sum(lengths), len(lengths)
    after = hidden * hidden + 2 * hidden * inner
    per_layer = 3 * hidden * hidden * tokens + 2 * hidden * sum(n * n for n in lengths)
    rows = (layers - 1) * tokens + (texts if cls else tokens)
    return 2.0 * (layers * per_layer + rows * after)


def batch_of(lengths: Sequence[int], vocabulary: int, seed: int = 0) -> PackedBatch:
    """Random ids in texts of these lengths."""
    cuts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    ids = np.random.default_rng(seed).integers(5, vocabulary, cuts[-1], dtype=np.int32)
    return PackedBatch(ids, cuts, np.zeros_like(ids))


def random_batches(count: int, budget: int, longest: int, vocabulary: int, seed: int) -> list[PackedBatch]:
    """Batches of mixed size and mixed lengths, each at most the budget."""
    draw = np.random.default_rng(seed)
    batches = []
    for number in range(count):
        top = int(draw.integers(4, longest + 1))
        most = max(1, int(budget * draw.random() ** 2) // top)
        batches.append(batch_of(draw.integers(2, top + 1, most).tolist(), vocabulary, number))
    return batches


def clocked(call: Callable[[], object], *, seconds: float, least: int = 5) -> list[float]:
    """Seconds of each call, after one that is not counted."""
    call()
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < stop:
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return times


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """Milliseconds: median, 99th percentile and least, and how many there were."""
    ordered = sorted(times)
    return {
        "p50_ms": round(1e3 * statistics.median(ordered), 4),
        "p99_ms": round(1e3 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 4),
        "min_ms": round(1e3 * ordered[0], 4),
        "runs": len(ordered),
    }


def kernel_seconds(backend: Backend, batch: PackedBatch, *, seconds: float) -> float:
    """Seconds a batch takes on the device when the next is always queued behind it, copies included.

    By CUDA events around a row of launches; on the CPU by the clock.
    """
    if not isinstance(backend, OnnxCudaBackend):
        return statistics.median(clocked(lambda: backend.run(batch), seconds=seconds))
    session, cuda = backend._session, backend._session._cuda
    bucket = bucket_of(np.diff(batch.cu_seqlens))
    slot = backend._ring.get()

    def row(count: int) -> float:
        first, last = cuda.event(timing=True), cuda.event(timing=True)
        first.record(session._compute)
        for _ in range(count):
            session.launch(slot, bucket, len(batch))
        last.record(session._compute)
        last.synchronize()
        session.wait(slot.done)
        elapsed = last.milliseconds_since(first) / 1e3 / count
        first.close()
        last.close()
        return elapsed

    try:
        backend._plan.fill(slot.host_in.array(), batch, bucket)
        once = max(backend._launcher.submit(row, 3).result(), 1e-5)
        count = int(min(max(3, seconds / 3 / once), 2000))
        return statistics.median(backend._launcher.submit(row, count).result() for _ in range(3))
    finally:
        backend._ring.put(slot)


class BusyTime:
    """Within `with`: how long the device computes for a CUDA backend, by an event on either side of every run."""

    def __init__(self, backend: OnnxCudaBackend) -> None:
        self._session = backend._session
        self._inner: Any = backend._session._session
        self._pairs: list[tuple[Any, Any]] = []
        self.busy_seconds = 0.0
        self.span_seconds = 0.0
        """From the start of the first run to the end of the last, on the device."""

    def __enter__(self) -> BusyTime:
        self._session._session = self
        return self

    def __exit__(self, *error: object) -> None:
        self._session._session = self._inner
        if self._pairs:
            self._pairs[-1][1].synchronize()
            self.busy_seconds = sum(last.milliseconds_since(first) for first, last in self._pairs) / 1e3
            self.span_seconds = self._pairs[-1][1].milliseconds_since(self._pairs[0][0]) / 1e3
        for pair in self._pairs:
            for event in pair:
                event.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        """The run, between two events."""
        first, last = (self._session._cuda.event(timing=True) for _ in range(2))
        first.record(self._session._compute)
        self._inner.run_with_iobinding(binding, options)
        last.record(self._session._compute)
        self._pairs.append((first, last))
