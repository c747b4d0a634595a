import numpy as np

from bgert_export.verification.correlation import least_correlation


def test_a_wrong_label_is_not_hidden_by_a_right_one():
    scores = np.random.default_rng(1).standard_normal((50, 3))
    wrong = scores.copy()
    wrong[:, 2] = -wrong[:, 2]
    assert least_correlation(scores, scores) > 0.999999
    assert least_correlation(scores, wrong) < -0.999999
