"""What adapters without a tokenizing front end share: tokenization, batches by length, pooling."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def tokenizer_of(checkpoint: str, max_length: int) -> Any:
    """The checkpoint's `tokenizers.Tokenizer`, cutting at `max_length` and not padding."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(checkpoint) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def batches_by_length(
    lengths: NDArray[np.int64], *, texts: int | None = None, tokens: int | None = None
) -> Iterator[NDArray[np.intp]]:
    """Rows of each batch, longest first: `texts` a batch, or as many as keep padded length within `tokens`."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = texts if tokens is None else max(1, tokens // int(lengths[order[start]]))
        yield order[start : start + (size or 1)]
        start += size or 1


def padded(encodings: list[Any], rows: NDArray[np.intp], pad_id: int) -> dict[str, NDArray[np.int64]]:
    """int64[rows, longest] ids, mask and type ids."""
    longest = max(len(encodings[row].ids) for row in rows)
    ids = np.full((len(rows), longest), pad_id, np.int64)
    mask = np.zeros_like(ids)
    types = np.zeros_like(ids)
    for number, row in enumerate(rows):
        length = len(encodings[row].ids)
        ids[number, :length] = encodings[row].ids
        types[number, :length] = encodings[row].type_ids
        mask[number, :length] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def pooled(hidden: NDArray[np.float32], mask: NDArray[Any], pooling: str) -> NDArray[np.float32]:
    """`[B, S, H]` to vectors of length one `[B, H]`, by `cls` or `mean`."""
    if pooling == "cls":
        vectors = hidden[:, 0]
    else:
        weights = mask.astype(np.float32)
        vectors = np.einsum("bsh,bs->bh", hidden, weights) / weights.sum(1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
