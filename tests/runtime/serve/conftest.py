"""Servers as real processes, and a client that says exactly what is to be sent."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

TIMEOUT = 60


class Reply:
    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self):
        return json.loads(self.body)


class Server:
    """A `bgert serve` of its own, or a program in its place."""

    def __init__(self, folders, *options, program=None, environment=None, inherited=(), log, wait=True):
        command = program or [sys.executable, "-m", "bgert", "serve"]
        arguments = [*command, *map(str, folders), "--port", "0", *options]
        if "--uds" in options:
            arguments = [part for part in arguments if part not in ("--port", "0")]
        self.log = Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.with_suffix(".err").open("wb") as err, self.log.open("wb") as out:
            variables = os.environ | (environment or {})
            self.process = subprocess.Popen(arguments, stdout=out, stderr=err, env=variables, pass_fds=inherited)
        self.port = None
        if wait:
            self.wait_until_ready()

    @property
    def said(self):
        return self.log.with_suffix(".err").read_text("utf-8")

    def wait_until_ready(self):
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            assert self.process.poll() is None, self.said
            # Read once: it may say so between two looks.
            if found := re.search(r"ready on (?:unix socket .*|http://127\.0\.0\.1:(\d+))\n", self.said):
                self.port = found[1] and int(found[1])
                return self
            time.sleep(0.02)
        raise AssertionError(f"not ready: {self.said}")

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)

    def ask(self, method, path, body=None, headers=None):
        connection = self.connection()
        with contextlib.closing(connection):
            if body is not None and not isinstance(body, (bytes, str)):
                body = json.dumps(body)
            connection.request(method, path, body, {"content-type": "application/json"} | (headers or {}))
            return Reply(connection.getresponse())

    def post(self, path, body, headers=None):
        return self.ask("POST", path, body, headers)

    def get(self, path, headers=None):
        return self.ask("GET", path, None, headers)

    def socket(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)

    def metric(self, name):
        """The value of a sample, named with its labels."""
        lines = self.get("/metrics").body.decode().splitlines()
        values = [line.rsplit(" ", 1)[1] for line in lines if line.rsplit(" ", 1)[0] == name]
        assert values, f"no metric {name}"
        return float(values[0])

    def stop(self, number=signal.SIGTERM, timeout=TIMEOUT):
        """End it and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def lines(self):
        """The access log so far."""
        return [json.loads(line) for line in self.log.read_text("utf-8").split("\n")[:-1]]

    @staticmethod
    def wait_for(condition, seconds=TIMEOUT):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not come to pass"
            time.sleep(0.01)


@pytest.fixture(scope="session")
def reranker_folder(make_reranker_checkpoint, tmp_path_factory):
    from bgert_export import export

    folder = tmp_path_factory.mktemp("models") / "tiny-reranker"
    export(make_reranker_checkpoint(num_labels=1), folder, verify=False)
    return folder


@pytest.fixture(scope="session")
def reranker(reranker_folder):
    from bgert import Reranker

    return Reranker(reranker_folder)


@pytest.fixture(scope="session")
def prompted_folder(write_model, sentence_transformers_files, tmp_path_factory):
    """A tiny encoder with instructions for queries and documents."""
    from bgert_export import export

    root = tmp_path_factory.mktemp("prompted")
    files = sentence_transformers_files("mean", prompts={"query": "the query is ", "document": "text "})
    export(write_model(root / "checkpoint", files=files), root / "tiny-encoder", verify=False)
    return root / "tiny-encoder"


@pytest.fixture(scope="session")
def prompted(prompted_folder):
    from bgert import Encoder

    return Encoder(prompted_folder)


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """Starts servers and ends what the test left running."""
    pytest.importorskip("httptools", reason="the extra `serve` is not installed")
    pytest.importorskip("msgspec", reason="the extra `serve` is not installed")
    running = []

    def begin(folders, *options, **more):
        server = Server(folders, *options, log=tmp_path_factory.mktemp("serve") / "log", **more)
        running.append(server)
        return server

    yield begin
    for server in running:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.fixture(scope="session")
def server(start, demo_folder, reranker_folder):
    """One server of the demo encoder and a small reranker, which many tests share."""
    return start([demo_folder, reranker_folder])
