"""The TensorRT graph against the float64 oracle, its rules, and its arithmetic in 16 bits."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bgert.backends.padded_layout import PaddedLayout
from bgert.batching import PackedBatch
from bgert_export.architecture import Architecture
from bgert_export.errors import GraphRuleError, UnsupportedCheckpointError
from bgert_export.graphs import tensorrt, tensorrt_rules
from bgert_export.graphs.rounding import rounded_model

LENGTHS = [1, 2, 3, 70, 4, 17, 72, 5, 33, 2]
XLM_ROBERTA = {"model_type": "xlm-roberta", "pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
# Fp16 rounds to 2^-11 and bf16 to 2^-8 of a value; three layers with channels twenty times as strong as the others.
BOUNDS = {"fp16": 2e-3, "bf16": 2e-2}


def packed(texts, types=None):
    cuts = np.zeros(len(texts) + 1, np.int32)
    np.cumsum([len(ids) for ids in texts], out=cuts[1:])
    ids = np.concatenate(texts).astype(np.int32)
    kinds = np.zeros_like(ids) if types is None else np.concatenate(types).astype(np.int32)
    return PackedBatch(ids, cuts, kinds)


def draw_texts(config, lengths, seed):
    draw = np.random.default_rng(seed)
    print(f"seed {seed}")
    return [draw.integers(5, config["vocab_size"], n) for n in lengths]


def weights_of(network):
    return {name: network.read(name) for name in network.weight_map.names}


def write(network, folder, precision="fp16", pooling="mean", normalize=True):
    return tensorrt.write_encoder(
        network, folder, precision=precision, pooling=pooling, normalize=normalize, version="1"
    )


def run(folder, written, config, batch, *, rounded=True, partial_sums=False):
    import onnxruntime

    path = folder / written.files[0]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = str(path)
    if rounded:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        source = rounded_model(path, partial_sums=partial_sums)
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == written.inputs
    layout = PaddedLayout.of(written.inputs, Architecture.from_config(config).as_dict())
    return session.run([written.output], layout.arrays(batch))[0]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("layers", [1, 3])
def test_encoder_equals_the_oracle(tmp_path, make_config, make_network, float64_bert, pooling, normalize, layers):
    config = make_config(num_hidden_layers=layers)
    network = make_network(config=config, seed=layers)
    written = write(network, tmp_path, pooling=pooling, normalize=normalize)
    texts = draw_texts(config, LENGTHS, seed=layers)
    for rounded in (False, True):
        found = run(tmp_path, written, config, packed(texts), rounded=rounded)
        assert found.dtype == np.float32
        for ids, row in zip(texts, found, strict=True):
            expected = float64_bert.embedding(weights_of(network), config, ids, pooling=pooling, normalize=normalize)
            scale = 1 if normalize else np.linalg.norm(expected)
            assert np.abs(row - expected).max() / scale < BOUNDS["fp16"]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_xlm_roberta_encoder(tmp_path, make_config, make_network, float64_bert, precision, pooling):
    config = make_config(architectures=["XLMRobertaModel"], **XLM_ROBERTA)
    network = make_network(config=config)
    written = write(network, tmp_path, precision, pooling)
    assert "token_type_ids" not in written.inputs
    texts = draw_texts(config, [3, 70, 9], seed=8)
    found = run(tmp_path, written, config, packed(texts))
    for ids, row in zip(texts, found, strict=True):
        expected = float64_bert.embedding(weights_of(network), config, ids, pooling=pooling, normalize=True)
        assert np.abs(row - expected).max() < BOUNDS[precision]


def test_xlm_roberta_equals_transformers_with_padding_tokens_inside(tmp_path, make_config, make_network):
    """Who writes `<pad>` into a text moves the positions of what follows; in a batch with real padding besides."""
    torch = pytest.importorskip("torch")
    from transformers import XLMRobertaConfig, XLMRobertaModel

    config = make_config(architectures=["XLMRobertaModel"], **XLM_ROBERTA)
    network = make_network(config=config)
    peer = XLMRobertaModel(XLMRobertaConfig(**config, attn_implementation="eager"), add_pooling_layer=False).eval()
    state = {name: torch.from_numpy(value) for name, value in weights_of(network).items()}
    missing, unexpected = peer.load_state_dict(state, strict=False)
    assert (set(missing) - {"embeddings.position_ids"}, unexpected) == (set(), [])
    texts = [[0, 9, 1, 7, 2], [0, 1, 1, 2], [1, 1, 1, 1], [0, 5, 6, 7, 8, 9, 2], [0] + [5, 1] * 34 + [2]]
    written = write(network, tmp_path, normalize=False)
    found = run(tmp_path, written, config, packed(texts), rounded=False)
    for ids, row in zip(texts, found, strict=True):
        with torch.inference_mode():
            hidden = peer(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).last_hidden_state
        expected = hidden[0].mean(0).numpy()
        assert np.abs(row - expected).max() < BOUNDS["fp16"] * np.linalg.norm(expected)


def test_positions_are_those_of_transformers():
    torch = pytest.importorskip("torch")
    from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaEmbeddings

    ids = [[0, 9, 1, 7, 2], [0, 1, 1, 2], [1, 1, 1, 1], [0, 5, 6, 7, 8, 9, 2]]
    layout = PaddedLayout(("input_ids", "position_ids", "attention_mask"), 1, skips_padding=True)
    arrays = layout.arrays(packed(ids))
    expected = XLMRobertaEmbeddings.create_position_ids_from_input_ids(torch.from_numpy(arrays["input_ids"]), 1)
    np.testing.assert_array_equal(arrays["position_ids"], expected.numpy() - 1)
    np.testing.assert_array_equal(arrays["attention_mask"].sum(1), [len(text) for text in ids])


def test_rows_past_the_batch_hold_one_token():
    layout = PaddedLayout(("input_ids", "position_ids", "attention_mask", "token_type_ids"), 0, skips_padding=False)
    arrays = {name: np.full((4, 6), 99, np.int32) for name in layout.inputs}
    layout.fill(packed([[5, 6, 7], [8]], [[0, 1, 1], [1]]), arrays)
    assert arrays["input_ids"].tolist() == [[5, 6, 7, 0, 0, 0], [8, 0, 0, 0, 0, 0], [0] * 6, [0] * 6]
    assert arrays["position_ids"].tolist() == [[0, 1, 2, 0, 0, 0], [0] * 6, [0] * 6, [0] * 6]
    assert arrays["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0], [1] + [0] * 5, [1] + [0] * 5, [1] + [0] * 5]
    assert arrays["token_type_ids"].tolist() == [[0, 1, 1, 0, 0, 0], [1] + [0] * 5, [0] * 6, [0] * 6]


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta"])
def test_reranker_equals_the_oracle(tmp_path, make_config, make_network, float64_bert, model_type, labels):
    bert = model_type == "bert"
    name = "BertForSequenceClassification" if bert else "XLMRobertaForSequenceClassification"
    config = make_config(architectures=[name], num_labels=labels, **({} if bert else XLM_ROBERTA))
    network = make_network(config=config, seed=labels)
    written = tensorrt.write_reranker(network, tmp_path, precision="fp16", version="1")
    assert ("token_type_ids" in written.inputs) == bert
    texts = draw_texts(config, [1, 70, 4, 17], seed=labels)
    types = [(np.arange(len(ids)) > len(ids) // 3).astype(int) if bert else np.zeros(len(ids), int) for ids in texts]
    found = run(tmp_path, written, config, packed(texts, types))
    assert found.shape == (len(texts), labels)
    for ids, kinds, row in zip(texts, types, found, strict=True):
        expected = float64_bert.logits(weights_of(network), config, ids, kinds)
        np.testing.assert_allclose(row, expected, atol=1e-2)


def test_padding_changes_nothing(tmp_path, make_config, make_network):
    config = make_config()
    written = write(make_network(), tmp_path)
    texts = draw_texts(config, LENGTHS, seed=4)
    together = run(tmp_path, written, config, packed(texts), rounded=False)
    for ids, row in zip(texts, together, strict=True):
        alone = run(tmp_path, written, config, packed([ids]), rounded=False)
        assert np.abs(alone[0] - row).max() < 2e-4  # of fp16: roundings fall otherwise in another shape


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_file_is_of_the_promised_versions(tmp_path, make_network, precision):
    written = write(make_network(), tmp_path, precision)
    onnx.checker.check_model(str(tmp_path / written.files[0]), full_check=True)
    model = onnx.load(tmp_path / written.files[0], load_external_data=False)
    assert model.ir_version == tensorrt.IR_VERSION
    assert {entry.domain or "ai.onnx": entry.version for entry in model.opset_import} == tensorrt.OPSET
    half = tensorrt._TYPES[precision]
    assert {tensor.data_type for tensor in model.graph.initializer} == {half, TensorProto.FLOAT, TensorProto.INT64}


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path, make_network):
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        written = write(make_network(name=f"checkpoint-{name}", seed=2), tmp_path / name)
        contents.append([(tmp_path / name / file).read_bytes() for file in written.files])
    assert contents[0] == contents[1]


def test_a_weight_outside_float16_is_refused_and_bf16_takes_it(tmp_path, make_config, make_weights, make_network):
    weights = make_weights(make_config())
    weights["encoder.layer.1.intermediate.dense.weight"][3, 4] = 1e5
    network = make_network(weights=weights)
    with pytest.raises(UnsupportedCheckpointError, match=r"encoder\.layer\.1\.intermediate\.dense\.weight"):
        write(network, tmp_path)
    write(network, tmp_path, "bf16")


def test_rounding_shows_an_overflow_that_the_plain_graph_hides(tmp_path, make_config, make_weights, make_network):
    weights = make_weights(make_config())
    weights["encoder.layer.1.intermediate.dense.bias"][:] = 6e4
    weights["encoder.layer.1.output.dense.weight"][:] = 1
    config, network = make_config(), make_network(weights=weights)
    texts = draw_texts(config, [9], seed=1)
    written = write(network, tmp_path)
    assert not np.isfinite(run(tmp_path, written, config, packed(texts))).all()
    assert np.isfinite(run(tmp_path, write(network, tmp_path, "bf16"), config, packed(texts))).all()


def test_rounding_is_what_numpy_does(tmp_path):
    """One product and one sum, by hand: rounded once after each operator, and after every 16 terms."""
    draw = np.random.default_rng(5)
    print("seed 5")
    left = draw.standard_normal((3, 40)).astype(np.float16)
    right = draw.standard_normal((40, 7)).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["a", "w"], ["product"]),
        helper.make_node("Cast", ["product"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 40])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 7])],
        [onnx.numpy_helper.from_array(right, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "one.onnx")
    import onnxruntime

    def found(**options):
        source = rounded_model(tmp_path / "one.onnx", **options)
        session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
        return session.run(None, {"x": left.astype(np.float32)})[0]

    exact = left.astype(np.float32) @ right.astype(np.float32)
    np.testing.assert_allclose(found(), exact.astype(np.float16), atol=2e-3)
    assert (found() == found().astype(np.float16)).all()
    total = np.zeros((3, 7), np.float16)
    for start in range(0, 40, 16):
        piece = slice(start, start + 16)
        total = (total + left[:, piece].astype(np.float32) @ right[piece].astype(np.float32)).astype(np.float16)
    np.testing.assert_allclose(found(partial_sums=True), total, atol=2e-3)
    assert (found(partial_sums=True) != found()).any()


def _insert_cast(model):
    """float32 softmax, the usual wrong repair."""
    for number, node in enumerate(model.graph.node):
        if node.op_type == "Softmax":
            name, result = node.input[0], node.output[0]
            node.input[0], node.output[0] = "up", "shares32"
            model.graph.node.insert(number, helper.make_node("Cast", [name], ["up"], to=1))
            model.graph.node.insert(number + 2, helper.make_node("Cast", ["shares32"], [result], to=10))
            return


def _infinite_mask(model):
    for tensor in model.graph.initializer:
        if tensor.name == "mask.masked":
            tensor.raw_data = np.float16(-np.inf).tobytes()


def _lowest_mask(model):
    for tensor in model.graph.initializer:
        if tensor.name == "mask.masked":
            tensor.raw_data = np.float16(-65504).tobytes()


def _weak_mask(model):
    for tensor in model.graph.initializer:
        if tensor.name == "mask.masked":
            tensor.raw_data = np.float16(-8).tobytes()


def _int64_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64


def _bad_weight(model):
    for tensor in model.graph.initializer:
        if tensor.name == "encoder.layer.0.output.dense.bias":
            tensor.raw_data = np.full(64, np.inf, np.float16).tobytes()


def _newer_opset(model):
    model.opset_import[0].version = 21


def _gemm(model):
    for node in model.graph.node:
        if node.op_type == "Gelu":
            node.op_type = "Elu"
            return


def _lost_attention(model):
    for node in model.graph.node:
        if node.op_type == "Softmax":
            node.op_type = "Gelu"
            node.ClearField("attribute")
            return


def _second_reader(model):
    shares = next(node.output[0] for node in model.graph.node if node.op_type == "Softmax")
    model.graph.node.append(helper.make_node("Gelu", [shares], ["extra"], name="extra"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_insert_cast, "not made by Add|straight into"),
        (_infinite_mask, "mask adds|not finite"),
        (_lowest_mask, "mask adds -65504"),
        (_weak_mask, "mask adds -8"),
        (_int64_input, "int32"),
        (_bad_weight, "not finite"),
        (_newer_opset, "opset 21"),
        (_gemm, "Elu"),
        (_lost_attention, "2 attentions for 3 layers"),
        (_second_reader, "second reader|straight into"),
    ],
)
def test_rules_refuse(tmp_path, make_network, change, message):
    path = tmp_path / write(make_network(), tmp_path).files[0]
    tensorrt_rules.check(path, layers=3, half=TensorProto.FLOAT16)
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(GraphRuleError, match=message):
        tensorrt_rules.check(path, layers=3, half=TensorProto.FLOAT16)


def test_rules_read_external_weights(tmp_path, make_network):
    written = write(make_network(), tmp_path)
    data = tmp_path / written.files[1]
    data.write_bytes(data.read_bytes()[:-2] + np.float16(np.nan).tobytes())
    with pytest.raises(GraphRuleError, match="not finite"):
        tensorrt_rules.check(tmp_path / written.files[0], layers=3, half=TensorProto.FLOAT16)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_16_bit_sums_cost_little_more(tmp_path, make_config, make_network, float64_bert, precision):
    """The worst that kernels with 16-bit accumulators do to a whole network."""
    config, network = make_config(), make_network()
    written = write(network, tmp_path, precision)
    texts = draw_texts(config, LENGTHS, seed=2)
    plain = run(tmp_path, written, config, packed(texts))
    found = run(tmp_path, written, config, packed(texts), partial_sums=True)
    assert (found != plain).any()
    for ids, row in zip(texts, found, strict=True):
        expected = float64_bert.embedding(weights_of(network), config, ids, pooling="mean", normalize=True)
        assert np.abs(row - expected).max() < 3 * BOUNDS[precision]
