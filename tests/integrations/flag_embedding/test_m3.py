"""BGEM3FlagModel beside FlagEmbedding's, on a tiny checkpoint in the form of bge-m3."""

import inspect
import sys
from pathlib import Path

import FlagEmbedding
import numpy as np
import pytest
import torch
import transformers

from bgert.integrations import flag_embedding as ours
from bgert_export import export

TEXTS = [
    "hello world, the quick brown fox jumps over the lazy dog. the dog jumps, the fox jumps",
    "привет мир",
    "",
    "unbelievably hello hello",
    "日本語 と 中华人民共和国 " * 5,
]
PAIRS = [("quick fox", TEXTS[0]), (TEXTS[0], "the lazy dog"), ("привет", TEXTS[1]), ("hello", "日本")]
FP32 = {"use_fp16": False, "devices": "cpu"}

pytestmark = [
    pytest.mark.filterwarnings("ignore::bgert.TruncationWarning"),
    pytest.mark.filterwarnings("ignore::bgert.InstructionWarning"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "runtime"))
    import unigram_data

    folder = tmp_path_factory.mktemp("m3") / "bge-m3"
    vocabulary = unigram_data.vocabulary()
    unigram_data.write(folder, unigram_data.tokenizer_json(vocabulary, b""), unigram_data.config(model_max_length=512))
    config = transformers.XLMRobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
    )
    torch.manual_seed(4)
    model = transformers.XLMRobertaModel(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "LayerNorm" not in name:
                weight.copy_(0.15 * torch.randn_like(weight))
    model.save_pretrained(folder)
    for name, columns in (("sparse", 1), ("colbert", 64)):
        linear = torch.nn.Linear(64, columns)
        torch.nn.init.constant_(linear.bias, 0.3)  # so that many tokens have a weight, and not all
        torch.save(linear.state_dict(), folder / f"{name}_linear.pt")
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "bge-m3"
    export(checkpoint, folder, pooling="cls", normalize=True, verify=False)
    return folder


@pytest.fixture(scope="module")
def both(checkpoint, exported):
    return FlagEmbedding.BGEM3FlagModel(str(checkpoint), **FP32), ours.BGEM3FlagModel(str(exported), **FP32)


def same(old, new):
    assert old.keys() == new.keys()
    assert type(old["dense_vecs"]) is type(new["dense_vecs"])
    if old["dense_vecs"] is not None:
        assert (old["dense_vecs"].shape, old["dense_vecs"].dtype) == (new["dense_vecs"].shape, new["dense_vecs"].dtype)
        assert np.abs(old["dense_vecs"] - new["dense_vecs"]).max() < 2e-5
    for name, compare in (("lexical_weights", same_weights), ("colbert_vecs", same_vectors)):
        if isinstance(old[name], list):
            assert len(old[name]) == len(new[name])
            for pair in zip(old[name], new[name], strict=True):
                compare(*pair)
        elif old[name] is None:
            assert new[name] is None
        else:
            compare(old[name], new[name])


def same_weights(old, new):
    assert dict(old).keys() == new.keys()
    assert new == pytest.approx({token: float(weight) for token, weight in old.items()}, abs=2e-5)


def same_vectors(old, new):
    assert (old.shape, old.dtype) == (new.shape, new.dtype)
    assert np.abs(old - new).max(initial=0) < 2e-5


ALL = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True}
CALLS = {
    "default": lambda model: model.encode(TEXTS),
    "all": lambda model: model.encode(TEXTS, **ALL),
    "one": lambda model: model.encode(TEXTS[0], **ALL),
    "sparse": lambda model: model.encode_queries(TEXTS, return_dense=False, return_sparse=True),
    "vectors": lambda model: model.encode_corpus(TEXTS, return_dense=False, return_colbert_vecs=True),
    "cut": lambda model: model.encode(TEXTS, max_length=8, **ALL),
}


@pytest.mark.parametrize("call", CALLS)
def test_outputs(both, call):
    old, new = (CALLS[call](model) for model in both)
    same(old, new)


def test_some_tokens_have_a_weight_and_some_do_not(both):
    weights = both[1].encode(TEXTS, return_sparse=True)["lexical_weights"]
    tokens = both[1].encoder.encode(TEXTS).info.tokens
    assert 3 < sum(map(len, weights)) < tokens


@pytest.mark.parametrize("weights", [None, [0.4, 0.2, 0.4], [1, 0.3, 1]])
def test_scores(both, weights):
    old, new = (model.compute_score(PAIRS, weights_for_different_modes=weights) for model in both)
    assert old.keys() == new.keys()
    for name in old:
        assert new[name] == pytest.approx(old[name], abs=2e-5)
    one = [model.compute_score(PAIRS[0], weights_for_different_modes=weights) for model in both]
    assert one[1] == pytest.approx(one[0], abs=2e-5)


def test_scores_of_what_was_encoded(both):
    old, new = (model.encode(TEXTS, **ALL) for model in both)
    found = both[1].compute_lexical_matching_score(new["lexical_weights"], new["lexical_weights"])
    expected = both[0].compute_lexical_matching_score(old["lexical_weights"], old["lexical_weights"])
    np.testing.assert_allclose(found, expected, atol=2e-5)
    first = [each["lexical_weights"][0] for each in (old, new)]
    assert both[1].compute_lexical_matching_score(first[1], first[1]) == pytest.approx(
        both[0].compute_lexical_matching_score(first[0], first[0]), abs=2e-5
    )
    vectors = [each["colbert_vecs"] for each in (old, new)]
    assert both[1].colbert_score(vectors[1][0], vectors[1][3]) == pytest.approx(
        float(both[0].colbert_score(vectors[0][0], vectors[0][3])), abs=2e-5
    )
    in_order = [dict(sorted(one.items(), key=lambda item: int(item[0]))) for one in old["lexical_weights"]]
    names = both[1].convert_id_to_token(new["lexical_weights"])
    assert [list(one) for one in names] == [list(one) for one in both[0].convert_id_to_token(in_order)]


def test_instructions_and_short_vectors(checkpoint, exported):
    options = FP32 | ALL | {"query_instruction_for_retrieval": "the dog: ", "truncate_dim": 16}
    old = FlagEmbedding.BGEM3FlagModel(str(checkpoint), **options)
    new = ours.BGEM3FlagModel(str(exported), **options)
    same(old.encode_queries(TEXTS), new.encode_queries(TEXTS))
    same(old.encode_corpus(TEXTS), new.encode_corpus(TEXTS))


def test_by_name(checkpoint, exported):
    old = FlagEmbedding.FlagAutoModel.from_finetuned(str(checkpoint), **FP32)
    new = ours.FlagAutoModel.from_finetuned(str(exported), **FP32)
    assert (type(new).__name__, type(old).__name__) == ("BGEM3FlagModel", "M3Embedder")
    same(old.encode(TEXTS, **ALL), new.encode(TEXTS, **ALL))


def test_arguments_are_theirs():
    for name in ("__init__", "encode", "encode_queries", "encode_corpus", "compute_score"):
        theirs = inspect.signature(getattr(FlagEmbedding.BGEM3FlagModel, name)).parameters.values()
        mine = inspect.signature(getattr(ours.BGEM3FlagModel, name)).parameters.values()
        assert [(one.name, one.default) for one in theirs if one.kind is not one.VAR_KEYWORD] == [
            (one.name, one.default) for one in mine
        ]
