"""What `tensorrt_api.json` says, against the real bindings of TensorRT 10.3, 10.16, 11.4, lean, RTX and CUDA."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = json.loads((ROOT / "tests" / "tensorrt_api.json").read_text())

# Our logger and progress monitor as subclasses of the real classes, and a builder that the library cannot make.
USE = r"""
import ctypes, importlib, json, sys, threading
folder, name, stubs, paths, builder = json.loads(sys.stdin.read())
for stub in stubs:
    ctypes.CDLL(stub, ctypes.RTLD_GLOBAL)
sys.path[:0] = [folder, *paths]
trt = importlib.import_module(name)
from bgert.backends.tensorrt.library import Log, version_of
from bgert.errors import EngineError
log = Log(trt)
log.logger.log(trt.ILogger.WARNING, "a warning")
assert log.take() == " (TensorRT logged no reason)"
log.logger.log(trt.ILogger.ERROR, "an\n error")
assert log.take() == ": an error"
assert version_of(trt)[0] in (1, 10, 11)
assert (trt.TensorIOMode.INPUT, trt.int32) == (trt.TensorIOMode.INPUT, trt.DataType.INT32)
assert trt.float32 == trt.DataType.FLOAT and trt.int32 != trt.float32
if builder:
    assert 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) in (1, 2)
    from bgert_export.tensorrt.builder import EngineBuilder, progress_monitor
    lines = []
    stop = threading.Event()
    monitor = progress_monitor(trt, "TensorRT", lines.append, stop)
    monitor.phase_start("phase", None, 3)
    assert monitor.step_complete("phase", 0) is True
    stop.set()
    assert monitor.step_complete("phase", 1) is False
    monitor.phase_finish("phase")
    assert lines == ["TensorRT: phase (3 steps)"]
    build = EngineBuilder(trt, None, None, None, None, lines.append)
    try:
        build._plan("absent.onnx", None, lean=False)
    except EngineError as error:
        assert "makes no builder" in str(error), error
    else:
        raise AssertionError("a builder out of nothing")
print("used")
"""


def tool():
    spec = importlib.util.spec_from_file_location("tensorrt_api", ROOT / "tools" / "tensorrt_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


API = tool()


def test_the_data_is_what_the_tool_asks_for():
    assert DATA["libraries"].keys() == API.BINDINGS.keys()
    for label, library in DATA["libraries"].items():
        wanted = API.used_by(label)
        assert {name: sorted(members) for name, members in library["classes"].items()} == {
            name: sorted(members) for name, members in wanted.items()
        }
        assert library["version"] == API.BINDINGS[label][1]
    assert sorted(DATA["cuda"]["functions"]) == sorted(API.CUDA_FUNCTIONS.split())
    assert DATA["cuda"]["device"] == API.CUDA_DEVICE


@pytest.mark.slow
@pytest.mark.parametrize("label", [*API.BINDINGS])
def test_bindings(label, tmp_path):
    """Read again from the wheel, and our subclasses made of its classes."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler for the stand-in libraries")
    try:
        found = API.read_bindings(label, tmp_path)
    except OSError as error:
        pytest.skip(f"the bindings cannot be had here: {error}")
    assert found == DATA["libraries"][label]
    lean = "lean" in label
    target = tmp_path / label.replace(" ", "-")
    stubs = sorted(str(path) for path in target.glob("*.so.*"))
    assert len(stubs) == len(API._LIBRARIES[label.split()[0]])
    paths = [str(ROOT / "runtime"), str(ROOT / "export")]
    request = json.dumps([str(target), API.BINDINGS[label][2], stubs, paths, not lean])
    done = subprocess.run([sys.executable, "-c", USE], input=request, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "used\n"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("version", API.CUDA)
def test_cuda_bindings(version, tmp_path):
    """The newest, which the data is made from, and the oldest that is promised."""
    if version == API.CUDA[0] and sys.version_info < (3, 11):
        pytest.skip("cuda-bindings 13.5 needs Python 3.11")
    try:
        found = API.read_cuda(version, tmp_path)
    except OSError as error:
        pytest.skip(f"cuda-bindings cannot be had here: {error}")
    assert found | {"version": ""} == DATA["cuda"] | {"version": ""}
    # Without a driver the real library says so, and so do we; on a machine with one the name of the GPU is read.
    script = (
        "from bgert.backends.cuda_runtime import CudaRuntime\nfrom bgert.errors import DeviceUnavailableError\n"
        "cuda = CudaRuntime()\n"
        "try:\n    print(cuda.device_count(), cuda.gpu().name)\n"
        "except DeviceUnavailableError as error:\n    print(error)\n"
    )
    paths = f"import sys; sys.path[:0] = {[str(tmp_path / 'cuda'), str(ROOT / 'runtime')]}\n"
    done = subprocess.run([sys.executable, "-c", paths + script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
