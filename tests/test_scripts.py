"""Every script can at least be asked what it does, where numpy and bgert are and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(
    path
    for folder in ("benchmarks", "tools", "examples")
    for path in (ROOT / folder).glob("*.py")
    if "parse_args(" in path.read_text("utf-8")
)
ALONE = """
import os, runpy, sys
allowed = {"numpy", "bgert", "bgert_export", *sys.stdlib_module_names}
room = os.path.dirname(sys.argv[1])
rooms = [place for place in (room, room + "/../tools") if os.path.isdir(place)]
here = {name.partition(".")[0] for place in rooms for name in os.listdir(place)}
class Allowed:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        known = top in allowed | here or top.startswith("_")
        return self.finder.find_spec(name, path, target) if known else None
sys.meta_path[:] = map(Allowed, sys.meta_path)
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_help_needs_numpy_alone(script):
    done = subprocess.run([sys.executable, "-c", ALONE, str(script), "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-400:]
    assert done.stdout.startswith("usage:")


def test_the_block_blocks(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import numpy, bgert\nimport onnxruntime\n")
    done = subprocess.run([sys.executable, "-c", ALONE, str(script)], capture_output=True, text=True)
    assert "No module named 'onnxruntime'" in done.stderr
