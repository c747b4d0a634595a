"""Buckets and the inputs of packed graphs, against plain loops."""

import numpy as np
import pytest

from bgert.backends.cuda.packed_layout import ALIGNMENT, Bucket, InputPlan, bucket_of, fit, graph_buckets
from bgert.batching import PackedBatch

NAMES = ["input_ids", "position_ids", "token_type_ids", "token_offset", "cu_seqlens", "cls_rows"]
MEAN = ["padded_rows", "mean_weights"]


def draw_batch(rng, texts, longest):
    lengths = np.array([rng.randint(1, longest) for _ in range(texts)], np.int32)
    cuts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    ids = np.array([rng.randint(0, 9) for _ in range(cuts[-1])], np.int32)
    return PackedBatch(ids, cuts, (ids % 2).astype(np.int32))


def fill(names, batch, bucket, pad=0):
    plan = InputPlan(names, pad_token_id=pad)
    block = np.full(plan.nbytes(bucket) + 64, 0xA5, np.uint8)
    plan.fill(block, batch, bucket)
    assert (block[-64:] == 0xA5).all()
    found = {}
    for name, dtype, shape, offset in plan.places(bucket):
        assert offset % ALIGNMENT == 0
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        found[name] = block[offset : offset + size].view(dtype).reshape(shape)
    return found


def texts_of(batch, bucket):
    """(first row, length) of real texts and fillers, by loop."""
    texts = list(zip(batch.cu_seqlens[:-1], np.diff(batch.cu_seqlens), strict=True))
    row = len(batch.input_ids)
    while row < bucket.tokens:
        texts.append((row, min(bucket.longest, bucket.tokens - row)))
        row += texts[-1][1]
    assert len(texts) <= bucket.texts
    return texts + [(row, 0)] * (bucket.texts - len(texts))


@pytest.mark.parametrize("case", range(12))
def test_inputs_are_what_a_loop_makes(rng, case):
    batch = draw_batch(rng, rng.randint(1, 40), rng.choice([1, 5, 60, 300]))
    bucket = bucket_of(np.diff(batch.cu_seqlens))
    found = fill(NAMES + MEAN, batch, bucket)
    texts = texts_of(batch, bucket)
    count = len(batch.input_ids)
    np.testing.assert_array_equal(found["input_ids"][0, :count], batch.input_ids)
    np.testing.assert_array_equal(found["token_type_ids"][0, :count], batch.type_ids)
    assert not found["input_ids"][0, count:].any()
    assert not found["token_type_ids"][0, count:].any()
    assert found["cu_seqlens"].tolist() == [0, *np.cumsum([length for _, length in texts])]
    positions = [i for _, length in texts[: len(batch)] for i in range(length)]
    assert found["position_ids"][0].tolist() == positions + [0] * (bucket.tokens - count)
    slots = [b * bucket.longest + s for b, (_, length) in enumerate(texts) for s in range(length)]
    free = sorted(set(range(bucket.texts * bucket.longest)) - set(slots))
    assert found["token_offset"].ravel().tolist() == slots + free
    assert found["cls_rows"].tolist() == [min(first, bucket.tokens - 1) for first, _ in texts]
    for b, (first, length) in enumerate(texts):
        for s in range(bucket.longest):
            row = found["padded_rows"][b, s]
            weight = found["mean_weights"][b, 0, s]
            assert 0 <= row < bucket.tokens
            assert weight == (np.float32(1 / length) if s < length else 0)
            if s < length:
                assert row == first + s


def test_positions_skip_padding_as_transformers_does(rng):
    import torch
    from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaEmbeddings

    batch = draw_batch(rng, 30, 40)
    bucket = bucket_of(np.diff(batch.cu_seqlens))
    (found,) = fill(["position_ids_without_padding"], batch, bucket, pad=1).values()
    for first, last in zip(batch.cu_seqlens, batch.cu_seqlens[1:], strict=False):
        ids = torch.from_numpy(batch.input_ids[first:last].astype(np.int64))[None]
        expected = XLMRobertaEmbeddings.create_position_ids_from_input_ids(ids, 1)[0] - 1
        assert found[0, first:last].tolist() == expected.tolist()
    assert not found[0, len(batch.input_ids) :].any()


def test_buckets_hold_the_batch_and_waste_little(rng):
    seen = set()
    for _ in range(3000):
        count = rng.choice([1, 2, 3, 17, 200])
        lengths = np.array([rng.randint(1, rng.choice([4, 64, 512])) for _ in range(count)], np.int32)
        bucket = bucket_of(lengths)
        tokens = int(lengths.sum())
        assert tokens <= bucket.tokens <= max(16, tokens * 17 / 16 + 1)
        assert lengths.max() <= bucket.longest <= max(16, lengths.max() * 9 / 8 + 1)
        fillers = -(-(bucket.tokens - tokens) // bucket.longest)
        assert count + fillers <= bucket.texts <= max(2, (count + fillers) * 9 / 8 + 1)
        assert bucket.tokens <= bucket.texts * bucket.longest
        seen.add(bucket.tokens)
    assert len(seen) < 200


def test_full_batches_share_one_bucket():
    """What plan_batches cuts from one length fills its budget to within a text."""
    for length in (16, 60, 128, 300, 512):
        texts = 16384 // length
        assert bucket_of(np.full(texts, length, np.int32)).tokens == 16384


@pytest.mark.parametrize("max_tokens", [16, 64, 72, 512, 8192])
def test_small_batches_fit_a_graph(max_tokens):
    buckets = graph_buckets(max_tokens, 2048)
    alone = [bucket for bucket in buckets if bucket.texts == 2]
    together = [bucket for bucket in buckets if bucket.texts > 2]
    assert alone + together == buckets
    assert len(set(buckets)) == len(buckets)
    for bucket in buckets:  # what they are captured with
        for tokens in (1, min(bucket.longest, max_tokens)):
            assert fit(np.array([tokens], np.int32), [bucket]) == bucket
    for n in range(1, min(max_tokens, 2048) + 1):
        bucket = fit(np.array([n], np.int32), alone)
        assert n <= bucket.tokens <= max(16, 2 * n)
    for n in range(64, 2048, 31):  # texts of at most 64 tokens
        lengths = np.full(-(-n // 64), 64, np.int32)
        bucket = fit(lengths, together)
        if max_tokens >= 64:
            assert bucket.tokens - lengths.sum() <= max(64, lengths.sum() // 4 + 64)
    assert fit(np.full(8, 7, np.int32), together).texts == 16
    assert fit(np.full(33, 7, np.int32), buckets) is None
    assert fit(np.array([2049], np.int32), buckets) is None
    assert max(bucket.tokens for bucket in graph_buckets(max_tokens, 200)) <= 200
    assert graph_buckets(max_tokens, 8) == []


def test_a_graph_bucket_is_laid_out_like_any_other(rng):
    batch = draw_batch(rng, 1, 1)
    bucket = Bucket(512, 2, 512)
    found = fill(NAMES, batch, bucket)
    assert found["cu_seqlens"].tolist() == [0, 1, 512]


def test_an_unknown_input():
    with pytest.raises(ValueError, match="weather"):
        InputPlan(["input_ids", "weather"])
