"""Rerankers of several labels, and of bge-reranker-v2-m3's shape, beside CrossEncoder on the same checkpoint."""

import json

import numpy as np
import pytest

from bgert import Reranker
from bgert.errors import InvalidOptionError
from bgert_export import export

PAIRS = [("how to copy", "a file"), ("the model", "text of the model of the key"), ("", "read and write"), ("a", "b")]


@pytest.fixture(scope="module")
def checkpoint(make_reranker_checkpoint):
    return make_reranker_checkpoint(num_labels=3)


@pytest.fixture(scope="module", params=["cpu", "cpu-bf16", "cpu-int8"])
def folder(checkpoint, tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("labels") / "model"
    export(checkpoint, folder, targets=[request.param], int8_floor=0.9)
    return folder


def test_scores_as_cross_encoder(checkpoint, folder):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    import torch

    peer = sentence_transformers.CrossEncoder(str(checkpoint), device="cpu")
    model = Reranker(folder)
    most = {"fp32": 1e-5, "bf16": 0.1, "int8": 0.3}[model.precision]
    for options, theirs in (
        ({}, {}),  # identity, where there are several labels
        ({"softmax": True}, {"apply_softmax": True}),
        ({"sigmoid": True}, {"activation_fn": torch.nn.Sigmoid()}),
    ):
        found = model.score(PAIRS, **options)
        expected = peer.predict(PAIRS, **theirs)
        assert found.shape == expected.shape == (4, 3)
        assert np.abs(found - expected).max() < most
        assert found.info.score_kind == (*options, "logit")[0]
    assert model.score([], softmax=True).shape == (0, 3)
    assert model.score(PAIRS[0], softmax=True).shape == (3,)


def test_softmax_of_large_logits():
    from bgert.reranker import softmax_of

    rows = softmax_of(np.array([[1000, 999, -1000], [-3e38, -3e38, -3e38]], np.float32))
    assert np.allclose(rows, [[1 / (1 + np.exp(-1)), 1 / (1 + np.e), 0], [1 / 3] * 3], atol=1e-6)


def test_refusals(folder, make_reranker_checkpoint, tmp_path):
    with pytest.raises(InvalidOptionError, match="sigmoid is too"):
        Reranker(folder).score(PAIRS, softmax=True, sigmoid=True)
    export(make_reranker_checkpoint(num_labels=1), tmp_path / "one", verify=False)
    with pytest.raises(InvalidOptionError, match="one label"):
        Reranker(tmp_path / "one").score(PAIRS, softmax=True)


def test_the_shape_of_bge_reranker_v2_m3(tmp_path, unigram, charsmap, make_config, write_weights):
    """XLM-RoBERTa with one label and 8,194 positions, which pairs use beyond 512."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    import torch

    source = tmp_path / "bge-reranker-v2-m3"
    vocabulary = unigram.vocabulary()
    settings = unigram.config(model_max_length=8192)
    unigram.write(source, unigram.tokenizer_json(vocabulary, charsmap), settings)
    config = make_config(
        architectures=["XLMRobertaForSequenceClassification"],
        model_type="xlm-roberta",
        vocab_size=len(vocabulary),
        max_position_embeddings=8194,
        pad_token_id=1,
        type_vocab_size=1,
        num_labels=1,
        num_hidden_layers=1,
    )
    (source / "config.json").write_text(json.dumps(config))
    write_weights(source, config)
    manifest = export(source, tmp_path / "out", verify=False)
    assert (manifest.max_tokens, manifest.num_labels) == (8192, 1)
    pairs = [("quick fox", "the quick brown fox jumps over the lazy dog " * 200), ("hello", "world"), ("", "дог")]
    model = Reranker(tmp_path / "out")
    found = model.score(pairs)
    assert found.info.tokens > 1500
    assert not found.info.truncated.any()
    peer = sentence_transformers.CrossEncoder(str(source), device="cpu", activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(found, peer.predict(pairs), atol=1e-4, rtol=0)
