"""Every pooling and dense layer of sentence-transformers, as sentence-transformers itself saves and computes it."""

import json

import numpy as np
import pytest

from bgert import Encoder
from bgert.errors import InvalidOptionError
from bgert.model_folder import Manifest
from bgert_export import export
from bgert_export.errors import CheckpointError, UnsupportedCheckpointError
from bgert_export.pooling import POOLINGS, modes_of

sentence_transformers = pytest.importorskip("sentence_transformers")

TEXTS = [
    "",
    "a",
    "how to copy a file",
    "the text of the model " * 5,
    "which list of numbers is in the key? none of it, and it is false",
    "今天天气很好 read and write",
]
SEVERAL = ["cls+mean", "max+weightedmean+lasttoken", "+".join(POOLINGS)]


@pytest.fixture
def saved(make_checkpoint, tmp_path):
    """A checkpoint that sentence-transformers saved with its modules, and the model."""

    def save(pooling, dense=(), *, normalize=False, **changes):
        import torch
        from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

        torch.manual_seed(3)
        transformer = Transformer(str(make_checkpoint(**changes)))
        modes = modes_of(pooling)
        modules = [transformer, Pooling(64, modes[0] if len(modes) == 1 else modes)]
        width = 64 * len(modes)
        for settings in dense:
            modules.append(Dense(width, **settings))
            width = settings["out_features"]
        model = sentence_transformers.SentenceTransformer(modules=modules + [Normalize()] * normalize, device="cpu")
        model.save(str(tmp_path / "saved"), create_model_card=False)
        return tmp_path / "saved", model

    return save


@pytest.mark.parametrize("pooling", [*POOLINGS, *SEVERAL])
def test_pooling_as_sentence_transformers(saved, tmp_path, pooling):
    folder, model = saved(pooling)
    manifest = export(folder, tmp_path / "out")  # verified, with the calls of sentence-transformers
    assert manifest.pooling == pooling
    assert manifest.dimensions == 64 * len(modes_of(pooling))
    assert {call.max_abs_error is not None for call in manifest.graphs[0].parity.calls} == {True}
    encoder = Encoder(tmp_path / "out")
    expected = model.encode(TEXTS)
    found = encoder.encode(TEXTS)
    assert found.shape == expected.shape
    assert (np.abs(found - expected).max(1) / np.linalg.norm(expected, axis=1)).max() < 2e-5
    for text, row in zip(TEXTS, found, strict=True):
        assert np.array_equal(encoder.encode(text), row)


def test_pooling_asked_for(make_checkpoint, tmp_path):
    export(make_checkpoint(), tmp_path / "out", pooling="max+lasttoken", normalize=True)
    assert Manifest.read(tmp_path / "out").pooling == "max+lasttoken"
    for wrong in ("median", "", "cls+", "cls,mean", 3):
        with pytest.raises(InvalidOptionError, match=r"weightedmean"):
            export(make_checkpoint(f"other-{wrong}"), tmp_path / "no", pooling=wrong, normalize=True)


def activation(name):
    import torch

    return getattr(torch.nn, name)()


@pytest.mark.parametrize("precision", ["cpu", "cpu-bf16", "cpu-int8"])
def test_dense_layers_as_sentence_transformers(saved, tmp_path, precision):
    layers = [
        {"out_features": 96, "activation_function": activation("GELU")},
        {"out_features": 96, "bias": False, "activation_function": activation("Identity"), "use_residual": True},
        {"out_features": 40, "activation_function": activation("SiLU"), "use_residual": True},
        {"out_features": 33, "activation_function": activation("ReLU")},
        {"out_features": 50, "activation_function": activation("Sigmoid")},
        {"out_features": 24},  # Tanh
    ]
    folder, model = saved("mean+cls", layers, normalize=True)
    manifest = export(folder, tmp_path / "out", targets=[precision], int8_floor=0.9)
    assert manifest.dimensions == 24
    assert [choice.value[1] for choice in manifest.choices if choice.field == "dense"] == [
        "96 to 96, identity, no bias, residual"
    ]
    encoder = Encoder(tmp_path / "out")
    found, expected = encoder.encode(TEXTS), model.encode(TEXTS)
    assert np.abs(found - expected).max() < {"cpu": 2e-6, "cpu-bf16": 2e-2, "cpu-int8": 5e-2}[precision]
    for text, row in zip(TEXTS, found, strict=True):
        assert np.array_equal(encoder.encode(text), row)


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"activation_function": "somewhere.Else"}, UnsupportedCheckpointError, "somewhere"),
        ({"activation_function": "torch.nn.modules.activation.PReLU"}, UnsupportedCheckpointError, "PReLU"),
        ({"module_input_name": "token_embeddings"}, UnsupportedCheckpointError, "token_embeddings"),
        ({"in_features": 63}, CheckpointError, "64 go in"),
        ({"out_features": 9}, CheckpointError, r"\[9, 64\]"),
        ({"bias": False}, CheckpointError, "linear.bias"),
        ({"use_residual": True}, CheckpointError, "residual.weight is missing"),
    ],
)
def test_dense_that_is_another_is_refused(saved, tmp_path, change, error, word):
    folder, _ = saved("mean", [{"out_features": 8}])
    path = folder / "2_Dense" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=word):
        export(folder, tmp_path / "out", verify=False)
    assert not (tmp_path / "out").exists()


def test_a_damaged_dense_is_refused(saved, tmp_path):
    from safetensors.numpy import load_file, save_file

    folder, _ = saved("mean", [{"out_features": 8}])
    path = folder / "2_Dense" / "model.safetensors"
    weights = load_file(path)
    weights["linear.weight"][3, 2] = np.nan
    save_file(weights, path)
    with pytest.raises(CheckpointError, match=r"2_Dense: the weight linear\.weight has NaN"):
        export(folder, tmp_path / "out", verify=False)


def test_a_pooling_that_does_not_fit_the_dense_layer_is_refused(saved, tmp_path):
    folder, _ = saved("mean", [{"out_features": 8}])
    with pytest.raises(InvalidOptionError, match=r"gives 128 numbers.*takes 64"):
        export(folder, tmp_path / "out", pooling="cls+max", verify=False)


@pytest.mark.parametrize("order", [["Normalize", "Dense"], ["Dense", "Pooling"]])
def test_other_orders_are_refused(saved, tmp_path, order):
    folder, _ = saved("mean", [{"out_features": 8}], normalize=True)
    modules = json.loads((folder / "modules.json").read_text())
    by_name = {entry["type"].rsplit(".", 1)[-1]: entry for entry in modules}
    first = [] if "Pooling" in order else ["Pooling"]
    (folder / "modules.json").write_text(json.dumps([by_name[name] for name in ["Transformer", *first, *order]]))
    with pytest.raises(UnsupportedCheckpointError, match="in this order"):
        export(folder, tmp_path / "out", verify=False)


@pytest.mark.parametrize("pooling", ["mean_sqrt_len_tokens", "max", "cls+mean+max+mean_sqrt_len_tokens"])
def test_tensorrt_graph(saved, tmp_path, pooling):
    folder, _ = saved(pooling, [{"out_features": 48}], normalize=True)
    manifest = export(folder, tmp_path / "out", targets=["tensorrt", "tensorrt-bf16"])
    assert [graph.parity.count > 100 for graph in manifest.graphs] == [True, True]


def test_padded_graphs_for_onnx_runtime_have_every_pooling(saved, tmp_path):
    pytest.importorskip("onnxscript")
    pooling = "+".join(POOLINGS)
    folder, model = saved(pooling, [{"out_features": 48}], normalize=True)
    export(folder, tmp_path / "portable", targets=["portable"])  # through the gate
    export(folder, tmp_path / "traced", via="torch")
    found = Encoder(tmp_path / "traced").encode(TEXTS)
    assert np.abs(found - model.encode(TEXTS)).max() < 2e-5


@pytest.mark.parametrize(
    ("target", "pooling"),
    [("cuda", "max"), ("cuda-fused", "lasttoken"), ("tensorrt", "lasttoken"), ("tensorrt", "mean+weightedmean")],
)
def test_a_pooling_that_a_target_does_not_have_is_refused(saved, tmp_path, target, pooling):
    folder, _ = saved(pooling)
    with pytest.raises(UnsupportedCheckpointError, match=rf"target {target}: export the target"):
        export(folder, tmp_path / "out", targets=[target], verify=False)
