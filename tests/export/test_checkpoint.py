"""Where a checkpoint is found, and what is wrong with what is found."""

import hashlib
import json

import pytest

from bgert.errors import BgertError, ModelNotFoundError
from bgert_export.checkpoint import Checkpoint, locate
from bgert_export.errors import CheckpointError
from bgert_export.source import Source
from bgert_export.staging import Staging


def test_a_local_folder_wins_over_a_hub_id(make_checkpoint, monkeypatch):
    folder = make_checkpoint("name")
    monkeypatch.chdir(folder.parent)
    assert locate("name") == Source(locate("name").folder)
    assert locate("name").hub_id is None
    assert locate(folder).folder == folder


@pytest.mark.parametrize(
    "name", ["./missing", "../missing", "/no/such/folder", "~/missing-folder", "a/b/c", "missing/", "a b", "", "c:\\x"]
)
def test_what_looks_like_a_path_is_not_looked_up(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match="no such checkpoint folder"):
        locate(name)


@pytest.mark.parametrize("source", ["a" * 5000, "b/" * 3000, "~nobody-of-this-name/x", "a\0b", "\ud800", None, 5, b"x"])
def test_what_is_no_path_is_an_error_of_bgerts(source, tmp_path):
    with pytest.raises(BgertError):
        locate(source)
    with pytest.raises(BgertError), Staging(source):
        pass


def test_a_path_object_is_never_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    with pytest.raises(ModelNotFoundError):
        locate(Path("BAAI/bge-small-en"))


def test_a_file_and_a_model_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is a file"):
        locate(tmp_path / "file")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="model folder that bgert wrote"):
        locate(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, r"has no config\.json"), ("{", "not valid JSON"), ("[1]", "not hold an object"), ("{}", "model_type None")],
)
def test_damaged_config(make_checkpoint, content, message):
    folder = make_checkpoint()
    if content is None:
        (folder / "config.json").unlink()
    else:
        (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(Source(folder))


def test_weights_and_config_must_agree(make_checkpoint):
    folder = make_checkpoint()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 256}))
    with pytest.raises(CheckpointError, match=r"intermediate\.dense\.weight has shape \[128, 64\].*\[256, 64\]"):
        Checkpoint.open(Source(folder))


def test_record_of_the_source(make_checkpoint):
    folder = make_checkpoint()
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    record = Checkpoint.open(Source(folder)).source_record()
    assert record == {"path": str(folder), "revision": None, "weights_sha256": {"model.safetensors": digest}}
    record = Checkpoint.open(Source(folder, "org/name", "0123")).source_record()
    assert record == {"id": "org/name", "revision": "0123", "weights_sha256": {"model.safetensors": digest}}
