"""The graph of bgert's own CUDA operators, evaluated in numpy, against the plain float64 oracle."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import packed_reference
from bgert.backends.cuda.packed_layout import Bucket
from bgert.errors import InvalidOptionError
from bgert_export import export
from bgert_export.errors import UnsupportedCheckpointError
from bgert_export.graphs import cuda_fused
from bgert_export.targets import check_targets
from packed_reference import PackedReference

ROOT = Path(__file__).resolve().parents[3]
LENGTHS = [1, 2, 3, 70, 4, 17, 69, 5, 33, 2]
HEADS = {"num_attention_heads": 2}  # of 32 columns
XLM = HEADS | {"model_type": "xlm-roberta", "pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
KINDS = {
    "cls": HEADS,
    "mean": HEADS,
    "xlm-mean": XLM | {"architectures": ["XLMRobertaModel"]},
    "reranker": HEADS | {"architectures": ["BertForSequenceClassification"], "num_labels": 1},
    "xlm-reranker": XLM | {"architectures": ["XLMRobertaForSequenceClassification"], "num_labels": 3},
}


def draw_texts(config, seed):
    print(f"seed {seed}")
    draw = np.random.default_rng(seed)
    return [draw.integers(5, config["vocab_size"], n) for n in LENGTHS]


def types_of(texts, kind):
    return [(np.arange(len(ids)) > len(ids) // 3).astype(int) * (kind == "reranker") for ids in texts]


def pooling_of(kind):
    return "mean" if kind.endswith("mean") else "cls"


def write(network, folder, kind, exact_gelu=True, normalize=True):
    if kind.endswith("reranker"):
        return cuda_fused.write_reranker(network, folder, version="1", exact_gelu=exact_gelu)
    options = {"pooling": pooling_of(kind), "normalize": normalize, "exact_gelu": exact_gelu}
    return cuda_fused.write_encoder(network, folder, version="1", **options)


def evaluate(folder, written, texts, kind, precision="exact", bucket=None):
    pad = 1 if kind.startswith("xlm") else 0
    feeds = packed_reference.feeds_of(written.inputs, texts, types_of(texts, kind), bucket=bucket, pad_token_id=pad)
    found = PackedReference(folder / written.files[0], precision).run(feeds)
    assert np.isfinite(found[: len(texts)]).all()
    return found[: len(texts)]


def oracle(float64_bert, weights, config, kind, texts, normalize=True):
    if kind.endswith("reranker"):
        rows = [float64_bert.logits(weights, config, *pair) for pair in zip(texts, types_of(texts, kind), strict=True)]
    else:
        options = {"pooling": pooling_of(kind), "normalize": normalize}
        rows = [float64_bert.embedding(weights, config, ids, **options) for ids in texts]
    return np.array(rows)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_rounding_is_between_the_graph_and_the_oracle(
    tmp_path, make_config, make_weights, make_network, float64_bert, kind, normalize
):
    if kind.endswith("reranker") and not normalize:
        pytest.skip("rerankers have no normalisation")
    config = make_config(**KINDS[kind])
    # Multiples of 1/32: float16 holds them, and every fold of them, without rounding.
    weights = {name: np.rint(value * 32) / np.float32(32) for name, value in make_weights(config, seed=3).items()}
    written = write(make_network(config=config, weights=weights), tmp_path, kind, normalize=normalize)
    texts = draw_texts(config, seed=3)
    expected = oracle(float64_bert, weights, config, kind, texts, normalize)
    found = evaluate(tmp_path, written, texts, kind)
    np.testing.assert_allclose(found, expected, rtol=2e-7, atol=2e-7 * np.abs(expected).max())


@pytest.mark.parametrize("exact_gelu", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_rounding_to_float16_is_within_the_tolerance(
    tmp_path, make_config, make_network, float64_bert, kind, exact_gelu
):
    config = make_config(num_hidden_layers=6, **KINDS[kind])
    network = make_network(config=config, seed=5)
    written = write(network, tmp_path, kind, exact_gelu)
    texts = draw_texts(config, seed=6)
    weights = {name: network.read(name) for name in network.weight_map.names}
    expected = oracle(float64_bert, weights, config, kind, texts)
    found = evaluate(tmp_path, written, texts, kind, "rounded")
    if kind.endswith("reranker"):
        assert 0 < np.abs(found - expected).max() < 0.02
    else:
        cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
        assert 0 < 1 - cosine.min() < 5e-4


@pytest.mark.parametrize("kind", ["cls", "mean", "reranker"])
def test_a_text_depends_neither_on_its_batch_nor_on_the_bucket(tmp_path, make_config, make_network, kind):
    config = make_config(**KINDS[kind])
    written = write(make_network(config=config), tmp_path, kind)
    texts = draw_texts(config, seed=4)
    together = evaluate(tmp_path, written, texts, kind)
    other = evaluate(tmp_path, written, texts, kind, bucket=Bucket(512, 32, 200))
    np.testing.assert_allclose(other, together, rtol=1e-10, atol=1e-12)
    for ids, row in zip(texts, together, strict=True):
        (alone,) = evaluate(tmp_path, written, [ids], kind, bucket=Bucket(128, 2, 128))
        np.testing.assert_allclose(alone, row, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_every_operator_is_one_that_the_library_has(tmp_path, make_config, make_network, kind):
    """Encoders have no other: so a rehearsal without a GPU, which runs these alone, gives their vectors."""
    written = write(make_network(config=make_config(**KINDS[kind])), tmp_path, kind)
    model = onnx.load(tmp_path / written.files[0])
    assert [entry.name for entry in model.graph.input] == written.inputs
    assert {entry.domain or "ai.onnx": entry.version for entry in model.opset_import} == cuda_fused.OPSET
    others = {node.op_type for node in model.graph.node if node.domain != "bgert"}
    assert others <= ({"Gemm", "Tanh"} if kind.endswith("reranker") else set())
    source = (ROOT / "runtime/src/cuda_ops/custom_ops.cpp").read_text()
    assert all(f'make("{node.op_type}",' in source for node in model.graph.node if node.domain == "bgert")


def test_the_last_layer_runs_for_first_tokens_alone(tmp_path, make_config, make_network):
    written = write(make_network(config=make_config(**HEADS)), tmp_path, "cls")
    model = onnx.load(tmp_path / written.files[0])
    last = [node for node in model.graph.node if "layer.2." in node.output[0]]
    of_all = [node.output[0] for node in last if "cls.rows" not in node.input and node.op_type == "LinearFp16"]
    assert "encoder.layer.2.attention.self.key_value" in of_all  # the one product over all tokens
    assert [node.op_type for node in last][:3] == ["LinearFp16", "LinearFp16", "FirstTokenAttentionFp16"]
    assert not any(node.op_type == "PackedSelfAttentionFp16" for node in last)


def test_sizes_that_the_kernels_do_not_take(tmp_path, make_config, make_network):
    network = make_network(config=make_config(num_attention_heads=4))
    with pytest.raises(UnsupportedCheckpointError, match=r"heads of 16.*use the target cuda"):
        write(network, tmp_path, "cls")


def test_one_of_the_fp16_graphs_of_a_device():
    assert check_targets(["cuda-fused", "cpu"]) == ["cpu", "cuda-fused"]
    with pytest.raises(InvalidOptionError, match="cuda and cuda-fused are each the fp16 graph"):
        check_targets(["cuda-fused", "cuda"])


@pytest.mark.parametrize(("target", "gelu"), [("cuda-fused", "tanh"), ("cuda-fused-erf", "erf")])
def test_the_folder_says_which_gelu(tmp_path, make_config, make_checkpoint, target, gelu):
    checkpoint = make_checkpoint(config=make_config(**HEADS))
    manifest = export(checkpoint, tmp_path / "out", pooling="cls", normalize=True, targets=[target], verify=False)
    (graph,) = manifest.graphs
    assert (graph.target, graph.precision, graph.opset["bgert"]) == ("cuda", "fp16", 1)
    assert [choice.value for choice in manifest.choices if choice.field == "gelu"] == [gelu]
