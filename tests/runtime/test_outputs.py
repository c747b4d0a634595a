"""Sparse and multi-vector outputs of bge-m3's heads, beside PyTorch by FlagEmbedding's definition of them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bgert import Encoder, InvalidOptionError, NonFiniteOutputError
from bgert.batching import PackedBatch
from bgert.model_folder import Manifest, TokenOutput
from bgert.outputs import SparseEmbeddings, SparseVector, max_sim, sparse_of_tokens
from bgert_export import export
from bgert_export.errors import CheckpointError

TEXTS = [
    "hello world, the quick brown fox jumps over the lazy dog. the dog jumps, the fox jumps",
    "привет мир",
    "",
    "<unk> unbelievably hello </s> hello",
    "日本語 と 中华人民共和国 " * 5,
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, unigram, charsmap, make_config, write_weights, write_m3):
    """A tiny XLM-RoBERTa with bge-m3's heads."""
    folder = tmp_path_factory.mktemp("m3") / "bge-m3-tiny"
    vocabulary = unigram.vocabulary()
    unigram.write(folder, unigram.tokenizer_json(vocabulary, charsmap), unigram.config())
    config = make_config(
        architectures=["XLMRobertaModel"],
        model_type="xlm-roberta",
        vocab_size=len(vocabulary),
        max_position_embeddings=130,
        pad_token_id=1,
        type_vocab_size=1,
    )
    (folder / "config.json").write_text(json.dumps(config))
    write_weights(folder, config)
    return write_m3(folder)


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("m3") / "exported"
    export(checkpoint, folder, pooling="cls", normalize=True)
    return folder


@pytest.fixture(scope="module")
def m3(folder):
    return Encoder(folder)


def by_torch(checkpoint, text):
    """Dense vector, weight by id, and vectors of a text, as FlagEmbedding's `BGEM3FlagModel` computes them."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModel.from_pretrained(checkpoint).eval()
    heads = [torch.load(checkpoint / f"{name}_linear.pt") for name in ("sparse", "colbert")]
    inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=128)
    with torch.inference_mode():
        states = model(**inputs).last_hidden_state[0]
        weights, vectors = (torch.nn.functional.linear(states, head["weight"], head["bias"]) for head in heads)
    found = {}
    for token, weight in zip(inputs["input_ids"][0].tolist(), torch.relu(weights)[:, 0].tolist(), strict=True):
        if token not in (0, 1, 2, 3) and weight > found.get(token, 0):
            found[token] = weight
    dense = torch.nn.functional.normalize(states[0], dim=0)
    return dense.numpy(), found, torch.nn.functional.normalize(vectors[1:], dim=1).numpy()


def test_outputs_are_those_of_torch(m3, checkpoint):
    assert m3.outputs == ("dense", "sparse", "multi_vector")
    found = m3.encode_outputs(TEXTS)
    assert np.array_equal(found.dense, m3.encode(TEXTS))
    assert len(found.sparse) == len(found.multi_vector) == len(TEXTS)
    some = 0
    for number, text in enumerate(TEXTS):
        dense, weights, vectors = by_torch(checkpoint, text)
        assert np.abs(found.dense[number] - dense).max() < 2e-5
        assert found.sparse[number].as_dict() == pytest.approx(weights, abs=2e-5)
        assert found.sparse[number].indices.tolist() == sorted(weights)
        assert found.multi_vector[number].shape == vectors.shape
        assert np.abs(found.multi_vector[number] - vectors).max() < 2e-5
        some += len(weights)
    assert some > 20  # there is something to compare
    assert found.sparse.toarray().shape == (len(TEXTS), m3.manifest.architecture["vocab_size"])


def test_bits_are_the_same_alone_and_in_any_batch(m3):
    together = m3.encode_outputs([*TEXTS, *TEXTS[::-1]])
    for number, text in enumerate(TEXTS):
        alone = m3.encode_outputs(text)
        assert np.array_equal(alone.dense, together.dense[number])
        assert alone.sparse.as_dict() == together.sparse[number].as_dict() == together.sparse[-1 - number].as_dict()
        assert np.array_equal(alone.multi_vector, together.multi_vector[-1 - number])


def test_what_was_not_asked_for_is_not_there(m3):
    found = m3.encode_outputs(TEXTS, "sparse")
    assert found.dense is None
    assert found.multi_vector is None
    assert found.info.tokens == m3.encode(TEXTS).info.tokens
    empty = m3.encode_outputs([], ["multi_vector", "sparse"])
    assert (empty.multi_vector, len(empty.sparse), empty.sparse.shape[0]) == ([], 0, 0)
    for wrong in ("colbert", [], ["dense", "splade"]):
        with pytest.raises(InvalidOptionError, match="dense, sparse, multi_vector"):
            m3.encode_outputs(TEXTS, wrong)


def test_prompts_and_limits(m3):
    with_prefix = m3.encode_outputs("fox", prefix="the quick ")
    assert with_prefix.sparse.as_dict() == m3.encode_outputs("the quick fox").sparse.as_dict()
    with pytest.warns(UserWarning, match="longer than 6 tokens"):
        cut = m3.encode_outputs(TEXTS[:1], max_length=6)
    assert len(cut.multi_vector[0]) == 5
    assert cut.info.truncated.tolist() == [True]


@pytest.mark.parametrize("target", ["cpu-bf16", "cpu-int8"])
def test_other_precisions(checkpoint, m3, tmp_path, target):
    export(checkpoint, tmp_path / "out", pooling="cls", normalize=True, targets=[target], int8_floor=0.9)
    found, exact = Encoder(tmp_path / "out").encode_outputs(TEXTS), m3.encode_outputs(TEXTS)
    for ours, theirs in zip(found.multi_vector, exact.multi_vector, strict=True):
        assert (ours * theirs).sum(1).min() > 0.9
    assert np.abs(found.sparse.toarray() - exact.sparse.toarray()).max() < 0.3


def test_export_compares_every_output(folder, checkpoint, tmp_path, monkeypatch):
    calls = {call.call: call for call in Manifest.read(folder).graphs[0].parity.calls}
    assert calls["sparse"].max_abs_error < 2e-5
    assert calls["multi_vector"].max_abs_error < 2e-5
    assert calls["sparse"].count > 5
    from bgert_export import token_heads

    read = token_heads._read

    def wrong(folder, name, width):
        head = read(folder, name, width)
        return replace(head, bias=head.bias + (name == "multi_vector") * 0.01)

    monkeypatch.setattr(token_heads, "_read", wrong)
    with pytest.raises(Exception, match="the output multi_vector differs from PyTorch by"):
        export(checkpoint, tmp_path / "out", pooling="cls", normalize=True)


def test_graphs_for_gpus_give_dense_alone(checkpoint, tmp_path):
    manifest = export(checkpoint, tmp_path / "out", pooling="cls", normalize=True, targets=["cpu", "tensorrt"])
    assert [graph.token_outputs for graph in manifest.graphs] == [["sparse", "multi_vector"], []]


def test_half_of_the_heads_is_refused(checkpoint, tmp_path):
    import shutil

    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    (copy / "colbert_linear.pt").unlink()
    with pytest.raises(CheckpointError, match=r"has sparse_linear\.pt and no colbert_linear\.pt"):
        export(copy, tmp_path / "out", pooling="cls", normalize=True, verify=False)


def test_heads_that_do_not_fit_are_refused(checkpoint, tmp_path, write_m3):
    import shutil

    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    write_m3(copy, width=32)
    with pytest.raises(CheckpointError, match=r"sparse_linear\.pt holds .*\[1, 32\].* \[n, 64\]"):
        export(copy, tmp_path / "out", pooling="cls", normalize=True, verify=False)


def test_nan_is_never_given(m3, monkeypatch):
    run = m3.backend.run_tokens

    def broken(batch, names):
        found = run(batch, names)
        for rows in found[1:]:
            rows[batch.cu_seqlens[len(batch) - 1], 0] = np.nan
        return found

    monkeypatch.setattr(m3.backend, "run_tokens", broken)
    with pytest.raises(NonFiniteOutputError, match=r"multi_vector for input 2;"):  # the shortest runs last
        m3.encode_outputs(["hello world", "the fox", "", "the lazy dog"], "multi_vector")


def test_an_encoder_without_heads_gives_dense_alone(encoder):
    assert encoder.outputs == ("dense",)
    found = encoder.encode_outputs(["a text"])
    assert np.array_equal(found.dense, encoder.encode(["a text"]))
    assert found.sparse is None
    with pytest.raises(InvalidOptionError, match="has dense"):
        encoder.encode_outputs(["a text"], "sparse")


def test_scores():
    a = SparseVector(np.array([1, 4, 7], np.int32), np.array([1, 2, 0.5], np.float32), 9)
    b = SparseVector(np.array([4, 8], np.int32), np.array([3, 1], np.float32), 9)
    none = SparseVector(np.empty(0, np.int32), np.empty(0, np.float32), 9)
    several = SparseEmbeddings.of([a, b, none], 9)
    assert several.similarity(SparseEmbeddings.of([b, a], 9)).tolist() == [[6, 5.25], [10, 6], [0, 0]]
    assert several.similarity(a).tolist() == [[5.25], [6], [0]]
    assert several[1:].toarray().tolist() == [b.toarray().tolist(), [0] * 9]
    assert [len(vector) for vector in several] == [3, 2, 0]
    with pytest.raises(InvalidOptionError, match="9 and 8 numbers"):
        several.similarity(replace(a, size=8))
    query, document = np.eye(3)[:2], np.array([[0.5, 0, 0], [0.25, -1, 0]])
    assert max_sim(query, document) == 0.5
    assert max_sim(query, document[:0]) == 0
    with pytest.raises(InvalidOptionError, match="shapes"):
        max_sim(query, document[:, :2])


def test_the_largest_weight_of_a_token_counts():
    batch = PackedBatch(np.array([0, 7, 5, 7, 0, 5], np.int32), np.array([0, 4, 6], np.int32), np.zeros(6, np.int32))
    weights = np.array([[9], [1], [2], [3], [9], [0]], np.float32)
    output = TokenOutput("sparse", "token_weights", 1, size=10, skip_ids=[0])
    assert [vector.as_dict() for vector in sparse_of_tokens(batch, weights, output)] == [{5: 2, 7: 3}, {}]
