"""`CrossEncoder` of an exported folder: the bits of `bgert.Reranker`, the checkpoint's numbers on PyTorch."""

import copy
import warnings

import numpy as np
import pytest
import torch
from new_process import result_of
from sentence_transformers import CrossEncoder

import bgert
from bgert.integrations.sentence_transformers import RerankerModule

QUERY = "how do I copy a folder?"
DOCUMENTS = ["copy a file", "the weather", "今天", "", "shutil.copytree copies folders " * 20, "folder"]
PAIRS = [(QUERY, document) for document in DOCUMENTS]


def test_the_bits_of_reranker_and_the_numbers_of_pytorch(ranks_on_bgert, ranks_on_torch, reranker):
    logits = ranks_on_bgert.predict(PAIRS, activation_fn=torch.nn.Identity())
    np.testing.assert_array_equal(logits, reranker.score(PAIRS))
    np.testing.assert_allclose(logits, ranks_on_torch.predict(PAIRS, activation_fn=torch.nn.Identity()), atol=1e-5)
    scores = ranks_on_bgert.predict(PAIRS)  # the sigmoid, as there is one label
    np.testing.assert_allclose(scores, reranker.score(PAIRS, sigmoid=True), atol=1e-7)
    np.testing.assert_allclose(scores, ranks_on_torch.predict(PAIRS), atol=2e-6)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(ranks_on_bgert.predict([list(pair) for pair in PAIRS], batch_size=1), scores)
    assert ranks_on_bgert.predict(PAIRS[0]) == scores[0]
    np.testing.assert_array_equal(ranks_on_bgert.predict(PAIRS, convert_to_tensor=True).numpy(), scores)
    np.testing.assert_array_equal(ranks_on_bgert.predict(PAIRS, prompt="to do: "), _sigmoid(reranker, "to do: "))


def _sigmoid(reranker, prefix):
    return torch.sigmoid(torch.from_numpy(np.array(reranker.score(PAIRS, prefix=prefix)))).numpy()


def test_rank(ranks_on_bgert, ranks_on_torch, reranker):
    found = ranks_on_bgert.rank(QUERY, DOCUMENTS, top_k=4, return_documents=True)
    expected = ranks_on_torch.rank(QUERY, DOCUMENTS, top_k=4, return_documents=True)
    assert [hit["corpus_id"] for hit in found] == [hit["corpus_id"] for hit in expected]
    assert [hit["text"] for hit in found] == [hit["text"] for hit in expected]
    own = reranker.rank(QUERY, DOCUMENTS, top_k=4, sigmoid=True)
    assert [hit["corpus_id"] for hit in found] == [index for index, _ in own]
    np.testing.assert_allclose([hit["score"] for hit in found], [score for _, score in own], atol=1e-7)


def test_limits(models, ranks_on_bgert, reranker):
    model = CrossEncoder(str(models["exported-reranker"]), trust_remote_code=True, device="cpu", max_length=32)
    with pytest.warns(bgert.TruncationWarning, match="longer than 32 tokens") as caught:
        found = model.predict(PAIRS, activation_fn=torch.nn.Identity())
    assert {warning.filename for warning in caught if warning.category is bgert.TruncationWarning} == {__file__}
    with pytest.warns(bgert.TruncationWarning):
        np.testing.assert_array_equal(found, reranker.score(PAIRS, max_length=32))
    ranks_on_bgert.max_seq_length = 32
    with pytest.warns(bgert.TruncationWarning):
        np.testing.assert_array_equal(ranks_on_bgert.predict(PAIRS, activation_fn=torch.nn.Identity()), found)


def test_three_labels(labelled):
    checkpoint, folder = labelled
    ours = CrossEncoder(str(folder), trust_remote_code=True, device="cpu")
    peer = CrossEncoder(str(checkpoint), device="cpu")
    assert ours.num_labels == peer.num_labels == 3
    found = ours.predict(PAIRS)  # raw, as there are several
    np.testing.assert_array_equal(found, bgert.Reranker(folder).score(PAIRS))
    np.testing.assert_allclose(found, peer.predict(PAIRS), atol=1e-5)
    np.testing.assert_allclose(
        ours.predict(PAIRS, apply_softmax=True), peer.predict(PAIRS, apply_softmax=True), atol=1e-6
    )
    for model in ours, peer:
        with pytest.raises(ValueError, match="num_labels=1"):
            model.rank(QUERY, DOCUMENTS)
    with pytest.raises(bgert.InvalidOptionError, match="num_labels is 1: the model has 3"):
        CrossEncoder(str(folder), trust_remote_code=True, device="cpu", num_labels=1)
    module = RerankerModule(folder)
    alone = CrossEncoder(modules=[module], device="cpu", **module.settings)
    np.testing.assert_array_equal(alone.predict(PAIRS), found)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (("a", None), "^an input: the document is NoneType"),
        ((3, "a"), "^an input: the query is int"),
        (("a", "b", "c"), "^an input is a tuple of 3"),
    ],
)
def test_refusals(ranks_on_bgert, pair, words):
    with pytest.raises(bgert.InvalidTextError, match=words):
        ranks_on_bgert.predict([*PAIRS, pair])


def test_the_other_class(models):
    with pytest.raises(bgert.ModelFolderError, match="of kind encoder: it is for SentenceTransformer"):
        RerankerModule(models["exported-minilm"])


def test_save_and_reload_in_a_new_process(ranks_on_bgert, tmp_path):
    expected = ranks_on_bgert.predict(PAIRS)
    np.testing.assert_array_equal(copy.deepcopy(ranks_on_bgert).predict(PAIRS), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranks_on_bgert.save_pretrained(str(tmp_path / "saved"))
    found = result_of(
        """
from sentence_transformers import CrossEncoder
result = CrossEncoder(folder, trust_remote_code=True, device="cpu").predict([tuple(pair) for pair in pairs]).tolist()
""",
        folder=tmp_path / "saved",
        pairs=PAIRS,
    )
    np.testing.assert_array_equal(np.float32(found), expected)


def test_the_evaluator(ranks_on_bgert, ranks_on_torch):
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    samples = [{"query": QUERY, "positive": DOCUMENTS[:1], "negative": DOCUMENTS[1:4]}] * 2
    found, expected = (CrossEncoderRerankingEvaluator(samples)(model) for model in (ranks_on_bgert, ranks_on_torch))
    assert found == pytest.approx(expected, abs=1e-6)
