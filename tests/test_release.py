"""What is asked of a wheel (release/check_wheel.py), asked of this build; and that a wrong one would be seen."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bgert.backends.onnx_cpu import kernels_name
from cpu_operators import SETS

ROOT = Path(__file__).resolve().parent.parent


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "release" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def truth(demo_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "truth"
    load("truth").write(folder, demo_folder)
    return folder


def check(folder, **variables):
    """Exit status and what was said, in a process of its own: what is imported is checked too."""
    command = [sys.executable, str(ROOT / "release" / "check_wheel.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})
    return done.returncode, done.stdout + done.stderr


def test_this_build_says_what_a_wheel_has_to(truth):
    status, said = check(truth)
    assert status == 0, said
    assert "largest difference of a component 0.0e+00" in said


@pytest.mark.parametrize("wrong", ["ids", "vectors", "nan"])
def test_a_wrong_wheel_is_seen(truth, wrong, tmp_path):
    (tmp_path / "model").symlink_to(truth / "model")
    content = json.loads((truth / "truth.json").read_text())
    vectors = np.load(truth / "vectors.npy")
    if wrong == "ids":
        content["ids"][-1][1] += 1
    elif wrong == "vectors":
        vectors[-1, -1] += 3e-5
    else:
        vectors[0, 0] = np.nan
    (tmp_path / "truth.json").write_text(json.dumps(content))
    np.save(tmp_path / "vectors.npy", vectors)
    status, said = check(tmp_path)
    assert status == 1
    assert "wrong: " + ("token ids" if wrong == "ids" else "vectors") in said


def test_kernels_are_those_that_the_system_says_the_processor_has():
    """The processor is asked by instruction, the system by its files."""
    best = load("check_wheel").best_kernels()
    if best is None:
        pytest.skip("no flags of the processor in /proc/cpuinfo")
    assert kernels_name() == best


def test_every_set_of_kernels_is_known_wherever_sets_are_listed():
    """A file is compiled for each; the fuzzers, the tests and what a wheel is asked go through all."""
    sources = ROOT / "runtime/src/cpu_ops"
    compiled = {path.stem.removeprefix("isa_") for path in sources.glob("isa_*.cpp")}
    named = re.search(r"kKernelNames\[\] = \{(.*?)\}", (sources / "kernels.h").read_text(), re.DOTALL)
    assert set(re.findall(r'"(\w+)"', named[1])) == compiled
    assert set(SETS) == compiled
    assert {"baseline", *load("check_wheel")._KERNELS} == compiled
    choose = (sources / "choose.cpp").read_text()
    assert {name for name in compiled if f"&kernels_{name};" in choose} == compiled


def test_slower_kernels_than_the_processor_has_are_seen(truth):
    if load("check_wheel").best_kernels() in (None, "baseline"):
        pytest.skip("no kernels but the baseline's for this processor")
    status, said = check(truth, BGERT_KERNELS="baseline")
    assert status == 1
    assert "wrong: kernels" in said


def test_the_workflow_and_the_metadata_agree_with_the_code():
    workflow = (ROOT / ".github/workflows/release.yml").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    for script in set(re.findall(r"release/\w+\.\w+", workflow + project)):
        assert (ROOT / script).is_file(), script
    least = re.search(r'requires-python = ">=3\.(\d+)"', project)[1]
    classifiers = [int(minor) for minor in re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', project)]
    assert classifiers == list(range(int(least), max(classifiers) + 1))
    built = [int(minor) for minor in re.findall(r"cp3(\d+)-\*", project)]
    assert built == classifiers


def test_the_changelog_has_the_version_that_is_next():
    version = re.search(r'^version = "(.*?)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert version in (ROOT / "CHANGELOG.md").read_text()
