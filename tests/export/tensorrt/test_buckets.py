"""Bucket lengths against every other choice, profiles, and the estimate of memory."""

import numpy as np
import pytest

from bgert.backends.tensorrt.recipe import Profile
from bgert.errors import InvalidOptionError
from bgert_export.tensorrt.buckets import choose_lengths, default_lengths, device_bytes, profiles_of


@pytest.mark.parametrize(
    ("most", "expected"),
    [(32, [32]), (33, [32, 33]), (512, [32, 64, 128, 256, 512]), (8192, [32 << n for n in range(9)])],
)
def test_default_lengths(most, expected):
    assert default_lengths(most) == expected


def test_profiles():
    assert profiles_of([64, 16, 64], 64, 1024) == [Profile(16, 64), Profile(64, 16)]
    assert profiles_of([1], 64, 1 << 20) == [Profile(1, 512)]
    for lengths in ([], [0], [65]):
        with pytest.raises(InvalidOptionError):
            profiles_of(lengths, 64, 1024)


def test_chosen_lengths_are_the_best_there_are():
    """Against every choice, on random samples."""
    from itertools import combinations

    draw = np.random.default_rng(11)
    print("seed 11")
    for _ in range(20):
        lengths = draw.integers(1, 101, draw.integers(1, 40)).astype(np.int32)
        most = int(draw.integers(1, 5))
        edges = [*range(16, 100, 16), 100]

        def slots(chosen, lengths=lengths):
            return int(np.array(chosen)[np.searchsorted(chosen, lengths)].sum())

        found = choose_lengths(lengths, 100, most)
        assert found[-1] == 100
        assert len(found) <= most
        every = [[*some, 100] for n in range(most) for some in combinations(edges[:-1], n)]
        assert slots(found) == min(slots(chosen) for chosen in every)


def test_device_bytes_by_hand():
    architecture = {"hidden_size": 10, "intermediate_size": 40, "num_attention_heads": 2}
    large = device_bytes(architecture, Profile(8, 300_000))
    fused = 2 * 2_400_000 * 90
    assert large == {"inputs": 4 * 4 * 2_400_000, "fused": fused, "unfused": fused + 2 * 2 * 300_000 * 2 * 64}
    small = device_bytes(architecture, Profile(8, 3))
    fused = 8_192_000 + 16 * 24 * 10
    assert small == {"inputs": 4 * 4 * 24, "fused": fused, "unfused": fused + 2 * 2 * 3 * 2 * 64}


@pytest.mark.parametrize(
    ("hidden", "inner", "heads", "planned"),
    [
        (384, 1536, 12, {1024: 14_485_504, 2048: 20_779_008, 8192: 58_540_032, 16384: 113_278_976}),  # MiniLM
        (768, 3072, 12, {1024: 21_252_096, 2048: 33_361_920, 8192: 113_262_592, 16384: 226_525_184}),  # bge-base
    ],
)
def test_device_bytes_beside_what_a_builder_planned(hidden, inner, heads, planned):
    """TensorRT for RTX 1.7.1, length 128, compute capability 8.0 and later, 2026-11-27."""
    architecture = {"hidden_size": hidden, "intermediate_size": inner, "num_attention_heads": heads}
    for tokens, bytes_ in planned.items():
        estimate = device_bytes(architecture, Profile(128, tokens // 128))["fused"]
        assert 0.97 * bytes_ <= estimate <= bytes_


def test_a_bucket_may_be_as_long_as_the_table_of_positions():
    assert [profile.length for profile in profiles_of([64, 72], 72, 512)] == [64, 72]
    with pytest.raises(InvalidOptionError, match="whole numbers from 1 to 72"):
        profiles_of([73], 72, 512)
