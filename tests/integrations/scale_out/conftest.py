"""Texts in parquet, the examples of docs/SCALE.md and what must have come out of them."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pages
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

BLOCK = re.compile(r"<!-- example (?P<name>[\w-]+) -->\n+```python\n(?P<code>.*?)```", re.DOTALL)
FILES, ROWS_A_FILE = 8, 150


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """A folder of small files: ids, texts of several lengths, a column of numbers and a nested one."""
    folder = tmp_path_factory.mktemp("source") / "texts"
    folder.mkdir()
    for file in range(FILES):
        ids = [file * ROWS_A_FILE + row for row in range(ROWS_A_FILE)]
        table = pa.table(
            {
                "id": ids,
                "text": [f"how to copy folder {i} and all {i * i} files in it " * (1 + i % 4) for i in ids],
                "number": [i / 3 for i in ids],
                "nested": [{"tags": [str(i), "x"]} for i in ids],
            }
        )
        pq.write_table(table, folder / f"{file}.parquet")
    return folder


@pytest.fixture(scope="session")
def expected(texts, encoder):
    """The source with the vectors of `Encoder`, by id."""
    table = pq.read_table(texts).sort_by("id")
    return table, encoder.encode_corpus(table["text"].to_pylist())


@pytest.fixture(scope="session")
def check(expected):
    """Compares a folder of parquet with the source and `Encoder`: nothing lost, nothing twice, same bits."""

    def compare(folder, kind=None):
        source, vectors = expected
        files = [path for path in Path(folder).glob("*.parquet") if path.stat().st_size]
        found = pa.concat_tables([pq.read_table(path) for path in files]).sort_by("id")
        assert found["id"].to_pylist() == source["id"].to_pylist()
        assert found.schema.names == [*source.schema.names, "embedding"]
        for name in source.schema.names:
            assert found[name].to_pylist() == source[name].to_pylist()
        assert found.schema.field("embedding").type == (kind or pa.list_(pa.float32(), vectors.shape[1]))
        np.testing.assert_array_equal(np.stack(found["embedding"].to_numpy()), vectors)

    return compare


@pytest.fixture
def example(models, texts, tmp_path):
    """The source of an example of docs/SCALE.md, with folders of the test in place of its names."""
    code = {match["name"]: match["code"] for match in BLOCK.finditer((pages.DOCS / "SCALE.md").read_text("utf-8"))}
    names = {"BAAI/bge-small-en-v1.5": models["exported-minilm"], "texts": texts, "vectors": tmp_path / "vectors"}

    def source(name, **replaced):
        found = code[name]
        for old, new in names.items():
            assert f'"{old}"' in found
            found = found.replace(f'"{old}"', repr(str(new)))
        for old, new in replaced.items():
            assert old in found
            found = found.replace(old, new)
        return found

    return source


def processes(pattern, ancestor):
    """Ids of processes below `ancestor` with a command line that matches."""
    parents, lines = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                lines[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue

    def below(process):
        while process := parents.get(process, 0):
            if process == ancestor:
                return True
        return False

    return [process for process, line in lines.items() if re.search(pattern, line) and below(process)]


class Program:
    """A Python program in a process of its own, which writes what it prints into a file."""

    def __init__(self, folder, code):
        (folder / "program.py").write_text(code, "utf-8")
        self.log = folder / "program.log"
        with self.log.open("w") as log:
            command = [sys.executable, folder / "program.py"]
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        """What it started ends with it."""
        for process in (*self.below(), self.process.pid):
            kill(process)
        self.process.wait()
        wait_for(lambda: not any(map(is_alive, self.started)), seconds=60)

    def below(self, pattern=""):
        """Ids of the processes below it with a command line that matches."""
        found = processes(pattern, self.process.pid)
        self.started = found if not pattern else self.__dict__.get("started", [])
        return found

    def wait_for(self, what):
        """What `what()` gives once it is true, while the program runs."""

        def look():
            assert self.process.poll() is None, self.log.read_text()
            return what()

        return wait_for(look)

    def end(self):
        """What it printed, once it has ended well."""
        assert self.process.wait(300) == 0, self.log.read_text()
        return self.log.read_text()


def kill(process):
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(what, seconds=300):
    """What `what()` gives once it is true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "nothing came in time"
        time.sleep(0.02)
    return found


@pytest.fixture
def program(tmp_path):
    """Starts a program: `with program(code) as running`."""
    return lambda code: Program(tmp_path, code)


@pytest.fixture(scope="session", autouse=True)
def same_python():
    """What Spark and Ray start is this Python."""
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
