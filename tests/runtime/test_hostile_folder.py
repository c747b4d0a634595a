"""A model folder by a stranger: it loads, or ends in an error of bgert's; no other exception, no crash, no waiting."""

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import warnings
from contextlib import contextmanager

import numpy as np
import pytest

from bgert import Encoder
from bgert.commands.main import main
from bgert.errors import BgertError, IntegrityError, ModelFolderError
from bgert.model_folder import Manifest
from bgert.tokenizer import Tokenizer

VALUES = [
    None, True, False, 0, 1, -1, 7, 2**31, 2**53, 2**63, 1.5, 1e300, -0.0, "", "x", "vocab.txt", "cpu", "../x", "a\0",
    "\x1b[31m", "é" * 300, "0" * 64, [], [None], [0, 1], [-1], [2**31], ["x"], [[]], [{}], {}, {"x": None},
    {"content": "x"}, ["vocab.txt", "vocab.txt"],
]  # fmt: skip


@pytest.fixture(scope="module")
def exported(write_model, tmp_path_factory):
    from bgert_export import export

    root = tmp_path_factory.mktemp("hostile")
    export(write_model(root / "checkpoint"), root / "model", verify=False, pooling="cls", normalize=True)
    return root / "model"


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "model")


@contextmanager
def seconds(limit):
    """Fail instead of waiting for ever."""

    def late(*_):
        raise AssertionError(f"more than {limit} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(limit)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(folder):
    """Whether the folder loads and works; anything but success and BgertError fails the test."""
    with seconds(20), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        status = main(["info", str(folder)])
        assert status in (0, 2)
        assert (main(["info", "--json", str(folder)]) == 0) == (status == 0)
        try:
            encoder = Encoder(folder, device="cpu", threads=1)
            vectors = [encoder.encode("a file"), encoder.encode_queries("query"), encoder.encode_corpus("x " * 100)]
        except BgertError:
            return False
        assert np.isfinite(np.array(vectors)).all()
        return status == 0


def places(value, path=()):
    for key, below in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(below, (*path, key))


def at(document, path):
    for key in path:
        document = document[key]
    return document


@pytest.mark.slow
def test_every_field_of_the_manifest(folder):
    """Hostile values in every place, and each place gone; a random half of them, for the time it takes."""
    seed = int(os.environ.get("BGERT_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print("seed", seed)
    draw = random.Random(seed)
    text = (folder / "manifest.json").read_text()
    counts = [0, 0]
    for path in places(json.loads(text)):
        for value in [*draw.sample(VALUES, len(VALUES) // 2), "gone"]:
            raw = json.loads(text)
            if value == "gone":
                del at(raw, path[:-1])[path[-1]]
            else:
                at(raw, path[:-1])[path[-1]] = value
            (folder / "manifest.json").write_text(json.dumps(raw))
            try:
                counts[attempt(folder)] += 1
            except BaseException as error:
                raise AssertionError(f"{path} = {value!r}: {type(error).__name__}") from error
    print(counts)
    assert counts[0] > 500
    assert counts[1] > 20


def names(folder):
    """Of what the runtime reads; two more files are for sentence-transformers alone."""
    return sorted({"manifest.json", *(file.name for file in Manifest.read(folder).files())})


def replace(path, kind, outside):
    content = path.read_bytes()
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        at = os.open(path.parent, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as server:  # whose paths are short
            server.bind(f"/proc/self/fd/{at}/{path.name}")
        os.close(at)
    elif kind == "a link to itself":
        path.symlink_to(path.name)
    elif kind == "a link to the same bytes elsewhere":
        outside.write_bytes(content)
        path.symlink_to(outside)
    elif kind == "huge and sparse":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    elif kind.startswith("/"):
        path.symlink_to(kind)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "longer":
        path.write_bytes(content + b"\0")


KINDS = [
    "missing", "empty", "truncated", "longer", "pipe", "folder", "socket", "huge and sparse", "a link to itself",
    "a link to the same bytes elsewhere", "/dev/zero", "/dev/stdin", "/etc/passwd", "/proc/self/mem", "/nowhere",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_as_what_it_is_not(folder, kind, tmp_path):
    for name in names(folder):
        hostile = shutil.copytree(folder, tmp_path / f"with {name}")
        replace(hostile / name, kind, tmp_path / f"outside {name}")
        assert not attempt(hostile), name
        with seconds(20), pytest.raises(ModelFolderError):
            Encoder(hostile, device="cpu")


@pytest.mark.parametrize("kind", ["huge and sparse", "empty", "truncated", "longer", "/dev/zero", "/proc/self/mem"])
def test_a_manifest_that_agrees(folder, kind, tmp_path):
    """Sizes and digests fit, so that no digest saves us; nothing is hashed for hours before it is refused."""
    for name in names(folder):
        if name == "manifest.json":
            continue
        hostile = shutil.copytree(folder, tmp_path / f"with {name}")
        replace(hostile / name, kind, tmp_path / "outside")
        size = (hostile / name).stat().st_size
        content = (hostile / name).read_bytes() if 0 < size < 1 << 30 else b""
        raw = json.loads((hostile / "manifest.json").read_text())
        for entry in [*raw["tokenizer_files"], *raw["graphs"][0]["files"]]:
            if entry["name"] == name:
                entry |= {"size": size, "sha256": hashlib.sha256(content).hexdigest()}
        (hostile / "manifest.json").write_text(json.dumps(raw))
        # A word list may be shorter, and a page of weights may be padded: these are other models, not attacks.
        assert not attempt(hostile) or kind in ("truncated", "longer"), name


def test_a_tokenizer_alone_is_checked_too(folder):
    """`Tokenizer.from_folder` and `bgert tokenize` read the same file."""
    path = folder / "vocab.txt"
    path.write_bytes(path.read_bytes().replace(b"the", b"teh", 1))
    with pytest.raises(IntegrityError, match="changed after export"):
        Tokenizer.from_folder(folder)
    assert main(["tokenize", str(folder), "the"]) == 2


def test_dimensions_that_the_graph_does_not_have(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"dimensions": 64', '"dimensions": 1048576'))
    with pytest.raises(ModelFolderError, match="the manifest says embeddings with 1048576 numbers"):
        Encoder(folder, device="cpu")


def test_more_tokens_than_positions(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"max_tokens": 64', '"max_tokens": 73'))
    with pytest.raises(ModelFolderError, match="max_tokens is 73, and the model has positions for 72"):
        Encoder(folder, device="cpu")


def test_a_manifest_that_would_steer_the_terminal(folder, capsys):
    path = folder / "manifest.json"
    raw = json.loads(path.read_text())
    raw["choices"][0]["why"] = raw["source"]["path"] = raw["generator"] = "\x1b[2J\rall is well\x9b"
    path.write_text(json.dumps(raw))
    assert main(["info", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "all is well" in printed
    assert printed.replace("\n", "").isprintable()


def test_deep_lines_of_texts(folder, tmp_path, capsys):
    (tmp_path / "texts.jsonl").write_text('{"text": "a"}\n' + "[" * 100_000 + "\n")
    assert main(["tokenize", str(folder), "--input", str(tmp_path / "texts.jsonl")]) == 2
    assert "texts.jsonl:2: not JSON" in capsys.readouterr().err
