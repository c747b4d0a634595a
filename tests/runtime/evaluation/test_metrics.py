"""Metrics against trec_eval and against figures worked by hand."""

import importlib.util
import json
import sys
from math import log2
from pathlib import Path

import numpy as np
import pytest

from bgert.errors import InvalidOptionError
from bgert.evaluation import ndcg, recall, reciprocal_rank, score_rankings, search

sys.path.insert(0, str(Path(__file__).parent))
import golden

sys.path.pop(0)
NAMES = [f"{name}@{k}" for name in ("ndcg", "recall", "mrr") for k in golden.CUTOFFS]


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for query, values in theirs.items():
        assert ours[query] == pytest.approx(values, abs=1e-12, rel=0), query


@pytest.fixture(scope="module")
def ours():
    """Our figures, by the search: queries are unit vectors, so that inner products are the given scores."""
    ids, scores, qrels = golden.random_case()
    matrix = np.array(list(scores.values()), np.float32)
    indices, _ = search(np.eye(len(matrix), dtype=np.float32), np.split(matrix.T, [7, 100]), ids, len(ids))
    rankings = {query: [ids[index] for index in row] for query, row in zip(scores, indices, strict=True)}
    return score_rankings(rankings, qrels, NAMES)


def test_equals_committed_trec_eval(ours):
    committed = json.loads(golden.GOLDEN.read_text())
    assert committed["seed"] == golden.SEED
    _, _, qrels = golden.random_case()
    assert 30 < len(committed["per_query"]) < len(qrels)  # some have no relevant document
    assert_same(ours, committed["per_query"])


def test_equals_trec_eval(ours):
    if importlib.util.find_spec("pytrec_eval") is None:
        pytest.skip("pytrec_eval is not installed: pip install pytrec-eval-terrier")
    theirs = golden.trec_eval(*golden.random_case())
    assert_same(ours, theirs)
    assert_same(theirs, json.loads(golden.GOLDEN.read_text())["per_query"])


JUDGMENTS = {"a": 3, "b": 1, "c": 0, "d": 2, "e": -5}


def test_by_hand():
    ranking = ["x", "b", "c", "e", "a"]
    ideal = 3 / log2(2) + 2 / log2(3) + 1 / log2(4)
    assert ndcg(ranking, JUDGMENTS, 10) == pytest.approx((1 / log2(3) + 3 / log2(6)) / ideal)
    assert ndcg(ranking, JUDGMENTS, 2) == pytest.approx((1 / log2(3)) / (3 / log2(2) + 2 / log2(3)))
    assert ndcg(["a", "d", "b"], JUDGMENTS, 10) == 1
    assert recall(ranking, JUDGMENTS, 10) == pytest.approx(2 / 3)
    assert recall(ranking, JUDGMENTS, 4) == pytest.approx(1 / 3)
    assert reciprocal_rank(ranking, JUDGMENTS, 10) == 1 / 2
    assert reciprocal_rank(ranking, JUDGMENTS, 1) == 0


def test_nothing_relevant_or_found():
    for metric in (ndcg, recall, reciprocal_rank):
        assert metric(["c", "e", "x"], JUDGMENTS, 10) == 0
        assert metric([], JUDGMENTS, 10) == 0
        assert metric(["a"], {"a": 0, "b": -1}, 10) == 0


def test_queries_without_relevant_documents_are_left_out_and_missing_rankings_are_zero():
    scores = score_rankings({"q": ["a"], "none": ["a"]}, {"q": {"a": 1}, "none": {"a": 0}, "lost": {"a": 1}})
    assert scores == {
        "q": {"ndcg@10": 1, "recall@100": 1, "mrr@10": 1},
        "lost": {"ndcg@10": 0, "recall@100": 0, "mrr@10": 0},
    }


@pytest.mark.parametrize("name", ["ndcg", "ndcg@0", "ndcg@-1", "precision@10", "ndcg@ten", "ndcg@10 ", ""])
def test_unknown_metrics(name):
    with pytest.raises(InvalidOptionError, match="unknown metric"):
        score_rankings({}, {}, [name])
