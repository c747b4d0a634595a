"""Everything at one time: all dialects, clients that leave, bodies that are none. `BGERT_SOAK_SECONDS=3600` for long.

What is answered with 200 has the right bits, nothing is answered with 5xx, and memory, files and threads stay.
"""

import base64
import json
import os
import random
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

SECONDS = float(os.environ.get("BGERT_SOAK_SECONDS") or 8)
CLIENTS = 6
GROWTH = 1.05  # of memory from the middle to the end
WORDS = [
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


def floats(rows):
    return np.array(rows, np.float64).astype(np.float32)


def from_base64(texts):
    return np.stack([np.frombuffer(base64.b64decode(text), "<f4") for text in texts])


class Truth:
    """What `Encoder` and `Reranker` give for the texts that are sent."""

    def __init__(self, encoder, reranker, rng):
        sizes = [min(90, int(rng.lognormvariate(2, 1)) + 1) for _ in range(120)]
        self.texts = [" ".join(rng.choices(WORDS, k=size)) for size in sizes]
        self.rows = np.asarray(encoder.encode(self.texts))
        self.short = np.asarray(encoder.encode(self.texts, dimensions=64))
        self.query = "the panda of the model"
        pairs = [(self.query, text) for text in self.texts]
        self.logits = np.asarray(reranker.score(pairs))
        self.scores = np.asarray(reranker.score(pairs, sigmoid=True))
        self.ids = [encoder.tokenizer.encode(text).tolist() for text in self.texts[:8]]


def check_ranks(ranks, chosen, scores, name="score"):
    found = floats([rank[name] for rank in ranks])
    assert found.tolist() == scores[[chosen[rank["index"]] for rank in ranks]].tolist()
    assert found.tolist() == sorted(scores[chosen].tolist(), reverse=True)[: len(ranks)]


def openai(truth, texts, chosen):
    return "/v1/embeddings", {"input": texts, "model": "m"}, lambda reply: same(
        floats([item["embedding"] for item in reply["data"]]), truth.rows[chosen]
    )  # fmt: skip


def openai_base64(truth, texts, chosen):
    body = {"input": texts, "encoding_format": "base64", "dimensions": 64}
    return "/v1/embeddings", body, lambda reply: same(
        from_base64([item["embedding"] for item in reply["data"]]), truth.short[chosen]
    )  # fmt: skip


def tei_embed(truth, texts, chosen):
    return "/embed", {"inputs": texts}, lambda reply: same(floats(reply), truth.rows[chosen])


def root(truth, texts, chosen):
    return "/", {"inputs": texts}, lambda reply: same(floats(reply), truth.rows[chosen])


def cohere_v1(truth, texts, chosen):
    body = {"texts": texts, "model": "m", "truncate": "END"}
    return "/v1/embed", body, lambda reply: same(floats(reply["embeddings"]), truth.rows[chosen])


def cohere_v2(truth, texts, chosen):
    body = {"texts": texts, "model": "m", "embedding_types": ["base64", "float"]}

    def check(reply):
        same(from_base64(reply["embeddings"]["base64"]), truth.rows[chosen])
        same(floats(reply["embeddings"]["float"]), truth.rows[chosen])

    return "/v2/embed", body, check


def tei_rerank(truth, texts, chosen):
    body = {"query": truth.query, "texts": texts, "raw_scores": True}
    return "/rerank", body, lambda reply: check_ranks(reply, chosen, truth.logits)


def cohere_rerank(truth, texts, chosen):
    body = {"query": truth.query, "documents": texts, "top_n": 3}
    return "/v2/rerank", body, lambda reply: check_ranks(reply["results"], chosen, truth.scores, "relevance_score")


def predict(truth, texts, chosen):
    def check(reply):
        found = floats([labels[0]["score"] for labels in reply])
        assert found.tolist() == truth.scores[chosen].tolist()

    return "/predict", {"inputs": [[truth.query, text] for text in texts]}, check


def vertex(truth, texts, chosen):
    body = {"instances": [{"inputs": texts[:1]}, {"inputs": texts[-1]}]}
    return "/vertex", body, lambda reply: same(
        floats([rows[0] for rows in reply["predictions"]]), truth.rows[[chosen[0], chosen[-1]]]
    )  # fmt: skip


def tokenize(truth, texts, chosen):
    number = random.randrange(len(truth.ids))
    body = {"inputs": truth.texts[number]}
    return "/tokenize", body, lambda reply: same([token["id"] for token in reply[0]], truth.ids[number])


def same(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert found.tobytes() == expected.astype(found.dtype).tobytes()


GOOD = [openai, openai_base64, tei_embed, root, cohere_v1, cohere_v2]
GOOD += [tei_rerank, cohere_rerank, predict, vertex, tokenize]
BAD = [
    ("/v1/embeddings", b"{"),
    ("/v1/embeddings", b'{"input": [1, 2]}'),
    ("/v1/embeddings", b'{"input": "a", "dimensions": 0}'),
    ("/embed", b"\xff"),
    ("/embed", b"[" * 100_000),
    ("/rerank", b'{"query": 1}'),
    ("/v2/embed", b'{"texts": [""]}'),
    ("/predict", b'{"inputs": [["a", "b", "c"]]}'),
    ("/nowhere", b"{}"),
    ("/decode", b'{"ids": [-1]}'),
]


class Client:
    """Does something else each time, over a connection that it now and then leaves for another."""

    def __init__(self, server, truth, seed):
        self.server, self.truth, self.rng = server, truth, random.Random(seed)
        self.connection = server.connection()
        self.statuses = Counter()

    def ask(self, path, body):
        self.connection.request("POST", path, body, {"content-type": "application/json"})
        response = self.connection.getresponse()
        content = response.read()
        self.statuses[response.status] += 1
        return response.status, content

    def good(self):
        chosen = self.rng.choices(range(len(self.truth.texts)), k=self.rng.choice([1, 1, 2, 3, 8, 9, 40]))
        path, body, check = self.rng.choice(GOOD)(self.truth, [self.truth.texts[index] for index in chosen], chosen)
        status, content = self.ask(path, json.dumps(body))
        assert status in (200, 429), (path, status, content)
        if status == 200:
            check(json.loads(content))

    def bad(self):
        path, body = self.rng.choice(BAD)
        status, content = self.ask(path, body)
        assert 400 <= status < 500, (path, body[:50], status, content)
        assert json.loads(content)

    def leave(self):
        texts = self.rng.choices(self.truth.texts, k=60)
        body = json.dumps({"input": texts}).encode()
        head = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        data = head + body
        with self.server.socket() as connection:
            connection.sendall(data[: self.rng.choice([10, len(head), len(data) // 2, len(data), len(data)])])
            time.sleep(self.rng.choice([0, 0.01, 0.1]))
            if self.rng.random() < 0.3:
                connection.shutdown(socket.SHUT_WR)

    def look(self):
        path = self.rng.choice(["/health", "/metrics", "/v1/models", "/info", "/openapi.json"])
        assert self.server.get(path).status == 200

    def again(self):
        self.connection.close()
        self.connection = self.server.connection()

    def run(self, end):
        deeds = [self.good] * 12 + [self.bad, self.leave, self.look, self.again]
        while time.monotonic() < end:
            self.rng.choice(deeds)()
        self.connection.close()


def state(server):
    """Resident bytes, open files, threads."""
    folder = Path(f"/proc/{server.process.pid}")
    pages = int((folder / "statm").read_text().split()[1])
    return (
        pages * os.sysconf("SC_PAGE_SIZE"),
        len(list((folder / "fd").iterdir())),
        len(list((folder / "task").iterdir())),
    )


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory and files are read from /proc")
@pytest.mark.filterwarnings("ignore::bgert.TruncationWarning")
def test_soak(start, demo_folder, reranker_folder, encoder, reranker):
    seed = int(os.environ.get("BGERT_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print("seed", seed)
    rng = random.Random(seed)
    server = start([demo_folder, reranker_folder], "--no-access-log")
    truth = Truth(encoder, reranker, rng)
    clients = [Client(server, truth, rng.randrange(2**32)) for _ in range(CLIENTS)]
    failures, states = [], []
    begun = time.monotonic()
    end = begun + SECONDS

    def guarded(client):
        try:
            client.run(end)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    while time.monotonic() < end and not failures:
        states.append(state(server))
        time.sleep(min(0.5, SECONDS / 16))
    for thread in threads:
        thread.join(60)
    if failures:
        raise failures[0]
    statuses = sum((client.statuses for client in clients), Counter())
    assert statuses[200] > CLIENTS
    assert not any(status >= 500 for status in statuses)
    server.wait_for(lambda: all(server.metric(f'bgert_queue_tokens{{model="{name}",lane="{lane}"}}') == 0
                                for name in ("all-MiniLM-L6-v2", "tiny-reranker")
                                for lane in ("interactive", "bulk")))  # fmt: skip
    middle, last = states[len(states) // 2], states[-1]
    server.wait_for(lambda: state(server)[1] <= states[0][1] + 1, 30)
    files, count = state(server)[1:]
    print(f"{dict(statuses)} in {time.monotonic() - begun:.0f} s; resident MB {states[0][0] / 1e6:.0f}, "
          f"{middle[0] / 1e6:.1f} in the middle, {last[0] / 1e6:.1f} at the end; files {states[0][1]}, {files}; "
          f"threads {middle[2]}, {count}")  # fmt: skip
    assert last[0] < GROWTH * middle[0] + 8e6
    assert count <= middle[2] + 2
    assert "Traceback" not in server.said
    assert server.get("/health").status == 200
    assert server.stop() == 0
