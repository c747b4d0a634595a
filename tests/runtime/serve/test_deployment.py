"""What deploys the server agrees with the server: containers, the page on serving, the dashboard."""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bgert.commands.main import build_parser

pytest.importorskip("httptools", reason="the extra `serve` is not installed")
pytest.importorskip("msgspec", reason="the extra `serve` is not installed")

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "SERVING.md").read_text("utf-8")
DOCKERFILES = ("Dockerfile", "Dockerfile.cuda")
INSTRUCTIONS = {"FROM", "RUN", "COPY", "ARG", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "CMD"}


def instructions(name):
    text = re.sub(r"\\\n", " ", (ROOT / name).read_text("utf-8"))
    return [tuple(line.split(" ", 1)) for line in text.splitlines() if line and not line.startswith("#")]


def families():
    from bgert.serve.metrics import Metrics

    return {family.name: family for family in Metrics().families}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_containers(name):
    from bgert.serve.settings import OPTIONS, variable

    found = instructions(name)
    assert {word for word, _ in found} <= INSTRUCTIONS
    stages = {rest.split(" AS ")[1] for word, rest in found if word == "FROM" and " AS " in rest}
    for word, rest in found:
        if word == "COPY":
            parts = rest.split()
            origin = next((part[7:] for part in parts if part.startswith("--from=")), None)
            assert origin in stages if origin else (ROOT / parts[0]).exists()
    # Whoever builds wheels reads these.
    extras = set(re.search(r"\)\[([\w,]+)\]", " ".join(rest for _, rest in found))[1].split(","))
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras)
    assert [rest for word, rest in found if word == "USER"] == ["bgert"]
    environment = dict(re.findall(r"(\w+)=(\S+)", next(rest for word, rest in found if word == "ENV")))
    assert set(environment) <= {variable(option) for option in OPTIONS}
    ((_, command),) = [entry for entry in found if entry[0] == "CMD"]
    shell = json.loads(command)[2]
    subprocess.run(["sh", "-n", "-c", shell], check=True)
    build_parser().parse_args(shlex.split(shell.partition("exec bgert ")[2]))
    assert "BGERT_FOLDERS=" in shell


@pytest.mark.parametrize("name", DOCKERFILES)
def test_health_check_is_a_command_that_tells_a_server_from_none(name, server):
    ((_, check),) = [entry for entry in instructions(name) if entry[0] == "HEALTHCHECK"]
    program = json.loads(check.partition("CMD ")[2])

    def status(port):
        run = [sys.executable, *program[1:]]
        return subprocess.run(run, env=os.environ | {"BGERT_PORT": str(port)}, stderr=subprocess.DEVNULL).returncode

    assert program[0] == "python"
    assert status(server.port) == 0
    assert status(1) != 0


def test_page_has_every_option_and_no_other():
    from bgert.serve.settings import OPTIONS, variable

    parser = argparse.ArgumentParser()
    from bgert.serve.settings import add_options

    add_options(parser)
    flags = {flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")} - {"--help"}
    rows = re.findall(r"^\| `(--[\w-]+)[^`]*` \| `(BGERT_\w+)", PAGE, re.MULTILINE)
    assert {flag for flag, _ in rows} == flags
    assert {name for _, name in rows} == {variable(option) for option in OPTIONS} | {"BGERT_ACCESS_LOG"}


def test_page_has_every_metric_of_a_fresh_server(start, demo_folder):
    text = start([demo_folder]).get("/metrics").body.decode()
    exposed = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    rows = set(re.findall(r"^\| `(\w+)`(?: by [\w, ]+)? \| (?:counter|gauge|histogram): ", PAGE, re.MULTILINE))
    assert rows == exposed == set(families())


def test_page_names_routes_that_exist():
    from bgert.serve.health import Health
    from bgert.serve.routes import routes
    from bgert.serve.service import Service
    from bgert.serve.settings import Settings

    known = set(routes(Health(Service(Settings(folders=())))))
    section = PAGE.partition("## Routes")[2].partition("\n## ")[0]
    named = {path.replace("{id}", "*") for path in re.findall(r"(?<=[`\s])(/[\w./{}]*)(?=`)", section)}
    assert named <= known
    assert known <= named | {"/models", "/models/*", "/embed_all", "/embed_sparse"}


def test_dashboard_asks_for_what_the_server_exposes():
    known = families()
    board = json.loads((ROOT / "deploy" / "grafana.json").read_text("utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(queries) > 15
    for query in queries:
        names = set(re.findall(r"\b(?:te|bgert|process)_\w+", query))
        assert names, query
        for name in names:
            family = known.get(name) or known[re.sub(r"_(bucket|sum|count)$", "", name)]
            assert (family.kind == "histogram") == (name not in known), query
        for labels in re.findall(r"by \(([^)]*)\)", query):
            allowed = {label for name in names for label in known[_base(name, known)].labels} | {"le"}
            assert {label.strip() for label in labels.split(",")} <= allowed, query
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def _base(name, known):
    return name if name in known else re.sub(r"_(bucket|sum|count)$", "", name)


def test_curl_of_the_readme(start, demo_folder, encoder, tmp_path):
    """The README's lines, on the demo model: the server's name is the folder's."""
    (block,) = [
        text
        for text in re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
        if "curl " in text
    ]
    serve, curl = block.strip().splitlines()
    folder = shlex.split(serve)[2]
    shutil.copytree(demo_folder, tmp_path / folder)
    server = start([tmp_path / folder])
    command = shlex.split(curl)
    assert command[0] == "curl"
    body = json.loads(command[command.index("-d") + 1])
    path = re.fullmatch(r"http://127\.0\.0\.1:8080(/\S+)", command[1])[1]
    found = server.post(path, body).json
    assert found["model"] == folder
    vectors = np.array([row["embedding"] for row in found["data"]], np.float32)
    np.testing.assert_array_equal(vectors, encoder.encode(body["input"]))
