"""A new process up to its first vector."""

import time

import pytest

from bgert import EngineError
from bgert.latency.cold_start import PARTS, cold_start, cold_starts

OPTIONS = {"device": "cpu", "precision": "auto", "threads": 1, "mode": "latency"}


def test_the_parts_make_up_the_whole(demo_folder):
    begun = time.monotonic()
    found = cold_starts("Encoder", demo_folder, OPTIONS, "a text", 2)
    took = time.monotonic() - begun
    assert len(found["runs"]) == 2
    for run in found["runs"]:
        assert all(run[name] > 0 for name in PARTS)
        assert sum(run[name] for name in PARTS) == pytest.approx(run["total_seconds"], abs=1e-3)
    assert sum(run["total_seconds"] for run in found["runs"]) < took
    low, high = sorted(run["total_seconds"] for run in found["runs"])
    assert low <= found["total_seconds"] <= high
    assert cold_starts("Encoder", demo_folder, OPTIONS, "a text", 0) is None


SLOW = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            time.sleep(1.5)
sys.meta_path.insert(0, Slow())
if not {module!r}:
    time.sleep(1.5)
"""


@pytest.mark.parametrize(
    ("module", "part"), [("", "python_seconds"), ("bgert.encoder", "import_seconds"), ("onnxruntime", "open_seconds")]
)
def test_what_is_slow_is_in_its_own_part(demo_folder, tmp_path, monkeypatch, module, part):
    (tmp_path / "sitecustomize.py").write_text(SLOW.format(module=module))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = cold_start("Encoder", demo_folder, OPTIONS, "a text")
    assert found[part] > 1.5
    assert max(PARTS, key=lambda name: found[name]) == part


def test_a_process_that_fails_says_why(demo_folder):
    with pytest.raises(EngineError, match=r"came to no vector: .*int3"):
        cold_start("Encoder", demo_folder, {**OPTIONS, "precision": "int3"}, "a text")
