"""The build says what is missing in words of ours."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUNTIME = Path(__file__).resolve().parent.parent / "runtime"


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake on the path")
def test_missing_python_headers_are_named(tmp_path):
    found = {
        "SKBUILD": "ON",
        "Python_EXECUTABLE": sys.executable,
        "Python_INCLUDE_DIR": tmp_path,  # a folder without Python.h
    }
    definitions = [f"-D{name}={value}" for name, value in found.items()]
    done = subprocess.run(
        ["cmake", "-S", str(RUNTIME), "-B", str(tmp_path / "build"), *definitions], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "Python.h" in done.stderr
    assert "apt install python3-dev" in " ".join(done.stderr.split())
