"""What `Tokenizer` needs of whoever turns texts into ids: bgert's own code in `_native`, or `huggingface`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BatchEncoder", "TextModel"]


class TextModel(Protocol):
    """Ids of one text, without special tokens around it, and back."""

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary, without added ones."""

    def token(self, token_id: int) -> str | None:
        """The token with an id; None if there is none."""

    def decode(self, ids: NDArray[np.int64], *, skip_special_tokens: bool) -> str:
        """The text of ids [T]; InvalidTextError if one is that of no token."""

    def encode_spans(
        self, text: str, *, split_special_tokens: bool, as_hf: bool
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Ids [T] and characters [T, 2]; `as_hf`: those that HF `tokenizers` gives, also where they are wrong."""


class BatchEncoder(Protocol):
    """Texts or pairs of texts to packed ids."""

    def encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        *,
        max_length: int | None,
        truncation: str,
        query_max_length: int | None,
        truncation_side: str,
        add_special_tokens: bool,
        split_special_tokens: bool,
        threads: int,
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]:
        """The fields of a `TokenBatch`, see `Tokenizer.encode_batch`."""
