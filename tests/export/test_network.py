"""Each fold against the unfolded arithmetic in float64."""

import numpy as np
import pytest


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.fixture
def network(make_network):
    return make_network(seed=11)


def wide(network, name):
    return network.read(name).astype(np.float64)


def test_token_type_row_folds_into_positions(network):
    table = network.position_table()
    assert table.shape == (72, 64)
    types = wide(network, "embeddings.token_type_embeddings.weight")
    positions = wide(network, "embeddings.position_embeddings.weight")
    assert np.abs(types[0]).max() > 0.05
    np.testing.assert_allclose(table, positions + types[0], rtol=1e-7, atol=1e-8)


def test_every_token_type_has_its_positions_in_a_reranker(make_network, make_config):
    network = make_network(config=make_config(architectures=["BertForSequenceClassification"]))
    table = network.position_table()
    types = wide(network, "embeddings.token_type_embeddings.weight")
    positions = wide(network, "embeddings.position_embeddings.weight")
    assert table.shape == (144, 64)
    np.testing.assert_allclose(table[:72], positions + types[0], rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(table[72:], positions + types[1], rtol=1e-7, atol=1e-8)


def test_xlm_roberta_positions_start_after_padding(make_network, make_config):
    config = make_config(model_type="xlm-roberta", architectures=["XLMRobertaModel"], pad_token_id=1, type_vocab_size=1)
    network = make_network(config=config)
    table = network.position_table()
    assert table.shape == (71, 64)  # the padding row, then 70 positions
    rows = wide(network, "embeddings.position_embeddings.weight")[1:]
    type_row = wide(network, "embeddings.token_type_embeddings.weight")[0]
    np.testing.assert_allclose(table, rows + type_row, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("layer", range(3))
def test_value_bias_folds_into_the_output_bias(network, layer):
    at = f"encoder.layer.{layer}.attention."
    draw = np.random.default_rng(layer)
    rows = draw.standard_normal((9, 64))
    weights = softmax(draw.standard_normal((9, 9)) * 3)
    value = rows @ wide(network, f"{at}self.value.weight").T
    value_bias = wide(network, f"{at}self.value.bias")
    assert np.abs(value_bias).max() > 0.3
    out, out_bias = wide(network, f"{at}output.dense.weight"), wide(network, f"{at}output.dense.bias")
    unfolded = weights @ (value + value_bias) @ out.T + out_bias
    folded = weights @ value @ out.T + network.attention_output_bias(layer).astype(np.float64)
    np.testing.assert_allclose(folded, unfolded, atol=1e-6)


def test_softmax_ignores_the_key_bias(network):
    at = "encoder.layer.1.attention.self."
    draw = np.random.default_rng(3)
    rows = draw.standard_normal((9, 64))
    query = rows @ wide(network, f"{at}query.weight").T + wide(network, f"{at}query.bias")
    key = rows @ wide(network, f"{at}key.weight").T
    key_bias = wide(network, f"{at}key.bias")
    assert np.abs(key_bias).max() > 0.3
    np.testing.assert_allclose(softmax(query @ (key + key_bias).T), softmax(query @ key.T), atol=1e-13)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("name", "place", "row"),
    [
        ("embeddings.word_embeddings.weight", (71, 5), 71),
        ("embeddings.position_embeddings.weight", (71, 63), 71),
        ("embeddings.token_type_embeddings.weight", (1, 0), 1),  # of no use to an encoder, and yet damage
        ("encoder.layer.1.attention.self.key.bias", (7,), 7),  # folded away in the graph, not in PyTorch
        ("encoder.layer.2.output.LayerNorm.bias", (63,), 63),
        ("encoder.layer.2.output.dense.weight", (0, 0), 0),
    ],
)
def test_what_is_not_finite_is_named(make_network, make_weights, make_config, monkeypatch, name, place, row, bad):
    from bgert_export.errors import CheckpointError

    monkeypatch.setattr("bgert_export.safetensors_file.BLOCK_BYTES", 4 * 64 * 10)
    make_network().check_finite()
    weights = make_weights(make_config())
    weights[name][place] = bad
    network = make_network(name="damaged", weights=weights)
    with pytest.raises(CheckpointError, match=rf"the weight {name} has NaN or infinity in row {row}:"):
        network.check_finite()


def test_float64_beyond_float32_is_infinite(make_network, make_weights, make_config):
    from bgert_export.errors import CheckpointError

    weights = {name: value.astype(np.float64) for name, value in make_weights(make_config()).items()}
    weights["encoder.layer.0.output.dense.bias"][3] = 1e39
    with pytest.raises(CheckpointError, match="infinity in row 3:"):
        make_network(weights=weights).check_finite()
