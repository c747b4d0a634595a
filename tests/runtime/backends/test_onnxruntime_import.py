"""ONNX Runtime is imported in one place, and collects nothing there."""

import ast
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from bgert.backends.onnxruntime_import import import_onnxruntime
from bgert.errors import EngineNotInstalledError

ROOT = Path(__file__).resolve().parents[3]
PLACE = "runtime/bgert/backends/onnxruntime_import.py"
ENCODE = """
import os, sys, bgert
encoder = bgert.Encoder(sys.argv[1])
encoder.encode(["some text", "another"])
child = os.fork()
if child == 0:
    encoder.encode("in the child")
    sys.exit(5)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
"""


@pytest.fixture
def surroundings(tmp_path):
    """An empty home, and nothing in the environment that speaks of telemetry."""
    (tmp_path / "home").mkdir()
    kept = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name and "XDG" not in name}
    return kept | {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "home")}


def test_no_file_is_written_and_a_forked_child_can_exit(demo_folder, surroundings):
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ENCODE, demo_folder], env=surroundings, timeout=60, check=True
    )
    assert list(Path(surroundings["HOME"]).rglob("*")) == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_socket_is_made_and_nothing_is_opened_to_write(demo_folder, surroundings, tmp_path):
    log = tmp_path / "calls"
    command = ["strace", "-f", "-qq", "-e", "trace=socket,connect,openat,open,creat,mkdir,mkdirat", "-o", str(log)]
    done = subprocess.run(
        [*command, sys.executable, "-B", "-W", "ignore", "-c", ENCODE, demo_folder],
        env=surroundings,
        timeout=120,
        capture_output=True,
        text=True,
    )
    if "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    calls = log.read_text()
    assert "onnxruntime_pybind11_state" in calls  # it sees what is opened
    suspicious = [
        line
        for line in calls.splitlines()
        if re.search(r"AF_INET|AF_INET6|connect\(|mkdir|O_CREAT|creat\(", line)
        or (re.search("O_WRONLY|O_RDWR", line) and "/dev/" not in line)
    ]
    assert suspicious == []


def test_every_way_to_switch_it_off_is_taken(monkeypatch):
    seen = []
    stand_in = types.ModuleType("onnxruntime")
    stand_in.disable_telemetry_events = lambda: seen.append(os.environ["ORT_DISABLE_TELEMETRY"])
    monkeypatch.setitem(sys.modules, "onnxruntime", stand_in)
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    assert import_onnxruntime() is stand_in
    assert seen == ["1"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_signal_during_the_import_is_no_missing_library(monkeypatch, stop):
    """C++ makes an ImportError of whatever a module that it imports raises."""

    class Interrupted:
        def find_spec(self, name, path=None, target=None):
            if name == "onnxruntime":
                try:
                    raise stop
                except BaseException as error:
                    raise ImportError("initialization failed") from error

    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(stop):
        import_onnxruntime()


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineNotInstalledError, match="extra `gpu`"):
        import_onnxruntime("gpu")


def imports_onnxruntime(source):
    for node in ast.walk(ast.parse(source)):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name for name in names if name.split(".")[0] == "onnxruntime")


def test_nobody_else_imports_it_first():
    """Peers have their variable from `surroundings` of benchmarks/peer_process.py; parts of it come after the whole."""
    found = {
        str(path.relative_to(ROOT)): names
        for room in ("runtime/bgert", "export", "benchmarks", "examples", "tools")
        for path in (ROOT / room).rglob("*.py")
        if (names := sorted(imports_onnxruntime(path.read_text("utf-8"))))
    }
    parts = {"runtime/bgert/backends/cuda/check.py", "tools/rehearse_cuda.py"}
    assert found.pop(PLACE) == ["onnxruntime"]
    assert all("onnxruntime" not in found.pop(part, []) for part in parts)
    assert all(name.startswith("benchmarks/peers/") for name in found)


def test_no_thread_is_left_by_the_import():
    code = "import os; from bgert.backends.onnxruntime_import import import_onnxruntime as load;"
    code += "import numpy; before = len(os.listdir('/proc/self/task')); load();"
    code += "print(len(os.listdir('/proc/self/task')) - before)"
    if not Path("/proc/self/task").exists():
        pytest.skip("no /proc")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 0
