"""The written `cuda-fp8` graph in numpy, beside a float64 BERT and beside a BERT that torch quantises."""

import math

import numpy as np
import pytest
import torch

from bgert.batching import PackedBatch
from bgert_export.errors import UnsupportedCheckpointError
from bgert_export.fp8.search import _candidates
from bgert_export.fp8.stand_in import Fp8StandIn
from bgert_export.graphs import cuda_fp8

LENGTHS = [1, 2, 3, 70, 4, 17, 69, 5, 33, 2]
XLM = {"model_type": "xlm-roberta", "pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
KINDS = {
    "cls": {},
    "mean": {},
    "xlm-mean": XLM | {"architectures": ["XLMRobertaModel"]},
    "reranker": {"architectures": ["BertForSequenceClassification"], "num_labels": 1},
    "xlm-reranker": XLM | {"architectures": ["XLMRobertaForSequenceClassification"], "num_labels": 3},
}


def drawn(config, seed, lengths=LENGTHS):
    print(f"seed {seed}")
    draw = np.random.default_rng(seed)
    return [draw.integers(5, config["vocab_size"], n) for n in lengths]


def types_of(ids, kind):
    return (np.arange(len(ids)) > len(ids) // 3).astype(int) * (kind == "reranker")


def packed(texts, kind):
    cuts = np.cumsum([0, *map(len, texts)]).astype(np.int32)
    types = np.concatenate([types_of(ids, kind) for ids in texts]).astype(np.int32)
    return PackedBatch(np.concatenate(texts).astype(np.int32), cuts, types)


def written(network, folder, kind, in_fp16=(), quantized=None):
    if kind.endswith("reranker"):
        made = cuda_fp8.write_reranker(network, folder, in_fp16, quantized, version="1")
    else:
        pooling = kind[-4:].strip("-")
        made = cuda_fp8.write_encoder(network, folder, in_fp16, quantized, pooling=pooling, normalize=True, version="1")
    return Fp8StandIn(folder / made.files[0], made.inputs, pad_token_id=network.architecture.pad_token_id)


def oracle(float64_bert, network, config, kind, texts):
    weights = {name: network.read(name) for name in network.weight_map.names}
    if kind.endswith("reranker"):
        return np.array([float64_bert.logits(weights, config, ids, types_of(ids, kind)) for ids in texts])
    pooling = kind[-4:].strip("-")
    return np.array([float64_bert.embedding(weights, config, ids, pooling=pooling, normalize=True) for ids in texts])


def distance(found, expected, kind):
    """Largest error of a logit, or of cosine."""
    if kind.endswith("reranker"):
        return np.abs(found - expected).max()
    return 1 - ((found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)).min()


@pytest.mark.parametrize("kind", KINDS)
def test_with_every_matrix_in_fp16_only_rounding_is_left(tmp_path, make_config, make_network, float64_bert, kind):
    config = make_config(num_attention_heads=2, **KINDS[kind])
    network = make_network(config=config, seed=5)
    every = [name for names in _candidates(network, kind != "mean" and "mean" not in kind) for name in names]
    texts = drawn(config, seed=6)
    expected = oracle(float64_bert, network, config, kind, texts)
    half = written(network, tmp_path, kind, every).run(packed(texts, kind))
    assert 0 < distance(half, expected, kind) < (0.02 if kind.endswith("reranker") else 5e-4)
    # The same without writing it so, and E4M3 is further away.
    whole = written(network, tmp_path, kind)
    eighth = whole.run(packed(texts, kind))
    whole.in_half = [output for output, _ in _candidates(network, "mean" not in kind).values()]
    np.testing.assert_allclose(whole.run(packed(texts, kind)), half, atol=2e-3 * np.abs(half).max())
    assert distance(eighth, expected, kind) > 4 * distance(half, expected, kind)


def quantised(x):
    """Rows of float32 in torch, as E4M3 and a scale have them."""
    largest = x.abs().amax(1, keepdim=True)
    return (x * (448 / largest)).to(torch.float8_e4m3fn).float() * (largest / 448)


def torchs_embedding(weights, config, ids):
    """A mean-pooled BERT whose matrices torch quantises, float32, activations as float16 between operators."""

    def half(x):
        return x.half().float()

    def of(name):
        return torch.from_numpy(weights[name])

    def norm(x, at):
        size = (config["hidden_size"],)
        gamma, beta = (of(f"{at}.LayerNorm.{part}") for part in ("weight", "bias"))
        return half(torch.nn.functional.layer_norm(x, size, half(gamma), half(beta), config["layer_norm_eps"]))

    def matrix(x, at, bias=None):
        product = quantised(x) @ quantised(of(f"{at}.weight")).T
        return half(product + half(of(f"{at}.bias") if bias is None else bias))

    heads = config["num_attention_heads"]
    tables = [half(of("embeddings.word_embeddings.weight"))[ids]]
    types = of("embeddings.token_type_embeddings.weight")[0]
    tables.append(half(of("embeddings.position_embeddings.weight")[: len(ids)] + types))
    x = norm(sum(tables), "embeddings")
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        own, out = f"{at}.attention.self", f"{at}.attention.output"
        nothing = torch.zeros(config["hidden_size"])
        q, k, v = (
            matrix(x, f"{own}.{part}", None if part == "query" else nothing).reshape(len(ids), heads, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        weight = torch.softmax(q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1]), -1)
        context = half((weight @ v).swapaxes(0, 1).reshape(len(ids), -1))
        folded = of(f"{out}.dense.bias") + of(f"{out}.dense.weight") @ of(f"{own}.value.bias")
        x = norm(x + matrix(context, f"{out}.dense", folded), out)
        wide = half(torch.nn.functional.gelu(matrix(x, f"{at}.intermediate.dense")))
        x = norm(x + matrix(wide, f"{at}.output.dense"), f"{at}.output")
    pooled = x.mean(0)
    return (pooled / pooled.norm()).numpy()


def test_numbers_are_quantised_where_torch_quantises_them(tmp_path, make_config, make_network, float64_bert):
    """A value next to the middle of two numbers may round to either: equal to a fraction of what E4M3 itself costs."""
    config = make_config(num_attention_heads=2, num_hidden_layers=2)
    network = make_network(config=config, seed=8)
    weights = {name: network.read(name) for name in network.weight_map.names}
    texts = drawn(config, seed=9, lengths=[30, 60, 45, 70, 52])
    found = written(network, tmp_path, "mean").run(packed(texts, "mean"))
    theirs = np.array([torchs_embedding(weights, config, torch.from_numpy(ids)) for ids in texts])
    exact = oracle(float64_bert, network, config, "mean", texts)
    cost, apart = distance(theirs, exact, "mean"), distance(found, theirs, "mean")
    print(cost, apart)
    assert apart < cost / 4


def test_no_text_knows_another(tmp_path, make_config, make_network):
    config = make_config(num_attention_heads=2)
    graph = written(make_network(config=config, seed=3), tmp_path, "mean")
    texts = drawn(config, seed=4)
    others = [texts[0], *drawn(config, seed=5)[1:]]
    together, beside_others = graph.run(packed(texts, "mean")), graph.run(packed(others, "mean"))
    np.testing.assert_array_equal(together[0], beside_others[0])
    assert (together[1:] != beside_others[1:]).any(axis=1).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 72, "num_attention_heads": 9}, "hidden_size is 72.*multiples of 16"),
        ({"intermediate_size": 130}, "intermediate_size is 130"),
        ({"hidden_size": 64, "num_attention_heads": 4}, "heads of 16.*takes 32 and 64; use the target cuda"),
        ({"num_attention_heads": 2, "hidden_act": "relu"}, "cuda-fp8"),
    ],
)
def test_networks_that_it_does_not_take(tmp_path, make_config, make_network, changes, words):
    network = make_network(config=make_config(**changes))
    with pytest.raises(UnsupportedCheckpointError, match=words):
        written(network, tmp_path, "mean")
