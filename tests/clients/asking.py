"""What the programs of the clients share. It runs in their environments, so the standard library is all it needs."""

import contextlib
import http.client
import json
import os
import re
import socket
import sys
import threading
import time
import traceback
from array import array
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

TEXTS = ["Hello world", "Zwei Sätze 你好", "how to copy a folder with everything in it"]
QUERY = "which day of the week is it"
WORDS = ["day", "week", "time", "world", "house", "water", "people", "year", "work", "life"]
LONG = " ".join(WORDS[i * i % 10] for i in range(400))  # each word is one token of BERT's vocabulary
KEPT = 254  # tokens of a text that MiniLM takes beside its two special ones
DIMENSIONS = 64

_README = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8").partition("\n## Serve\n")[2]
README_CURL = re.search(r"^curl .*$", _README, re.MULTILINE)[0]
README_PYTHON = re.search(r"```python\n(.*?)```", _README, re.DOTALL)[1]
README_ADDRESS = "http://127.0.0.1:8080"
README_TEXTS = re.findall(r'input=(\["[^"]*"\])', README_PYTHON)

_calls = []
_given = json.loads(Path(os.environ["BGERT_CLIENTS"]).read_text("utf-8")) if "BGERT_CLIENTS" in os.environ else {}
URL = _given.get("url")
STRICT = _given.get("strict_url")
"""A server of two encoders and a reranker that takes one request at a time, of eight texts."""


def call(name, of=None):
    """What a client is asked to do: a row of the table. `of` names the package where a program has several."""
    return lambda function: _calls.append((name, of, function)) or function


def truth(*path):
    """What `Encoder` and `Reranker` of the server's own installation give."""
    value = _given["truth"]
    for name in path:
        value = value[name]
    return value


def float32(numbers):
    return array("f", numbers).tobytes()


def check_vectors(vectors, texts=TEXTS, kind="float32", length=384):
    """Bit for bit the vectors of the texts."""
    assert len(vectors) == len(texts), (len(vectors), len(texts))
    for text, vector in zip(texts, vectors, strict=True):
        expected = truth("vectors", kind, text)
        assert len(vector) == len(expected) == length, len(vector)
        same = float32(vector) == float32(expected) if kind.startswith("float32") else list(vector) == expected
        assert same, f"{text[:40]!r}: {vector[:3]} is not {expected[:3]}"


def check_scores(scores, top=None, kind="sigmoid", texts=TEXTS):
    """(index, score) best first, bit for bit the reranker's."""
    scores = list(scores)
    expected = truth("scores", kind)
    order = sorted(range(len(texts)), key=lambda index: -expected[index])[:top]
    assert [index for index, _ in scores] == order, (scores, expected)
    assert float32(score for _, score in scores) == float32(expected[index] for index in order), (scores, expected)


def tokens(texts=TEXTS):
    return sum(truth("tokens", text) for text in texts)


def check_refused(function, *words, kind=Exception):
    """The client's user reads the words of the server."""
    try:
        result = function()
    except kind as error:
        refusal = error
    else:
        raise AssertionError(f"not refused: {str(result)[:200]}")
    missing = [word for word in words if word not in str(refusal)]
    assert not missing, f"{missing} is not in {type(refusal).__name__}: {str(refusal)[:500]}"
    return refusal


class Busy:
    """Takes the only place that the strict server has, until a client has been refused for it."""

    def __init__(self):
        self.log = Path(_given["strict_log"])
        where = urlsplit(STRICT)
        self.address = where.hostname, where.port

    def __enter__(self):
        self.socket = socket.create_connection(self.address, timeout=30)
        head = "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n"
        self.socket.sendall(head.encode())
        while self._probe() != 429:
            time.sleep(0.02)
        time.sleep(0.1)  # until the log holds the probes
        self.begin = self.log.stat().st_size
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._release, daemon=True)
        self.thread.start()
        return self

    def _probe(self):
        with contextlib.closing(http.client.HTTPConnection(*self.address, timeout=30)) as connection:
            connection.request("POST", "/v1/embeddings", b"{}", {"content-type": "application/json"})
            return connection.getresponse().status

    def _release(self):
        while not self.over.is_set() and not any(status == 429 for status, _ in self.tries()):
            time.sleep(0.01)
        self.socket.close()

    def tries(self):
        """Status and time of each request since."""
        with self.log.open("rb") as file:
            file.seek(self.begin)
            lines = [json.loads(line) for line in file.read().split(b"\n")[:-1]]
        return [(line["status"], datetime.fromisoformat(line["time"])) for line in lines if line["status"] != 499]

    def __exit__(self, *error):
        self.over.set()
        self.thread.join()

    def check_retried(self):
        """One try was refused, the next one served, and not before the time that the refusal named."""
        self.__exit__()
        time.sleep(0.1)
        tries = self.tries()
        assert [status for status, _ in tries] == [429, 200], tries
        waited = (tries[1][1] - tries[0][1]).total_seconds()
        assert waited >= 0.95, f"Retry-After was 1 s, the next try came after {waited} s"


def main(package):
    """Make every call and write the rows to the file that is the argument."""
    rows = []
    for name, of, function in _calls:
        try:
            function()
            problem = None
        except Exception:
            problem = traceback.format_exc()
        client = of or package
        rows.append({"client": client, "version": version(client), "call": name, "problem": problem})
    Path(sys.argv[1]).write_text(json.dumps(rows), "utf-8")


def names_in(source, package):
    """The (client, call) of a program, read from its text."""
    for name, of in re.findall(r'^@call\("([^"]+)"(?:, of="([^"]+)")?\)$', source, re.MULTILINE):
        yield of or package, name
