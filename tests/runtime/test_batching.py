import numpy as np
import pytest

from bgert.batching import PackedBatch, plan_batches, reorder, slice_batch


@pytest.mark.parametrize(
    ("lengths", "budget", "order", "cuts"),
    [
        ([], 8, [], [0]),
        ([3], 8, [0], [0, 1]),
        ([1, 5, 3], 8, [1, 2, 0], [0, 1, 3]),
        ([4, 4, 4, 4], 8, [0, 1, 2, 3], [0, 2, 4]),
        ([9, 2, 2], 8, [0, 1, 2], [0, 1, 3]),
        ([2, 9, 2, 9], 18, [1, 3, 0, 2], [0, 2, 4]),
    ],
)
def test_plan_is_longest_first_and_within_budget(lengths, budget, order, cuts):
    plan = plan_batches(np.array(lengths, np.int32), budget)
    assert plan.order.tolist() == order
    assert plan.cuts == cuts


def test_plan_limits_the_number_of_texts():
    assert plan_batches(np.full(5, 1, np.int32), 100, max_texts=2).cuts == [0, 2, 4, 5]


def test_every_text_is_in_one_batch_and_no_batch_exceeds_the_budget():
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print("seed", seed)
    lengths = np.random.default_rng(seed).integers(1, 600, 1000).astype(np.int32)
    plan = plan_batches(lengths, 2048)
    assert sorted(plan.order.tolist()) == list(range(1000))
    for start, stop in zip(plan.cuts, plan.cuts[1:], strict=False):
        area = (stop - start) * lengths[plan.order[start:stop]].max()
        assert area <= 2048 or stop - start == 1


def packed(*texts):
    cu_seqlens = np.cumsum([0, *map(len, texts)]).astype(np.int32)
    ids = np.concatenate([np.array(text, np.int32) for text in texts])
    return PackedBatch(ids, cu_seqlens, ids % 2)


def test_reorder_keeps_each_text_whole():
    batch = reorder(packed([1, 2, 3], [4], [5, 6]), np.array([0, 2, 1]))
    assert batch.input_ids.tolist() == [1, 2, 3, 5, 6, 4]
    assert batch.cu_seqlens.tolist() == [0, 3, 5, 6]
    assert batch.type_ids.tolist() == [1, 0, 1, 1, 0, 0]
    assert batch.cu_seqlens.dtype == np.int32


def test_slice_is_a_batch_of_its_own():
    batch = slice_batch(packed([1, 2, 3], [4], [5, 6]), 1, 3)
    assert batch.input_ids.tolist() == [4, 5, 6]
    assert batch.cu_seqlens.tolist() == [0, 1, 3]
    assert len(batch) == 2
