"""Bodies of every kind on every route: always an answer, never a 500, always the dialect's error."""

import contextlib
import json
import os
import random
from http.client import HTTPResponse

import pytest

EMBED = {"input": ["a", "b"], "model": "m", "encoding_format": "float", "dimensions": 3, "user": "u", "task": "t"}
COHERE = {
    "texts": ["a", "b"],
    "model": "m",
    "input_type": "search_query",
    "embedding_types": ["float", "int8", "ubinary"],
    "truncate": "END",
    "output_dimension": 8,
    "max_tokens": 9,
    "inputs": [{"content": [{"type": "text", "text": "x"}]}],
}
RERANK = {"query": "q", "documents": ["a", {"text": "b"}], "texts": ["a"], "top_n": 1, "return_documents": True}
RERANK |= {"max_tokens_per_doc": 3, "raw_scores": True, "return_text": True, "rank_fields": ["text"], "priority": 1}
TEI = {"inputs": ["a", "b"], "truncate": True, "normalize": False, "dimensions": 2, "truncation_direction": "Right"}
SIMILARITY = {"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": {"prompt_name": "query"}}
ROUTES = {
    "/v1/embeddings": EMBED,
    "/embeddings": EMBED,
    "/v1/embed": COHERE,
    "/v2/embed": COHERE,
    "/rerank": RERANK,
    "/v1/rerank": RERANK,
    "/v2/rerank": RERANK,
    "/embed": TEI,
    "/": TEI,
    "/invocations": TEI,
    "/predict": {"inputs": [["a", "b"], ["c", "d"]], "raw_scores": False, "truncate": True},
    "/similarity": SIMILARITY,
    "/embed_all": TEI,
    "/embed_sparse": TEI,
    "/tokenize": {"inputs": ["a", "b"], "add_special_tokens": True, "prompt_name": "query"},
    "/decode": {"ids": [[1, 2], [3]], "skip_special_tokens": True},
    "/vertex": {"instances": [TEI, SIMILARITY]},
}
VALUES = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**70, -(2**70), 1.5, 1e308, "", "a", "\0", "é", "你好", "\U0001f600",
    "Left", "right", "a" * 5000, "word " * 400, [], [[]], [[[]]], {}, [None], ["a", 1], [1, "a"], [1], [[1, 2]],
    [-1], [2**40], ["a"] * 3, [["a"]], [["a", "b"]], [["a", "b", "c"]], {"text": "a"}, [{"text": "a"}],
    [{"content": []}], "int8", ["float"], ["hex"], "base64", "NONE", "START", "retrieval.query",
]  # fmt: skip
SPLINTERS = [b"[", b"{", b'"', b"\\ud800", b"\\u0000", b"1e999", b"NaN", b"\xff"]
STATUSES = {200, 400, 413, 422, 424}


@pytest.fixture
def rng():
    seed = int(os.environ.get("BGERT_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print("seed", seed)
    return random.Random(seed)


@pytest.fixture(scope="module")
def fuzzed(start, prompted_folder, reranker_folder):
    return start([prompted_folder, reranker_folder], "--request-timeout", "20")


class Client:
    """One connection that is used again and again, to be fast."""

    def __init__(self, server):
        self.server = server
        self.socket = server.socket()

    def post(self, path, body):
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        self.socket.sendall(head.encode() + body)
        with contextlib.closing(HTTPResponse(self.socket)) as response:
            response.begin()
            return response.status, response.read()


@pytest.fixture
def client(fuzzed):
    client = Client(fuzzed)
    with contextlib.closing(client.socket):
        yield client
    assert "Traceback" not in fuzzed.said


def check(path, body, status, content):
    assert status in STATUSES, (path, body[:300], status, content[:300])
    assert b"the server failed" not in content, (path, body[:300])
    reply = json.loads(content)
    if status == 200:
        return
    if path in ("/v1/embeddings", "/embeddings"):
        assert reply["error"].keys() == {"message", "type", "param", "code"}, (path, body)
    elif path.endswith("/embed") and path != "/embed":
        assert isinstance(reply["message"], str)
    elif "rerank" in path:
        assert {"message", "detail", "error", "error_type"} <= reply.keys()
    else:
        assert reply.keys() == {"error", "error_type"}, (path, body)


def changed(rng, value):
    """The value with something about it changed, at any depth."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        value = dict(value)
        name = rng.choice(list(value))
        choice = rng.random()
        if choice < 0.2:
            del value[name]
        elif choice < 0.6:
            value[name] = rng.choice(VALUES)
        else:
            value[name] = changed(rng, value[name])
        return value
    if isinstance(value, list) and value and rng.random() < 0.7:
        value = list(value)
        place = rng.randrange(len(value))
        value[place] = changed(rng, value[place])
        return value * rng.choice([1, 1, 1, 2])
    return rng.choice(VALUES)


def test_changed_bodies(client, rng):
    for path, good in ROUTES.items():
        for _ in range(120):
            body = good
            for _ in range(rng.randint(1, 3)):
                body = changed(rng, body)
            data = json.dumps(body, ensure_ascii=rng.random() < 0.5).encode()
            check(path, data, *client.post(path, data))


def test_broken_bytes(client, rng):
    for path, good in ROUTES.items():
        data = json.dumps(good).encode()
        for _ in range(60):
            piece = bytearray(data)
            for _ in range(rng.randint(1, 4)):
                place = rng.randrange(len(piece) + 1)
                choice = rng.random()
                if choice < 0.4:
                    piece[place : place + 1] = bytes([rng.randrange(256)])
                elif choice < 0.6:
                    del piece[place : place + rng.randint(1, 20)]
                elif choice < 0.8:
                    piece[place:place] = rng.choice(
                        [b"[", b"{", b'"', b"\\ud800", b"\\u0000", b"1e999", b"NaN", b"\xff"]
                    )
                else:
                    del piece[place:]
            check(path, bytes(piece), *client.post(path, bytes(piece)))


@pytest.mark.parametrize("path", ROUTES)
def test_bodies_that_have_hurt_others(client, path):
    name = next(iter(ROUTES[path]))
    for body in (
        b"",
        b"null",
        b"[]",
        b"0",
        b'""',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"%b":' % name.encode() + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"%b":"\\ud800"}' % name.encode(),
        b'{"%b":["\\udc00 a"]}' % name.encode(),
        b'{"%b":"\\u0000"}' % name.encode(),
        b'{"%b":NaN}' % name.encode(),
        b'{"%b":1e999}' % name.encode(),
        b'{"%b":"a","%b":["b"]}' % (name.encode(), name.encode()),
        b'{"%b":' % name.encode() + json.dumps(["a"] * 2049).encode() + b"}",
        b'{"%b":"' % name.encode() + b"ab " * 1_000_000 + b'"}',
        b'{"' + b"k" * 1_000_000 + b'":1}',
    ):
        check(path, body, *client.post(path, body))
