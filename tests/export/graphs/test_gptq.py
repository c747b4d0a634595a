"""Weights that are rounded together, beside the paper's own form in float64."""

import numpy as np

from bgert_export.graphs.gptq import DAMPING, round_together
from bgert_export.graphs.linears import nearest_byte


def of_the_paper(weights, products):
    """Column by column with the inverse's Cholesky factor, nothing in blocks."""
    order = np.argsort(np.diag(products), kind="stable")[::-1]
    damped = products[np.ix_(order, order)].astype(np.float64)
    damped += np.eye(len(damped)) * DAMPING * np.diag(damped).mean()
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    left, numbers = weights.astype(np.float64)[:, order], np.empty(weights.shape)
    for i in range(len(order)):
        numbers[:, order[i]] = near = np.clip(np.rint(left[:, i]), -127, 127)
        left[:, i:] -= np.outer((left[:, i] - near) / factor[i, i], factor[i, i:])
    return numbers


def test_the_numbers_are_the_papers():
    print("seed 5")
    draw = np.random.default_rng(5)
    rows = draw.standard_normal((900, 30)) @ draw.standard_normal((30, 150)) + draw.standard_normal((900, 150))
    rows = (rows * np.exp(draw.standard_normal(150))).astype(np.float32)
    weights = (20 * draw.standard_normal((40, 150))).astype(np.float32)
    numbers = round_together(weights, rows.T @ rows, nearest_byte)
    assert (numbers != of_the_paper(weights, rows.T @ rows)).mean() < 0.01  # middles, in float32
    ours, theirs = (np.linalg.norm(rows @ (found - weights).T) for found in (numbers, nearest_byte(weights)))
    assert ours < 0.7 * theirs


def test_inputs_that_say_nothing_leave_what_is_nearest():
    weights = np.random.default_rng(3).uniform(-127, 127, (16, 100)).astype(np.float32)
    for products in (np.zeros((100, 100), np.float32), np.eye(100, dtype=np.float32)):
        assert np.array_equal(round_together(weights, products, nearest_byte), nearest_byte(weights))


def test_weights_are_left_as_they_were():
    weights = np.random.default_rng(4).standard_normal((8, 8)).astype(np.float32)
    before = weights.copy()
    round_together(weights, np.eye(8, dtype=np.float32), nearest_byte)
    assert np.array_equal(weights, before)
