"""What the tokenizer gives back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Token", "TokenBatch"]


class Token(NamedTuple):
    """A token and what it stands for."""

    id: int
    text: str
    """`text[start:stop]`; of a special token its own text, such as `[CLS]`."""
    special: bool
    """Whether the template added it; such tokens have no place in the text."""
    start: int | None
    """First character in the text, in Unicode code points as Python counts them."""
    stop: int | None
    """The character after the last."""


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Token ids of many texts, one row after the other without padding."""

    ids: NDArray[np.int32]
    """int32[T], T tokens in all."""
    cu_seqlens: NDArray[np.int32]
    """int32[B + 1]: row i is `ids[cu_seqlens[i]:cu_seqlens[i + 1]]`."""
    type_ids: NDArray[np.int32]
    """int32[T], token types."""
    truncated: NDArray[np.bool_]
    """bool[B]: whether the row lost tokens."""
    seen: NDArray[np.int32] | None = None
    """int32[B]: how many tokens of each row, from its first, attention sees; None for all."""

    def __len__(self) -> int:
        """How many rows there are, B."""
        return len(self.truncated)

    def row(self, index: int) -> NDArray[np.int32]:
        """The ids of one row, a view; negative indices count from the end.

        Raises:
            IndexError: there is no such row.
        """
        index = range(len(self))[index]
        return self.ids[self.cu_seqlens[index] : self.cu_seqlens[index + 1]]

    def tolist(self) -> list[list[int]]:
        """The ids of each row as Python lists."""
        ids, cuts = self.ids.tolist(), self.cu_seqlens.tolist()
        return [ids[start:stop] for start, stop in pairwise(cuts)]
