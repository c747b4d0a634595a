"""Export end to end: what is written, and what is left when it is stopped."""

import json
import os
import signal
import subprocess
import sys

import pytest

import bgert_export
from bgert.model_folder import Manifest, verify_files
from bgert_export import export
from bgert_export.errors import (
    CheckpointError,
    DestinationError,
    ExtraNotInstalledError,
    UnsupportedCheckpointError,
    VerificationError,
    WriteError,
)


@pytest.fixture
def checkpoint(make_checkpoint, sentence_transformers_files):
    return make_checkpoint(files=sentence_transformers_files("mean", prompts={"query": "query "}))


def nothing_in(folder):
    return [path.name for path in folder.iterdir() if path.name not in ("checkpoint",)] == []


def test_a_verified_export(checkpoint, tmp_path):
    lines = []
    returned = export(checkpoint, tmp_path / "out", progress=lines.append)
    manifest = Manifest.read(tmp_path / "out")
    assert manifest == returned
    verify_files(tmp_path / "out", manifest.files())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["manifest.json", "modules.json", "config_sentence_transformers.json"]
        + [entry.name for entry in manifest.files()]
    )
    (graph,) = manifest.graphs
    assert (graph.target, graph.precision, graph.output) == ("cpu", "fp32", "embeddings")
    assert (graph.opset, graph.ir_version) == ({"ai.onnx": 17, "bgert": 1}, 8)
    assert graph.parity.count > 200
    assert graph.parity.max_abs_error < 5e-6
    assert graph.parity.min_cosine > 0.9999999
    assert graph.parity.reference.startswith("transformers ")
    assert graph.parity.engine.startswith("onnxruntime ")
    assert (manifest.pooling, manifest.normalize, manifest.dimensions) == ("mean", True, 64)
    assert manifest.prompts == {"query": "query ", "document": ""}
    assert manifest.source["path"] == str(checkpoint)
    said = {choice.field for choice in manifest.choices}
    assert {"pooling", "normalize", "prompts", "max_tokens"} <= said
    assert all(any(line.startswith(f"{name}:") for line in lines) for name in said)


def test_it_runs_in_the_runtime_and_matches_sentence_transformers(checkpoint, tmp_path):
    import numpy as np
    from sentence_transformers import SentenceTransformer

    from bgert import Encoder

    export(checkpoint, tmp_path / "out", verify=False)
    texts = ["copy a file", "", "今天", "the list of everything " * 30, "query"]
    peer = SentenceTransformer(str(checkpoint), device="cpu")
    encoder = Encoder(tmp_path / "out")
    with pytest.warns(UserWarning, match="1 of 5 inputs"):
        found = encoder.encode(texts)
    np.testing.assert_allclose(found, peer.encode(texts, show_progress_bar=False), atol=2e-6)
    np.testing.assert_allclose(
        encoder.encode_queries(texts[:3]), peer.encode_query(texts[:3], show_progress_bar=False), atol=2e-6
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_checkpoints(make_checkpoint, make_config, make_weights, tmp_path, dtype):
    import torch
    from safetensors.torch import save_file

    weights = {
        name: torch.from_numpy(value).to(getattr(torch, dtype)) for name, value in make_weights(make_config()).items()
    }
    folder = make_checkpoint(config=make_config(torch_dtype=dtype), weights={})
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    manifest = export(folder, tmp_path / "out", pooling="cls", normalize=True)
    assert manifest.graphs[0].parity.max_abs_error < 1e-5


def test_a_task_models_checkpoint_with_old_names(make_checkpoint, make_config, make_weights, tmp_path):
    import numpy as np

    weights = {
        "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in make_weights(make_config()).items()
    }
    weights["cls.predictions.bias"] = np.zeros(3, np.float32)
    folder = make_checkpoint(config=make_config(architectures=["BertForMaskedLM"]), weights=weights)
    manifest = export(folder, tmp_path / "out", pooling="mean", normalize=False, verify=False)
    (choice,) = [choice for choice in manifest.choices if choice.field == "unused_weights"]
    assert choice.value == ["cls.predictions.bias"]


@pytest.mark.parametrize("name", ["gelu_python", "relu", "gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh",
                                  "gelu_python_tanh"])  # fmt: skip
def test_activations(make_checkpoint, make_config, tmp_path, name):
    """Against PyTorch, in the comparison of every export; and a text has the same bits in any batch."""
    import numpy as np

    from bgert import Encoder

    folder = make_checkpoint(config=make_config(hidden_act=name))
    manifest = export(folder, tmp_path / "out", pooling="mean", normalize=True)
    assert manifest.graphs[0].parity.max_abs_error < 5e-6
    texts = ["a", "copy a file", "the list of everything " * 3, "", "today in a folder, with text"]
    encoder = Encoder(tmp_path / "out")
    together = encoder.encode(texts)
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_array_equal(encoder.encode([text])[0], row)


@pytest.mark.parametrize("name", ["relu", "gelu_new"])
@pytest.mark.parametrize("target", ["cpu-bf16", "cpu-int8", "cuda", "tensorrt", "tensorrt-bf16"])
def test_activations_that_a_target_does_not_have(make_checkpoint, make_config, tmp_path, name, target):
    folder = make_checkpoint(config=make_config(hidden_act=name))
    with pytest.raises(UnsupportedCheckpointError, match=r"hidden_act is .*, which .* not have: export the target cpu"):
        export(folder, tmp_path / "out", pooling="mean", normalize=True, targets=[target], verify=False)
    assert nothing_in(tmp_path)


@pytest.mark.parametrize("width", [128, 100])
@pytest.mark.parametrize("name", ["relu", "gelu_new", "gelu"])
def test_activations_of_widths_that_fill_no_panel(make_checkpoint, make_config, tmp_path, name, width):
    folder = make_checkpoint(config=make_config(hidden_act=name, intermediate_size=width))
    assert export(folder, tmp_path / "out", pooling="cls", normalize=True).graphs[0].parity.max_abs_error < 5e-6


def test_unknown_weights(make_checkpoint, make_config, make_weights, tmp_path):
    import numpy as np

    weights = make_weights(make_config()) | {
        "bert.linear.weight": np.ones((8, 64), np.float32),
        "temperature": np.ones((), np.float32),
        "encoder.layer.3.output.dense.bias": np.full(64, np.nan, np.float32),
    }
    folder = make_checkpoint(weights=weights)
    with pytest.raises(CheckpointError, match=r"a weight bert\.linear\.weight .*--ignore-unknown-weights"):
        export(folder, tmp_path / "out", pooling="mean", normalize=False)
    manifest = export(folder, tmp_path / "out", pooling="mean", normalize=False, ignore_unknown_weights=True)
    said = {choice.field: choice for choice in manifest.choices}
    assert said["unused_weights"].value == ["bert.linear.weight", "temperature"]
    assert (said["unused_layers"].value, said["unused_layers"].why) == ([3], "config.json has num_hidden_layers 3")
    done = subprocess.run(
        [sys.executable, "-m", "bgert", "export", folder, "-o", tmp_path / "again", "--pooling", "mean",
         "--no-normalize", "--no-verify", "--ignore-unknown-weights"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "unused_weights: ['bert.linear.weight', 'temperature']" in done.stderr


@pytest.mark.parametrize("changes", [{"pad_token_id": None}, {"position_embedding_type": None}])
def test_null_as_transformers_reads_it(make_checkpoint, make_config, tmp_path, changes):
    folder = make_checkpoint()
    (folder / "config.json").write_text(json.dumps(make_config() | changes))
    assert export(folder, tmp_path / "out", pooling="cls", normalize=True).graphs[0].parity.max_abs_error < 5e-6


@pytest.mark.parametrize("name", ["config.json", "modules.json", "tokenizer_config.json", "1_Pooling/config.json",
                                  "sentence_bert_config.json", "config_sentence_transformers.json"])  # fmt: skip
@pytest.mark.parametrize("kind", ["deep", "zero", "fifo", "lfs", "folder"])
def test_json_files_that_are_against_us(checkpoint, tmp_path, name, kind):
    path = checkpoint / name
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(
            b'{"a":' * 5000 + b"1" + b"}" * 5000 if kind == "deep" else b"version https://git-lfs.github.com"
        )
    done = subprocess.run(
        [sys.executable, "-m", "bgert", "export", checkpoint, "-o", tmp_path / "out", "--no-verify"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert name in done.stderr
    assert len(done.stderr.splitlines()) == 1


WINDOWS = """
import signal, sys
sys.modules["fcntl"] = None
del signal.SIGHUP
from bgert.commands.main import main
import bgert_export.cli, bgert_export.pipeline, bgert.encoder
try:
    bgert_export.export(sys.argv[2], sys.argv[4])
except bgert_export.errors.PlatformError as error:
    print(f"refused: {error}")
sys.exit(main(sys.argv[1:]))
"""


def test_windows_is_refused(checkpoint, tmp_path):
    """Windows as far as it goes here: no `fcntl`, no SIGHUP."""
    done = subprocess.run(
        [sys.executable, "-c", WINDOWS, "export", checkpoint, "-o", tmp_path / "out", "--no-verify"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stdout.startswith("refused: export runs on Linux and macOS, not on Windows")
    assert "export runs on Linux and macOS, not on Windows" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert nothing_in(tmp_path)


def test_not_verified_is_written_down(checkpoint, tmp_path):
    manifest = export(checkpoint, tmp_path / "out", verify=False)
    assert manifest.graphs[0].parity is None
    assert any(choice.field == "verify" and choice.value is False for choice in manifest.choices)


def test_a_wrong_graph_is_not_written(checkpoint, tmp_path, monkeypatch):
    from bgert_export.network import Network

    folded = Network.attention_output_bias
    monkeypatch.setattr(Network, "attention_output_bias", lambda self, layer: folded(self, layer) * 1.1)
    with pytest.raises(VerificationError, match="nothing was written: max abs error"):
        export(checkpoint, tmp_path / "out")
    assert nothing_in(tmp_path)


def test_a_checkpoint_of_nan_is_not_written(make_checkpoint, make_config, make_weights, tmp_path):
    weights = make_weights(make_config())
    weights["encoder.layer.0.output.dense.weight"][0, 0] = float("nan")
    with pytest.raises(
        CheckpointError, match=r"weight encoder\.layer\.0\.output\.dense\.weight has NaN or infinity in row 0"
    ):
        export(make_checkpoint(weights=weights), tmp_path / "out", pooling="cls", normalize=True)
    assert nothing_in(tmp_path)


def test_a_vocabulary_that_is_too_large(make_checkpoint, make_config, tmp_path):
    folder = make_checkpoint(config=make_config(vocab_size=50))
    with pytest.raises(CheckpointError, match=r"the tokenizer has ids up to .* vocab_size 50"):
        export(folder, tmp_path / "out", pooling="cls", normalize=True, verify=False)


@pytest.mark.parametrize("name", ["torch", "transformers"])
def test_verification_needs_its_extra(checkpoint, tmp_path, monkeypatch, name):
    hide(monkeypatch, name)
    with pytest.raises(ExtraNotInstalledError, match=rf"needs {name}.*extra `verify` .*, or pass --no-verify"):
        export(checkpoint, tmp_path / "out")
    assert nothing_in(tmp_path)
    export(checkpoint, tmp_path / "out", verify=False)


@pytest.mark.parametrize("name", ["onnx", "huggingface_hub", "onnxruntime"])
def test_export_needs_its_extra(checkpoint, tmp_path, monkeypatch, name):
    hide(monkeypatch, name)
    with pytest.raises(ExtraNotInstalledError, match=rf"needs {name}.*extra `export`"):
        export(checkpoint, tmp_path / "out")


def hide(monkeypatch, name):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted, *rest: None if wanted == name else find(wanted))


def test_importing_export_is_light():
    code = "import sys, bgert_export, bgert_export.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "onnx", "onnxruntime", "huggingface_hub"} & set(done.stdout.split())
    assert bgert_export.__all__ == ["export"]


# What follows stops exports for real, in processes of their own.

SLOW = """
import sys, time
from bgert_export.graphs import builder
from bgert.commands.main import main
add = builder.GraphBuilder.weight
pause = float(sys.argv[1])
def slowly(self, *arguments):
    name = add(self, *arguments)
    self._data.flush()
    if "layer.1" in name:
        print("in the middle", flush=True)
        time.sleep(pause) if pause else sys.stdin.readline()
        builder.GraphBuilder.weight = add
    return name
builder.GraphBuilder.weight = slowly
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def start(checkpoint, tmp_path):
    """Starts an export that stops in the middle of its weights: `pause` seconds, or (0) until it gets a line."""
    started = []

    def starter(pause=60.0, destination="out"):
        arguments = ["export", str(checkpoint), "-o", str(tmp_path / destination), "--no-verify"]
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW, str(pause), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            # Who runs the tests in the background may have set it to be ignored, and so it would be here.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        started.append(process)
        return process

    yield starter
    for process in started:
        process.kill()
        process.communicate()


def in_the_middle(process):
    assert process.stdout.readline() == "in the middle\n", process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted(start, tmp_path, number):
    process = start()
    in_the_middle(process)
    assert (tmp_path / ".out.bgert-export.tmp" / "cpu-fp32.onnx.data").stat().st_size > 0
    process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert nothing_in(tmp_path)


def test_killed_and_exported_again(start, checkpoint, tmp_path):
    process = start()
    in_the_middle(process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.bgert-export.tmp").is_dir()
    export(checkpoint, tmp_path / "out", verify=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "out"]
    verify_files(tmp_path / "out", Manifest.read(tmp_path / "out").files())


def test_two_processes_one_folder(start, checkpoint, tmp_path):
    first = start(pause=0)
    in_the_middle(first)
    with pytest.raises(DestinationError, match=rf"another export \(process {first.pid}\) is writing"):
        export(checkpoint, tmp_path / "out", verify=False)
    with pytest.raises(DestinationError, match="another export"):
        export(checkpoint, tmp_path / "out", verify=False, force=True)
    output, errors = first.communicate("\n", timeout=120)
    assert first.returncode == 0, errors
    assert "not verified" in output
    verify_files(tmp_path / "out", Manifest.read(tmp_path / "out").files())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "out"]


def test_many_processes_start_at_once(start, tmp_path):
    processes = [start(pause=0.2) for _ in range(3)]
    codes = sorted(process.communicate(timeout=240) and process.returncode for process in processes)
    assert codes[0] == 0
    assert set(codes[1:]) == {2}
    verify_files(tmp_path / "out", Manifest.read(tmp_path / "out").files())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "out"]


def test_the_disk_is_full(checkpoint, tmp_path):
    """A limit on file size stands for the disk: the write fails in the same place with the same kind of error."""
    code = (
        "import resource, sys; from bgert.commands.main import main; import bgert_export.pipeline;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["export", str(checkpoint), "-o", str(tmp_path / "out"), "--no-verify"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr.splitlines()[-1]
    assert "nothing was left behind" in done.stderr
    assert nothing_in(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounting needs root")
def test_a_small_file_system_is_full(checkpoint, tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", mount], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.decode().strip()}")
    try:
        with pytest.raises(WriteError, match="No space left on device"):
            export(checkpoint, mount / "out", verify=False)
        assert list(mount.iterdir()) == []
    finally:
        subprocess.run(["umount", mount], check=True)


def test_memory_stays_below_the_weights_and_a_half(make_checkpoint, make_config, make_weights, tmp_path):
    """160 MB of half-precision weights; blocks are read, widened and written one at a time."""
    import numpy as np
    from safetensors.numpy import save_file

    config = make_config(vocab_size=60_000, hidden_size=512, intermediate_size=2048, num_hidden_layers=16)
    weights = {name: value.astype(np.float16) for name, value in make_weights(config).items()}
    folder = make_checkpoint(config=config, weights={})
    save_file(weights, folder / "model.safetensors")
    size = (folder / "model.safetensors").stat().st_size
    del weights
    code = (
        "import re, sys, json; from bgert_export import export, pipeline;"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]);"
        "before = peak();"
        "export(sys.argv[1], sys.argv[2], pooling='cls', normalize=True, verify=False);"
        "print(json.dumps([before, peak()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    before, peak = json.loads(done.stdout)
    assert peak * 1024 < 1.5 * size
    print(f"{size / 1e6:.0f} MB of weights, peak {peak / 1e3:.0f} MB, of which imports {before / 1e3:.0f} MB")
