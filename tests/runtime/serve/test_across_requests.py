"""The promise: a reply has the same bits whoever else is being served. And what happens when too many come."""

import asyncio
import base64
import contextlib
import json
import os
import random
import threading
import time
from http.client import HTTPResponse

import numpy as np
import pytest


@pytest.fixture
def rng():
    seed = int(os.environ.get("BGERT_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print("seed", seed)
    return random.Random(seed)


def texts_of(rng, count):
    words = [
        "panda",
        "bear",
        "stone",
        "water",
        "你好",
        "Straße",
        "export",
        "model",
        "2026",
        ",",
        ".",
        "the",
        "of",
        "and",
        "to",
    ]
    return [" ".join(rng.choices(words, k=min(80, int(rng.lognormvariate(2, 1)) + 1))) for _ in range(count)]


def in_threads(calls):
    failures = []

    def guarded(call):
        try:
            call()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.filterwarnings("ignore::bgert.TruncationWarning")
def test_replies_have_the_same_bits_whoever_else_is_served(server, encoder, reranker, rng):
    pool = texts_of(rng, 300)
    vectors = {text: encoder.encode(text).tobytes() for text in pool}  # each computed alone
    queries = texts_of(rng, 5)
    scores = {query: np.asarray(reranker.score([(query, text) for text in pool], sigmoid=True)) for query in queries}
    seeds = [rng.randrange(2**32) for _ in range(12)]

    def embed(seed):
        own = random.Random(seed)
        for _ in range(25):
            chosen = own.choices(pool, k=own.choice([1, 1, 2, 7, 8, 9, 40]))
            reply = server.post("/v1/embeddings", {"input": chosen, "encoding_format": "base64"})
            assert reply.status == 200
            for text, item in zip(chosen, reply.json["data"], strict=True):
                assert base64.b64decode(item["embedding"]) == vectors[text]

    def rank(seed):
        own = random.Random(seed)
        for _ in range(25):
            query, count = own.choice(queries), own.choice([1, 5, 30])
            chosen = own.sample(range(len(pool)), count)
            reply = server.post("/rerank", {"query": query, "texts": [pool[index] for index in chosen]})
            assert reply.status == 200
            for result in reply.json:
                assert np.float32(result["score"]) == scores[query][chosen[result["index"]]]

    calls = [lambda seed=seed: embed(seed) for seed in seeds[:9]]
    calls += [lambda seed=seed: rank(seed) for seed in seeds[9:]]
    before = server.metric("te_batch_next_size_count")
    in_threads(calls)
    assert server.metric("te_batch_next_size_count") > before


def test_requests_are_batched_across_clients(start, demo_folder):
    server = start([demo_folder], "--threads", "1")

    def ask():
        for _ in range(10):
            assert server.post("/v1/embeddings", {"input": "a short text"}).status == 200

    in_threads([ask] * 12)
    batches = server.metric("te_batch_next_size_count")
    assert server.metric("te_batch_next_size_sum") >= 120
    assert batches < 90, "waiting requests did not share batches"
    assert server.stop() == 0


def test_overload_gets_429_at_once_and_the_rest_is_served(start, demo_folder):
    """Many more clients than there is room for: only 200 and 429, short waits, ready all the time, full speed after."""
    limit = 3000
    server = start([demo_folder], "--max-queue-tokens", str(limit), "--max-concurrent-requests", "64")
    text = "some words of a passage that is as long as passages are " * 8
    body = json.dumps({"input": [text] * 4, "encoding_format": "base64"}).encode()
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    counts, waits, refusals, stop = {200: 0, 429: 0}, [], [], time.monotonic() + 6
    lock = threading.Lock()

    def client():
        with server.socket() as connection:
            while time.monotonic() < stop:
                sent = time.monotonic()
                connection.sendall(head + body)
                with contextlib.closing(HTTPResponse(connection)) as response:
                    response.begin()
                    response.read()
                waited = time.monotonic() - sent
                with lock:
                    counts[response.status] += 1
                    (waits if response.status == 200 else refusals).append(waited)
                if response.status == 429:
                    assert 1 <= int(response.getheader("retry-after")) <= 30
                    time.sleep(0.02)

    def probe():
        while time.monotonic() < stop:
            assert server.get("/health").status == 200
            time.sleep(0.1)

    before = server.metric("process_resident_memory_bytes")
    in_threads([client] * 40 + [probe])
    speed = server.metric('bgert_tokens_per_second{model="all-MiniLM-L6-v2"}')
    tokens = server.metric('bgert_tokens_total{model="all-MiniLM-L6-v2",lane="interactive"}')
    assert counts[429] > 0
    assert counts[200] > 0
    # A lane holds its limit and one request more; then a batch may already run on every thread.
    assert max(waits) < 3 * (limit + 4 * 110 + 1024) / (tokens / 6) + 0.5
    assert np.median(refusals) < np.median(waits) / 2
    assert server.metric("process_resident_memory_bytes") < before + 100e6
    begun = time.monotonic()
    assert server.post("/v1/embeddings", {"input": "a query"}).status == 200
    assert time.monotonic() - begun < 10
    assert speed > 0
    assert server.metric('bgert_queue_tokens{model="all-MiniLM-L6-v2",lane="interactive"}') == 0
    assert server.stop() == 0


def test_open_loop_overload(start, demo_folder, encoder):
    """Requests come by a clock at several times capacity, then all clients leave: the queue stays within its limit."""
    from bgert.loadtest.load import closed_loop, open_loop
    from bgert.loadtest.requests import embeddings, mixed_texts

    limit, model = 4000, 'model="all-MiniLM-L6-v2",lane="interactive"'
    server = start([demo_folder], "--max-queue-tokens", str(limit))
    jobs = embeddings(encoder, mixed_texts(encoder, 128), 8)
    most = max(job.tokens for job in jobs)
    alone = asyncio.run(closed_loop(server.port, jobs, 4, 1.0))
    assert set(alone.statuses) == {200}
    held, healthy, ended = [], [], threading.Event()

    def watch():
        while not ended.wait(0.05):
            held.append(server.metric(f"bgert_queue_tokens{{{model}}}"))
            healthy.append(server.get("/health").status)

    thread = threading.Thread(target=watch)
    thread.start()
    rate = max(20.0, 4 * alone.statuses[200] / alone.seconds)
    load = asyncio.run(open_loop(server.port, jobs, rate, 3.0, leave=True))
    ended.set()
    thread.join()
    assert set(load.statuses) == {200, 429}
    assert limit / 2 < max(held) < limit + most
    assert set(healthy) == {200}
    # What the clients left behind is dropped but for the batches that run.
    server.wait_for(lambda: server.metric(f"bgert_queue_tokens{{{model}}}") == 0)
    after = asyncio.run(closed_loop(server.port, jobs, 4, 1.0))
    assert set(after.statuses) == {200}
    assert server.stop() == 0


def test_a_request_that_never_fits_is_refused_for_ever_and_one_that_fits_waits(start, prompted_folder):
    server = start([prompted_folder], "--max-queue-tokens", "500")
    never = server.post("/v1/embeddings", {"input": ["word " * 50] * 20})
    assert never.status == 413
    assert "500" in never.json["error"]["message"]
    assert server.post("/v1/embeddings", {"input": ["a"] * 100}).status == 200
    assert server.stop() == 0


def test_too_many_requests_at_one_time_are_shed_before_their_body_is_read(start, prompted_folder):
    server = start([prompted_folder], "--max-concurrent-requests", "2")
    head = b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: 14\r\n\r\n"
    with server.socket() as one, server.socket() as two, server.socket() as three:
        one.sendall(head)
        two.sendall(head)
        server.wait_for(lambda: server.metric("process_open_fds") > 0)
        three.sendall(head)
        assert three.recv(1000).startswith(b"HTTP/1.1 429 ")
        assert server.get("/health").status == 200, "probes and metrics are not counted"
        one.sendall(b'{"inputs":"a"}')
        assert one.recv(1000).startswith(b"HTTP/1.1 200 ")
        three.sendall(b'{"inputs":"a"}' + head + b'{"inputs":"a"}')
        assert three.recv(1000).startswith(b"HTTP/1.1 200 "), "the refused body was read past"
    assert server.stop() == 0
