"""Queries and documents of multi-vector models as PyTorch gets them, by transformers' tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bgert_export.verification.torch_reference import Tokens

if TYPE_CHECKING:
    from bgert.model_folder import Manifest
    from bgert_export.verification.torch_reference import TorchReference

__all__ = ["role_inputs"]


def role_inputs(reference: TorchReference, manifest: Manifest, name: str, texts: list[str]) -> list[Tokens]:
    """Inputs with their marker, cut, and filled up.

    Args:
        reference: has the tokenizer.
        manifest: says how texts are read.
        name: `query` or `document`.
        texts: without prompts.
    """
    role = manifest.roles[name]
    most = role.max_tokens or manifest.max_tokens
    before, marker = manifest.prompts.get(name, ""), tuple(role.prefix_ids)
    found = []
    for entry in reference.tokenize([before + text for text in texts], None, most - len(marker)):
        ids = entry.ids[:1] + marker + entry.ids[1:]
        types = entry.types[:1] + (0,) * len(marker) + entry.types[1:]
        more = max(role.expand_to - len(ids), 0)
        seen = None if role.attend else len(ids)
        found.append(Tokens(ids + (role.expansion_id,) * more, types + (0,) * more, seen))
    return found
