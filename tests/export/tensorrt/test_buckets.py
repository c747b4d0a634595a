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
    size = device_bytes(architecture, Profile(8, 3))
    assert size == {"inputs": 4 * 4 * 24, "fused": 2 * 24 * 90, "unfused": 2 * 24 * 90 + 2 * 2 * 3 * 2 * 64}
