"""Which shapes an engine is built for: lengths, how many texts of each, and what they take of the device's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.backends.tensorrt.recipe import Profile
from bgert.errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["choose_lengths", "default_lengths", "device_bytes", "profiles_of"]

STEP = 16
MOST_BUCKETS = 5
MOST_TEXTS = 512
_BLOCK = 8_192_000  # bytes


def default_lengths(max_tokens: int) -> list[int]:
    """32, 64, 128, ... up to the longest input."""
    lengths = []
    length = 32
    while length < max_tokens:
        lengths.append(length)
        length *= 2
    return [*lengths, max_tokens]


def choose_lengths(lengths: NDArray[np.int32], max_tokens: int, most: int = MOST_BUCKETS) -> list[int]:
    """At most `most` bucket lengths with the least padding over a sample, the last of them `max_tokens`.

    Exact, by dynamic programming over multiples of 16: cost[k][j] is the least number of slots for all texts of at most
    edge j with k buckets of which j is the last.

    Args:
        lengths: int32[n], tokens of the sample's texts, none above `max_tokens`.
        max_tokens: longest input that the engine must take.
        most: buckets, from 1.
    """
    edges = [*range(STEP, max_tokens, STEP), max_tokens]
    counts = np.searchsorted(np.sort(lengths), edges, side="right").astype(np.int64)
    size = np.array(edges, np.int64)
    cost = counts * size
    back: list[NDArray[np.intp]] = []
    for _ in range(most - 1):
        # One more bucket: the texts above edge i and up to edge j go to j; i < j, or no bucket before.
        through = cost[:, None] + (counts[None, :] - counts[:, None]) * size[None, :]
        through[np.tril_indices(len(edges))] = np.iinfo(np.int64).max
        best = through.argmin(axis=0)
        least = through[best, np.arange(len(edges))]
        better = least < cost
        back.append(np.where(better, best, -1))
        cost = np.where(better, least, cost)
    chosen = [len(edges) - 1]
    for choice in reversed(back):
        if choice[chosen[-1]] >= 0:
            chosen.append(int(choice[chosen[-1]]))
    return [edges[index] for index in reversed(chosen)]


def profiles_of(lengths: Sequence[int], positions: int, tokens_per_batch: int) -> list[Profile]:
    """One profile a length, each with as many texts as fill a batch.

    Raises:
        InvalidOptionError: a length is out of range, or none or too small a batch was asked for.
    """
    ordered = sorted(set(lengths))
    if not ordered or ordered[0] < 1 or ordered[-1] > positions:
        raise InvalidOptionError(
            f"bucket lengths {list(lengths)}: this model takes whole numbers from 1 to {positions}"
        )
    if tokens_per_batch < ordered[-1]:
        raise InvalidOptionError(
            f"{tokens_per_batch} tokens a batch are fewer than one text of {ordered[-1]} has: raise "
            "--tokens-per-batch, or leave the long bucket out"
        )
    return [Profile(length, max(1, min(tokens_per_batch // length, MOST_TEXTS))) for length in ordered]


def device_bytes(architecture: Mapping[str, Any], profile: Profile) -> dict[str, int]:
    """An estimate of the device memory that one profile asks for, in bytes; TensorRT says the truth after a build.

    T = length * texts tokens, H the hidden and I the inner size, N heads. `fused` is what is alive at once in the
    feed-forward network (its input, its inner values before and after GELU, 16 bits each) or around attention (input,
    query, key, value, context), whichever is more; small batches take a block of 8.2 MB and 16 H bytes a token, fitted
    to what TensorRT for RTX 1.7 plans. `unfused` adds scores and shares, where attention was not fused.
    """
    tokens = profile.length * profile.texts
    hidden, inner = int(architecture["hidden_size"]), int(architecture["intermediate_size"])
    fused = max(2 * tokens * max(hidden + 2 * inner, 5 * hidden), _BLOCK + 16 * tokens * hidden)
    scores = 2 * profile.texts * int(architecture["num_attention_heads"]) * profile.length**2
    return {"inputs": 4 * 4 * tokens, "fused": fused, "unfused": fused + 2 * scores}
