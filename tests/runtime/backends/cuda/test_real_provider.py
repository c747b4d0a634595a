"""ONNX Runtime's real CUDA provider, its host code alone, on stand-ins for NVIDIA's libraries.

`BGERT_ONNXRUNTIME_GPU` is a folder with onnxruntime-gpu, nvidia-cuda-runtime and nvidia-cuda-crt, as `pip install
--target` makes it. Kernels do not run, so nothing here is about numbers.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bgert_export import export

ROOT = Path(__file__).resolve().parents[4]
FOLDER = os.environ.get("BGERT_ONNXRUNTIME_GPU")
pytestmark = [
    pytest.mark.skipif(FOLDER is None, reason="BGERT_ONNXRUNTIME_GPU names no folder with onnxruntime-gpu"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the stand-ins"),
]
OPEN = """
import json, sys, threading
from pathlib import Path
import numpy as np
from bgert.backends.choose import open_backend
from bgert.batching import PackedBatch
from bgert.model_folder import Manifest

folder, device = Path(sys.argv[1]), sys.argv[2]
backend = open_backend(folder, Manifest.read(folder), device=device, precision="auto", threads=None, mode="throughput")

def run(lengths):
    cuts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    ids = np.full(cuts[-1], 7, np.int32)
    return backend.run(PackedBatch(ids, cuts, np.zeros_like(ids))).shape

shapes = [run(lengths) for lengths in ([9], [3, 20, 7], [60] * 30, [60] * 100)]
print(json.dumps([shapes, [len(lane._graphs) for lane in backend._session.lanes]]))
"""


@pytest.fixture(scope="module")
def folder(write_model, sentence_transformers_files, tmp_path_factory):
    root = tmp_path_factory.mktemp("provider")
    checkpoint = write_model(root / "checkpoint", files=sentence_transformers_files("mean"))
    export(checkpoint, root / "model", targets=["cuda"], verify=False)
    return root / "model"


def opened(folder, log, device):
    """What was printed on both, the log of CUDA's calls, and what the program found."""
    command = [sys.executable, "tools/rehearse_cuda.py", "run", sys.executable, "-W", "error", "-c", OPEN]
    variables = {"PYTHONPATH": os.pathsep.join([FOLDER, str(ROOT / "runtime")]), "FAKE_CUDA_LOG": str(log)}
    done = subprocess.run(
        [*command, str(folder), device], cwd=ROOT, env=os.environ | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stderr, log.read_text().splitlines(), *json.loads(done.stdout)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_opening_says_nothing_and_captures_launches_alone(folder, tmp_path, device):
    """The real provider warns of a device that it looked for; and a run may neither wait nor allocate in a capture."""
    stderr, log, shapes, graphs = opened(folder, tmp_path / "log", device)
    assert stderr == ""
    assert [shape[0] for shape in shapes] == [1, 3, 30, 100]
    assert len(graphs) == 2
    assert graphs[0] == graphs[1] > 10
    inside, captures = None, []
    for line in log:
        if line.startswith("cudaStreamBeginCapture"):
            captures.append(inside := [])
        elif line.startswith("cudaStreamEndCapture"):
            inside = None
        elif inside is not None:
            inside.append(line.split()[0])
    assert len(captures) == sum(graphs)
    for calls in captures:
        assert calls.count("cudaMemcpyAsync") == 2
        assert calls.count("kernel") > 5
        assert set(calls) <= {"cudaMemcpyAsync", "cudaMemsetAsync", "kernel", "submitted"}  # last: of stand-ins
    launches = [line for line in log if line.startswith("cudaGraphLaunch")]
    assert len(launches) == sum(graphs) + 3  # to hold the numbers against a plain run's; then the three small batches
    assert len({line.split()[-1] for line in launches}) == 1
