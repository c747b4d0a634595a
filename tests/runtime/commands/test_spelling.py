"""What the library says of its arguments, said of the command's options."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bgert
from bgert.commands.main import build_parser, main
from bgert.commands.spelling import PYTHON_ALONE, as_typed
from bgert.option_types import Device, values_of


@pytest.fixture(scope="module")
def reranker_folder(make_reranker_checkpoint, tmp_path_factory):
    from bgert_export import export

    folder = tmp_path_factory.mktemp("models") / "reranker"
    export(make_reranker_checkpoint(num_labels=1), folder, verify=False)
    return folder


ENCODE = ["encode", "{encoder}", "--input", "{tmp}/in.txt", "--output", "{tmp}/out.npy"]
RERANK = ["rerank", "{reranker}", "--query", "x", "--input", "{tmp}/in.txt"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([*ENCODE, "--prompt", "nope"], "unknown --prompt 'nope': this model has document, query"),
        ([*ENCODE, "--threads", "0"], "--threads is 0: use a whole number from 1, or leave it out"),
        ([*ENCODE, "--max-length", "1"], "--max-length is 1: this model takes"),
        ([*ENCODE, "--dimensions", "0"], "--dimensions is 0: this model takes"),
        ([*ENCODE, "--dtype", "int3"], "unknown --dtype 'int3': use"),
        ([*ENCODE, "--device", "tpu"], "unknown --device 'tpu': use"),
        ([*ENCODE, "--precision", "fp99"], "unknown --precision 'fp99': use"),
        ([*RERANK, "--truncation", "both"], "unknown --truncation 'both'"),
        ([*RERANK, "--top-k", "0"], "--top-k is 0"),
        ([*RERANK, "--prompt", "nope"], "unknown --prompt 'nope'"),
        (["rerank", "{encoder}", *RERANK[2:]], "holds an encoder: use it with `bgert encode`"),
        (["encode", "{reranker}", *ENCODE[2:]], "holds a reranker: use it with `bgert rerank`"),
        (["tokenize", "{encoder}", "x", "--max-length", "0"], "--max-length is 0"),
        (["tokenize", "{encoder}", "x", "--max-length", "-1"], "--max-length is -1"),
        (["bench", "{encoder}", "--threads", "0"], "--threads is 0"),
        (["bench", "{encoder}", "--latency", "--length", "16,2"], "--length is 2: this model takes"),
        (["bench-serve", "{encoder}", "--threads", "-2"], "--threads is -2"),
        (["serve", "{encoder}", "--device", "tpu"], "unknown --device 'tpu'"),
        (["export", "{encoder}", "-o", "{tmp}/m", "--target", "cpu,nope"], "unknown --target 'nope'"),
    ],
)
def test_errors_name_what_was_typed(demo_folder, reranker_folder, tmp_path, capsys, argv, said):
    (tmp_path / "in.txt").write_text("a text\n")
    argv = [part.format(encoder=demo_folder, reranker=reranker_folder, tmp=tmp_path) for part in argv]
    assert main(argv) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert said in error
    assert not re.search(r"\b[a-z_]+=|\bNone\b|bgert\.[A-Z]", error)


def test_a_warning_names_what_was_typed(demo_folder, tmp_path):
    (tmp_path / "in.txt").write_text("a text\n")
    argv = ["encode", str(demo_folder), "--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "out.npy")]
    done = subprocess.run([sys.executable, "-m", "bgert", *argv, "--threads", "999"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "warning: --threads is 999 and" in done.stderr


NAMES = [
    "device",
    "precision",
    "reranker_precision",
    "max_length",
    "split_special_tokens",
    "output",
    "max_tokens",
    "int8_floor",
]
FLAGS = {name: f"--{name.replace('_', '-')}" for name in NAMES}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("no driver: use device='cpu'; a container", "no driver: use --device cpu; a container"),
        ("device='cuda' needs Linux: use device='cpu'", "--device cuda needs Linux: use --device cpu"),
        ("pass max_length=128, or build", "pass --max-length 128, or build"),
        ("pass split_special_tokens=True instead", "pass --split-special-tokens instead"),
        ("set dimensions=4", "set dimensions=4"),
        ("unknown precision 'x': use", "unknown --reranker-precision 'x': use"),
        ("unknown precision 'fp32': use", "unknown --precision 'fp32': use"),
        ("unknown precision 'other': use", "unknown precision 'other': use"),
        ("output is fine", "output is fine"),
        ("max tokens is 0: this model takes", "--max-tokens is 0: this model takes"),
        ("int8_floor is 2.0: use a number", "--int8-floor is 2.0: use a number"),
        ("tokens of device is 3", "tokens of device is 3"),
        ("/a/folder is 3: what", "/a/folder is 3: what"),
    ],
)
def test_only_what_was_given_is_renamed(message, said):
    args = argparse.Namespace(flags=FLAGS, device="cuda", precision="fp32", reranker_precision="x", output="o.npy")
    args.max_tokens, args.int8_floor = 0, 2.0
    assert as_typed(message, args) == said
    assert as_typed(message, None) == message


def test_the_table_is_of_what_the_library_says():
    sources = "".join(path.read_text("utf-8") for path in Path(bgert.__file__).parent.rglob("*.py"))
    sources = re.sub(r"\{CLASSES\[found\]\}", "bgert.Encoder load it with bgert.Reranker", sources)
    for python in PYTHON_ALONE:
        assert sources.count(python) > 1, python  # the table itself, and where it is said


def test_help_has_every_device():
    """Of each command that takes one as a model does; `verify` names those that it knows."""
    (commands,) = [action for action in build_parser()._actions if action.dest == "command"]
    kinds = {re.sub(r":\d+", ":NUMBER", name) for name in values_of(Device)}
    takes = {}
    for name, parser in commands.choices.items():
        for action in parser._actions:
            if "--device" in action.option_strings:
                takes[name] = set(re.findall(r"[\w:-]+", action.help))
    assert {"encode", "rerank", "bench", "bench-serve", "eval", "serve", "verify"} <= takes.keys()
    assert {"cpu", "tensorrt", "tensorrt-rtx"} <= takes.pop("verify")
    for name, named in takes.items():
        assert kinds <= named, name
