"""The committed stub is the one that nanobind makes of the built module."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bgert

pytest.importorskip("nanobind", reason="nanobind is only there where the module was built")


def test_stub_is_up_to_date(tmp_path):
    made = tmp_path / "_native.pyi"
    command = [sys.executable, "-m", "nanobind.stubgen", "-q", "-m", "bgert._native", "-o", str(made)]
    subprocess.run(command, check=True)
    committed = Path(bgert.__file__).with_name("_native.pyi")
    assert definitions(committed) == definitions(made), f"run: {' '.join(command[:-1])} {committed}"


def definitions(path):
    """Every statement without its layout, in the order of the file."""
    return [ast.unparse(node) for node in ast.parse(path.read_text(encoding="utf-8")).body]
