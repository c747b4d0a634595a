"""`pip install .[cpu]` in a new virtual environment: what it brings, and that it encodes with that alone."""

import http.client
import json
import os
import re
import subprocess
import sys
import time
import venv
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {"torch", "transformers", "tokenizers", "safetensors", "onnx", "huggingface-hub", "pydantic-core", "orjson"}

ENCODE = """
import json, sys
import bgert
encoder = bgert.Encoder(sys.argv[1])
vectors = encoder.encode(json.loads(sys.argv[2]))
maps = open("/proc/self/maps").read().splitlines() if sys.platform == "linux" else []
libraries = sorted({line.split()[-1] for line in maps if ".so" in line.split()[-1]})
# a Rust library carries the standard library's panic messages
rust = [path for path in libraries if path.startswith(sys.prefix) and b"/rustc/" in open(path, "rb").read()]
print(json.dumps({"vectors": vectors.tolist(), "modules": sorted(sys.modules), "rust": rust}))
"""


def run(*argv):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(argv, capture_output=True, text=True, env=clean, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(folder):
    venv.create(folder, with_pip=True)
    return str(folder / ("Scripts" if sys.platform == "win32" else "bin") / "python")


def pip(python, *arguments):
    run(python, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """What `pip install .` installs; compiled once."""
    folder = tmp_path_factory.mktemp("wheel")
    pip(environment(folder / "builder"), "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def python(tmp_path_factory, wheel):
    made = environment(tmp_path_factory.mktemp("clean"))
    pip(made, "install", f"{wheel}[cpu]")
    return made


def packages(python):
    installed = json.loads(run(python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"))
    return {entry["name"].lower().replace("_", "-") for entry in installed}


@pytest.mark.slow
def test_plain_install_of_the_cpu_extra_encodes_without_torch_or_rust(python, demo_folder, encoder):
    names = packages(python)
    assert {"bgert", "numpy", "onnxruntime"} <= names
    assert not FORBIDDEN & names
    texts = ["a first text", "今天天气很好", ""]
    result = json.loads(run(python, "-c", ENCODE, str(demo_folder), json.dumps(texts)))
    np.testing.assert_allclose(result["vectors"], encoder.encode(texts), atol=1e-6)
    assert not {name.replace("-", "_") for name in FORBIDDEN} & set(result["modules"])
    assert result["rust"] == []


@pytest.mark.slow
def test_the_command_line_says_which_extra_export_needs(python, demo_checkpoint, tmp_path):
    command = [python, "-m", "bgert", "export", str(demo_checkpoint), "-o", str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "install the extra `export` (README, Install)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_without_the_extra_serve_the_command_says_so(python, demo_folder):
    done = subprocess.run([python, "-m", "bgert", "serve", str(demo_folder)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "install the extra `serve` (README, Install)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what a process has loaded is read from /proc")
def test_the_server_runs_on_the_extra_serve_without_rust(demo_folder, encoder, tmp_path, wheel):
    python = environment(tmp_path / "serving")
    pip(python, "install", f"{wheel}[cpu,serve]")
    names = packages(python)
    assert {"httptools", "msgspec", "uvloop"} <= names
    assert not FORBIDDEN & names
    log = tmp_path / "log"
    with log.open("wb") as errors:
        command = [python, "-m", "bgert", "serve", str(demo_folder), "--port", "0", "--no-access-log"]
        server = subprocess.Popen(command, stderr=errors, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not (found := re.search(r"ready on http://127.0.0.1:(\d+)", log.read_text())):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        client = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
        client.request("POST", "/v1/embeddings", json.dumps({"input": "a first text"}))
        reply = json.loads(client.getresponse().read())
        client.close()
        np.testing.assert_allclose(reply["data"][0]["embedding"], encoder.encode("a first text"), atol=1e-6)
        maps = Path(f"/proc/{server.pid}/maps").read_text().splitlines()
        libraries = {line.split()[-1] for line in maps if ".so" in line.split()[-1]}
        assert any("uvloop" in path for path in libraries)
        # the libraries of the interpreter itself are not ours
        own = [path for path in libraries if path.startswith(str(tmp_path))]
        assert [path for path in own if b"/rustc/" in Path(path).read_bytes()] == []
        server.terminate()
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.wait()
