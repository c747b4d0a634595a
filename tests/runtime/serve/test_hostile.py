"""Connections that are slow, endless, broken or abandoned: others are served meanwhile, and memory stays bounded."""

import contextlib
import json
import socket
import threading
import time

import numpy as np
import pytest


@pytest.fixture(scope="module")
def small(start, prompted_folder):
    return start([prompted_folder], "--max-body", "100000")


@pytest.fixture(autouse=True)
def _still_well(small):
    yield
    assert small.process.poll() is None
    assert small.post("/embed", {"inputs": "a"}).status == 200
    assert "Traceback" not in small.said


def exchange(server, data, *, seconds=30, shut=False):
    """Send bytes and read until the server closes, or for so long."""
    with server.socket() as connection:
        connection.settimeout(seconds)
        with contextlib.suppress(ConnectionError, BrokenPipeError):
            connection.sendall(data)
        if shut:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while piece := connection.recv(1 << 16):
                received += piece
        return received


def post(body, *headers, path="/embed", length=None):
    length = len(body) if length is None else length
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


BODY = b'{"inputs":"a"}'
CLOSE = "connection: close"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n", b"400"),
        (b"GET http://[::1 HTTP/1.1\r\n\r\n", b"400"),
        (b"POST /embed HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", b"400"),
        (b"POST /embed HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", b"400"),
        (b"POST /embed HTTP/1.1\r\ncontent-length: -5\r\n\r\n", b"400"),
        (b"POST /embed HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n", b"400"),
        (b"POST /embed HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", b"405"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 200_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"b" * 200_000 + b" HTTP/1.1\r\n\r\n", b"431"),
    ],
)
def test_what_is_no_request_is_refused_and_closed(small, data, status):
    begun = time.monotonic()
    assert exchange(small, data).split(b" ")[1] == status
    assert time.monotonic() - begun < 5


def test_a_header_without_end_is_cut_off(small):
    with small.socket() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\na: ")

        def send_for_ever():
            while True:
                connection.sendall(b"b" * 65_536)

        with pytest.raises(OSError, match=r".*"):
            send_for_ever()
    assert small.metric("process_resident_memory_bytes") < 600e6


def test_bodies_over_the_limit_are_refused_before_they_are_read(small):
    begun = time.monotonic()
    reply = exchange(small, post(b"{", length=10 << 30))
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b"100000" in reply
    assert time.monotonic() - begun < 5
    chunk = b"2710\r\n" + b" " * 10_000 + b"\r\n"
    endless = exchange(small, b"POST /embed HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + chunk * 500)
    assert endless.startswith(b"HTTP/1.1 413 ")


def test_the_reply_to_a_large_refused_body_reaches_a_client_that_sends_all_of_it(small):
    body = b'{"inputs":"' + b"a" * 3_000_000 + b'"}'
    reply = exchange(small, post(body))
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert json.loads(reply.split(b"\r\n\r\n", 1)[1])["error_type"] == "Validation"


def test_expect_continue(small):
    with small.socket() as connection:
        connection.sendall(post(b"", "expect: 100-continue", CLOSE, length=len(BODY)))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(BODY)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    refused = exchange(small, post(b"", "expect: 100-continue", length=10 << 20))
    assert refused.startswith(b"HTTP/1.1 413 ")


def test_an_offer_of_http_2_does_not_keep_a_request_from_being_served(small):
    offer = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAARAAAAAAAIAAAAA")
    with small.socket() as connection:
        connection.sendall(post(BODY, *offer))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")
        connection.sendall(post(BODY, *offer)[:40])
        time.sleep(0.1)
        connection.sendall(post(BODY, *offer)[40:])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")


def test_requests_in_one_piece_are_answered_in_turn(small):
    bodies = [b'{"inputs":"%d"}' % number for number in range(50)]
    data = b"".join(post(body) for body in bodies[:-1]) + post(bodies[-1], CLOSE)
    replies = exchange(small, data).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert len(replies) == 50
    vectors = [json.loads(reply.split(b"\r\n\r\n", 1)[1]) for reply in replies]
    alone = [small.post("/embed", body).json for body in bodies[:5]]
    assert vectors[:5] == alone
    mixed = post(BODY) + post(b"{", path="/nowhere") + post(BODY, CLOSE)
    assert [reply[:3] for reply in exchange(small, mixed).split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200"]


def test_one_byte_at_a_time(small):
    with small.socket() as connection:
        for byte in post(BODY, CLOSE):
            connection.sendall(bytes([byte]))
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_chunked_bodies_http_1_0_and_head(small):
    chunks = b"POST /embed HTTP/1.1\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\ntrailer: x\r\n\r\n"
    assert exchange(small, chunks + pieces).startswith(b"HTTP/1.1 200 ")
    old = exchange(small, b"POST /embed HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY)
    assert old.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in old
    head = exchange(small, b"HEAD /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n")
    assert head.endswith(b"\r\n\r\n")
    assert b"content-length: 0" not in head


def test_bodies_in_an_encoding_are_refused(small):
    assert b"415" in exchange(small, post(BODY, "content-encoding: gzip", CLOSE)).split(b"\r\n")[0]


def test_silence_and_slowness_are_ended_and_disturb_nobody(small):
    """A silent connection, half a head, half a body, and a byte a second, all at one time."""
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        silent, half_head, half_body, drip = (stack.enter_context(small.socket()) for _ in range(4))
        half_head.sendall(b"POST /embed HTTP/1.1\r\nhost: ")
        half_body.sendall(post(BODY[:5], length=100))
        drip.sendall(post(b"", length=100))
        ended = {}
        while len(ended) < 4 and time.monotonic() - begun < 30:
            for name, connection in (("silent", silent), ("head", half_head), ("body", half_body), ("drip", drip)):
                if name in ended:
                    continue
                connection.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    try:
                        data = connection.recv(1000)
                    except ConnectionError:
                        data = b""
                    ended[name] = data
            if "drip" not in ended:
                with contextlib.suppress(OSError):
                    drip.sendall(b" ")
            assert small.post("/embed", BODY).status == 200
            time.sleep(0.5)
    assert ended["silent"] == b""
    assert ended["head"] == b""
    assert ended["body"].startswith(b"HTTP/1.1 408 ")
    assert ended["drip"].startswith(b"HTTP/1.1 408 ")


def test_a_reply_that_nobody_reads_is_given_up(start, prompted_folder):
    server = start([prompted_folder])
    body = json.dumps({"input": ["a"] * 2048}).encode()
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", server.port))
            connection.sendall(post(body, path="/v1/embeddings") * 2)
        time.sleep(1)
        files = server.metric("process_open_fds")
        server.wait_for(lambda: server.metric("process_open_fds") <= files - 4, 60)
    assert time.monotonic() - begun > 10
    assert server.stop() == 0


def test_a_client_that_leaves_or_half_closes_frees_its_work(small):
    for _ in range(20):
        with small.socket() as connection:
            connection.sendall(post(json.dumps({"inputs": ["word " * 60] * 200}).encode()))
    exchange(small, post(json.dumps({"inputs": ["word " * 60] * 200}).encode()), shut=True)
    small.wait_for(lambda: small.metric('bgert_queue_tokens{model="tiny-encoder",lane="bulk"}') == 0, 30)
    assert small.metric('bgert_refused_total{reason="left"}') >= 1


@contextlib.contextmanager
def files(count):
    """Let this process have so many open; the server takes what it may by itself."""
    resource = pytest.importorskip("resource", reason="this system has no such limits")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"a process may have {hard} open files here, and this needs {count}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("count", [1000, 10_000])
def test_many_connections_at_one_time(small, count):
    before = small.metric("process_resident_memory_bytes")
    with files(count + 200), contextlib.ExitStack() as stack:
        connections = []
        for _ in range(count):
            connections.append(stack.enter_context(small.socket()))
            connections[-1].sendall(b"GET /health HTTP/1.1\r\n\r\n")
        for connection in connections:
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        assert small.metric("process_open_fds") > count
        assert small.metric("process_resident_memory_bytes") - before < 10e6 + count * 20e3
        assert small.post("/embed", BODY).status == 200
    small.wait_for(lambda: small.metric("process_open_fds") < 100)


def test_abandoned_bulk_does_not_hold_up_the_next_query(start, demo_folder):
    """Thirty clients ask for 64 texts each and leave; the next one waits for what runs and no more."""
    server = start([demo_folder], "--threads", "1", "--max-queue-tokens", "1000000")
    texts = ["some words of a passage that is as long as passages are " * 4] * 64
    body = json.dumps({"input": texts}).encode()
    ran = 'bgert_texts_total{model="all-MiniLM-L6-v2",lane="bulk"}'
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            connection = stack.enter_context(server.socket())
            connection.sendall(post(body, path="/v1/embeddings"))
        time.sleep(0.2)
    before = server.metric(ran)
    assert server.post("/v1/embeddings", {"input": "a query"}).status == 200
    # A batch of 512 tokens may run: a small part of one of the thirty requests.
    assert server.metric(ran) - before < 64
    server.wait_for(lambda: server.metric('bgert_queue_tokens{model="all-MiniLM-L6-v2",lane="bulk"}') == 0, 20)
    assert server.metric('bgert_dropped_texts_total{model="all-MiniLM-L6-v2",lane="bulk"}') > 64 * 20
    assert server.stop() == 0


def test_a_query_does_not_wait_for_bulk_that_is_served(start, demo_folder, encoder):
    server = start([demo_folder])
    texts = ["some words of a passage that is as long as passages are " * 4] * 512
    replies = []
    thread = threading.Thread(target=lambda: replies.append(server.post("/v1/embeddings", {"input": texts})))
    begun = time.monotonic()
    thread.start()
    time.sleep(0.3)
    waits = []
    while thread.is_alive() and len(waits) < 20:
        sent = time.monotonic()
        reply = server.post("/v1/embeddings", {"input": "a query"})
        waits.append(time.monotonic() - sent)
        assert reply.status == 200
    thread.join()
    whole = time.monotonic() - begun
    assert len(waits) >= 3
    assert np.median(waits) < whole / 5
    assert replies[0].status == 200
    found = np.array([item["embedding"] for item in replies[0].json["data"]]).astype(np.float32)
    assert found.tobytes() == np.asarray(encoder.encode(texts)).tobytes()
    assert server.stop() == 0
