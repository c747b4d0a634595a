"""The packed fp16 graph, evaluated in numpy, against the plain float64 oracle and against transformers."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, shape_inference

import packed_reference
from bgert.backends.cuda.packed_layout import Bucket
from bgert_export.errors import UnsupportedCheckpointError
from bgert_export.graphs import cpu, cuda
from packed_reference import PackedReference

LENGTHS = [1, 2, 3, 70, 4, 17, 69, 5, 33, 2]
KERNELS = Path(__file__).with_name("cuda_kernels.json")
XLM = {"model_type": "xlm-roberta", "pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
KINDS = {
    "cls": {},
    "mean": {},
    "xlm-cls": XLM | {"architectures": ["XLMRobertaModel"]},
    "xlm-mean": XLM | {"architectures": ["XLMRobertaModel"]},
    "reranker": {"architectures": ["BertForSequenceClassification"], "num_labels": 1},
    "xlm-reranker": XLM | {"architectures": ["XLMRobertaForSequenceClassification"], "num_labels": 3},
}

ELECTRA = {"model_type": "electra", "architectures": ["ElectraForSequenceClassification"], "embedding_size": 64}
HEADS = {"electra-reranker": ELECTRA | {"num_labels": 1}}  # the one with GELU


def draw_texts(config, lengths, seed):
    print(f"seed {seed}")
    draw = np.random.default_rng(seed)
    return [draw.integers(5, config["vocab_size"], n) for n in lengths]


def types_of(texts, kind):
    return [(np.arange(len(ids)) > len(ids) // 3).astype(int) * (kind == "reranker") for ids in texts]


def weights_of(network):
    return {name: network.read(name) for name in network.weight_map.names}


def write(network, folder, kind, normalize=True):
    if kind.endswith("reranker"):
        return cuda.write_reranker(network, folder, version="1")
    return cuda.write_encoder(network, folder, pooling=kind[-4:].strip("-"), normalize=normalize, version="1")


def oracle(float64_bert, weights, config, kind, texts, normalize=True):
    if kind.endswith("reranker"):
        rows = [float64_bert.logits(weights, config, *pair) for pair in zip(texts, types_of(texts, kind), strict=True)]
    else:
        pooling = kind[-4:].strip("-")
        rows = [float64_bert.embedding(weights, config, t, pooling=pooling, normalize=normalize) for t in texts]
    return np.array(rows)


def evaluate(folder, written, texts, kind, precision="exact", bucket=None):
    pad = 1 if kind.startswith("xlm") else 0
    feeds = packed_reference.feeds_of(written.inputs, texts, types_of(texts, kind), bucket=bucket, pad_token_id=pad)
    found = PackedReference(folder / "cuda-fp16.onnx", precision).run(feeds)
    assert np.isfinite(found).all()
    return found[: len(texts)]


def exact_in_float16(weights):
    """Multiples of 1/32: float16 holds them, and every fold of them, without rounding."""
    return {name: np.rint(value * 32) / np.float32(32) for name, value in weights.items()}


def hardly_rounded(found, expected, kind):
    if kind.endswith("reranker"):
        return np.abs(found - expected).max()
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    return 1 - cosine.min()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_rounding_is_between_the_graph_and_the_oracle(
    tmp_path, make_config, make_weights, make_network, float64_bert, kind, layers, normalize
):
    if kind.endswith("reranker") and not normalize:
        pytest.skip("rerankers have no normalisation")
    config = make_config(num_hidden_layers=layers, **KINDS[kind])
    weights = exact_in_float16(make_weights(config, seed=layers))
    network = make_network(config=config, weights=weights)
    written = write(network, tmp_path, kind, normalize)
    texts = draw_texts(config, LENGTHS, seed=layers)
    found = evaluate(tmp_path, written, texts, kind)
    expected = oracle(float64_bert, weights, config, kind, texts, normalize)
    # The float32 constants 1 / length are the only ones that are not exact.
    np.testing.assert_allclose(found, expected, rtol=2e-7, atol=2e-7 * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_to_float16_is_within_the_tolerance(tmp_path, make_config, make_network, float64_bert, kind):
    """Trained scales and outlier channels, with weights alone and then every activation rounded."""
    config = make_config(num_hidden_layers=6, **KINDS[kind])
    network = make_network(config=config, seed=5)
    written = write(network, tmp_path, kind)
    texts = draw_texts(config, LENGTHS, seed=6)
    expected = oracle(float64_bert, weights_of(network), config, kind, texts)
    limit = 0.02 if kind.endswith("reranker") else 5e-4
    for precision in ("exact", "rounded"):
        error = hardly_rounded(evaluate(tmp_path, written, texts, kind, precision), expected, kind)
        print(kind, precision, error)
        assert 0 < error < limit


@pytest.mark.parametrize("kind", ["mean", "xlm-reranker"])
def test_padding_tokens_inside_a_text(tmp_path, make_config, make_weights, make_network, kind):
    """Who writes `<pad>` into a text moves the positions of what follows; checked against transformers itself."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification, XLMRobertaModel

    encoder = kind == "mean"
    kind = "xlm-mean" if encoder else kind
    config = make_config(**KINDS[kind])
    weights = exact_in_float16(make_weights(config))
    network = make_network(config=config, weights=weights)
    settings = XLMRobertaConfig(**config, attn_implementation="eager")
    peer = (
        XLMRobertaModel(settings, add_pooling_layer=False) if encoder else XLMRobertaForSequenceClassification(settings)
    )
    names = [name if encoder or name.startswith("classifier") else f"roberta.{name}" for name in weights]
    state = {name: torch.from_numpy(value) for name, value in zip(names, weights.values(), strict=True)}
    missing, unexpected = peer.eval().load_state_dict(state, strict=False)
    assert (set(missing) - {"embeddings.position_ids"}, unexpected) == (set(), [])
    texts = [[0, 9, 1, 7, 2], [0, 1, 1, 2], [1, 1, 1, 1], [0, 5, 6, 7, 8, 9, 2], [0] + [5, 1] * 34 + [2]]
    found = evaluate(tmp_path, write(network, tmp_path, kind, normalize=False), texts, kind)
    for ids, row in zip(texts, found, strict=True):
        with torch.inference_mode():
            output = peer(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)))
        expected = (output.last_hidden_state[0].mean(0) if encoder else output.logits[0]).numpy()
        assert np.abs(row - expected).max() < 5e-6 * max(1, np.linalg.norm(expected))


@pytest.mark.parametrize("kind", ["cls", "mean", "xlm-mean", "reranker"])
def test_a_text_depends_neither_on_its_batch_nor_on_the_bucket(tmp_path, make_config, make_network, kind):
    config = make_config(**KINDS[kind])
    network = make_network(config=config)
    written = write(network, tmp_path, kind)
    texts = draw_texts(config, LENGTHS, seed=4)
    together = evaluate(tmp_path, written, texts, kind)
    # Fillers longer than the position table, and texts without a token.
    other = evaluate(tmp_path, written, texts, kind, bucket=Bucket(512, 32, 200))
    np.testing.assert_allclose(other, together, rtol=1e-10, atol=1e-12)
    for ids, row in zip(texts, together, strict=True):
        (alone,) = evaluate(tmp_path, written, [ids], kind, bucket=Bucket(128, 2, 128))
        np.testing.assert_allclose(alone, row, rtol=1e-10, atol=1e-12)


def test_zero_vectors_stay_zero(tmp_path, make_config, make_weights, make_network):
    weights = make_weights(make_config())
    for part in ("weight", "bias"):
        weights[f"encoder.layer.2.output.LayerNorm.{part}"][:] = 0
    network = make_network(weights=weights)
    assert (evaluate(tmp_path, write(network, tmp_path, "mean"), [[5, 6, 7]], "mean") == 0).all()


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.word_embeddings.weight",
        "encoder.layer.1.attention.self.key.weight",
        "encoder.layer.2.output.LayerNorm.bias",
    ],
)
def test_a_weight_beyond_float16_is_named(tmp_path, make_config, make_weights, make_network, name):
    weights = make_weights(make_config())
    weights[name].flat[-1] = -70_000
    network = make_network(weights=weights)
    with pytest.raises(UnsupportedCheckpointError, match=rf"{name} has values up to 7e\+04"):
        write(network, tmp_path, "cls")


def test_a_folded_bias_beyond_float16_is_named(tmp_path, make_config, make_weights, make_network):
    weights = make_weights(make_config())
    weights["encoder.layer.0.attention.self.value.bias"][:] = 60_000
    weights["encoder.layer.0.attention.output.dense.weight"][:] = 1
    network = make_network(weights=weights)
    with pytest.raises(UnsupportedCheckpointError, match=r"layer\.0\.attention\.output\.dense\.bias"):
        write(network, tmp_path, "cls")


def test_heads_that_flash_attention_does_not_take(tmp_path, make_config, make_network):
    network = make_network(config=make_config(num_attention_heads=16))
    with pytest.raises(UnsupportedCheckpointError, match="heads of 4"):
        write(network, tmp_path, "cls")


@pytest.mark.parametrize("kind", KINDS | HEADS)
def test_every_node_has_a_cuda_kernel(tmp_path, make_config, make_network, kind):
    """The facts are ONNX Runtime's own, read from its CUDA provider by tools/rehearse_cuda.py."""
    facts = json.loads(KERNELS.read_text())
    written = write(make_network(config=make_config(**(KINDS | HEADS)[kind])), tmp_path, kind)
    model = onnx.load(tmp_path / written.files[0])
    assert without_kernel(model, facts["kernels"]) == []


def test_a_node_without_a_kernel_is_noticed(tmp_path, make_network):
    facts = json.loads(KERNELS.read_text())
    write(make_network(), tmp_path, "mean")
    model = onnx.load(tmp_path / "cuda-fp16.onnx")
    (node,) = [node for node in model.graph.node if node.op_type == "Tanh" or node.output[0] == "norm"]
    node.op_type, node.domain = "ReduceLogSumExp", "com.example"
    assert without_kernel(model, facts["kernels"]) == ["com.example ReduceLogSumExp"]


def without_kernel(model, kernels):
    """Nodes of a graph whose operator, version and input and output types are in no kernel of the list."""
    opset = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    types = element_types(model)
    found = []
    for node in model.graph.node:
        domain = node.domain or "ai.onnx"
        schema = onnx.defs.get_schema(node.op_type, opset[domain], "") if domain == "ai.onnx" else None
        version = schema.since_version if schema else 1
        used = {types[name] for name in [*node.input, *node.output] if name}
        candidates = [k for k in kernels if (k["domain"], k["op"]) == (domain, node.op_type)]
        candidates = [k for k in candidates if k["first"] <= version <= k["last"]]
        floats = used & {"float16", "float"}
        if not any(floats <= set().union(*k["types"].values()) or not k["types"] for k in candidates):
            found.append(f"{domain} {node.op_type}")
    return found


def element_types(model):
    """Name to element type of every value: float16 weights make float16 results until a Cast."""
    names = {TensorProto.FLOAT: "float", TensorProto.FLOAT16: "float16", TensorProto.INT32: "int32"}
    names |= {TensorProto.INT64: "int64"}
    types = {entry.name: names[entry.type.tensor_type.elem_type] for entry in model.graph.input}
    types |= {tensor.name: names[tensor.data_type] for tensor in model.graph.initializer}
    for node in model.graph.node:
        used = [types[name] for name in node.input if name]
        result = used[0] if used[0] in ("float16", "float") or node.op_type in ("Mul", "Add") else used[1]
        if node.op_type == "EmbedLayerNormalization":
            result = "float16"
        for name in node.output:
            types[name] = "float" if node.op_type == "Cast" else result
        if node.op_type == "EmbedLayerNormalization":
            types[node.output[1]] = "int32"
    return types


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_is_what_the_manifest_says(tmp_path, make_config, make_network, kind):
    written = write(make_network(config=make_config(**KINDS[kind])), tmp_path, kind)
    onnx.checker.check_model(str(tmp_path / "cuda-fp16.onnx"), full_check=False)
    model = onnx.load(tmp_path / "cuda-fp16.onnx")
    shape_inference.infer_shapes(model, strict_mode=False)
    assert [entry.name for entry in model.graph.input] == written.inputs
    assert model.ir_version == cuda.IR_VERSION <= 10
    assert {entry.domain or "ai.onnx": entry.version for entry in model.opset_import} == cuda.OPSET
    operators = {node.op_type for node in model.graph.node}
    # Each of these would mean a copy, a cuDNN handle or a wait for the host.
    assert not operators & {"RemovePadding", "RestorePadding", "ReduceL2", "ReduceMean", "Shape", "Range", "CumSum"}
    attention = [node for node in model.graph.node if node.op_type == "PackedMultiHeadAttention"]
    assert all(len(node.input) == 6 and all(node.input[:3]) and not node.input[3] for node in attention)
    biased = [node.output[0] for node in model.graph.node if node.op_type == "Gemm" and len(node.input) == 3]
    assert all(name.endswith((".query", "dense", "logits")) for name in biased)
    assert len(biased) == 3 + 2 * kind.endswith("reranker")
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    head = ("classifier", "pooler")
    wide = {name for name, kind in types.items() if kind == TensorProto.FLOAT}
    assert {name for name in wide if not name.startswith(head)} <= {"norm.least"}
    assert {name for name in types if name.startswith(head)} <= wide
    size = sum((tmp_path / file).stat().st_size for file in written.files)
    (tmp_path / "cpu").mkdir()
    if kind == "cls":
        other = cpu.write_encoder(make_network(name="b"), tmp_path / "cpu", pooling="cls", normalize=True, version="1")
        assert size < 0.75 * sum((tmp_path / "cpu" / file).stat().st_size for file in other.files)


def test_the_last_layer_after_attention_runs_for_cls_rows_alone(tmp_path, make_network):
    write(make_network(), tmp_path, "cls")
    model = onnx.load(tmp_path / "cuda-fp16.onnx")
    by_output = {node.output[0]: node for node in model.graph.node}
    projection = by_output["encoder.layer.2.attention.output.dense"]
    assert by_output[projection.input[0]].op_type == "Gather"
    norm = by_output["encoder.layer.2.attention.output.LayerNorm"]
    assert by_output[norm.input[1]].op_type == "Gather"


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path, make_network):
    contents = []
    for name in ("a", "b"):
        network = make_network(name=f"checkpoint-{name}", seed=2)
        (tmp_path / name).mkdir()
        written = write(network, tmp_path / name, "mean")
        contents.append([(tmp_path / name / file).read_bytes() for file in written.files])
    assert contents[0] == contents[1]
