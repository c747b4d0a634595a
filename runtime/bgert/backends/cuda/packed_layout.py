"""The inputs of a packed `cuda` graph in one block of memory, in sizes that repeat: pure numpy.

A GPU likes few shapes: memory is reused where sizes repeat, and a CUDA graph is one shape. So a batch of T tokens in
B texts is laid out as a `Bucket` that is a little larger. What fills it up are texts of their own, which attend to
themselves alone: no row of memory is left uninitialised, and no text depends on the size of the bucket.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.batching import PackedBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["ALIGNMENT", "Bucket", "InputPlan", "bucket_of", "fit", "graph_buckets"]

ALIGNMENT = 256  # bytes; what cudaMalloc guarantees, so that every input is aligned as if it had its own allocation
MOST_TEXTS = 65_535  # a grid dimension of the attention kernel


@dataclass(frozen=True)
class Bucket:
    """A shape of the graph's inputs."""

    tokens: int
    """T"""
    texts: int
    """B"""
    longest: int
    """S"""


def bucket_of(lengths: NDArray[np.int32]) -> Bucket:
    """The bucket of a batch: at most 1/16 more tokens, and texts to hold those."""
    longest = _round_up(int(lengths.max()), 8, 16)
    return _filled(lengths, _round_up(int(lengths.sum()), 16, 16), longest)


def graph_buckets(max_tokens: int, most: int) -> list[Bucket]:
    """The buckets that get a CUDA graph: for a text alone, then for several, each smallest first.

    Args:
        max_tokens: longest text.
        most: tokens of the largest batch that the device takes.
    """
    sizes = [tokens for tokens in (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048) if tokens <= most]
    enough = next((number for number, tokens in enumerate(sizes) if tokens >= max_tokens), len(sizes))
    alone = [Bucket(tokens, 2, tokens) for tokens in sizes[: enough + 1]]
    # S may be larger than any text, so that few fillers are enough; B * S is what mean pooling reads.
    longest = min(_round_up(max_tokens, 8, 16), 512)
    sizes = [tokens for tokens in (64, 128, 256, 384, 512, 640, 768, 1024, 1280, 1536, 1792, 2048) if tokens <= most]
    return alone + [
        Bucket(tokens, 16 if tokens <= 1024 else 32, min(tokens, max(longest, tokens // 8))) for tokens in sizes
    ]


def fit(lengths: NDArray[np.int32], buckets: Sequence[Bucket]) -> Bucket | None:
    """The first of some buckets that holds a batch, if any."""
    tokens, longest, texts = int(lengths.sum()), int(lengths.max()), len(lengths)
    for bucket in buckets:
        spare = bucket.tokens - tokens
        if spare >= 0 and longest <= bucket.longest and texts + -(-spare // bucket.longest) <= bucket.texts:
            return bucket
    return None


def _filled(lengths: NDArray[np.int32], tokens: int, longest: int) -> Bucket:
    fillers = -(-(tokens - int(lengths.sum())) // longest)
    return Bucket(tokens, _round_up(len(lengths) + fillers, 8, 2), longest)


def _round_up(n: int, steps: int, least: int) -> int:
    """The next of `steps` sizes an octave, at least `least`."""
    step = max(1, (1 << (max(n, least) - 1).bit_length()) // (2 * steps))
    return max(least, -(-n // step) * step)


class InputPlan:
    """Where each input of a graph lies, and what goes there.

    Args:
        names: inputs of the graph, as `bgert_export.graphs.cuda` describes them.
        pad_token_id: the id that XLM-RoBERTa's positions skip.

    Raises:
        ValueError: an input is unknown.
    """

    def __init__(self, names: Sequence[str], *, pad_token_id: int = 0) -> None:
        if unknown := sorted(set(names) - _INPUTS.keys()):
            raise ValueError(unknown[0])
        self.names = list(names)
        self._pad_token_id = pad_token_id
        self._skips_padding = "position_ids_without_padding" in self.names
        self._placed = lru_cache(maxsize=4096)(self._place)
        self._templates = lru_cache(maxsize=512)(self._template)

    def places(self, bucket: Bucket) -> list[tuple[str, Any, tuple[int, ...], int]]:
        """Name, numpy type, shape and offset in bytes of each input."""
        return self._placed(bucket)[0]

    def nbytes(self, bucket: Bucket) -> int:
        """Bytes of all inputs with the gaps between them."""
        return self._placed(bucket)[1]

    def _place(self, bucket: Bucket) -> tuple[list[tuple[str, Any, tuple[int, ...], int]], int]:
        places, offset = [], 0
        for name in self.names:
            dtype, shape_of, _ = _INPUTS[name]
            shape = shape_of(bucket)
            places.append((name, dtype, shape, offset))
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            offset += -(-size // ALIGNMENT) * ALIGNMENT
        return places, offset

    def fill(self, block: NDArray[np.uint8], batch: PackedBatch, bucket: Bucket) -> None:
        """Write all inputs of a batch into a block of at least `nbytes(bucket)` bytes."""
        rows = _Rows(batch, bucket, self._pad_token_id)
        for name, dtype, shape, offset in self.places(bucket):
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            _INPUTS[name][2](rows, block[offset : offset + size].view(dtype).reshape(shape))

    def template(self, bucket: Bucket, batch: PackedBatch) -> NDArray[np.uint8] | None:
        """All inputs of a text alone but `input_ids` and `token_type_ids`, uint8[nbytes], which is kept.

        None for several texts, and where more depends on the ids.
        """
        if len(batch) > 1 or (self._skips_padding and (batch.input_ids == self._pad_token_id).any()):
            return None
        return self._templates(bucket, len(batch.input_ids))

    def _template(self, bucket: Bucket, tokens: int) -> NDArray[np.uint8]:
        block = np.zeros(self.nbytes(bucket), np.uint8)
        ids = np.full(tokens, self._pad_token_id + 1, np.int32)
        self.fill(block, PackedBatch(ids, np.array([0, tokens], np.int32), np.zeros_like(ids)), bucket)
        places = {name: offset for name, _, _, offset in self.places(bucket)}
        block[places["input_ids"] : places["input_ids"] + 4 * tokens] = 0
        block.flags.writeable = False
        return block


class _Rows:
    """A batch and the texts that fill its bucket."""

    def __init__(self, batch: PackedBatch, bucket: Bucket, pad_token_id: int) -> None:
        self.batch, self.bucket, self.pad_token_id = batch, bucket, pad_token_id
        self.count = len(batch.input_ids)
        self.lengths = np.zeros(bucket.texts, np.int32)
        self.lengths[: len(batch)] = np.diff(batch.cu_seqlens)
        spare, at = bucket.tokens - self.count, len(batch)
        whole, rest = divmod(spare, bucket.longest)
        self.lengths[at : at + whole] = bucket.longest
        if rest:
            self.lengths[at + whole] = rest
        self.ends = np.cumsum(self.lengths, dtype=np.int32)
        self.starts = self.ends - self.lengths

    def input_ids(self, out: NDArray[Any]) -> None:
        out[0, : self.count] = self.batch.input_ids
        out[0, self.count :] = 0

    def token_type_ids(self, out: NDArray[Any]) -> None:
        out[0, : self.count] = self.batch.type_ids
        out[0, self.count :] = 0

    def position_ids(self, out: NDArray[Any]) -> None:
        out[0] = self._within()
        out[0, self.count :] = 0  # a filler may be longer than the position table

    def position_ids_without_padding(self, out: NDArray[Any]) -> None:
        ids = self.batch.input_ids
        counts = ids != self.pad_token_id
        self.position_ids(out)
        if counts.all():
            out[0, : self.count] += 1
            return
        so_far = np.cumsum(counts, dtype=np.int32)
        first = self.batch.cu_seqlens[:-1]
        earlier = so_far[first] - counts[first]
        out[0, : self.count] = (so_far - np.repeat(earlier, np.diff(self.batch.cu_seqlens))) * counts

    def cu_seqlens(self, out: NDArray[Any]) -> None:
        out[0] = 0
        out[1:] = self.ends

    def cls_rows(self, out: NDArray[Any]) -> None:
        np.minimum(self.starts, self.bucket.tokens - 1, out=out)

    def token_offset(self, out: NDArray[Any]) -> None:
        flat, tokens = out.reshape(-1), self.bucket.tokens
        first = np.arange(self.bucket.texts, dtype=np.int32) * np.int32(self.bucket.longest)
        flat[:tokens] = np.repeat(first, self.lengths) + self._within()
        free = np.ones(len(flat), np.bool_)
        free[flat[:tokens]] = False
        flat[tokens:] = np.flatnonzero(free)

    def padded_rows(self, out: NDArray[Any]) -> None:
        """Slots without a token repeat the last row of their own text."""
        slots = np.arange(self.bucket.longest, dtype=np.int32)
        last = np.maximum(self.lengths[:, None] - 1, 0)
        np.minimum(self.starts[:, None] + np.minimum(slots, last), self.bucket.tokens - 1, out=out)

    def mean_weights(self, out: NDArray[Any]) -> None:
        share = (1 / np.maximum(self.lengths, 1)).astype(np.float32)
        slots = np.arange(self.bucket.longest, dtype=np.int32)
        out[:, 0] = np.where(slots < self.lengths[:, None], share[:, None], np.float32(0))

    def _within(self) -> NDArray[np.int32]:
        """int32[T]: index of each token in its text."""
        return np.arange(self.bucket.tokens, dtype=np.int32) - np.repeat(self.starts, self.lengths)


_INPUTS: dict[str, tuple[Any, Any, Any]] = {
    "input_ids": (np.int32, lambda bucket: (1, bucket.tokens), _Rows.input_ids),
    "position_ids": (np.int32, lambda bucket: (1, bucket.tokens), _Rows.position_ids),
    "position_ids_without_padding": (
        np.int32,
        lambda bucket: (1, bucket.tokens),
        _Rows.position_ids_without_padding,
    ),
    "token_type_ids": (np.int32, lambda bucket: (1, bucket.tokens), _Rows.token_type_ids),
    "token_offset": (np.int32, lambda bucket: (bucket.texts, bucket.longest), _Rows.token_offset),
    "cu_seqlens": (np.int32, lambda bucket: (bucket.texts + 1,), _Rows.cu_seqlens),
    "cls_rows": (np.int32, lambda bucket: (bucket.texts,), _Rows.cls_rows),
    "padded_rows": (np.int32, lambda bucket: (bucket.texts, bucket.longest), _Rows.padded_rows),
    "mean_weights": (np.float32, lambda bucket: (bucket.texts, 1, bucket.longest), _Rows.mean_weights),
}
