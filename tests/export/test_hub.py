"""Downloads of checkpoints, from a stand-in for the hub."""

import json
import subprocess
import sys

import pytest

import multi_vector_checkpoints
from hub_stand_in import COMMIT, OLD_COMMIT, environment, files_of, serve


@pytest.fixture
def hub(make_checkpoint, sentence_transformers_files):
    files = files_of(make_checkpoint(files=sentence_transformers_files("cls")))
    others = {"pytorch_model.bin": b"x" * 1000, "onnx/model.onnx": b"y" * 1000, "README.md": b"#"}
    with serve(files | others) as server:
        yield server


@pytest.fixture
def bgert(hub, tmp_path):
    """Runs the command line against the stand-in."""

    def run(*arguments, offline=False):
        code = "import sys; from bgert.commands.main import main; sys.exit(main(sys.argv[1:]))"
        return subprocess.run(
            [sys.executable, "-c", code, "export", *arguments, "--no-verify"],
            env=environment(hub, tmp_path / "cache", offline=offline),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def downloaded(hub):
    return {line.split("/", 5)[-1] for line in hub.requests if line.startswith("GET") and "/resolve/" in line}


def test_download_and_offline(hub, bgert, tmp_path):
    done = bgert("org/model", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert f"downloading org/model from http://127.0.0.1:{hub.server_port}" in done.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["source"]["id"], manifest["source"]["revision"]) == ("org/model", COMMIT)
    assert manifest["pooling"] == "cls"
    names = downloaded(hub)
    assert {"config.json", "model.safetensors", "vocab.txt", "1_Pooling/config.json", "modules.json"} <= names
    assert not {"pytorch_model.bin", "onnx/model.onnx", "README.md"} & names

    hub.requests.clear()
    done = bgert("org/model", "-o", "again", offline=True)
    assert done.returncode == 0, done.stderr
    assert hub.requests == []
    assert json.loads((tmp_path / "again" / "manifest.json").read_text())["source"]["revision"] == COMMIT


def test_revision(hub, bgert, tmp_path):
    done = bgert("org/model", "-o", "out", "--revision", "v1")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["source"]["revision"] == OLD_COMMIT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["org/missing"], "there is no folder org/missing here and no model of this name"),
        (["org/gated"], "org/gated is gated: accept its terms"),
        (["org/model", "--revision", "v9"], "org/model has no revision 'v9'"),
        (["./org/model"], "no such checkpoint folder: './org/model'"),
    ],
)
def test_refusals(bgert, tmp_path, arguments, message):
    done = bgert(*arguments, "-o", "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.strip().count("\n") == 0
    assert not (tmp_path / "out").exists()


def test_offline_and_not_in_the_cache(bgert):
    done = bgert("org/model", "-o", "out", offline=True)
    assert done.returncode == 2
    assert "org/model is not in the cache" in done.stderr
    assert "switched off (HF_HUB_OFFLINE)" in done.stderr


def test_only_a_pickle(hub, bgert):
    import io

    import torch
    from safetensors.torch import load

    buffer = io.BytesIO()
    torch.save(load(hub.files.pop("model.safetensors")), buffer)
    hub.files["pytorch_model.bin"] = buffer.getvalue()
    done = bgert("org/model", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "pytorch_model.bin" in downloaded(hub)


@pytest.mark.parametrize("form", ["colbert-ai", "pylate", "bge-m3"])
def test_what_stands_behind_the_network_is_downloaded_too(form, make_checkpoint, write_m3, tmp_path, bgert, hub):
    """Layers of a module, of colbert-ai's metadata, of bge-m3's files: without them the model would be another."""
    write = {
        "colbert-ai": multi_vector_checkpoints.write_colbert_ai,
        "pylate": multi_vector_checkpoints.write_pylate,
        "bge-m3": lambda folder: write_m3(make_checkpoint(folder.name)),
    }[form]
    files = files_of(write(tmp_path / "source"))
    if form == "pylate":
        files["1_Dense/pytorch_model.bin"] = b"x"
    hub.files.clear()
    hub.files.update(files)
    options = ["--pooling", "cls", "--normalize"] if form == "bge-m3" else []
    done = bgert("org/model", "-o", "out", *options)
    assert done.returncode == 0, done.stderr
    outputs = json.loads((tmp_path / "out" / "manifest.json").read_text())["token_outputs"]
    assert [output["name"] for output in outputs][-1] == "multi_vector"
    assert "1_Dense/pytorch_model.bin" not in downloaded(hub)
    assert bgert("org/model", "-o", "again", *options, offline=True).returncode == 0


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_weights_in_parts(hub, bgert, kind):
    import io

    import torch
    from safetensors.torch import load, save

    weights = load(hub.files.pop("model.safetensors"))
    del hub.files["pytorch_model.bin"]
    stem = "model" if kind == "safetensors" else "pytorch_model"
    where = {}
    for part, odd in ((1, False), (2, True)):
        name = f"{stem}-0000{part}-of-00002.{kind}"
        some = {key: value for number, (key, value) in enumerate(weights.items()) if number % 2 == odd}
        buffer = io.BytesIO()
        torch.save(some, buffer)
        hub.files[name] = save(some) if kind == "safetensors" else buffer.getvalue()
        where |= dict.fromkeys(some, name)
    hub.files[f"{stem}.{kind}.index.json"] = json.dumps({"weight_map": where}).encode()
    hub.files[f"other-00001-of-00002.{kind}"] = b"x" * 1000
    done = bgert("org/model", "-o", "out")
    assert done.returncode == 0, done.stderr
    names = {name for name in downloaded(hub) if kind in name}
    assert names == {f"{stem}.{kind}.index.json", *where.values()}


def test_an_old_layout(hub, bgert, tmp_path):
    for name in ("config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors", "sentence_bert_config.json",
                 "pytorch_model.bin"):  # fmt: skip
        hub.files[f"0_Transformer/{name}"] = hub.files.pop(name)
    hub.files["config.json"] = b'{"__version__": "0.2.0"}'
    modules = json.loads(hub.files["modules.json"])
    modules[0]["path"] = "0_Transformer"
    hub.files["modules.json"] = json.dumps(modules).encode()
    done = bgert("org/model", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "0_Transformer/pytorch_model.bin" not in downloaded(hub)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["max_tokens"] == 64
    hub.requests.clear()
    assert bgert("org/model", "-o", "again", offline=True).returncode == 0


def test_no_weights(hub, bgert):
    del hub.files["model.safetensors"], hub.files["pytorch_model.bin"]
    done = bgert("org/model", "-o", "out")
    assert done.returncode == 2
    assert "org/model has no weights" in done.stderr


@pytest.mark.parametrize("alone", [False, True])
def test_an_adapter(hub, bgert, alone):
    hub.files["adapter_config.json"] = b"{}"
    if alone:
        del hub.files["model.safetensors"], hub.files["pytorch_model.bin"], hub.files["config.json"]
    done = bgert("org/model", "-o", "out")
    assert done.returncode == 2
    assert "org/model has a LoRA adapter" in done.stderr
    assert downloaded(hub) == set()


def test_unreachable(hub, bgert, tmp_path):
    assert bgert("org/model", "-o", "out").returncode == 0
    hub.shutdown()
    hub.server_close()
    done = bgert("org/model", "-o", "again")
    assert done.returncode == 0, done.stderr
    assert "taking org/model from the cache, as the hub" in done.stderr
    done = bgert("org/other", "-o", "other")
    assert done.returncode == 2
    assert "org/other is not in the cache, and the hub" in done.stderr
    assert len(done.stderr.splitlines()) == 1
