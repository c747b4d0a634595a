"""Jobs that are stopped and go on: nothing lost, nothing twice, the bytes of a job that was not stopped."""

import importlib.util
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from bgert import Encoder
from bgert.jobs.parts import open_parts

PARQUET = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="the extra `parquet` is not installed")
ENDINGS = ["npy", "jsonl", pytest.param("parquet", marks=PARQUET)]


@pytest.fixture
def source(sentences, tmp_path):
    """103 rows in two files."""
    for number, (name, start, stop) in enumerate([("a", 0, 60), ("b", 60, 103)]):
        lines = [json.dumps({"id": start + n, "text": text}) for n, text in enumerate(sentences(103)[start:stop])]
        (tmp_path / f"in-{name}.jsonl").write_text("\n".join(lines) + "\n" * number)
    return tmp_path / "in-*.jsonl"


def options_of(output, ending):
    return ["--output", output, "--part-rows", "10", *([] if ending == "npy" else ["--keep", "all"])]


@pytest.fixture
def stop_after(monkeypatch):
    """The model fails after some windows, until it is called with None; counts the texts that it embeds."""
    stream = Encoder.stream
    seen = []

    def broken(self, texts, **options):
        def counted():
            for text in texts:
                seen.append(text)
                yield text

        for number, rows in enumerate(stream(self, counted(), **options)):
            if number == limit[0]:
                raise OSError("the machine is switched off")
            yield rows

    limit = [None]
    monkeypatch.setattr(Encoder, "stream", broken)

    def stop(windows):
        limit[0] = windows
        seen.clear()
        return seen

    return stop


def names_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_job_goes_on_where_it_was_stopped(encode, source, tmp_path, stop_after, ending):
    whole, out = tmp_path / f"whole.{ending}", tmp_path / f"out.{ending}"
    assert encode(source, *options_of(whole, ending)) == 0
    out.write_bytes(b"old")
    argv = [source, *options_of(out, ending), "--resume"]
    stop_after(4)
    assert encode(*argv) == 2
    parts = tmp_path / f"out.{ending}.parts"
    assert out.read_bytes() == b"old"
    done = [f"rows-{start:012}-{start + 10:012}.{ending}" for start in (0, 10, 20, 30)]
    assert names_in(parts) == ["_job.json", *done]
    stop_after(2)
    assert encode(*argv) == 2
    seen = stop_after(None)
    assert encode(*argv) == 0
    assert len(seen) == 103 - 60
    assert out.read_bytes() == whole.read_bytes()
    assert not parts.exists()


def test_what_is_missing_between_parts_is_made_again(encode, source, tmp_path, stop_after):
    out = tmp_path / "out.npy"
    argv = [source, *options_of(out, "npy"), "--resume"]
    stop_after(9)
    assert encode(*argv) == 2
    parts = tmp_path / "out.npy.parts"
    for start in (0, 30, 40):
        (parts / f"rows-{start:012}-{start + 10:012}.npy").unlink()
    seen = stop_after(None)
    assert encode(*argv) == 0
    assert len(seen) == 10 + 20 + 13
    assert encode(source, *options_of(tmp_path / "whole.npy", "npy")) == 0
    assert out.read_bytes() == (tmp_path / "whole.npy").read_bytes()


@PARQUET
def test_a_folder_holds_the_parts_and_a_job_that_is_done_does_nothing(encode, source, tmp_path, stop_after, capsys):
    import pyarrow.parquet as pq

    whole, out = tmp_path / "whole.parquet", f"{tmp_path}/out/"
    argv = [source, *options_of(out, "parquet")]
    assert encode(source, *options_of(whole, "parquet")) == 0
    stop_after(5)
    assert encode(*argv) == 2
    assert encode(*argv) == 2
    assert "is not empty: --resume goes on" in capsys.readouterr().err
    stop_after(None)
    assert encode(*argv, "--resume") == 0
    assert "103 embeddings of 64 x float32 in 11 parts" in capsys.readouterr().out
    assert pq.read_table(tmp_path / "out").equals(pq.read_table(whole))
    seen, before = stop_after(None), {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert encode(*argv, "--resume") == 0
    assert (seen, {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}) == ([], before)


@PARQUET
def test_rows_that_are_left_out_are_not_asked_for_again(encode, tmp_path, stop_after):
    lines = [json.dumps({"id": n, "text": None if n % 7 == 0 or 20 <= n < 40 else f"file {n}"}) for n in range(80)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    argv = [tmp_path / "in.jsonl", "--nulls", "drop"]
    assert encode(*argv, *options_of(tmp_path / "whole.parquet", "parquet")) == 0
    stop_after(4)
    assert encode(*argv, *options_of(tmp_path / "out.parquet", "parquet"), "--resume") == 2
    stop_after(None)
    assert encode(*argv, *options_of(tmp_path / "out.parquet", "parquet"), "--resume") == 0
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_another_job_is_refused_in_words(encode, model, source, tmp_path, stop_after, capsys):
    out = tmp_path / "out.jsonl"
    argv = [source, *options_of(out, "jsonl"), "--resume"]
    stop_after(3)
    assert encode(*argv) == 2
    stop_after(None)
    parts = names_in(tmp_path / "out.jsonl.parts")
    capsys.readouterr()
    for more, said in (
        (["--keep", "id"], "keep was True and is ['id']"),
        (["--dtype", "float16"], "dtype was 'float32' and is 'float16'"),
        (["--dimensions", "32"], "dimensions was 64 and is 32"),
        (["--max-length", "9"], "max_length was 64 and is 9"),
        (["--embedding-column", "v"], "name was 'embedding' and is 'v'"),
        (["--nulls", "drop"], "drop_nulls was False and is True"),
        (["--text-column", "id"], "columns was ['text'] and is ['id']"),
    ):
        assert encode(*argv, *more) == 2
        assert f"holds parts of another job: {said}" in capsys.readouterr().err
    one = tmp_path / "in-b.jsonl"
    content = one.read_bytes()
    one.write_bytes(content.replace(b"file", b"copy", 1))
    assert encode(*argv) == 2
    assert "the input files are not the same, or have changed" in capsys.readouterr().err
    one.write_bytes(content)  # the same content, written later
    changed = tmp_path / "changed"
    shutil.copytree(model, changed)
    manifest = json.loads((changed / "manifest.json").read_text())
    (changed / "manifest.json").write_text(json.dumps(manifest | {"max_tokens": 32}))
    from bgert.commands.main import main

    assert main(["encode", str(changed), "--threads", "1", "--input", *map(str, argv)]) == 2
    assert "the model is another" in capsys.readouterr().err
    assert names_in(tmp_path / "out.jsonl.parts") == parts
    assert encode(*argv, "--part-rows", "7") == 0
    assert "; 30 rows were done before" in capsys.readouterr().out
    assert encode(source, *options_of(tmp_path / "whole.jsonl", "jsonl")) == 0
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_an_input_that_changes_while_it_is_read_is_no_part(encode, source, tmp_path, monkeypatch, capsys):
    stream = Encoder.stream

    def slow(self, texts, **options):
        for number, rows in enumerate(stream(self, texts, **options)):
            if number == 2:
                (tmp_path / "in-b.jsonl").write_text('{"id": 0, "text": "another"}\n')
            yield rows

    monkeypatch.setattr(Encoder, "stream", slow)
    assert encode(source, *options_of(tmp_path / "out.npy", "npy"), "--resume") == 2
    assert "in-b.jsonl has changed while it was read" in capsys.readouterr().err
    assert len(list((tmp_path / "out.npy.parts").glob("rows-*"))) == 2


def test_one_process_at_a_time(encode, source, tmp_path, capsys):
    with open_parts(tmp_path / "out.npy.parts", ".npy", {}):
        assert encode(source, *options_of(tmp_path / "out.npy", "npy"), "--resume") == 2
    assert "another process works on the job" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "output", "said"),
    [
        (["-"], "out.npy", "- can be read only once: --resume needs files"),
        (["in-*.jsonl"], "-", "stdout cannot be gone on with"),
        (["in-*.jsonl"], "in-a.jsonl", "in-a.jsonl is both input and output"),
        (["out.npy.parts"], "out.npy", "is both input and output"),
        (["in-*.jsonl", "in-a.jsonl"], "out.npy", "in-a.jsonl is among the inputs twice"),
        (["none-*.jsonl"], "out.npy", "no file has such a name"),
        (["empty"], "out.npy", "no file in it ends in"),
        (["in-a.jsonl", "c.txt"], "out.npy", "inputs of two kinds"),
        (["c.txt"], "taken.npy", "taken.npy.parts is not empty and has no _job.json"),
        (["c.txt"], "file.npy", "file.npy.parts is a file"),
        (["c.txt"], "none/out.npy", "cannot make the folder"),
    ],
)
def test_what_cannot_be_gone_on_with(encode, source, tmp_path, monkeypatch, capsys, names, output, said):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "taken.npy.parts", "out.npy.parts"):
        (tmp_path / folder).mkdir()
    (tmp_path / "c.txt").write_text("a file\n")
    (tmp_path / "file.npy.parts").write_text("x")
    (tmp_path / "taken.npy.parts" / "mine").write_text("x")
    (tmp_path / "out.npy.parts" / "rows-000000000000-000000000001.jsonl").write_text('{"text": "x"}\n')
    before = names_in(tmp_path)
    assert encode(*names, "--output", output, "--resume") == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert names_in(tmp_path) == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(encode, source, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    for more in ([], ["--resume"]):
        assert encode(source, "--output", tmp_path / "locked" / "out.npy", *more) == 2
        assert "Permission denied" in capsys.readouterr().err


def command(model, *argv):
    return [sys.executable, "-m", "bgert", "encode", *map(str, [model, "--threads", "1", "--input", *argv])]


def heed():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session")
def many(tmp_path_factory, sentences):
    """Rows enough for some time."""
    path = tmp_path_factory.mktemp("many") / "in.jsonl"
    path.write_text("\n".join(json.dumps({"id": n, "text": text}) for n, text in enumerate(sentences(6000, seed=1))))
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_killed_at_any_time(model, encode, many, tmp_path, ending):
    """SIGKILL, which leaves nothing time to be tidied."""
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    whole, out = tmp_path / f"whole.{ending}", tmp_path / f"out.{ending}"
    parts = tmp_path / f"out.{ending}.parts"
    options = ["--part-rows", "200", *([] if ending == "npy" else ["--keep", "all"])]
    assert encode(many, "--output", whole, *options) == 0
    killed = 0
    while not out.exists():
        process = subprocess.Popen(
            command(model, many, "--output", out, *options, "--resume"), stdout=subprocess.DEVNULL
        )
        wanted = len(list(parts.glob("rows-*"))) + draw.randrange(1, 12)
        while process.poll() is None and len(list(parts.glob("rows-*"))) < wanted:
            time.sleep(0.001)
        time.sleep(draw.random() * 0.02)
        process.kill()
        assert process.wait() in (0, -signal.SIGKILL)
        killed += process.returncode != 0
    # Killed between the last two steps the folder may be there still, and the same line ends the job.
    assert encode(many, "--output", out, *options, "--resume") == 0
    assert killed >= 2
    assert out.read_bytes() == whole.read_bytes()
    assert names_in(tmp_path) == sorted([out.name, whole.name])


def die_at(step, main_of):
    """Run in a child that is killed before its step of this number; steps are what changes the file system for good."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork with threads, which bgert is made for
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = [step]

    def before(call):
        def counted(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return counted

    try:
        for name in ("mkdir", "fsync", "replace", "unlink", "rmdir"):
            setattr(os, name, before(getattr(os, name)))
        os._exit(main_of())
    finally:
        os._exit(99)


@pytest.mark.parametrize("ending", ENDINGS)
def test_killed_at_every_step(encode, source, tmp_path, ending):
    whole = tmp_path / f"whole.{ending}"
    options = ["--part-rows", "40", *([] if ending == "npy" else ["--keep", "all"])]
    assert encode(source, "--output", whole, *options) == 0
    statuses = []
    for step in range(100):
        out = tmp_path / f"out-{step}.{ending}"
        argv = [source, "--output", out, *options, "--resume"]
        statuses.append(die_at(step, lambda argv=argv: encode(*argv)))
        assert not out.exists() or out.read_bytes() == whole.read_bytes()
        if statuses[-1] == 0:
            break
        assert encode(*argv) == 0
        assert out.read_bytes() == whole.read_bytes()
        out.unlink()
        assert list(tmp_path.glob(".*")) == list(tmp_path.glob("*.parts")) == []
    # A folder, _job.json, three parts, the whole: written and renamed; then four files and the folder removed. An old
    # Python's pathlib keeps calls of its own.
    assert len(statuses) > 5
    assert set(statuses[:-1]) == {-signal.SIGKILL}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_keeps_whole_parts_and_nothing_else(model, encode, many, tmp_path, number):
    out, parts = tmp_path / "out.npy", tmp_path / "out.npy.parts"
    argv = [many, "--output", out, "--part-rows", "200", "--resume"]
    process = subprocess.Popen(command(model, *argv), stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    while len(list(parts.glob("rows-*"))) < 3:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, len(error.splitlines())) == (128 + number, 1)
    names = names_in(parts)
    assert names[0] == "_job.json"
    assert all(name.startswith("rows-") for name in names[1:])
    assert encode(*argv) == 0
    assert encode(many, "--output", tmp_path / "whole.npy", "--part-rows", "200") == 0
    assert out.read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_a_full_disk_keeps_the_parts_before(model, encode, many, tmp_path):
    """The joined file is larger than any part, and than the limit."""

    def small():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    argv = [many, "--output", tmp_path / "out.npy", "--part-rows", "200", "--resume"]
    done = subprocess.run(command(model, *argv), capture_output=True, text=True, preexec_fn=small)
    assert done.returncode == 2
    assert done.stderr == f"bgert: error: cannot write {tmp_path}/out.npy: File too large\n"
    assert names_in(tmp_path)[:2] == ["out.npy.parts", "out.npy.parts/_job.json"]
    assert len(list((tmp_path / "out.npy.parts").iterdir())) == 31
    assert encode(*argv) == 0
    assert len(np.load(tmp_path / "out.npy")) == 6000


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
@pytest.mark.parametrize(("kind", "resume"), [("jsonl", False), pytest.param("parquet", True, marks=PARQUET)])
def test_memory_does_not_grow_with_the_input(model, tmp_path, kind, resume):
    """Ten times the rows, 88 MB of them, in one row group where there are such."""
    code = "import sys; from bgert.commands.main import main; status = main(sys.argv[1:])\n"
    code += "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))); sys.exit(status)"
    peaks = []
    for count in (4_000, 40_000):
        draw = random.Random(count)
        rows = [{"id": n, "text": f"file {n}", "more": draw.randbytes(1100).hex()} for n in range(count)]
        source, out = tmp_path / f"{count}.{kind}", tmp_path / f"out-{count}.{kind}"
        if kind == "jsonl":
            source.write_text("\n".join(map(json.dumps, rows)))
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(rows), source, row_group_size=count)
        argv = ["encode", model, "--threads", "1", "--input", source, "--output", out, "--keep", "all"]
        argv += ["--part-rows", "500"] + ["--resume"] * resume
        done = subprocess.run([sys.executable, "-c", code, *map(str, argv)], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split("VmHWM:")[1].split()[0]) / 1000)
        assert out.stat().st_size > count * 2000
    print("MB", peaks)
    assert peaks[1] < peaks[0] + 25
