"""`pip install .[cpu]` in a new virtual environment: what it brings, and that it encodes with that alone."""

import json
import os
import subprocess
import sys
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


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    executable = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    run(str(executable), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{ROOT}[cpu]")
    return str(executable)


@pytest.mark.slow
def test_plain_install_of_the_cpu_extra_encodes_without_torch_or_rust(python, demo_folder, encoder):
    installed = json.loads(run(python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"))
    names = {entry["name"].lower().replace("_", "-") for entry in installed}
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
