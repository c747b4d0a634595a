"""The search against a full sort."""

import numpy as np
import pytest

from bgert.errors import InvalidOptionError
from bgert.evaluation import search
from bgert.evaluation.exact_search import _keys, unit_rows


def full_sort(scores, ids, k):
    order = [sorted(range(len(ids)), key=lambda n, row=row: (row[n], ids[n]), reverse=True)[:k] for row in scores]
    return np.array(order)


def blocks_of(vectors, rng):
    cuts = sorted(rng.randrange(len(vectors) + 1) for _ in range(rng.randrange(6)))
    return np.split(vectors, cuts)


def test_equals_a_full_sort_with_ties_in_any_blocks(rng, monkeypatch):
    monkeypatch.setattr("bgert.evaluation.exact_search.QUERIES", 7)
    monkeypatch.setattr("bgert.evaluation.exact_search.DOCUMENTS", 50)
    for _ in range(20):
        count, queries, width = rng.randrange(1, 400), rng.choice([1, 3, 100]), rng.randrange(1, 6)
        draw = np.random.default_rng(rng.randrange(2**32))
        # small whole numbers: products are exact, and ties, zeros and both signs are common
        documents = draw.integers(-2, 3, (count, width)).astype(np.float32)
        asked = draw.integers(-2, 3, (queries, width)).astype(np.float32)
        ids = [chr(0x61 + rng.randrange(26)) + str(number) for number in range(count)]
        k = rng.randrange(1, count + 10)
        indices, scores = search(asked, blocks_of(documents, rng), ids, k)
        expected = full_sort(asked @ documents.T, ids, k)
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_array_equal(scores, np.take_along_axis(asked @ documents.T, expected, axis=1))


def test_real_scores_come_back_unchanged(rng):
    draw = np.random.default_rng(rng.randrange(2**32))
    documents = draw.standard_normal((500, 16)).astype(np.float32) * 10.0 ** draw.integers(-30, 18, (500, 1))
    documents = documents.astype(np.float32)
    asked = draw.standard_normal((4, 16)).astype(np.float32)
    ids = [f"{number:03}" for number in range(500)]
    indices, scores = search(asked, [documents], ids, 50)
    exact = (asked.astype(np.float64) @ documents.T.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(scores, -np.sort(-exact, axis=1)[:, :50])
    np.testing.assert_array_equal(scores, np.take_along_axis(exact, indices, axis=1))


def test_equal_vectors_have_equal_scores_wherever_they_are(rng):
    draw = np.random.default_rng(rng.randrange(2**32))
    for queries, width in ((1, 384), (7, 384), (40, 100)):
        asked = unit_rows(draw.standard_normal((queries, width)).astype(np.float32))
        vector = unit_rows(draw.standard_normal((1, width)).astype(np.float32))
        ids = [f"{number:04}" for number in range(1003)]
        indices, scores = search(asked, blocks_of(np.repeat(vector, 1003, axis=0), rng), ids, 1003)
        assert (scores == scores[:, :1]).all()
        np.testing.assert_array_equal(indices, np.tile(np.arange(1002, -1, -1), (queries, 1)))


def test_keys_are_in_the_order_of_scores_and_negative_zero_is_zero():
    scores = np.array([[-np.inf, -3e38, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 3e38, np.inf]], np.float32)
    keys = _keys(scores, np.zeros(scores.size, np.uint64))[0]
    assert keys[4] == keys[5]
    assert (np.diff(np.delete(keys, 4).astype(object)) > 0).all()


@pytest.mark.parametrize("rows", [0, 2, 4])
def test_vectors_that_do_not_fit_the_ids(rows):
    with pytest.raises(InvalidOptionError, match="3 documents"):
        search(np.ones((1, 2), np.float32), [np.ones((rows, 2), np.float32)], ["a", "b", "c"], 1)


def test_no_blocks():
    with pytest.raises(InvalidOptionError, match="0 vectors for 1 documents"):
        search(np.ones((1, 2), np.float32), [], ["a"], 1)


def test_unit_rows():
    rows = unit_rows(np.array([[3, 4], [0, 0], [0, 1e-3]], np.float32))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0], [0, 1]], atol=1e-7)
