"""Model folders from a stand-in for the hub."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bgert.errors import ModelNotFoundError
from bgert.hub import locate
from hub_stand_in import environment, files_of, serve

CODE = """
import json, sys, bgert
try:
    print(json.dumps(bgert.Encoder(sys.argv[1]).encode("hello").tolist()))
except bgert.BgertError as error:
    print(json.dumps(f"{type(error).__name__}: {error}"))
"""


@pytest.fixture
def load(tmp_path):
    """Loads a hub id in a process of its own and returns a vector, or the error."""

    def run(server, name, *, offline=False):
        variables = environment(server, tmp_path / "cache", offline=offline) | {"BGERT_CACHE": str(tmp_path / "bgert")}
        done = subprocess.run(
            [sys.executable, "-c", CODE, name], env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_model_folder_by_its_id_and_again_offline(demo_folder, encoder, load):
    files = files_of(demo_folder) | {"README.md": b"# not needed"}
    with serve(files) as server:
        assert load(server, "org/model") == pytest.approx(encoder.encode("hello").tolist(), abs=1e-6)
        assert not any("README.md" in line for line in server.requests)
        server.requests.clear()
        assert load(server, "org/model", offline=True) == pytest.approx(encoder.encode("hello").tolist(), abs=1e-6)
        assert server.requests == []


def test_what_the_hub_does_not_have(demo_checkpoint, load):
    with serve({"config.json": b"{}"}) as server:
        assert "model.safetensors" in load(server, "org/model")
        assert load(server, "org/missing").startswith("ModelNotFoundError: no folder org/missing here")
        assert load(server, "org/other", offline=True).startswith("ModelNotFoundError: no folder org/other here")
        assert load(server, "./org/model").startswith("ModelNotFoundError: no such model folder")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("BAAI/bge-small-en-v1.5", "bgert export BAAI/bge-small-en-v1.5 -o bge-small-en-v1.5`"),
        ("bge-small-en-v1.5", "bgert export BAAI/bge-small-en-v1.5 -o bge-small-en-v1.5`"),
        ("my-model", "bgert export ORGANISATION/my-model -o my-model`"),
    ],
)
def test_the_name_of_a_checkpoint_without_a_hub(name, line, monkeypatch, tmp_path):
    """The line to type; huggingface_hub would not help, for what it has is the checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelNotFoundError, match="no such model folder") as caught:
        locate(name)
    assert line in str(caught.value)
    assert "pip" not in str(caught.value)
    (tmp_path / name).mkdir(parents=True)
    assert locate(name) == Path(name)


def test_a_damaged_download_is_refused(demo_folder, load):
    files = files_of(demo_folder)
    files["vocab.txt"] = files["vocab.txt"].replace(b"the", b"teh", 1)
    with serve(files) as server:
        assert load(server, "org/model").startswith("IntegrityError")
