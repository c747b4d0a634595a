"""Load by a clock, or by clients that wait for their replies."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bgert.loadtest.arrivals import arrivals
from bgert.loadtest.client import FAILED, Pool
from bgert.loadtest.percentiles import nearest_rank

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Job", "Load", "closed_loop", "open_loop", "percentiles"]

PERCENTILES = {"p50": 50, "p95": 95, "p99": 99, "max": 100}


@dataclass(frozen=True)
class Job:
    """A request, and what it is: its texts and their tokens."""

    data: bytes
    texts: int
    tokens: int


@dataclass
class Load:
    """What came of a load.

    Attributes:
        seconds: in which requests were sent.
        sent: requests that the clock or the clients began.
        left: of those, how many were left behind without a reply.
        latencies: seconds of the requests that got 200, from when they were due to their reply.
        done: when those replies came, in seconds from the start.
        statuses: replies by status; `FAILED` for a lost connection.
        tokens: of the requests that got 200.
        own_cpu_seconds: of this process, the load generator.
        late: seconds by which the clock's latest request was sent too late.
    """

    seconds: float
    sent: int = 0
    left: int = 0
    latencies: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    tokens: int = 0
    own_cpu_seconds: float = 0.0
    late: float = 0.0

    @property
    def goodput(self) -> float:
        """Requests per second that got 200 while the load lasted."""
        return sum(moment <= self.seconds for moment in self.done) / self.seconds

    def facts(self) -> dict[str, Any]:
        """Its figures, for JSON."""
        return {
            "seconds": round(self.seconds, 2),
            "sent": self.sent,
            "offered_per_second": round(self.sent / self.seconds, 2),
            "goodput_per_second": round(self.goodput, 2),
            "statuses": {
                ("none" if status == FAILED else str(status)): n for status, n in sorted(self.statuses.items())
            },
            "left_behind": self.left,
            "latency_ms": percentiles(self.latencies),
            "late_ms": round(1e3 * self.late, 2),
            "own_cpu_seconds": round(self.own_cpu_seconds, 2),
        }

    def note(self, status: int, due: float, begun: float, job: Job) -> None:
        """Count a reply that has just come."""
        now = time.perf_counter()
        self.statuses[status] += 1
        if status == 200:
            self.latencies.append(now - due)
            self.done.append(now - begun)
            self.tokens += job.tokens


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the longest in milliseconds by the nearest rank; empty without any."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    ranks = {name: nearest_rank(ordered, percent) for name, percent in PERCENTILES.items()}
    return {name: float(f"{1e3 * value:.4g}") for name, value in ranks.items()}


async def open_loop(
    port: int,
    jobs: Sequence[Job],
    rate: float,
    seconds: float,
    *,
    leave: bool = False,
    fixed: bool = False,
    seed: int = 0,
) -> Load:
    """Send requests when a clock says so, whatever has become of those before.

    A request's latency counts from when it was due, so a generator or a server that falls behind cannot hide it.

    Args:
        port: of a server on this machine.
        jobs: requests, taken in turn.
        rate: requests per second.
        seconds: how long requests are sent.
        leave: close all connections then, as clients do that give up, and not wait for the rest.
        fixed: the same time between all requests; otherwise they come as independent clients do (Poisson).
        seed: of the arrivals.
    """
    pool, load = Pool(port), Load(seconds)
    cpu, begun = time.process_time(), time.perf_counter()
    running: set[asyncio.Task[None]] = set()

    async def one(job: Job, due: float) -> None:
        load.late = max(load.late, time.perf_counter() - due)
        status, _ = await pool.send(job.data)
        load.note(status, due, begun, job)

    for job, after in zip(itertools.cycle(jobs), arrivals(rate, fixed=fixed, seed=seed), strict=False):
        due = begun + after
        if after > seconds:
            break
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        load.sent += 1
        task = asyncio.create_task(one(job, due))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.sleep(max(0.0, begun + seconds - time.perf_counter()))
    if leave:
        load.left = len(running)
        for task in running:
            task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    load.own_cpu_seconds = time.process_time() - cpu
    pool.close()
    return load


async def closed_loop(port: int, jobs: Sequence[Job], clients: int, seconds: float) -> Load:
    """Clients that each send their next request when they have the reply to the last.

    `seconds` of the result ends with the last reply, so that all the work of all requests lies within.
    """
    pool, load = Pool(port), Load(seconds)
    cpu, begun = time.process_time(), time.perf_counter()
    source = itertools.cycle(jobs)

    async def client() -> None:
        while time.perf_counter() - begun < seconds:
            job, due = next(source), time.perf_counter()
            load.sent += 1
            status, _ = await pool.send(job.data)
            load.note(status, due, begun, job)

    await asyncio.gather(*(client() for _ in range(clients)))
    load.seconds = time.perf_counter() - begun
    load.own_cpu_seconds = time.process_time() - cpu
    pool.close()
    return load
