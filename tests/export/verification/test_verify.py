"""Comparison with PyTorch, and that it notices what is wrong."""

import json
import warnings

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import load_external_data_for_tensor

import tensorrt_fake
from bgert.backends.cuda import check as cuda_check
from bgert.commands.main import main
from bgert.errors import DeviceUnavailableError, InvalidOptionError
from bgert.model_folder import FileEntry, Manifest
from bgert_export import export
from bgert_export.errors import VerificationError
from bgert_export.verification import verify
from bgert_export.verification.verify import verify_against


@pytest.fixture
def checkpoint(make_checkpoint, sentence_transformers_files):
    return make_checkpoint(files=sentence_transformers_files("cls"))


@pytest.fixture
def folder(checkpoint, tmp_path):
    export(checkpoint, tmp_path / "out", verify=False)
    return tmp_path / "out"


def resign(folder):
    """Make the manifest fit files that were changed on purpose."""
    raw = json.loads((folder / "manifest.json").read_text())
    for entry in [*raw["tokenizer_files"], *raw["graphs"][0]["files"]]:
        entry |= vars(FileEntry.of(folder, entry["name"]))
    (folder / "manifest.json").write_text(json.dumps(raw))


def change_weight(folder, name, change):
    """Change one external weight in place."""
    model = onnx.load(folder / "cpu-fp32.onnx", load_external_data=False)
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    offset = int({entry.key: entry.value for entry in tensor.external_data}["offset"])
    load_external_data_for_tensor(tensor, str(folder))
    value = change(onnx.numpy_helper.to_array(tensor).copy())
    with (folder / "cpu-fp32.onnx.data").open("r+b") as file:
        file.seek(offset)
        file.write(value.astype("<f4").tobytes())
    resign(folder)


def test_equal(folder, checkpoint):
    (report,) = verify_against(folder, checkpoint)
    assert report.passed
    assert report.failures == []
    assert report.parity.max_abs_error < 5e-6
    assert report.parity.rank_agreement is None
    assert "equal to transformers" in report.summary()


def test_a_slightly_different_weight(folder, checkpoint):
    def nudge(value):
        value[:, 3::32] *= 1.002  # one column of each panel
        return value

    change_weight(folder, "encoder.layer.1.output.dense.weight", nudge)
    (report,) = verify_against(folder, checkpoint)
    assert not report.passed
    assert "max abs error" in report.failures[0]
    assert "DIFFERS from transformers" in report.summary()


@pytest.mark.parametrize("quiet", [False, True])
def test_a_bar_in_a_terminal(folder, checkpoint, tmp_path, monkeypatch, capsys, quiet):
    monkeypatch.setattr("bgert.commands.options.in_terminal", lambda: True)
    (tmp_path / "texts.txt").write_text("copy the model\nmodel\n")
    argv = ["verify", str(folder), "--against", str(checkpoint), "--texts", str(tmp_path / "texts.txt")]
    assert main(argv + ["--quiet"] * quiet) == 0
    assert ("token/s" in capsys.readouterr().err) != quiet


def test_another_checkpoint(folder, make_checkpoint, sentence_transformers_files):
    other = make_checkpoint("other", seed=1, files=sentence_transformers_files("cls"))
    (report,) = verify_against(folder, other)
    assert not report.passed
    assert any("min cosine" in failure for failure in report.failures)


def test_another_tokenizer(folder, checkpoint):
    vocabulary = (checkpoint / "vocab.txt").read_text(encoding="utf-8").split("\n")
    first, second = vocabulary.index("copy"), vocabulary.index("model")
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (checkpoint / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    (report,) = verify_against(folder, checkpoint)
    assert not report.passed
    assert "token ids of" in report.failures[0]
    assert "differ from transformers'" in report.failures[0]


def test_another_size_and_kind(folder, make_checkpoint, make_config, monkeypatch):
    """Said before PyTorch computes anything."""
    monkeypatch.setattr("bgert_export.verification.verify.TorchReference", None)
    with pytest.raises(InvalidOptionError, match=r"hidden_size \d+ and 32.*cannot be compared"):
        verify_against(folder, make_checkpoint("other", config=make_config(hidden_size=32)))
    with pytest.raises(InvalidOptionError, match=r"num_hidden_layers \d and 5; they cannot be compared"):
        verify_against(folder, make_checkpoint("deeper", config=make_config(num_hidden_layers=5)))
    reranker = make_config(architectures=["BertForSequenceClassification"], num_labels=1)
    with pytest.raises(InvalidOptionError, match="cannot be compared"):
        verify_against(folder, make_checkpoint("reranker", config=reranker))


def test_default_prompt(make_checkpoint, sentence_transformers_files, tmp_path):
    files = sentence_transformers_files("cls", prompts={"query": "query: "}, default="query")
    manifest = export(make_checkpoint(files=files), tmp_path / "out")
    assert manifest.default_prompt == "query"
    assert manifest.graphs[0].parity.max_abs_error < 1e-5


def test_vectors_that_are_not_normalised_are_compared_at_length_one(make_checkpoint, tmp_path):
    manifest = export(make_checkpoint(), tmp_path / "out", pooling="mean", normalize=False)
    assert manifest.graphs[0].parity.max_abs_error < 1e-5


def test_command_line(folder, checkpoint, tmp_path, capsys):
    arguments = ["verify", str(folder), "--against", str(checkpoint)]
    texts = tmp_path / "texts.txt"
    texts.write_text("copy a file\n今天\n", encoding="utf-8")
    assert main([*arguments, "--texts", str(texts), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["passed"] is True
    assert result["graphs"][0]["parity"]["count"] == 2
    assert result["graphs"][0]["parity"]["corpus"] == "2 inputs of texts.txt, of 4 to 5 tokens"
    change_weight(folder, "encoder.layer.0.output.dense.weight", np.zeros_like)
    assert main([*arguments, "--texts", str(texts)]) == 1
    assert "DIFFERS" in capsys.readouterr().out
    assert main([*arguments, "--texts", str(tmp_path / "none.txt")]) == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "empty.txt").write_text("")
    assert main([*arguments, "--texts", str(tmp_path / "empty.txt")]) == 2
    assert main(["verify", str(tmp_path / "missing"), "--against", str(checkpoint)]) == 2


def test_the_command_line_exports(checkpoint, tmp_path, capsys):
    arguments = ["export", str(checkpoint), "-o", str(tmp_path / "made"), "--pooling", "mean", "--no-normalize"]
    arguments += ["--query-prompt", "ask: ", "--max-tokens", "32", "--no-verify"]
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"{tmp_path / 'made'}: encoder, ")
    assert "pooling: 'mean' (asked for; 1_Pooling/config.json says 'cls')" in output.err
    manifest = Manifest.read(tmp_path / "made")
    assert (manifest.pooling, manifest.normalize, manifest.max_tokens) == ("mean", False, 32)
    assert manifest.prompts == {"query": "ask: ", "document": ""}
    assert main(arguments) == 2
    assert "exists: pass --force" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0


@pytest.mark.parametrize("command", ["export", "verify"])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"example: bgert {command} " in capsys.readouterr().out


def test_ties_may_come_in_either_order():
    same = verify._same_order
    assert same(np.array([3.0, 2.0, 1.0]), np.array([30.0, 20.0, 10.0], np.float32), 1e-5)
    assert not same(np.array([3.0, 2.0, 1.0]), np.array([20.0, 30.0, 10.0], np.float32), 1e-5)
    assert same(np.array([3.0, 2.0, 1.0]), np.array([20.0, 30.0, 10.0], np.float32), 1.5)
    assert same(np.array([2.0, 2.000001]), np.array([2.0, 1.0], np.float32), 1e-5)
    assert same(np.array([2.0]), np.array([1.0], np.float32), 1e-5)
    # Each step is within the gap, first and last are not.
    assert not same(np.array([1.0, 1.015, 1.03]), np.array([3.0, 2.0, 1.0], np.float32), 0.02)
    assert same(np.array([1.0, 1.015]), np.array([3.0, 2.0], np.float32), 0.02)


def test_a_graph_whose_device_is_not_here(checkpoint, tmp_path, monkeypatch, capsys):
    """It is written, said to be unverified everywhere, and is no reason to fail; alone it proves nothing."""

    def count_devices():
        raise DeviceUnavailableError("there is no NVIDIA driver here")

    monkeypatch.setattr(cuda_check, "count_devices", count_devices)
    folder = tmp_path / "both"
    assert main(["export", str(checkpoint), "-o", str(folder), "--target", "cpu", "--target", "cuda"]) == 0
    output = capsys.readouterr()
    assert "not verified: cuda fp16" in output.out
    assert "NOT verified, because it does not run here: there is no NVIDIA driver" in output.err
    manifest = Manifest.read(folder)
    assert [graph.parity is None for graph in manifest.graphs] == [False, True]
    assert manifest.choices[-1].why == "cuda fp16 does not run where it was exported"
    assert [report.target for report in verify_against(folder, checkpoint)] == ["cpu"]
    export(checkpoint, tmp_path / "alone", targets=["cuda"])
    with pytest.raises(DeviceUnavailableError, match="nothing was compared"):
        verify_against(tmp_path / "alone", checkpoint)


def test_tolerances_of_fp16(folder, checkpoint, monkeypatch):
    """Through the same code, with the CPU's vectors moved by as much as the tolerance allows and by more."""
    tolerance = verify.TOLERANCES["encoder", "fp16"]
    assert (tolerance.min_cosine, tolerance.mean_cosine) == (0.9995, 0.9999)
    assert (
        verify.TOLERANCES["reranker", "fp16"].max_abs_error == verify.TOLERANCES["reranker", "fp16"].order_gap == 0.02
    )
    monkeypatch.setitem(verify.TOLERANCES, ("encoder", "fp32"), tolerance)
    original = verify._run_groups
    for angle, passed in ((0.01, True), (0.02, False)):  # cosines 0.99995 and 0.9998

        def turned(*arguments, angle=angle):
            found, engine = original(*arguments)
            rows = []
            for group in found:
                side = np.roll(group, 1, axis=1)
                side -= (side * group).sum(1, keepdims=True) * group
                side /= np.linalg.norm(side, axis=1, keepdims=True)
                rows.append(group * np.cos(angle) + side * np.sin(angle))
            return rows, engine

        monkeypatch.setattr(verify, "_run_groups", turned)
        (report,) = verify_against(folder, checkpoint)
        assert report.passed == passed
    assert any("mean cosine" in failure for failure in report.failures)


@pytest.mark.parametrize("labels", [1, 3])
def test_rerankers(make_checkpoint, make_config, tmp_path, labels):
    config = make_config(architectures=["BertForSequenceClassification"], num_labels=labels, id2label=None)
    config["id2label"] = {str(number): f"LABEL_{number}" for number in range(labels)}
    manifest = export(make_checkpoint(config=config, seed=labels), tmp_path / "out")
    assert (manifest.kind, manifest.num_labels, manifest.dimensions) == ("reranker", labels, None)
    (graph,) = manifest.graphs
    assert graph.output == "logits"
    assert "token_type_ids" in graph.inputs
    assert graph.parity.max_abs_error < 2e-5
    assert graph.parity.rank_agreement == 1.0
    assert graph.parity.min_cosine is None


def test_the_demo_model_equals_pytorch_and_sentence_transformers(demo_checkpoint, tmp_path):
    from sentence_transformers import SentenceTransformer

    from bgert import Encoder
    from bgert_export.verification.texts import mixed

    manifest = export(demo_checkpoint, tmp_path / "out")
    parity = manifest.graphs[0].parity
    assert parity.max_abs_error < 2e-6
    assert parity.min_cosine > 0.9999999
    assert (manifest.pooling, manifest.normalize, manifest.max_tokens) == ("mean", True, 256)
    texts = mixed(40)
    expected = SentenceTransformer(str(demo_checkpoint), device="cpu").encode(texts, show_progress_bar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Encoder(tmp_path / "out").encode(texts)
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("kind", ["BertModel", "BertForSequenceClassification"])
def test_tensorrt_graphs_are_verified_in_16_bits(
    make_checkpoint, make_config, make_weights, sentence_transformers_files, tmp_path, kind
):
    encoder = kind == "BertModel"
    config = make_config(architectures=[kind], num_labels=None if encoder else 1)
    files = sentence_transformers_files() if encoder else None
    weights = make_weights(config)
    for name, value in weights.items():
        if name.endswith("LayerNorm.weight"):  # outliers in a vector this narrow are more than 16 bits promise
            np.minimum(value, 2, out=value)
    checkpoint = make_checkpoint(config=config, weights=weights, files=files)
    manifest = export(checkpoint, tmp_path / "out", targets=["tensorrt", "tensorrt-bf16"])
    fp16, bf16 = (graph.parity for graph in manifest.graphs)
    assert "every fp16 value rounded" in fp16.engine
    assert "every bf16 value rounded" in bf16.engine
    assert 2e-5 < fp16.max_abs_error < bf16.max_abs_error


def test_an_overflow_in_16_bits_fails_the_export(
    make_checkpoint, make_config, make_weights, sentence_transformers_files, tmp_path
):
    weights = make_weights(make_config())
    weights["encoder.layer.1.intermediate.dense.bias"][:] = 6e4
    weights["encoder.layer.1.output.dense.weight"][:] = 1
    checkpoint = make_checkpoint(weights=weights, files=sentence_transformers_files())
    with pytest.raises(VerificationError, match="tensorrt fp16 differs"):
        export(checkpoint, tmp_path / "out", targets=["tensorrt"])
    assert not (tmp_path / "out").exists()


@pytest.fixture
def for_tensorrt(make_checkpoint, make_config, make_weights, sentence_transformers_files, tmp_path, monkeypatch):
    """A checkpoint within fp16's reach and its folder; engines are cached beside it."""
    weights = make_weights(make_config())
    for name, value in weights.items():
        if name.endswith("LayerNorm.weight"):
            np.minimum(value, 2, out=value)
    checkpoint = make_checkpoint(weights=weights, files=sentence_transformers_files("mean"))
    folder = tmp_path / "out"
    export(checkpoint, folder, targets=["cpu", "tensorrt"], verify=False)
    monkeypatch.setenv("BGERT_CACHE", str(tmp_path / "cache"))
    return folder, checkpoint


def test_the_engine_itself_is_verified_where_there_is_one(for_tensorrt, monkeypatch, capsys):
    """Here on a fake device; on a real one it is the first thing to run."""
    folder, checkpoint = for_tensorrt
    tensorrt_fake.install(monkeypatch, tensorrt_fake.Machine())
    assert main(["build", str(folder), "--tokens-per-batch", "128"]) == 0
    (report,) = verify_against(folder, checkpoint, device="tensorrt")
    assert (report.target, report.precision, report.passed) == ("tensorrt", "fp16", True)
    assert report.parity.engine == "tensorrt 11.4.0.106"
    arguments = ["verify", str(folder), "--against", str(checkpoint), "--device"]
    assert main([*arguments, "tpu"]) == 2
    assert "use cpu, tensorrt or tensorrt-rtx" in capsys.readouterr().err
    export(checkpoint, folder, targets=["cpu"], verify=False, force=True)
    assert main([*arguments, "tensorrt"]) == 2
    assert "has no tensorrt graph" in capsys.readouterr().err


def test_an_engine_of_tensorrt_for_rtx_is_verified_by_its_own_device(for_tensorrt, monkeypatch):
    folder, checkpoint = for_tensorrt
    machine = tensorrt_fake.Machine()
    machine.gpu = ("NVIDIA GeForce RTX 4090", 8, 9, 128)
    tensorrt_fake.install(monkeypatch, machine, "tensorrt_rtx 1.7")
    assert main(["build", str(folder), "--for", "any", "--tokens-per-batch", "128"]) == 0
    assert main(["verify", str(folder), "--against", str(checkpoint), "--device", "tensorrt-rtx"]) == 0
    (report,) = verify_against(folder, checkpoint, device="tensorrt-rtx")
    assert (report.target, report.precision, report.passed) == ("tensorrt", "fp16", True)
    assert report.parity.engine == "tensorrt_rtx 1.7.1.116"
