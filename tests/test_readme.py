"""The README tells the truth: its Python runs, its figures are those of the committed results."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bgert.commands.main import build_parser
from bgert_export import FP8_FLOOR, INT8_FLOOR, export
from bgert_export.verification.verify import TOLERANCES
from hub_stand_in import environment, files_of, serve

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
EXPORT = ROOT / "docs" / "EXPORT.md"


def test_python_blocks_run(demo_folder, make_reranker_checkpoint, tmp_path, monkeypatch):
    """With model folders at the paths that the hub ids of the first block would be; a path wins."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    (tmp_path / "BAAI").mkdir()
    (tmp_path / "BAAI" / "bge-small-en-v1.5").symlink_to(demo_folder)
    export(make_reranker_checkpoint(num_labels=1), tmp_path / "BAAI" / "bge-reranker-base", verify=False)
    monkeypatch.chdir(tmp_path)
    own = [block for block in blocks if "import openai" not in block]  # tests/clients runs that one, with a server
    assert len(own) == len(blocks) - 1
    for block in own:
        exec(compile(block, "README.md", "exec"), {})


def test_the_first_snippet_takes_hub_ids(demo_checkpoint, make_reranker_checkpoint, tmp_path):
    """As printed, against a stand-in for the hub, without PyTorch; and again with the hub switched off."""
    snippet = re.search(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)[1]
    ids = re.findall(r"bgert\.(?:Encoder|Reranker)\(\"(.*?)\"", snippet)
    assert ids == ["BAAI/bge-small-en-v1.5", "BAAI/bge-reranker-base"]
    hide = "import sys\nsys.modules['torch'] = None\nimport importlib.util as util\nfind = util.find_spec\n"
    hide += "util.find_spec = lambda name, *more: None if name == 'torch' else find(name, *more)\n"
    for one, folder in zip(ids, (demo_checkpoint, make_reranker_checkpoint(num_labels=1)), strict=True):
        line = next(line for line in snippet.splitlines() if one in line)
        others = [line for line in snippet.splitlines() if not any(other in line for other in ids)]
        code = "\n".join([line, *others] if "Encoder" in line else ["import bgert", line])
        with serve(files_of(folder), name=one) as server:
            for offline in (False, True):
                variables = environment(server, tmp_path / "hub", offline=offline)
                variables["BGERT_CACHE"] = str(tmp_path / "bgert")
                script = hide + "import bgert\n" + code
                done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True,
                                      timeout=300)  # fmt: skip
                assert done.returncode == 0, done.stderr
                assert done.stderr.count("UnverifiedWarning") == 1
    assert len(list((tmp_path / "bgert").rglob("manifest.json"))) == 2


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
    for line in EXPORT.read_text("utf-8").split("What passes")[1].split("\n\n")[1].splitlines()[2:]:
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
    assert rows == expected | {"int8": [None, None, INT8_FLOOR, None], "fp8": [None, None, FP8_FLOOR, None]}


def test_commands_and_their_options_exist():
    """Every `bgert ...` line of the README and the pages is one that the parser takes."""
    for page in (README, *(ROOT / "docs").glob("*.md")):
        for block in re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            for line in re.findall(r"^bgert .*", block, re.MULTILINE):
                build_parser().parse_args(shlex.split(line, comments=True)[1:])
