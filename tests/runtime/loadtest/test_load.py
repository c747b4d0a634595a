"""Load by the clock, against a server whose delays are known."""

import asyncio
import contextlib
import math
import time

import pytest

from bgert.loadtest.client import FAILED, Pool, post
from bgert.loadtest.load import Job, Load, closed_loop, open_loop, percentiles
from bgert.loadtest.stages import drain_seconds

JOB = Job(post("/x", b"{}"), 2, 10)


@contextlib.asynccontextmanager
async def answering(reply):
    """A server on a free port; `reply(number)` gives what is written for a request, after a wait of its own."""
    seen = []
    tasks = set()

    async def serve(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n{}")
                seen.append(time.perf_counter())
                writer.write(await reply(len(seen)))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # the transports close


def ok(status=200, body=b"hello"):
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def test_open_loop_keeps_its_clock_and_hides_no_wait():
    """A server that stands still for 0.4 s at its first request delays those behind it, and all of that is counted."""
    gate = asyncio.Lock()

    async def reply(number):
        async with gate:
            await asyncio.sleep(0.4 if number == 1 else 0)
        return ok()

    async def main():
        async with answering(reply) as (port, seen):
            return await open_loop(port, [JOB], 50, 1.0, fixed=True), seen

    load, seen = asyncio.run(main())
    assert load.sent == len(seen) == 50 - (load.sent == 49)
    assert load.statuses == {200: load.sent}
    assert load.tokens == 10 * load.sent
    # Requests due within the 0.4 s wait for what is left of it: 0.4, 0.38, 0.36, ...
    slow = sorted(load.latencies, reverse=True)[:10]
    assert all(latency > 0.4 - 0.02 * place - 0.01 for place, latency in enumerate(slow))
    assert load.facts()["latency_ms"]["max"] >= 390


def test_poisson_arrivals_have_their_rate():
    async def reply(number):
        return ok()

    async def main():
        async with answering(reply) as (port, _):
            return await open_loop(port, [JOB], 300, 1.0, seed=5)

    load = asyncio.run(main())
    assert abs(load.sent - 300) < 5 * math.sqrt(300)


def test_clients_that_leave_are_counted_and_gone():
    async def reply(number):
        await asyncio.sleep(30)
        return ok()

    async def main():
        async with answering(reply) as (port, _):
            return await open_loop(port, [JOB], 50, 0.3, fixed=True, leave=True)

    begun = time.perf_counter()
    load = asyncio.run(main())
    assert time.perf_counter() - begun < 10
    assert load.left == load.sent > 10
    assert not load.statuses


def test_statuses_and_lost_connections():
    async def reply(number):
        return {1: ok(429), 2: b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\nshort"}.get(number, ok())

    async def main():
        async with answering(reply) as (port, _):
            pool = Pool(port)
            first = await pool.send(JOB.data)
            second = asyncio.create_task(pool.send(JOB.data))
            await asyncio.sleep(0.1)
            third = await pool.send(JOB.data)
            pool.close()
            return first, third, await second

    assert asyncio.run(main()) == ((429, b"hello"), (200, b"hello"), (FAILED, b""))


def test_nobody_listens():
    async def main():
        async with answering(None) as (port, _):
            pass
        return await Pool(port).send(JOB.data)

    assert asyncio.run(main()) == (FAILED, b"")


def test_closed_loop_has_at_most_so_many_under_way_and_ends_with_the_last_reply():
    under_way = most = 0

    async def reply(number):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.05)
        under_way -= 1
        return ok()

    async def main():
        async with answering(reply) as (port, _):
            return await closed_loop(port, [JOB], 3, 0.2)

    load = asyncio.run(main())
    assert most == 3
    assert load.sent == load.statuses[200] >= 6
    assert load.seconds >= max(load.done)


def test_goodput_counts_replies_within_the_window():
    load = Load(2.0, sent=4, done=[0.5, 1.0, 2.0, 2.5])
    assert load.goodput == 1.5


@pytest.mark.parametrize(("values", "expected"), [([], {}), ([0.002], {"p50": 2, "p95": 2, "p99": 2, "max": 2})])
def test_percentiles_of_few(values, expected):
    assert percentiles(values) == expected


def test_percentiles_are_measured_values():
    assert percentiles([n / 1000 for n in range(1, 101)]) == {"p50": 50, "p95": 95, "p99": 99, "max": 100}


def test_how_long_a_queue_took_by_the_tokens_done():
    moments = [(10.0, 1000), (10.5, 1500), (11.0, 1500), (12.0, 3500)]
    assert drain_seconds(moments, 250) == 0.25
    assert drain_seconds(moments, 500) == 0.5
    assert drain_seconds(moments, 1500) == 1.5
    assert drain_seconds(moments[1:], 2000) == 1.5
    assert drain_seconds(moments, 2501) is None
