"""What is counted. Names that begin with `te_` are those of text-embeddings-inference, with its labels."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bgert.serve.admission import queue_limit, wait
from bgert.serve.exposition import Counter, Family, Gauge, Histogram, render
from bgert.serve.queue import LANES, PROBE
from bgert.serve.refusal import KINDS

if TYPE_CHECKING:
    from bgert.serve.messages import Request, Response
    from bgert.serve.models import Served
    from bgert.serve.queue import Part
    from bgert.serve.settings import Settings

__all__ = ["Metrics"]

SECONDS = [15e-6 * 1.5**power for power in range(35)]
POWERS = [float(2**power) for power in range(21)]
TENTHS = [tenth / 10 for tenth in range(1, 11)]
METHODS = ("single", "batch")
LEFT = "left"
TE_FAILURES = {
    "malformed": "validation",
    "empty": "validation",
    "validation": "validation",
    "too_large": "batch_size",
    "wrong_model": "model_type",
    "model_not_found": "model_type",
    "overloaded": "overloaded",
    "backend": "inference",
    "timeout": "dropped",
    LEFT: "dropped",
}
TE_ALL_FAILURES = (*dict.fromkeys(TE_FAILURES.values()), "tokenization", "missing_values")
STEPS = ("", "tokenization_", "queue_", "inference_")


class Metrics:
    """All metrics of a server."""

    def __init__(self) -> None:
        self.families: list[Family] = []
        self._te_failure = self._counter("te_request_failure", "Requests that were not served.", "err")
        for error in TE_ALL_FAILURES:
            self._te_failure.expect(error)
        self._te_count: dict[str, Counter] = {}
        self._te_success: dict[str, Counter] = {}
        self._te_durations: dict[str, list[Histogram]] = {}
        for kind, name in (("", "request"), ("encoder", "embed"), ("reranker", "predict")):
            self._te_count[kind] = self._counter(f"te_{name}_count", "Requests.", "method")
            self._te_success[kind] = self._counter(f"te_{name}_success", "Requests that were served.", "method")
            for method in METHODS:
                self._te_count[kind].expect(method)
                self._te_success[kind].expect(method)
            self._te_durations[kind] = [
                self._histogram(f"te_{name}_{step}duration", "Seconds.", SECONDS) for step in STEPS
            ]
        self._te_length = self._histogram("te_request_input_length", "Tokens of a request.", POWERS)
        self._te_size = self._histogram("te_batch_next_size", "Texts of a batch.", POWERS)
        self._te_tokens = self._histogram("te_batch_next_tokens", "Tokens of a batch.", POWERS)
        self._te_queue = self._gauge("te_queue_size", "Requests with texts that wait.")

        self._replies = self._counter("bgert_replies_total", "Replies.", "route", "status")
        self._refused = self._counter("bgert_refused_total", "Requests that were not served, by reason.", "reason")
        for reason in (*KINDS, LEFT):
            self._refused.expect(reason)
        per_lane = ("model", "lane")
        self._texts = self._counter("bgert_texts_total", "Texts or pairs that ran.", *per_lane)
        self._tokens = self._counter("bgert_tokens_total", "Tokens that ran.", *per_lane)
        self._dropped = self._counter("bgert_dropped_texts_total", "Texts not run: nobody waits for them.", *per_lane)
        self._truncated = self._counter("bgert_truncated_texts_total", "Texts that were cut.", "model")
        self._failures = self._counter("bgert_batch_failures_total", "Batches that failed.", "model")
        self._batch_seconds = self._histogram("bgert_batch_seconds", "Seconds a batch ran.", SECONDS, "model")
        self._fill = self._histogram("bgert_batch_fill", "Tokens of a batch by the budget's.", TENTHS, "model")
        self._queue_tokens = self._gauge("bgert_queue_tokens", "Tokens admitted and not done.", *per_lane)
        self._queue_limit = self._gauge("bgert_queue_limit_tokens", "Tokens a lane may hold.", *per_lane)
        self._queue_wait = self._gauge("bgert_queue_wait_seconds", "What a lane holds takes about so long.", *per_lane)
        self._speed = self._gauge("bgert_tokens_per_second", "What the engine does while it is busy.", "model")
        self._age = self._gauge("bgert_last_success_age_seconds", "Since a batch or a canary succeeded.", "model")
        self._info = self._gauge("bgert_model_info", "1.", "model", "kind", "device", "precision", "engine")
        started = time.time()
        self._gauge("process_start_time_seconds", "Unix time.").watch(lambda: started)
        self._gauge("process_cpu_seconds", "User and system time.").watch(time.process_time)
        self._gauge("process_resident_memory_bytes", "Resident memory.").watch(resident_bytes)
        self._gauge("process_open_fds", "Open files and sockets.").watch(open_files)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        family = Counter(name, help_text, *labels)
        self.families.append(family)
        return family

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        family = Gauge(name, help_text, *labels)
        self.families.append(family)
        return family

    def _histogram(self, name: str, help_text: str, bounds: list[float], *labels: str) -> Histogram:
        family = Histogram(name, help_text, bounds, *labels)
        self.families.append(family)
        return family

    def watch(self, served: Served, settings: Settings) -> None:
        """Have the values of a model from the start; its batches are counted from now on."""
        engine, name, model = served.engine, served.name, served.model
        for number, lane in enumerate(LANES):
            for counter in (self._texts, self._tokens, self._dropped):
                counter.expect(name, lane)
            self._queue_tokens.watch(partial(engine.open_tokens.__getitem__, number), name, lane)
            if number != PROBE:
                self._queue_limit.watch(partial(queue_limit, engine, number, settings), name, lane)
                self._queue_wait.watch(partial(wait, engine, number), name, lane)
        self._truncated.expect(name)
        self._failures.expect(name)
        self._batch_seconds.expect(name)
        self._fill.expect(name)
        self._speed.watch(lambda: engine.tokens_per_second, name)
        self._age.watch(lambda: time.monotonic() - engine.last_success, name)
        self._info.watch(lambda: 1, name, served.kind, model.device, model.precision, model.engine)

        def count(parts: list[Part], seconds: float, failed: int) -> None:
            self.batch(served, parts, seconds, failed)

        engine.on_batch = count

    def watch_queues(self, models: list[Served]) -> None:
        """Requests that wait, over all models."""
        self._te_queue.watch(lambda: sum(served.engine.queued_requests for served in models))

    def batch(self, served: Served, parts: list[Part], seconds: float, failed: int) -> None:
        """Count a batch; `failed` is how many of its requests failed."""
        texts = tokens = 0
        for work, start, stop in parts:
            own = sum(work.lengths[start:stop])
            self._texts.add(served.name, LANES[work.lane], amount=stop - start)
            self._tokens.add(served.name, LANES[work.lane], amount=own)
            texts += stop - start
            tokens += own
        self._te_size.observe(texts)
        self._te_tokens.observe(tokens)
        self._batch_seconds.observe(seconds, served.name)
        self._fill.observe(tokens / served.engine.token_budget, served.name)
        if failed:
            self._failures.add(served.name)

    def dropped(self, served: Served, lane: int, texts: int) -> None:
        """Count texts that nobody waits for any more."""
        self._dropped.add(served.name, LANES[lane], amount=texts)

    def request(self, request: Request, reply: Response | None, seconds: float) -> None:
        """Count a request that has ended; without a reply its client has left."""
        record, route = request.record, request.route
        failure = record.failure if reply is not None else LEFT
        path = route.path if route is not None else "none"
        self._replies.add(path, str(reply.status) if reply is not None else LEFT)
        if failure is not None:
            self._refused.add(failure)
        if route is None or not route.kinds or request.method != "POST":
            return
        if failure is not None:
            self._te_failure.add(TE_FAILURES.get(failure, "validation"))
        if record.model is None or not record.texts:
            return
        method = METHODS[record.texts > 1]
        if record.truncated:
            self._truncated.add(record.model, amount=len(record.truncated))
        for kind in ("", record.kind):
            self._te_count[kind].add(method)
            if failure is None:
                self._te_success[kind].add(method)
                steps = (seconds, record.tokenize_seconds, record.queue_seconds, record.run_seconds)
                for histogram, value in zip(self._te_durations[kind], steps, strict=True):
                    histogram.observe(value)
        if failure is None:
            self._te_length.observe(record.tokens)

    def refused_connection(self) -> None:
        """Count what came and was no request."""
        self._refused.add("malformed")

    def render(self) -> bytes:
        """The text of `/metrics`."""
        return render(self.families)


def resident_bytes() -> float:
    """Resident memory of the process; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files() -> float:
    """Open file descriptors of the process; 0 where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are enough
    except OSError:
        return 0
