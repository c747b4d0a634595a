"""How a multi-vector model reads queries and documents: a marker after the first token, and tokens added to queries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from bgert.errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bgert.tokenizer.results import TokenBatch

__all__ = ["ROLES", "TextRole", "expanded", "role_of"]

ROLES = ("query", "document")


@dataclass(frozen=True)
class TextRole:
    """One of the two."""

    prefix_ids: list[int] = field(default_factory=list)
    """Ids that stand behind the first special token of every text."""
    max_tokens: int | None = None
    """As `Manifest.max_tokens`; None for that."""
    skip_ids: list[int] = field(default_factory=list)
    """Ids whose vectors are left out."""
    expand_to: int = 0
    """Tokens that a shorter text is filled up to, behind its last; 0 for none."""
    expansion_id: int = 0
    """What it is filled up with."""
    attend: bool = False
    """Whether attention sees what was added. If not, only what was added is told of the rest."""


def role_of(roles: Mapping[str, TextRole], prompt: str | None) -> TextRole | None:
    """The role that a prompt names; None for models that know of none.

    Raises:
        InvalidOptionError: the model has roles, and it is neither.
    """
    if not roles:
        return None
    if prompt is None or prompt not in roles:
        raise InvalidOptionError(
            f"prompt is {prompt!r}: this model reads queries and documents in two ways, so pass prompt='query' or "
            "prompt='document'"
        )
    return roles[prompt]


def expanded(batch: TokenBatch, role: TextRole, limit: int) -> TokenBatch:
    """Texts filled up to the role's length, or to `limit` where that is less."""
    lengths = np.diff(batch.cu_seqlens)
    more = np.maximum(min(role.expand_to, limit) - lengths, 0)
    if not more.any():
        return batch
    at = np.repeat(batch.cu_seqlens[1:], more)
    return replace(
        batch,
        ids=np.insert(batch.ids, at, role.expansion_id),
        cu_seqlens=batch.cu_seqlens + np.concatenate([[0], np.cumsum(more)]).astype(np.int32),
        type_ids=np.insert(batch.type_ids, at, 0),
        seen=None if role.attend else lengths,
    )
