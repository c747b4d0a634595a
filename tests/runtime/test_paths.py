"""Paths as users give them, and files that never end."""

import os
import socket
from pathlib import Path

import pytest

import bgert
from bgert.errors import BgertError, InvalidOptionError, ModelNotFoundError
from bgert.model_folder import Manifest
from bgert.paths import open_regular, read_regular, user_path
from bgert.tokenizer import Tokenizer

LOADERS = [bgert.Encoder, bgert.Reranker, Tokenizer.from_folder, Manifest.read]


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    "path", ["a" * 5000, "a/" * 5000, "~nobody-of-this-name/m", "a\0b", "\ud800", "", None, 5, b"model", ["model"]]
)
def test_what_is_no_path_is_an_error_of_bgerts(load, path):
    with pytest.raises(BgertError):
        load(path)


def test_names_of_the_errors():
    with pytest.raises(InvalidOptionError, match="path is NoneType: pass a str"):
        user_path(None)
    with pytest.raises(ModelNotFoundError, match="File name too long"):
        Manifest.read(Path("a" * 5000))


@pytest.mark.parametrize("load", [bgert.Encoder, Tokenizer.from_folder, Manifest.read])
@pytest.mark.parametrize("kind", [str, Path])
def test_the_home_folder(load, kind, demo_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(demo_folder.parent))
    assert load(kind(f"~/{demo_folder.name}"))


def test_regular_files_alone(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    assert read_regular(tmp_path / "link", 5) == b"12345"
    with pytest.raises(OSError, match="at most 4 are read"):
        read_regular(tmp_path / "file", 4)
    for name in ("pipe", "zeros", "socket", "loop", "."):
        with pytest.raises(OSError, match=r"it is a|symbolic links"):
            open_regular(tmp_path / name)


def test_a_block_larger_than_python_counts_to(encoder):
    (rows,) = encoder.stream(["hello", "world"], block=2**63)
    assert rows.shape == (2, encoder.dimensions)
