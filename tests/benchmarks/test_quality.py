"""Cosines and nDCG@10 against values worked out by hand."""

import math

import numpy as np
import pytest

from bgert.evaluation import Collection
from quality import against_reference, ndcg_at_10


def test_cosines():
    truth = np.array([[1, 0], [0, 2]], np.float32)
    found = against_reference(np.array([[3, 0], [1, 1]], np.float32), truth)
    assert found["cosine_mean"] == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert found["cosine_min"] == pytest.approx(math.sqrt(0.5))


def test_scores_are_compared_by_difference():
    found = against_reference(np.array([1.0, 2.5], np.float32), np.array([1.0, 2.0], np.float32))
    assert found["max_score_difference"] == pytest.approx(0.5)


def test_outputs_that_cannot_be_compared():
    good = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="shape"):
        against_reference(good[:1], good)
    with pytest.raises(ValueError, match="finite"):
        against_reference(good * np.nan, good)


def test_ndcg():
    documents = {"a": "", "b": "", "c": ""}
    collection = Collection(list(documents), list(documents.values()), {"q": ""}, {"q": {"b": 2, "c": 1, "gone": 1}})
    vectors = np.eye(3, dtype=np.float32)
    query = np.array([[0.9, 0.5, 0.1]], np.float32)  # finds a, b, c
    gained = 2 / math.log2(3) + 1 / math.log2(4)
    best = 2 + 1 / math.log2(3) + 1 / math.log2(4)
    assert ndcg_at_10(collection, vectors, query) == pytest.approx(gained / best, abs=1e-5)
