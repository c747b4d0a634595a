"""The CPU graph against the plain float64 oracle."""

import numpy as np
import onnx
import pytest

from bgert_export.graphs import cpu

LENGTHS = [1, 2, 3, 70, 4, 17, 72, 5, 33, 2]


def draw_texts(config, lengths, seed):
    draw = np.random.default_rng(seed)
    print(f"seed {seed}")
    return [draw.integers(5, config["vocab_size"], n) for n in lengths]


def weights_of(network):
    return {name: network.read(name) for name in network.weight_map.names}


def write(network, folder, pooling, normalize=True):
    return cpu.write_encoder(network, folder, pooling=pooling, normalize=normalize, version="1")


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("layers", [1, 3])
def test_encoder_equals_the_oracle(
    tmp_path, make_config, make_network, float64_bert, feeds_of, open_session, pooling, normalize, layers
):
    config = make_config(num_hidden_layers=layers)
    network = make_network(config=config, seed=layers)
    written = write(network, tmp_path, pooling, normalize)
    assert ("cls_rows" in written.inputs) == (pooling == "cls")
    session = open_session(tmp_path)
    assert {entry.name for entry in session.get_inputs()} == set(written.inputs)
    texts = draw_texts(config, LENGTHS, seed=layers)
    (found,) = session.run([written.output], feeds_of(texts, written.inputs))
    assert found.dtype == np.float32
    for ids, row in zip(texts, found, strict=True):
        expected = float64_bert.embedding(weights_of(network), config, ids, pooling=pooling, normalize=normalize)
        scale = 1 if normalize else np.linalg.norm(expected)
        assert np.abs(row - expected).max() / scale < 2e-6


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_xlm_roberta_encoder(tmp_path, make_config, make_network, float64_bert, feeds_of, open_session, pooling):
    config = make_config(
        model_type="xlm-roberta",
        architectures=["XLMRobertaModel"],
        pad_token_id=1,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    network = make_network(config=config)
    written = write(network, tmp_path, pooling)
    assert "token_type_ids" not in written.inputs
    texts = draw_texts(config, [3, 70, 9], seed=8)
    (found,) = open_session(tmp_path).run(None, feeds_of(texts, written.inputs))
    for ids, row in zip(texts, found, strict=True):
        expected = float64_bert.embedding(weights_of(network), config, ids, pooling=pooling, normalize=True)
        assert np.abs(row - expected).max() < 2e-6


@pytest.mark.parametrize("kind", ["encoder", "reranker"])
def test_xlm_roberta_equals_transformers_with_padding_tokens_inside(
    tmp_path, make_config, make_network, feeds_of, open_session, kind
):
    """Who writes `<pad>` into a text moves the positions of what follows; checked against transformers itself."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification, XLMRobertaModel

    config = make_config(
        model_type="xlm-roberta",
        architectures=["XLMRobertaModel" if kind == "encoder" else "XLMRobertaForSequenceClassification"],
        pad_token_id=1,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        num_labels=None if kind == "encoder" else 2,
    )
    network = make_network(config=config)
    settings = XLMRobertaConfig(**config, attn_implementation="eager")
    encoder = kind == "encoder"
    peer = (
        XLMRobertaModel(settings, add_pooling_layer=False) if encoder else XLMRobertaForSequenceClassification(settings)
    )
    names = [name if encoder or name.startswith("classifier") else f"roberta.{name}" for name in weights_of(network)]
    state = {name: torch.from_numpy(value) for name, value in zip(names, weights_of(network).values(), strict=True)}
    missing, unexpected = peer.eval().load_state_dict(state, strict=False)
    assert (set(missing) - {"embeddings.position_ids"}, unexpected) == (set(), [])
    texts = [[0, 9, 1, 7, 2], [0, 1, 1, 2], [1, 1, 1, 1], [0, 5, 6, 7, 8, 9, 2], [0] + [5, 1] * 34 + [2]]
    if encoder:
        written = write(network, tmp_path, "mean", normalize=False)
    else:
        written = cpu.write_reranker(network, tmp_path, version="1")
    (found,) = open_session(tmp_path).run(None, feeds_of(texts, written.inputs))
    for ids, row in zip(texts, found, strict=True):
        with torch.inference_mode():
            output = peer(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)))
        expected = output.last_hidden_state[0].mean(0) if encoder else output.logits[0]
        assert np.abs(row - expected.numpy()).max() < 5e-6 * max(1, np.linalg.norm(expected))


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta"])
def test_reranker_equals_the_oracle(
    tmp_path, make_config, make_network, float64_bert, feeds_of, open_session, model_type, labels
):
    bert = model_type == "bert"
    name = "BertForSequenceClassification" if bert else "XLMRobertaForSequenceClassification"
    config = make_config(
        model_type=model_type,
        architectures=[name],
        num_labels=labels,
        pad_token_id=0 if bert else 1,
        type_vocab_size=2 if bert else 1,
    )
    network = make_network(config=config, seed=labels)
    written = cpu.write_reranker(network, tmp_path, version="1")
    assert ("token_type_ids" in written.inputs) == bert
    texts = draw_texts(config, [1, 70, 4, 17], seed=labels)
    types = [(np.arange(len(ids)) > len(ids) // 3).astype(int) if bert else np.zeros(len(ids), int) for ids in texts]
    (found,) = open_session(tmp_path).run(["logits"], feeds_of(texts, written.inputs, types))
    assert found.shape == (len(texts), labels)
    for ids, kinds, row in zip(texts, types, found, strict=True):
        expected = float64_bert.logits(weights_of(network), config, ids, kinds)
        np.testing.assert_allclose(row, expected, atol=5e-6)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_text_does_not_depend_on_its_batch(tmp_path, make_config, make_network, feeds_of, open_session, pooling):
    config = make_config()
    written = write(make_network(), tmp_path, pooling)
    session = open_session(tmp_path)
    texts = draw_texts(config, LENGTHS, seed=4)
    (together,) = session.run(None, feeds_of(texts, written.inputs))
    for ids, row in zip(texts, together, strict=True):
        (alone,) = session.run(None, feeds_of([ids], written.inputs))
        assert np.array_equal(alone[0], row)


def test_zero_vectors_stay_zero(tmp_path, make_config, make_weights, make_network, feeds_of, open_session):
    weights = make_weights(make_config())
    for part in ("weight", "bias"):
        weights[f"encoder.layer.2.output.LayerNorm.{part}"][:] = 0
    written = write(make_network(weights=weights), tmp_path, "mean")
    (found,) = open_session(tmp_path).run(None, feeds_of([[5, 6, 7]], written.inputs))
    assert (found == 0).all()


def test_normalisation_is_torchs(tmp_path, make_config, make_weights, make_network, feeds_of, open_session):
    import torch

    weights = make_weights(make_config())
    for part in ("weight", "bias"):
        weights[f"encoder.layer.2.output.LayerNorm.{part}"] *= 1e-14
    network = make_network(weights=weights)
    texts = [[5, 6, 7], [9, 9]]
    (tmp_path / "raw").mkdir()
    raw_inputs = write(network, tmp_path / "raw", "cls", normalize=False).inputs
    (raw,) = open_session(tmp_path / "raw").run(None, feeds_of(texts, raw_inputs))
    written = write(network, tmp_path, "cls")
    (found,) = open_session(tmp_path).run(None, feeds_of(texts, written.inputs))
    expected = torch.nn.functional.normalize(torch.from_numpy(raw), dim=1).numpy()
    assert 0 < np.linalg.norm(expected[0]) < 0.9
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_last_layer_runs_for_cls_rows_alone(tmp_path, make_network, make_config, feeds_of, open_session):
    """Every row-wise operator of the last layer has one row a text, except key and value."""
    written = write(make_network(), tmp_path, "cls")
    model = onnx.load(tmp_path / "cpu-fp32.onnx")
    inferred = [
        node.output[0] for node in model.graph.node if node.op_type.startswith("Linear") and ".2." in node.output[0]
    ]
    for name in inferred:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "rows.onnx")
    session = open_session(tmp_path, "rows.onnx")
    texts = draw_texts(make_config(), [7, 9], seed=0)
    found = dict(zip(inferred, session.run(inferred, feeds_of(texts, written.inputs)), strict=True))
    rows = {name.split(".2.")[1]: len(value) for name, value in found.items()}
    assert rows.pop("attention.self.key") == rows.pop("attention.self.value") == 16
    assert set(rows.values()) == {2}
    assert len(rows) == 4


def test_the_graph_is_what_the_manifest_says(tmp_path, make_network):
    write(make_network(), tmp_path, "mean")
    onnx.checker.check_model(str(tmp_path / "cpu-fp32.onnx"), full_check=True)
    model = onnx.load(tmp_path / "cpu-fp32.onnx", load_external_data=False)
    assert model.ir_version == cpu.IR_VERSION <= 10
    assert {entry.domain or "ai.onnx": entry.version for entry in model.opset_import} == cpu.OPSET
    assert cpu.OPSET["ai.onnx"] <= 20
    operators = {node.op_type for node in model.graph.node}
    assert {"LinearFp32", "LinearGeluFp32", "PackedAttention", "AddLayerNorm", "MeanPool"} <= operators


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path, make_network):
    contents = []
    for name in ("a", "b"):
        network = make_network(name=f"checkpoint-{name}", seed=2)
        (tmp_path / name).mkdir()
        written = write(network, tmp_path / name, "cls")
        contents.append([(tmp_path / name / file).read_bytes() for file in written.files])
    assert contents[0] == contents[1]
