"""The README tells the truth: its Python runs, its figures are those of the committed results."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from bgert.commands.main import build_parser
from bgert_export import INT8_FLOOR, export
from bgert_export.architecture import _CLASSES
from bgert_export.verification.verify import TOLERANCES

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def test_python_blocks_run_after_the_commands_before_them(demo_folder, make_reranker_checkpoint, tmp_path, monkeypatch):
    """The first block's folders are those that the `bgert export` lines before it make."""
    text = README.read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    folders = set(re.findall(r"^bgert export BAAI/\S+ -o (\S+)", text.partition("```python")[0], re.MULTILINE))
    assert folders == set(re.findall(r"bgert\.(?:Encoder|Reranker)\(\"(.*?)\"", blocks[0]))
    (tmp_path / "bge-small-en-v1.5").symlink_to(demo_folder)
    export(make_reranker_checkpoint(num_labels=1), tmp_path / "bge-reranker-base", verify=False)
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_tables_and_plots_agree_with_the_results():
    spec = importlib.util.spec_from_file_location("report", ROOT / "benchmarks" / "report.py")
    report = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(report)
    assert report.stale() == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_files_that_are_named_exist(name):
    text = (ROOT / name).read_text()
    for path in re.findall(r"`((?:benchmarks|examples|tests|export|runtime|tools)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


def test_tolerances_are_those_of_the_code():
    rows = {}
    for line in README.read_text("utf-8").split("What passes")[1].split("\n\n")[1].splitlines()[2:]:
        name, *cells = (cell.strip().split(" ")[0] for cell in line.strip("|").split("|"))
        rows[name] = [float(cell) if cell else None for cell in cells]
    expected = {
        precision: [
            TOLERANCES["encoder", precision].max_abs_error,
            TOLERANCES["encoder", precision].min_cosine,
            TOLERANCES["encoder", precision].mean_cosine,
            TOLERANCES["reranker", precision].max_abs_error,
        ]
        for _, precision in TOLERANCES
    }
    assert rows == expected | {"int8": [None, None, INT8_FLOOR, None]}


def test_supported_models_are_those_of_the_code():
    (line,) = re.findall(r"^Models: .*", README.read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"\*\*([\w-]+)\*\*", line)) == set(_CLASSES)


def test_commands_and_their_options_exist():
    """Every `bgert ...` line of the README and the pages is one that the parser takes."""
    for page in (README, *(ROOT / "docs").glob("*.md")):
        for block in re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            for line in re.findall(r"^bgert .*", block, re.MULTILINE):
                build_parser().parse_args(shlex.split(line, comments=True)[1:])
