"""A hub id or a checkpoint's folder instead of a model folder: exported once, in processes of their own."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from bgert.backends.choose import parse_devices
from bgert.errors import IntegrityError, UnverifiedWarning
from bgert.exported_models import targets_for
from bgert.hub import locate
from bgert_export import export
from bgert_export.targets import check_targets
from hub_stand_in import COMMIT, environment, files_of, serve

CODE = """
import json, sys, warnings
hidden, slow, name, options = json.loads(sys.argv[1])
for package in hidden:
    sys.modules[package] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name in hidden else find(name, *more)
import bgert
if slow:
    import time, bgert_export.staging
    commit = bgert_export.staging.Staging.commit
    def late(self):
        print("writing", flush=True)
        time.sleep(slow)
        commit(self)
    bgert_export.staging.Staging.commit = late
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    try:
        encoder = bgert.Encoder(name, **options)
        result = encoder.encode("hello")
        print(json.dumps({
            "vector": result.tolist(), "verified": [encoder.verified, result.info.verified],
            "warnings": [[one.category.__name__, str(one.message)] for one in said],
            "source": encoder.manifest.source, "torch": sys.modules.get("torch") is not None,
        }))
    except bgert.BgertError as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
"""
TORCH = ["torch", "transformers"]


@pytest.fixture
def checkpoint(make_checkpoint, sentence_transformers_files):
    return make_checkpoint("model", files=sentence_transformers_files("mean"))


@pytest.fixture
def expected(checkpoint, tmp_path):
    from bgert import Encoder

    export(checkpoint, tmp_path / "by-hand", verify=False)
    return Encoder(tmp_path / "by-hand").encode("hello").tolist()


@pytest.fixture
def start(tmp_path):
    """Starts a process that opens a model."""

    def run(name, server=None, *, hidden=TORCH, offline=False, slow=0, cache="bgert", **options):
        variables = environment(server, tmp_path / "hub", offline=offline) if server else dict(os.environ)
        variables["BGERT_CACHE"] = str(tmp_path / cache)
        return subprocess.Popen(
            [sys.executable, "-c", CODE, json.dumps([hidden, slow, str(name), options])],
            env=variables, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return run


@pytest.fixture
def load(start):
    def run(*arguments, **options):
        return result_of(start(*arguments, **options))

    return run


def result_of(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def models_in(folder):
    return sorted(path.parent for path in folder.rglob("manifest.json"))


def test_a_hub_id_once_and_again_offline_without_torch(checkpoint, expected, load, tmp_path):
    with serve(files_of(checkpoint)) as server:
        first = load("org/model", server)
        assert (first["vector"], first["torch"]) == (expected, False)
        assert (first["source"]["id"], first["source"]["revision"]) == ("org/model", COMMIT)
        assert first["verified"] == [False, False]
        ((kind, text),) = first["warnings"]
        assert kind == "UnverifiedWarning"
        assert "org/model was exported without a comparison with PyTorch (cpu fp32)" in text
        (model,) = models_in(tmp_path / "bgert")
        made = (model / "manifest.json").stat().st_mtime_ns
        server.requests.clear()
        again = load("org/model", server, hidden=[*TORCH, "onnx", "safetensors"])
        assert again == first
        assert [line for line in server.requests if "safetensors" in line] == []
        server.requests.clear()
        assert load("org/model", server, offline=True) == first
        assert server.requests == []
        assert load("org/model", server, hidden=[*TORCH, "huggingface_hub"]) == first
    assert load("org/model", server) == first  # nobody answers
    assert (model / "manifest.json").stat().st_mtime_ns == made


def test_where_torch_is_it_is_verified(checkpoint, load, tmp_path):
    assert load(checkpoint)["verified"] == [False, False]
    result = load(checkpoint, hidden=[])
    assert (result["verified"], result["warnings"]) == ([True, True], [])
    without = load(checkpoint)  # what was verified once stays so
    assert (without["verified"], without["warnings"], without["torch"]) == ([True, True], [], False)


def test_a_checkpoint_folder_is_exported_again_when_any_of_its_files_changes(checkpoint, expected, load, tmp_path):
    assert load(checkpoint)["vector"] == expected
    assert load(checkpoint)["vector"] == expected
    assert len(models_in(tmp_path / "bgert")) == 1
    pooling = checkpoint / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace('mean_tokens": true', 'mean_tokens": false'))
    pooling.write_text(pooling.read_text().replace('cls_token": false', 'cls_token": true'))
    assert not np.allclose(load(checkpoint)["vector"], expected, atol=1e-3)
    assert len(models_in(tmp_path / "bgert")) == 2


def test_a_new_revision_is_exported_beside_the_old(checkpoint, make_checkpoint, expected, load, monkeypatch, tmp_path,
                                                   sentence_transformers_files):  # fmt: skip
    with serve(files_of(checkpoint)) as server:
        assert load("org/model", server)["vector"] == expected
        other = make_checkpoint("other", files=sentence_transformers_files("mean"), seed=5)
        server.files = files_of(other)
        monkeypatch.setattr("hub_stand_in.COMMIT", "f" * 40)
        new = load("org/model", server)
        assert new["source"]["revision"] == "f" * 40
        assert not np.allclose(new["vector"], expected, atol=1e-3)
        assert load("org/model", server, offline=True) == new
    assert len(models_in(tmp_path / "bgert")) == 2


def test_two_at_once_export_once(checkpoint, expected, start):
    one = start(checkpoint, slow=3)
    assert one.stdout.readline() == "writing\n"
    two = start(checkpoint, slow=0)
    assert result_of(two)["vector"] == expected
    assert one.poll() is not None or one.wait(10) == 0  # the second waited for the first
    assert result_of(one)["vector"] == expected


def test_killed_in_the_middle(checkpoint, expected, start, load, tmp_path):
    killed = start(checkpoint, slow=60)
    assert killed.stdout.readline() == "writing\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=10)
    assert load(checkpoint)["vector"] == expected
    assert len(models_in(tmp_path / "bgert")) == 1  # what the killed one left is gone


@pytest.mark.parametrize("damage", ["truncated", "missing", "manifest", "no manifest"])
def test_a_damaged_cache_is_made_again(damage, checkpoint, expected, load, tmp_path):
    load(checkpoint)
    (model,) = models_in(tmp_path / "bgert")
    graph = model / "cpu-fp32.onnx"
    if damage == "truncated":
        os.truncate(graph, 1000)
    elif damage == "missing":
        graph.unlink()
    elif damage == "manifest":
        (model / "manifest.json").write_text("{}")
    else:
        (model / "manifest.json").unlink()
    assert load(checkpoint)["vector"] == expected


def test_a_flipped_bit_is_refused_and_the_message_says_how_to_mend_it(checkpoint, expected, load, tmp_path):
    load(checkpoint)
    (model,) = models_in(tmp_path / "bgert")
    weights = max(model.iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    error = load(checkpoint)["error"]
    assert error.startswith("IntegrityError")
    assert f"remove {model} and load the checkpoint again" in error
    assert "bgert export" not in error
    shutil.rmtree(model)
    assert load(checkpoint)["vector"] == expected


def test_a_cache_that_cannot_be_written(checkpoint, load, tmp_path):
    (tmp_path / "file").write_text("")
    error = load(checkpoint, cache="file")["error"]
    assert error.startswith("ModelFolderError")
    assert "set BGERT_CACHE to another folder" in error


def test_a_full_disk_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("BGERT_CACHE", str(tmp_path / "bgert"))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("bgert_export.staging._flush", full)
        with pytest.raises(OSError, match="No space left on device; nothing was left behind"):
            locate(checkpoint)
    assert models_in(tmp_path / "bgert") == []


def test_a_cache_that_others_can_write_is_refused(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("BGERT_CACHE", str(tmp_path / "bgert"))
    (tmp_path / "bgert" / "models").mkdir(parents=True)
    (tmp_path / "bgert" / "models").chmod(0o777)
    with pytest.raises(IntegrityError, match="nobody else can write"):
        locate(checkpoint)


@pytest.mark.parametrize("hidden", ["onnx", "bgert_export"])
def test_without_the_extra_export(hidden, checkpoint, load):
    with serve(files_of(checkpoint)) as server:
        error = load("org/model", server, hidden=[*TORCH, hidden])["error"]
    assert error.startswith("EngineNotInstalledError: org/model is a checkpoint, which is exported on first use")
    assert hidden in error
    assert "install the extra `export` (README, Install)" in error
    assert "`bgert export org/model -o DIR`" in error


def test_without_huggingface_hub(load):
    error = load("org/model", hidden=["huggingface_hub"])["error"]
    assert error.startswith("ModelNotFoundError: no such model folder: org/model")
    assert "install the extra `export`" in error


def test_what_a_checkpoint_does_not_say(make_checkpoint, load):
    error = load(make_checkpoint("unknown"))["error"]
    assert error.startswith("UndecidedError")
    assert "pass --pooling" in error
    assert "bgert export" in error


def test_precisions_are_exported_apart(checkpoint, load, tmp_path):
    load(checkpoint)
    assert "error" not in load(checkpoint, precision="bf16")
    graphs = [json.loads((model / "manifest.json").read_text())["graphs"] for model in models_in(tmp_path / "bgert")]
    assert sorted(graph["precision"] for one in graphs for graph in one) == ["bf16", "fp32"]


@pytest.mark.parametrize(
    ("device", "precision", "targets"),
    [
        ("auto", "auto", ("cpu",)), ("cpu", "int8", ("cpu-int8",)), ("cuda:1", "auto", ("cuda",)),
        (["cuda:0", "cuda:1"], "fp16", ("cuda",)), ("cuda", "fp8", ("cuda-fp8",)), ("tensorrt", "auto", ("tensorrt",)),
        ("tensorrt-rtx", "bf16", ("tensorrt-bf16",)),
    ],
)  # fmt: skip
def test_targets(device, precision, targets):
    parse_devices(device)
    assert targets_for(device, precision) == targets
    assert check_targets(targets) == list(targets)


@pytest.mark.parametrize("device", [7, None, [], [None], "gpu"])
def test_targets_of_what_is_no_device(device):
    assert targets_for(device, None) == ("cpu",)


def test_commands_take_ids_and_checkpoints(checkpoint, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("hello\n")
    with serve(files_of(checkpoint)) as server:
        variables = environment(server, tmp_path / "hub") | {"BGERT_CACHE": str(tmp_path / "bgert")}
        for name in ("org/model", str(checkpoint)):
            for command in (["info", name], ["tokenize", name, "hello"],
                            ["encode", name, "--input", str(texts), "--output", "-"]):  # fmt: skip
                done = subprocess.run([sys.executable, "-m", "bgert", *command], env=variables, capture_output=True,
                                      text=True, timeout=300)  # fmt: skip
                assert done.returncode == 0, done.stderr
    assert len(models_in(tmp_path / "bgert")) == 2


def test_a_reranker(make_reranker_checkpoint, tmp_path, monkeypatch):
    from bgert import Reranker

    find = importlib.util.find_spec
    monkeypatch.setenv("BGERT_CACHE", str(tmp_path / "bgert"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in TORCH else find(name))
    with pytest.warns(UnverifiedWarning) as said:
        reranker = Reranker(make_reranker_checkpoint(num_labels=1))
    assert [one.filename for one in said] == [__file__]
    assert reranker.score([("a", "b")]).info.verified is False
