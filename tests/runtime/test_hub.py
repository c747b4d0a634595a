"""Model folders from a stand-in for the hub."""

import json
import subprocess
import sys

import pytest

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
        variables = environment(server, tmp_path / "cache", offline=offline)
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
        assert "bgert export org/model -o DIR" in load(server, "org/model")
        assert load(server, "org/missing").startswith("ModelNotFoundError: no folder org/missing here")
        assert load(server, "org/other", offline=True).startswith("ModelNotFoundError: no folder org/other here")
        assert load(server, "./org/model").startswith("ModelNotFoundError: no such model folder")


def test_a_damaged_download_is_refused(demo_folder, load):
    files = files_of(demo_folder)
    files["vocab.txt"] = files["vocab.txt"].replace(b"the", b"teh", 1)
    with serve(files) as server:
        assert load(server, "org/model").startswith("IntegrityError")
