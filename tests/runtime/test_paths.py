"""Paths as users give them."""

from pathlib import Path

import pytest

import bgert
from bgert.errors import BgertError, InvalidOptionError, ModelNotFoundError
from bgert.model_folder import Manifest
from bgert.paths import user_path
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


def test_a_block_larger_than_python_counts_to(encoder):
    with pytest.raises(InvalidOptionError, match="block is"):
        encoder.stream(["hello", "world"], block=2**63)
    (rows,) = encoder.stream(["hello", "world"], block=2**31 - 1)
    assert rows.shape == (2, encoder.dimensions)
