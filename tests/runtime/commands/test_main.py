"""The command line, called as a function."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest

from bgert import Reranker
from bgert.commands.main import build_parser, main


def test_help_has_an_example_each():
    (commands,) = [action for action in build_parser()._actions if action.dest == "command"]
    names = {"export", "verify", "info", "encode", "rerank", "tokenize", "serve", "bench", "eval"}
    assert names <= commands.choices.keys()
    for name, parser in commands.choices.items():
        assert f"bgert {name}" in parser.format_help().split("example", 1)[1]


def test_info(demo_folder, capsys):
    assert main(["info", str(demo_folder)]) == 0
    out = capsys.readouterr().out
    assert "mean pooling" in out
    assert "NOT VERIFIED" in out
    assert main(["info", str(demo_folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "encoder"


def test_encode_txt_to_npy(demo_folder, encoder, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("first text\nsecond\n")
    out = tmp_path / "out.npy"
    assert main(["encode", str(demo_folder), "--input", str(tmp_path / "in.txt"), "--output", str(out)]) == 0
    np.testing.assert_allclose(np.load(out), encoder.encode(["first text", "second"]), atol=1e-6)
    assert "2 embeddings of 384 x float32" in capsys.readouterr().out


def test_encode_stdin_to_jsonl(demo_folder, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"hello\n")))
    out = tmp_path / "out.jsonl"
    argv = [
        "encode",
        str(demo_folder),
        "--input",
        "-",
        "--output",
        str(out),
        "--dtype",
        "int8",
        "--dimensions",
        "16",
    ]
    assert main(argv) == 0
    assert json.loads(out.read_text()) == encoder.encode("hello", dtype="int8", dimensions=16).tolist()


def test_a_failed_run_leaves_the_old_file(demo_folder, tmp_path, capsys):
    (tmp_path / "in.jsonl").write_text('{"text": "fine"}\n{"body": "not here"}\n')
    out = tmp_path / "out.npy"
    out.write_bytes(b"old")
    assert main(["encode", str(demo_folder), "--input", str(tmp_path / "in.jsonl"), "--output", str(out)]) == 2
    assert out.read_bytes() == b"old"
    assert "in.jsonl:2" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.npy"]


def test_a_full_disk_is_one_line(demo_folder, tmp_path):
    (tmp_path / "in.txt").write_text("a text\n" * 100)
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); import signal;"
    code += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from bgert.commands.main import main;"
    code += "sys.exit(main(sys.argv[1:]))"
    argv = ["encode", str(demo_folder), "--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "out.npy")]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("bgert: error: ")
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


def test_rerank(make_reranker_checkpoint, tmp_path, capsys):
    assert main(["export", str(make_reranker_checkpoint(num_labels=1)), "-o", str(tmp_path / "m"), "--no-verify"]) == 0
    (tmp_path / "docs.txt").write_text("a file\nthe folder\nsome text\n")
    argv = ["rerank", str(tmp_path / "m"), "--query", "folder", "--input", str(tmp_path / "docs.txt"), "--top-k", "2"]
    capsys.readouterr()
    assert main([*argv, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = Reranker(tmp_path / "m").rank("folder", ["a file", "the folder", "some text"], top_k=2)
    assert [(line["index"], line["score"]) for line in lines] == expected
    assert lines[0]["score_kind"] == "logit"
    assert main(argv) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_tokenize(demo_folder, capsys):
    assert main(["tokenize", str(demo_folder), "hello world", ""]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        [101, 7592, 2088, 102],
        [101, 102],
    ]


@pytest.mark.parametrize(
    "argv",
    [
        ["info", "/no/such/folder"],
        ["tokenize", "{folder}"],
        ["tokenize", "/no/such/folder", "x"],
        ["encode", "{folder}", "--input", "/none.txt", "--output", "{tmp}/x.npy"],
        ["encode", "{folder}", "--input", "x.csv", "--output", "{tmp}/x.npy"],
        ["encode", "{folder}", "--input", "{tmp}/in.txt", "--output", "{tmp}/x.bin"],
        ["encode", "{folder}", "--input", "{tmp}/in.txt", "--output", "{tmp}/x.npy", "--dtype", "int3"],
        ["encode", "{folder}", "--input", "{tmp}/in.txt", "--output", "{tmp}/x.npy", "--max-length", "0"],
        ["encode", "{folder}", "--input", "{tmp}/in.txt", "--output", "{tmp}/x.npy", "--prompt", "none"],
        ["encode", "{folder}", "--input", "{tmp}/in.txt", "--output", "{tmp}/x.npy", "--device", "tpu"],
        ["encode", "{folder}", "--input", "{tmp}/in.txt", "--output", "/no/such/folder/x.npy"],
        ["rerank", "{folder}", "--query", "x", "--input", "{tmp}/in.txt"],
        ["bench", "{folder}", "--texts", "0"],
        ["export", "/no/such/checkpoint", "-o", "{tmp}/model"],
        ["verify", "/no/such/folder", "--against", "/none"],
        ["export", "bge-small-en-v1.5", "-o", "{tmp}/model"],
    ],
)
def test_errors_are_one_line_and_status_2(demo_folder, tmp_path, capsys, argv):
    (tmp_path / "in.txt").write_text("a text\n")
    argv = [part.format(folder=demo_folder, tmp=tmp_path) for part in argv]
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("bgert: error: ")
    assert len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


def test_bench_prints_json(demo_folder, capsys):
    assert main(["bench", str(demo_folder), "--texts", "8", "--rounds", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["engines"]["bgert"]["tokens_per_second"] > 0


def test_the_installed_command(demo_folder):
    done = subprocess.run(
        [sys.executable, "-m", "bgert", "tokenize", str(demo_folder), "hi"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [101, 7632, 102]


def test_encode_keeps_fields(demo_folder, encoder, tmp_path):
    records = [{"id": number, "title": f"t{number}", "text": "word " * (40 - number)} for number in range(30)]
    records[3]["extra"] = {"a": [1, "\ud800"]}
    (tmp_path / "in.jsonl").write_text("\n\n".join(map(json.dumps, records)))
    vectors = encoder.encode([record["text"] for record in records])
    argv = ["encode", str(demo_folder), "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    for fields in (["id", "title"], ["id"], None):
        assert main([*argv, "--keep", "all" if fields is None else ",".join(fields)]) == 0
        lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        np.testing.assert_allclose([line.pop("embedding") for line in lines], vectors, atol=1e-6)
        assert lines == [record if fields is None else {key: record[key] for key in fields} for record in records]


@pytest.mark.parametrize(
    ("keep", "output", "said"),
    [
        ("id", "out.npy", "an .npy holds numbers alone"),
        ("id,", "out.jsonl", "names of columns"),
        ("id,nothing", "out.jsonl", "in.jsonl:1: no field 'nothing'"),
        ("all", "out.jsonl", "in.jsonl:2: has a field 'embedding' already"),
    ],
)
def test_what_cannot_be_kept(demo_folder, tmp_path, capsys, keep, output, said):
    lines = [{"id": 1, "text": "a"}, {"id": 2, "text": "b", "embedding": 3}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    argv = ["encode", str(demo_folder), "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / output)]
    assert main([*argv, "--keep", keep]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_encode_to_stdout(demo_folder, encoder, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("first text\nsecond\n")
    assert main(["encode", str(demo_folder), "--input", str(tmp_path / "in.txt"), "--output", "-"]) == 0
    done = capsys.readouterr()
    np.testing.assert_allclose(
        [json.loads(line) for line in done.out.splitlines()], encoder.encode(["first text", "second"]), atol=1e-6
    )
    assert "2 embeddings of 384 x float32 on stdout" in done.err


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("command", ["encode", "bench", "latency", "rerank"])
def test_a_bar_in_a_terminal(demo_folder, make_reranker_checkpoint, tmp_path, monkeypatch, capsys, command, quiet):
    monkeypatch.setattr("bgert.commands.options.in_terminal", lambda: True)
    (tmp_path / "in.txt").write_text("a text\n" * 7)
    folder, source = str(demo_folder), str(tmp_path / "in.txt")
    if command == "rerank":
        folder = str(tmp_path / "reranker")
        assert main(["export", str(make_reranker_checkpoint(num_labels=1)), "-o", folder, "--no-verify"]) == 0
    argv, total = {
        "encode": (["encode", folder, "--input", source, "--output", str(tmp_path / "out.npy")], "28.0/28.0"),
        "bench": (["bench", folder, "--texts", "4", "--rounds", "2"], "3/3"),
        "latency": (
            ["bench", folder, "--latency", "--batch", "1", "--length", "8", "--calls", "3", "--warm-up", "3"],
            "48.0/48.0",
        ),
        "rerank": (["rerank", folder, "--query", "x", "--input", source], "7/7"),
    }[command]
    capsys.readouterr()
    assert main(argv + ["--quiet"] * quiet) == 0
    assert (total in capsys.readouterr().err) != quiet
