"""Rotary positions and gates in the graphs for CUDA and TensorRT, beside the classes of transformers."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import transformers

import packed_reference
from bgert.backends.padded_layout import PaddedLayout
from bgert.batching import PackedBatch
from bgert_export.checkpoint import Checkpoint
from bgert_export.graphs import cuda, portable, tensorrt
from bgert_export.graphs.rounding import rounded_model
from bgert_export.source import Source

LENGTHS = [1, 2, 70, 4, 17, 300]
TYPES = ["nomic_bert", "gte"]
ENDS = {"cls": "Model", "mean": "Model", "reranker": "ForSequenceClassification"}


def draw(network, seed=7):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    return [rng.integers(5, network.architecture.vocab_size, n) for n in LENGTHS]


def expected_of(folder, kind, texts):
    end = "AutoModel" if kind != "reranker" else "AutoModelForSequenceClassification"
    model = getattr(transformers, end).from_pretrained(folder).eval()
    rows = []
    for ids in texts:
        with torch.no_grad():
            output = model(input_ids=torch.from_numpy(ids)[None])
        if kind == "reranker":
            rows.append(output.logits[0].numpy())
            continue
        states = output.last_hidden_state[0]
        pooled = states[0] if kind == "cls" else states.mean(0)
        rows.append(torch.nn.functional.normalize(pooled, dim=0).numpy())
    return np.stack(rows)


def write(module, network, folder, kind, **options):
    if kind == "reranker":
        return module.write_reranker(network, folder, version="1", **options)
    return module.write_encoder(network, folder, pooling=kind, normalize=True, version="1", **options)


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("model_type", TYPES)
def test_cuda_equals_transformers(make_native, tmp_path, model_type, kind):
    folder = make_native(model_type, ENDS[kind])
    network = Checkpoint.open(Source(folder)).network
    written = write(cuda, network, tmp_path, kind)
    texts = draw(network)
    feeds = packed_reference.feeds_of(written.inputs, texts)
    reference = packed_reference.PackedReference(tmp_path / "cuda-fp16.onnx", "rounded")
    found = reference.run(feeds)[: len(texts)]
    expected = expected_of(folder, kind, texts)
    assert 0 < np.abs(found - expected).max() < 4e-3 * max(1, np.abs(expected).max())  # what 16 bits round
    assert {"RotaryEmbedding", "QuickGelu" if model_type == "nomic_bert" else "Gelu"} <= reference.visited
    kernels = json.loads(Path(__file__).with_name("cuda_kernels.json").read_text())["kernels"]
    registered = {(k["domain"], k["op"]) for k in kernels if not k["types"] or "float16" in k["types"].get("T", [])}
    used = {(node.domain or "ai.onnx", node.op_type) for node in onnx.load(tmp_path / "cuda-fp16.onnx").graph.node}
    new = {("com.microsoft", name) for name in ("RotaryEmbedding", "QuickGelu", "Gelu")}
    assert used & new <= registered


def test_rotary_embedding_is_what_onnx_runtime_computes(make_native, tmp_path):
    """The reference's operators beside the CPU provider's kernels of the same names."""
    import onnxruntime
    from onnx import TensorProto, helper

    rng = np.random.default_rng(3)
    x = rng.standard_normal((5, 1, 48)).astype(np.float32)
    cosines, sines = rng.standard_normal((2, 9, 8)).astype(np.float32)
    positions = np.array([[8], [0], [3], [3], [7]])
    names = {"x": (TensorProto.FLOAT, x), "positions": (TensorProto.INT64, positions),
             "cosines": (TensorProto.FLOAT, cosines), "sines": (TensorProto.FLOAT, sines)}  # fmt: skip
    nodes = [
        helper.make_node("RotaryEmbedding", list(names), ["turned"], domain="com.microsoft"),
        helper.make_node("QuickGelu", ["turned"], ["out"], domain="com.microsoft", alpha=1.0),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(name, kind, None) for name, (kind, _) in names.items()],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {name: value for name, (_, value) in names.items()})[0]
    reference = object.__new__(packed_reference.PackedReference)
    expected = reference.QuickGelu(reference.RotaryEmbedding(x, positions, cosines, sines), 1.0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_tensorrt_equals_transformers(make_native, tmp_path, model_type, kind, precision):
    """The rules of TensorRT are proved when it is written."""
    import onnxruntime

    folder = make_native(model_type, ENDS[kind])
    network = Checkpoint.open(Source(folder)).network
    written = write(tensorrt, network, tmp_path, kind, precision=precision)
    texts = draw(network)
    cuts = np.concatenate([[0], np.cumsum([len(ids) for ids in texts])]).astype(np.int32)
    ids = np.concatenate(texts).astype(np.int32)
    batch = PackedBatch(ids, cuts, np.zeros_like(ids))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(tmp_path))
    for sums in (False, True):
        source = rounded_model(tmp_path / written.files[0], partial_sums=sums)
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        layout = PaddedLayout.of(written.inputs, network.architecture.as_dict())
        found = session.run([written.output], layout.arrays(batch))[0]
        expected = expected_of(folder, kind, texts)
        error = np.abs(found - expected).max() / max(1, np.abs(expected).max())
        print(precision, sums, error)
        assert 0 < error < {"fp16": 4e-3, "bf16": 3e-2}[precision]


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("model_type", TYPES)
def test_portable_equals_transformers(make_native, tmp_path, model_type, kind):
    import onnxruntime

    folder = make_native(model_type, ENDS[kind])
    network = Checkpoint.open(Source(folder)).network
    written = write(portable, network, tmp_path, kind)
    texts = draw(network)
    feeds = {name: np.zeros((len(texts), max(LENGTHS)), np.int64) for name in written.inputs}
    for row, ids in enumerate(texts):
        feeds["input_ids"][row, : len(ids)] = ids
        feeds["attention_mask"][row, : len(ids)] = 1
    session = onnxruntime.InferenceSession(str(tmp_path / written.files[0]), providers=["CPUExecutionProvider"])
    found = session.run([written.output], feeds)[0]
    np.testing.assert_allclose(found, expected_of(folder, kind, texts), atol=2e-5)
