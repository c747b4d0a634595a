"""What docs/SERVING.md says of systemd, nginx and Kubernetes, run where the programs are and checked where not."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "SERVING.md").read_text("utf-8")


HAND_OVER = """
import os, sys
given, files, *command = sys.argv[1:]
os.dup2(int(given), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=files)
os.execv(sys.executable, [sys.executable, *command])
"""


def blocks(heading, kind):
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL)


def program(name):
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    return found or pytest.skip(f"{name} is not installed")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, method="POST", path="/embed", body=b'{"inputs": "a"}'):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()


@pytest.fixture
def listener():
    with socket.socket() as given:
        given.bind(("127.0.0.1", 0))
        given.listen(64)
        yield given


def on_given(start, listener, folders, *options, files=1, **more):
    """A server that is handed a socket as systemd does it: the third file, named in two variables."""
    kept = os.dup(listener.fileno())
    os.set_inheritable(kept, True)
    command = [sys.executable, "-c", HAND_OVER, str(kept), str(files), "-m", "bgert", "serve"]
    try:
        return start(folders, *options, program=command, inherited=(kept,), **more)
    finally:
        os.close(kept)


def test_a_given_socket_is_taken_and_a_restart_refuses_nobody(start, prompted_folder, listener):
    port = listener.getsockname()[1]
    first = on_given(start, listener, [prompted_folder])
    assert first.port == port
    before = ask(port)
    assert before[0] == 200
    assert first.stop() == 0
    replies = []
    waiting = threading.Thread(target=lambda: replies.append(ask(port)))
    waiting.start()  # while there is no server at all
    time.sleep(0.3)
    assert waiting.is_alive()
    second = on_given(start, listener, [prompted_folder], wait=False)
    waiting.join(60)
    # The new process answers from its first moment; while it loads, with 503 and when to come again.
    assert replies[0] == before or replies[0][0] == 503
    second.wait_until_ready()
    assert ask(port) == before
    assert second.stop() == 0


def test_a_given_unix_socket(start, prompted_folder, tmp_path):
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(tmp_path / "socket"))
        given.listen()
        server = on_given(start, given, [prompted_folder])
        assert f"unix socket {tmp_path / 'socket'}" in server.said
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "socket"))
            client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        assert server.stop() == 0
        assert (tmp_path / "socket").exists(), "it is systemd's"


def test_what_cannot_be_listened_on_is_refused(start, prompted_folder, listener, tmp_path):
    several = on_given(start, listener, [prompted_folder], files=2, wait=False)
    assert several.stop(0) == 2
    assert "LISTEN_FDS" in several.said
    both = on_given(start, listener, [prompted_folder], "--uds", str(tmp_path / "s"), wait=False)
    assert both.stop(0) == 2
    assert "--uds" in both.said
    with (tmp_path / "file").open("w") as file:
        none = on_given(start, file, [prompted_folder], wait=False)
        assert none.stop(0) == 2
        assert "LISTEN_FDS" in none.said


def test_variables_of_another_process_are_not_for_us(start, prompted_folder):
    server = start([prompted_folder], environment={"LISTEN_PID": "1", "LISTEN_FDS": "1"})
    assert server.get("/health").status == 200
    assert server.stop() == 0


def test_systemd_activates_it(prompted_folder, tmp_path):
    activate, port = program("systemd-socket-activate"), free_port()
    command = [activate, f"--listen=127.0.0.1:{port}", sys.executable, "-m", "bgert", "serve", str(prompted_folder)]
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
    try:
        end = time.monotonic() + 60
        status = None
        while status != 200:  # the first connection starts it
            assert process.poll() is None, (tmp_path / "said").read_text()
            assert time.monotonic() < end
            with contextlib.suppress(OSError):
                status, _ = ask(port)
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path):
    analyze = program("systemd-analyze")
    units = {re.match(r"# \S*/(\S+)\n", block)[1]: block for block in blocks("systemd", "ini")}
    assert set(units) == {"bgert.service", "bgert.socket"}
    for name, text in units.items():
        assert text.count("/opt/bgert/bin/bgert") == (name == "bgert.service")
        (tmp_path / name).write_text(text.replace("/opt/bgert/bin/bgert", shutil.which("true")))
    done = subprocess.run([analyze, "verify", *map(str, sorted(tmp_path.iterdir()))], capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if "bgert" in line]
    assert ours == []
    assert done.returncode == 0 or "bgert" not in done.stderr, done.stderr


class Unavailable(BaseHTTPRequestHandler):
    """A server that is starting."""

    asked = 0

    def do_POST(self):
        type(self).asked += 1
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(503)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def nginx(folder, ports):
    """nginx with the page's configuration but for the ports; gives its own."""
    binary, own = program("nginx"), free_port()
    (block,) = blocks("Several processes", "nginx")
    found = re.findall(r"\b8081\b(?=[ m]*max)|\b8082\b(?=[ m]*max)", block)
    assert found == ["8081", "8082"]
    for old, new in zip([*found, "8080"], [*ports, own], strict=True):
        block = re.sub(rf"(127\.0\.0\.1:|listen ){old}", rf"\g<1>{new}", block)
    paths = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    head = f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}"
    head += " user root;" if os.getuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(f"{head}\nhttp {{\naccess_log off;\n{paths}{block}}}\n")
    process = subprocess.Popen([binary, "-p", str(folder), "-c", str(config)], stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 30
        while True:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < end
            try:
                socket.create_connection(("127.0.0.1", own), timeout=1).close()
                break
            except OSError:
                time.sleep(0.02)
        yield own
    finally:
        process.terminate()
        process.wait(30)
        process.stderr.close()


def test_nginx_before_two_servers(start, prompted_folder, prompted, tmp_path):
    program("nginx")
    servers = [start([prompted_folder], "--max-client-batch", "4000") for _ in range(2)]
    alone = ask(servers[0].port)
    with nginx(tmp_path, [server.port for server in servers]) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(connection):
            for _ in range(40):
                connection.request("POST", "/embed", b'{"inputs": "a"}', {"content-type": "application/json"})
                response = connection.getresponse()
                assert (response.status, response.read()) == alone
        assert all(server.metric('te_request_count{method="single"}') > 1 for server in servers)
        assert sum(server.metric("process_open_fds") for server in servers) < 60, "connections are used again"
        large = json.dumps({"inputs": ["word " * 100] * 3000}).encode()
        assert len(large) > 1 << 20, "nginx' own limit"
        assert ask(port, body=large)[0] == 200
        assert ask(port, body=b"{")[0] == 400
        servers[0].process.kill()
        servers[0].process.wait()
        assert [ask(port) for _ in range(10)] == [alone] * 10
    assert servers[1].stop() == 0


def test_nginx_asks_another_where_one_is_not_ready(start, prompted_folder, tmp_path):
    program("nginx")
    server = start([prompted_folder])
    with HTTPServer(("127.0.0.1", 0), Unavailable) as starting:
        thread = threading.Thread(target=starting.serve_forever)
        thread.start()
        try:
            with nginx(tmp_path, [starting.server_port, server.port]) as port:
                assert {ask(port)[0] for _ in range(10)} == {200}
                assert Unavailable.asked > 0
        finally:
            starting.shutdown()
            thread.join()
    assert server.stop() == 0


def test_kubernetes_asks_what_the_server_promises():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    from bgert.serve.health import Health
    from bgert.serve.routes import routes
    from bgert.serve.service import Service
    from bgert.serve.settings import OPTIONS, Settings, variable

    (block,) = blocks("Kubernetes", "yaml")
    pod = yaml.safe_load(block)
    (container,) = pod["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment.keys() <= {variable(option) for option in OPTIONS} | {"BGERT_FOLDERS"}
    assert all(isinstance(value, str) for value in environment.values()), "Kubernetes takes no numbers there"
    (port,) = (entry["containerPort"] for entry in container["ports"])
    table = routes(Health(Service(Settings(folders=()))))
    probes = {name: container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
    for probe in probes.values():
        assert probe["httpGet"]["port"] == port == Settings(folders=()).port
        assert table[probe["httpGet"]["path"]].open, "probes have no key"
    # Liveness must not end a server that is busy, draining or loading; readiness must see all three.
    assert probes["liveness"]["httpGet"]["path"] == "/health/live"
    assert {probes[name]["httpGet"]["path"] for name in ("startup", "readiness")} == {"/health"}
    drains = float(environment["BGERT_DRAIN_DELAY"]) + float(environment["BGERT_DRAIN_TIMEOUT"])
    assert pod["terminationGracePeriodSeconds"] > drains
    # The last look of readiness comes within the delay.
    assert float(environment["BGERT_DRAIN_DELAY"]) >= probes["readiness"]["periodSeconds"]
