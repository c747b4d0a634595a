"""The graph for other programs, run by ONNX Runtime alone on what transformers' tokenizer gives."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers

from bgert_export import export

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
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
