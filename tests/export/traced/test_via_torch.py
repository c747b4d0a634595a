"""Networks that bgert has no writer for, exported by PyTorch: from files to vectors beside transformers'."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
import transformers
from safetensors.numpy import save_file

import bgert
from bgert.errors import InvalidOptionError
from bgert_export import export
from bgert_export.errors import CheckpointError, UnsupportedCheckpointError, VerificationError
from bgert_export.safetensors_file import SafetensorsWeights
from bgert_export.weights import read_whole

TEXTS = ["copy a file", "", "the model of the day " * 9, "return [PAD] list"]


@pytest.mark.parametrize(
    "model_type", ["nomic_bert", "albert", "data2vec-text", "squeezebert", "ernie", "megatron-bert", "deberta-v2"]
)
def test_vectors_are_those_of_transformers(make, tmp_path, model_type):
    folder = make(model_type)
    manifest = export(folder, tmp_path / "out", pooling="mean", normalize=True, via="torch")
    (graph,) = manifest.graphs
    assert graph.parity.max_abs_error < 2e-5
    assert graph.padded
    via = next(choice for choice in manifest.choices if choice.field == "via")
    assert via.value == "torch"
    assert torch.__version__ in via.why
    with bgert.Encoder(tmp_path / "out") as encoder:
        found = encoder.encode(TEXTS)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for text, row in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            mean = model(**tokenizer(text, truncation=True, return_tensors="pt")).last_hidden_state.mean(1)
        expected = torch.nn.functional.normalize(mean, dim=1)[0].numpy()
        np.testing.assert_allclose(row, expected, atol=2e-5, rtol=0)
    domains = {node.domain for node in onnx.load(tmp_path / "out" / graph.files[0].name).graph.node}
    assert domains == {""}


def test_a_network_that_padding_changes_is_refused(make, tmp_path):
    """ConvBERT's convolutions reach over the end of a text: transformers' own vectors depend on the batch."""
    with pytest.raises(VerificationError, match="differs from PyTorch"):
        export(make("convbert"), tmp_path / "out", pooling="mean", normalize=True, via="torch")
    assert not (tmp_path / "out").exists()


def test_scores_are_those_of_transformers(make, tmp_path):
    folder = make("ernie", "ForSequenceClassification")
    manifest = export(folder, tmp_path / "out", via="torch")
    assert manifest.kind == "reranker"
    assert manifest.graphs[0].parity.rank_agreement == 1
    pairs = [("copy a file", "the model of the day " * 9), ("", "list")]
    with bgert.Reranker(tmp_path / "out") as reranker:
        found = reranker.score(pairs)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        rows = [model(**tokenizer(*pair, truncation=True, return_tensors="pt")).logits[0, 0].item() for pair in pairs]
    np.testing.assert_allclose(found, rows, atol=1e-4, rtol=0)


def test_another_network_fails_verification(make, tmp_path):
    folder = make("ernie")
    export(folder, tmp_path / "out", pooling="cls", normalize=True, via="torch", verify=False)
    weights = SafetensorsWeights([folder / "model.safetensors"])
    tensors = {name: read_whole(weights, name) for name in weights.shapes}
    tensors["encoder.layer.1.output.dense.weight"] = tensors["encoder.layer.1.output.dense.weight"] * 1.01
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    command = [sys.executable, "-m", "bgert", "verify", str(tmp_path / "out"), "--against", str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert not json.loads(done.stdout)["passed"]


def test_code_that_a_checkpoint_brings_is_not_run(make, tmp_path):
    folder = make("ernie")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoModel": "own.Own", "AutoConfig": "own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    with pytest.raises(UnsupportedCheckpointError, match="'own' is none of transformers"):
        export(folder, tmp_path / "out", via="torch")
    assert not (tmp_path / "ran").exists()


def test_missing_weights_are_no_random_ones(make, tmp_path):
    folder = make("ernie")
    weights = SafetensorsWeights([folder / "model.safetensors"])
    tensors = {name: read_whole(weights, name) for name in weights.shapes if "layer.1.output.dense" not in name}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"no weight encoder\.layer\.1\.output\.dense"):
        export(folder, tmp_path / "out", pooling="cls", normalize=True, via="torch")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"via": "tensorflow"}, "unknown exporter 'tensorflow'"),
        ({"via": "torch", "targets": ["cpu-int8"]}, "the target cpu alone"),
        ({"via": "torch", "optimum_python": sys.executable}, "for --via optimum"),
        ({"optimum_python": sys.executable}, "for --via optimum"),
        ({"via": "optimum"}, "--optimum-python"),
    ],
)
def test_options_that_do_not_go_together(write_model, tmp_path, options, message):
    with pytest.raises(InvalidOptionError, match=message):
        export(write_model(tmp_path / "model"), tmp_path / "out", **options)


def test_the_refusal_of_an_architecture_names_the_way_out(make, tmp_path):
    with pytest.raises(UnsupportedCheckpointError, match="--via torch"):
        export(make("convbert"), tmp_path / "out")
