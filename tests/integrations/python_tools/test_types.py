"""Type checkers find every listed mistake of typed_sample.py, and nothing wrong with the rest."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).with_name("typed_sample.py")
APP = Path(__file__).resolve().parents[3] / "examples" / "fastapi_app.py"
WRONG = {number for number, line in enumerate(SAMPLE.read_text("utf-8").splitlines(), 1) if line.endswith(")  # wrong")}


def mypy(folder, name="typed_sample.py"):
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "-O", "json", name],
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if done.returncode]
    return [(Path(one["file"]), one["line"], one["message"]) for one in found if one["severity"] == "error"]


def pyright(folder, name="typed_sample.py"):
    config = {"include": [name], "typeCheckingMode": "strict"}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(folder)],
        capture_output=True, text=True,
    )  # fmt: skip
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [
        (Path(one["file"]), one["range"]["start"]["line"] + 1, one["message"])
        for one in found
        if one["severity"] == "error"
    ]


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_mistakes_are_found_and_nothing_else(checker, tmp_path):
    shutil.copy(SAMPLE, tmp_path)
    found = checker(tmp_path)
    assert len(WRONG) > 25
    assert {file.name for file, _, _ in found} == {SAMPLE.name}, found
    lines = {line for _, line, _ in found}
    assert lines == WRONG, [one for one in found if one[1] not in WRONG] or sorted(WRONG - lines)


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_the_application_with_fastapi(checker, tmp_path):
    shutil.copy(APP, tmp_path)
    assert checker(tmp_path, APP.name) == []
