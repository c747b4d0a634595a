"""The graph for other programs, run by ONNX Runtime alone on what transformers' tokenizer gives."""

import io

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers

from bgert_export import export
from bgert_export.graphs import builder
from bgert_export.graphs.one_file import write_with_weights

TEXTS = ["copy a file", "", "the model of the day " * 9, "return [PAD] list"]


def session_of(folder):
    return onnxruntime.InferenceSession(folder / "portable-fp32.onnx", providers=["CPUExecutionProvider"])


def inputs_of(session, tokens):
    given = {entry.name: tokens[entry.name] for entry in session.get_inputs()}
    assert {array.dtype for array in given.values()} == {np.dtype(np.int64)}
    return given


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_an_encoder_gives_rows_and_vectors(write_model, tmp_path, pooling):
    folder = write_model(tmp_path / "model")
    manifest = export(folder, tmp_path / "out", pooling=pooling, normalize=True, targets=["portable"])
    (graph,) = manifest.graphs
    assert graph.parity.max_abs_error < 2e-5
    session = session_of(tmp_path / "out")
    assert [output.name for output in session.get_outputs()] == ["last_hidden_state", "sentence_embedding"]
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        TEXTS, padding=True, truncation=True, max_length=32, return_tensors="np"
    )
    rows, vectors = session.run(None, inputs_of(session, tokens))
    with torch.no_grad():
        model = transformers.AutoModel.from_pretrained(folder).eval()
        expected = model(**{name: torch.tensor(value) for name, value in tokens.items()}).last_hidden_state.numpy()
    mask = tokens["attention_mask"][:, :, None]
    np.testing.assert_allclose(rows * mask, expected * mask, atol=1e-4, rtol=0)
    mean = (expected * mask).sum(1) / mask.sum(1) if pooling == "mean" else expected[:, 0]
    np.testing.assert_allclose(vectors, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=2e-5, rtol=0)


def test_a_reranker_gives_logits_of_pairs_with_types(make_reranker_checkpoint, tmp_path):
    folder = make_reranker_checkpoint(1)
    manifest = export(folder, tmp_path / "out", targets=["portable"])
    assert manifest.graphs[0].parity.rank_agreement == 1
    session = session_of(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pairs = [("copy a file", "the model of the day"), ("", "list")]
    tokens = tokenizer(*map(list, zip(*pairs, strict=True)), padding=True, return_tensors="np")
    (logits,) = session.run(None, inputs_of(session, tokens))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(**{name: torch.tensor(value) for name, value in tokens.items()}).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0)


def test_operators_are_standard_and_old(write_model, tmp_path):
    export(write_model(tmp_path / "model"), tmp_path / "out", pooling="cls", normalize=True, targets=["portable"])
    model = onnx.load(tmp_path / "out" / "portable-fp32.onnx")
    assert {node.domain for node in model.graph.node} == {""}
    read = {name for node in model.graph.node for name in node.input}
    assert {entry.name for entry in model.graph.initializer} <= read  # of others ONNX Runtime warns its user
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]


def test_the_file_is_the_graph_whole_and_as_it_would_be_beside_its_weights(write_model, tmp_path, monkeypatch):
    folder = write_model(tmp_path / "model")
    options = {"pooling": "mean", "normalize": True, "targets": ["portable"], "verify": False}
    export(folder, tmp_path / "one", **options)
    monkeypatch.setattr(builder, "_LARGEST_PROTOBUF", 1 << 10)  # as if all of it were too large for one file
    manifest = export(folder, tmp_path / "two", **options)
    assert [entry.name for entry in manifest.graphs[0].files] == ["portable-fp32.onnx", "portable-fp32.onnx.data"]
    one, two = (onnx.load(tmp_path / name / "portable-fp32.onnx") for name in ("one", "two"))
    assert [path.suffix for path in (tmp_path / "one").glob("portable*")] == [".onnx"]

    def weights(model):
        return {entry.name: onnx.numpy_helper.to_array(entry) for entry in model.graph.initializer}

    assert weights(one).keys() == weights(two).keys()
    for name, array in weights(two).items():
        np.testing.assert_array_equal(weights(one)[name], array)
    for model in (one, two):
        del model.graph.initializer[:]
    assert one == two


def test_any_number_of_texts_of_any_length(write_model, tmp_path):
    """What pads, and how far, changes nothing, and neither do the neighbours."""
    folder = write_model(tmp_path / "model")
    export(folder, tmp_path / "out", pooling="mean", normalize=True, targets=["portable"], verify=False)
    session = session_of(tmp_path / "out")
    draw = np.random.default_rng(7)
    for count, length in ((1, 1), (1, 64), (3, 2), (17, 5), (2, 63), (64, 33)):
        ids = draw.integers(5, 40, (count, length))
        mask = (np.arange(length) < draw.integers(1, length + 1, (count, 1))).astype(np.int64)
        given = {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (vectors,) = session.run(["sentence_embedding"], given)
        assert vectors.shape == (count, session.get_outputs()[1].shape[1])
        for row in range(count):
            cut = {name: array[row : row + 1, : mask[row].sum()] for name, array in given.items()}
            alone = session.run(["sentence_embedding"], cut)[0][0]
            np.testing.assert_allclose(vectors[row], alone, rtol=0, atol=2e-6)


def test_weights_are_as_they_were_streamed():
    """Against protobuf's own writer and reader, lengths of more than one byte included."""
    values = [np.arange(count, dtype=np.float32) for count in (1, 31, 32, 5000)]
    data, tensors = io.BytesIO(), []
    for number, value in enumerate(values):
        tensor = onnx.TensorProto(name=f"w{number}", data_type=onnx.TensorProto.FLOAT, dims=value.shape)
        for key, place in (("location", "x"), ("offset", data.tell()), ("length", value.nbytes)):
            tensor.external_data.add(key=key, value=str(place))
        tensors.append(tensor)
        data.write(value.tobytes() + b"between")
    model = onnx.ModelProto(ir_version=8, producer_name="p" * 300, graph=onnx.GraphProto(name="g"))
    model.opset_import.add(domain="", version=18)
    file = io.BytesIO()
    write_with_weights(file, model, tensors, data)
    read = onnx.ModelProto.FromString(file.getvalue())
    for tensor, value in zip(read.graph.initializer, values, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), value)
    del read.graph.initializer[:]
    assert read == model
