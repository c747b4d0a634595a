"""From packed texts to the rows and columns [B, S] that a padded graph reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.errors import ModelFolderError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from bgert.batching import PackedBatch

__all__ = ["INPUTS", "PaddedLayout"]

INPUTS = ("input_ids", "position_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class PaddedLayout:
    """How a model's inputs are laid out.

    Positions of BERT count from 0. Those of XLM-RoBERTa count from 1 and skip padding tokens, which have row 0, also
    where someone wrote `<pad>` into a text, as transformers' `create_position_ids_from_input_ids` does.
    """

    inputs: tuple[str, ...]
    """Names of the graph's inputs, all int32[B, S]."""
    pad_token_id: int
    skips_padding: bool

    @classmethod
    def of(cls, inputs: Sequence[str], architecture: Mapping[str, Any]) -> PaddedLayout:
        """The layout for a graph's inputs and a manifest's architecture.

        Raises:
            ModelFolderError: an input is unknown.
        """
        if unknown := [name for name in inputs if name not in INPUTS]:
            raise ModelFolderError(f"the graph has an input {unknown[0]!r} that this bgert does not know")
        return cls(tuple(inputs), int(architecture["pad_token_id"]), architecture["position_offset"] > 0)

    def fill(self, batch: PackedBatch, arrays: Mapping[str, NDArray[np.int32]]) -> None:
        """Write a batch into int32[rows, S] arrays, one an input, with rows >= B and S >= its longest text.

        Rows past the batch hold one token of padding that counts as a token, so that no row of the attention is empty.
        """
        rows, length = arrays["input_ids"].shape
        lengths = np.diff(batch.cu_seqlens)
        inside = np.zeros((rows, length), np.bool_)
        inside[: len(lengths)] = np.arange(length) < lengths[:, None]
        ids = arrays["input_ids"]
        ids.fill(self.pad_token_id)
        ids[inside] = batch.input_ids
        mask = arrays["attention_mask"]
        mask[...] = inside
        mask[len(lengths) :, 0] = 1
        if "position_ids" in arrays:  # a graph without them makes its own
            positions = arrays["position_ids"]
            if self.skips_padding:
                counted = ids != self.pad_token_id
                np.cumsum(counted, axis=1, out=positions)
                positions *= counted
            else:
                positions[...] = np.where(inside, np.arange(length, dtype=np.int32), 0)
        if "token_type_ids" in arrays:
            types = arrays["token_type_ids"]
            types.fill(0)
            types[inside] = batch.type_ids

    def arrays(self, batch: PackedBatch) -> dict[str, NDArray[np.int32]]:
        """The batch in new arrays of its own size."""
        shape = (len(batch), int(np.diff(batch.cu_seqlens).max()))
        arrays = {name: np.empty(shape, np.int32) for name in self.inputs}
        self.fill(batch, arrays)
        return arrays
