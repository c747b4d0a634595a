"""The stages of a load test: cost beside `Encoder`, an idle server, load up to ten times capacity, clients gone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import statistics
import time
from typing import TYPE_CHECKING, Any

from bgert.cpu_count import available_cpus
from bgert.loadtest.load import Job, closed_loop, open_loop, percentiles
from bgert.loadtest.requests import embeddings, token_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bgert import Encoder
    from bgert.loadtest.server_process import ServerProcess

__all__ = [
    "abandoned",
    "capacity",
    "cost",
    "drain_seconds",
    "encoder_cost",
    "idle",
    "offered",
    "overload",
    "recovery",
    "tokens_per_cpu_second",
]

CLIENTS, EACH = 64, 8
FILLING = 8  # clients that keep every worker busy and stay below the least limit of a queue
SETTLE_SECONDS, RECOVERY_SECONDS = 2.0, 5.0
BATCH_TOKENS = 512  # the server's, on CPUs
LANE = 'lane="interactive"'


def cost(server: ServerProcess, jobs: Sequence[Job], clients: int, seconds: float) -> dict[str, Any]:
    """Closed loop: what the server does for each second of its CPU time."""
    before = server.cpu_seconds()
    load = asyncio.run(closed_loop(server.port, jobs, clients, seconds))
    used = server.cpu_seconds() - before
    good = load.statuses[200]
    return load.facts() | {
        "tokens": load.tokens,
        "server_cpu_seconds": round(used, 2),
        "tokens_per_cpu_second": round(load.tokens / used, 1),
        "requests_per_cpu_second": round(good / used, 2),
        "requests_per_second": round(good / load.seconds, 2),
        "client_share_of_cpu": round(load.own_cpu_seconds / (load.own_cpu_seconds + used), 3),
        "resident_bytes": server.resident_bytes(),
    }


def encoder_cost(encoder: Encoder, texts: Sequence[str], seconds: float) -> float:
    """Tokens per CPU second of `Encoder.encode` on the same texts, in one call after another."""
    tokens, calls = sum(token_counts(encoder, texts)), 0
    begun, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - begun < seconds or not calls:
        encoder.encode(texts, show_progress=False)
        calls += 1
    return calls * tokens / (time.process_time() - cpu)


def tokens_per_cpu_second(
    server: ServerProcess, encoder: Encoder, texts: Sequence[str], *, seconds: float, rounds: int
) -> dict[str, Any]:
    """64 clients of 8 texts beside `Encoder` in turns; shares are the median of the rounds' ratios."""
    found: dict[str, list[Any]] = {"encoder": [], "base64": [], "float": []}
    for number in range(rounds):
        order = list(found) if number % 2 == 0 else list(reversed(found))
        for name in order:
            if name == "encoder":
                found[name].append(encoder_cost(encoder, texts, seconds))
            else:
                jobs = embeddings(encoder, texts, EACH, base64=name == "base64")
                found[name].append(cost(server, jobs, CLIENTS, seconds))
    shares = {
        name: [run["tokens_per_cpu_second"] / alone for run, alone in zip(found[name], found["encoder"], strict=True)]
        for name in ("base64", "float")
    }
    return {
        "clients": CLIENTS,
        "texts_each": EACH,
        "encoder_tokens_per_cpu_second": [round(value, 1) for value in found["encoder"]],
        "rounds": {name: found[name] for name in shares},
        "share": {name: round(statistics.median(values), 4) for name, values in shares.items()},
        "share_range": {name: [round(min(values), 4), round(max(values), 4)] for name, values in shares.items()},
    }


def ask(connection: socket.socket, data: bytes) -> int:
    """One request on a blocking socket, for the least of a client's own time; returns the status."""
    connection.sendall(data)
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += _more(connection)
    return int(head[9:12])


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 16)
    if not data:
        raise ConnectionError("the server closed the connection")
    return data


def idle(server: ServerProcess, encoder: Encoder, text: str, calls: int) -> dict[str, Any]:
    """One short text on an idle server, in turns with `Encoder.encode` of it."""
    (job,) = embeddings(encoder, [text], 1)
    times: dict[str, list[float]] = {"server": [], "encoder": []}
    with contextlib.closing(socket.create_connection(("127.0.0.1", server.port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(calls + 20):
            begun = time.perf_counter()
            status = ask(connection, job.data)
            between = time.perf_counter()
            encoder.encode(text, show_progress=False)
            ended = time.perf_counter()
            if status != 200:
                raise ConnectionError(f"an idle server answered {status}")
            if number >= 20:
                times["server"].append(between - begun)
                times["encoder"].append(ended - between)
    ms = {name: percentiles(values) for name, values in times.items()}
    return {"tokens": job.tokens, "ms": ms, "p50_over_encoder_ms": round(ms["server"]["p50"] - ms["encoder"]["p50"], 3)}


def capacity(server: ServerProcess, jobs: Sequence[Job], seconds: float) -> float:
    """Requests per second, each of the jobs' mean tokens, of clients that wait for their replies."""
    load = asyncio.run(closed_loop(server.port, jobs, FILLING, seconds))
    if load.statuses[200] != load.sent:
        raise ConnectionError(f"{FILLING} clients got {dict(load.statuses)}: capacity is measured without refusals")
    return load.tokens / load.seconds / statistics.mean(job.tokens for job in jobs)


async def _watched(
    server: ServerProcess, jobs: Sequence[Job], rate: float, seconds: float, leave: bool
) -> dict[str, Any]:
    """Open loop, with the server's memory, queue and progress every half second."""
    resident: list[int] = []
    moments: list[tuple[float, float]] = []
    limits: list[float] = []
    promised: list[float] = []
    before = server.cpu_seconds()

    async def watch() -> None:
        while True:
            resident.append(server.resident_bytes())
            with contextlib.suppress(OSError):
                asked = time.perf_counter()
                metrics = await asyncio.to_thread(server.metrics)
                now = (asked + time.perf_counter()) / 2
                moments.append((now, _sum(metrics, "bgert_tokens_total", LANE)))
                limits.append(_sum(metrics, "bgert_queue_limit_tokens", LANE))
                promised.append(limits[-1] / max(_sum(metrics, "bgert_tokens_per_second"), 1.0))
            await asyncio.sleep(0.5)

    watcher = asyncio.create_task(watch())
    load = await open_loop(server.port, jobs, rate, seconds, leave=leave)
    watcher.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watcher
    used = server.cpu_seconds() - before
    half = resident[len(resident) // 2]
    return load.facts() | {
        "server_cpu_seconds": round(used, 2),
        "client_share_of_cpu": round(load.own_cpu_seconds / max(load.own_cpu_seconds + used, 1e-9), 3),
        "queue_bound_ms": _bound_ms(moments, limits, jobs),
        "promised_ms": round(1e3 * max(promised), 1) if promised else None,
        "resident_bytes": {"start": resident[0], "half": half, "end": resident[-1], "max": max(resident)},
    }


def _bound_ms(moments: Sequence[tuple[float, float]], limits: Sequence[float], jobs: Sequence[Job]) -> float | None:
    """The longest that what a full queue holds has taken the server, by its own count of tokens done.

    A queue below its limit takes one request more, and on each core a batch of younger rows may end before.
    """
    over = max(job.tokens for job in jobs) + available_cpus() * BATCH_TOKENS
    times = [
        seconds
        for number, limit in enumerate(limits)
        if (seconds := drain_seconds(moments[number:], limit + over)) is not None
    ]
    return round(1e3 * max(times), 1) if times else None


def drain_seconds(moments: Sequence[tuple[float, float]], tokens: float) -> float | None:
    """How long after the first moment so many tokens more were done.

    Args:
        moments: seconds on a clock, and tokens done until then.
        tokens: how many more.

    Returns:
        Seconds, between two moments by the rule of three; None if it never came to that.
    """
    begun, had = moments[0]
    for (earlier, less), (later, done) in itertools.pairwise(moments):
        if done - had >= tokens:
            return earlier - begun + (later - earlier) * (had + tokens - less) / (done - less)
    return None


def _sum(metrics: dict[str, float], name: str, label: str = "") -> float:
    return sum(value for sample, value in metrics.items() if sample.startswith(name) and label in sample)


def offered(server: ServerProcess, jobs: Sequence[Job], full: float, times: float, seconds: float) -> dict[str, Any]:
    """Some multiple of capacity, by the clock."""
    found = asyncio.run(_watched(server, jobs, full * times, seconds, leave=False))
    return found | {"times_capacity": times, "share_of_capacity": round(found["goodput_per_second"] / full, 4)}


def overload(server: ServerProcess, jobs: Sequence[Job], full: float, times: float, seconds: float) -> dict[str, Any]:
    """More than capacity; then all clients leave."""
    found = asyncio.run(_watched(server, jobs, full * times, seconds, leave=True))
    return found | {"times_capacity": times, "share_of_capacity": round(found["goodput_per_second"] / full, 4)}


def recovery(server: ServerProcess, fresh: ServerProcess, jobs: Sequence[Job]) -> dict[str, Any]:
    """The speed of a server two seconds after an overload, beside one that had none, one after the other.

    Beside its own speed of a minute before, it would be the machine's drift that is measured.
    """
    time.sleep(SETTLE_SECONDS)
    after = capacity(server, jobs, RECOVERY_SECONDS)
    return {"speed_after_2_s": round(after / capacity(fresh, jobs, RECOVERY_SECONDS), 4)}


def abandoned(server: ServerProcess, encoder: Encoder, texts: Sequence[str], text: str, tries: int) -> dict[str, Any]:
    """30 clients send 64 texts each and leave; how long the next short query takes, in batches."""
    jobs = embeddings(encoder, texts, 64)
    (short,) = embeddings(encoder, [text], 1)
    delays: list[float] = []
    batches: list[float] = []
    address = ("127.0.0.1", server.port)
    with contextlib.closing(socket.create_connection(address)) as connection:
        quiet = statistics.median(_timed(connection, short.data) for _ in range(20))
        for _ in range(tries):
            before = _batches(server)
            clients = [socket.create_connection(address) for _ in range(30)]
            for number, client in enumerate(clients):
                client.sendall(jobs[number % len(jobs)].data)
            time.sleep(0.3)
            for client in clients:
                client.close()
            delays.append(_timed(connection, short.data) - quiet)
            after = _batches(server)
            batches.append((after[0] - before[0]) / max(after[1] - before[1], 1))
            time.sleep(1.0)
    in_batches = [delay / batch for delay, batch in zip(delays, batches, strict=True)]
    return {
        "requests": 30,
        "texts_each": 64,
        "delay_ms": [round(1e3 * delay, 2) for delay in delays],
        "batch_ms": [round(1e3 * batch, 2) for batch in batches],
        "delay_in_batches": {"median": round(statistics.median(in_batches), 2), "max": round(max(in_batches), 2)},
    }


def _timed(connection: socket.socket, data: bytes) -> float:
    begun = time.perf_counter()
    if (status := ask(connection, data)) != 200:
        raise ConnectionError(f"a short query got {status}")
    return time.perf_counter() - begun


def _batches(server: ServerProcess) -> tuple[float, float]:
    """Seconds and number of batches so far."""
    metrics = server.metrics()
    return _sum(metrics, "bgert_batch_seconds_sum"), _sum(metrics, "bgert_batch_seconds_count")
