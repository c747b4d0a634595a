"""A server that is killed while clients wait: they are told at once, and the next one serves on the same address."""

import contextlib
import http.client
import json
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("faulty_server.py")
CLIENTS = 12


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(params=["port", "uds"])
def address(request, tmp_path):
    """The options of an address that stays the same, and a new connection to it."""
    if request.param == "uds":
        path = tmp_path / "socket"
        return ["--uds", str(path)], lambda: Unix(path)
    port = free_port()
    return ["--port", str(port)], lambda: http.client.HTTPConnection("127.0.0.1", port, timeout=60)


def ask(connection, text):
    with contextlib.closing(connection):
        connection.request("POST", "/v1/embeddings", json.dumps({"input": text, "encoding_format": "base64"}))
        response = connection.getresponse()
        return response.status, response.read()


def test_killed_under_load_and_started_again(start, prompted_folder, tmp_path, address):
    options, connect = address
    control = tmp_path / "fault"
    control.write_text("")
    program = [sys.executable, str(PROGRAM), str(control)]
    server = start([prompted_folder], *options, program=program)
    before = ask(connect(), "a text")
    assert before[0] == 200
    control.write_text("slow 600")
    sent, told = [], []

    def wait_for_a_reply(number):
        with contextlib.closing(connect()) as connection:
            connection.request("POST", "/v1/embeddings", json.dumps({"input": f"text {number}"}))
            sent.append(number)
            with pytest.raises((ConnectionError, http.client.HTTPException)):
                connection.getresponse()
        told.append(time.monotonic())

    threads = [threading.Thread(target=wait_for_a_reply, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    server.wait_for(lambda: len(sent) == CLIENTS)
    time.sleep(0.3)  # they are queued
    server.process.send_signal(signal.SIGKILL)
    assert server.process.wait() == -signal.SIGKILL
    killed = time.monotonic()
    for thread in threads:
        thread.join(30)
    assert len(told) == CLIENTS
    assert max(told) - killed < 10, "clients learn it from the connection, not from a timeout"
    control.write_text("")
    again = start([prompted_folder], *options, program=program)
    assert ask(connect(), "a text") == before
    assert again.stop() == 0
