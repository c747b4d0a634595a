"""Whether a tokenizer and a network belong together: no text may ask for a row that a table does not have."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bgert.tokenizer.spec import TemplateSpec
from bgert_export.errors import CheckpointError

if TYPE_CHECKING:
    from bgert.tokenizer.spec import TokenizerSpec
    from bgert_export.checkpoint import Hyperparameters

__all__ = ["check_tables", "without_unread_types"]


def without_unread_types(spec: TokenizerSpec, architecture: Hyperparameters) -> TokenizerSpec:
    """The tokenizer as the network sees it: one that has no token types reads none, whatever the tokenizer gives."""
    if architecture.reads_token_types:
        return spec
    single, pair = (
        TemplateSpec(prefix=template.prefix, middle=template.middle, suffix=template.suffix)
        for template in (spec.single, spec.pair)
    )
    if (single, pair) != (spec.single, spec.pair):
        spec.notes.append(f"all tokens have type 0: {architecture.model_type} has no token types")
    return replace(spec, single=single, pair=pair)


def check_tables(spec: TokenizerSpec, architecture: Hyperparameters) -> None:
    """Check ids and token types against the tables; positions are bounded by the length limit, see `settings`.

    Raises:
        CheckpointError: an id or a token type has no row, or a text may have no tokens at all.
    """
    encoder = architecture.kind == "encoder"
    template = spec.single if encoder else spec.pair
    around = [*template.prefix, *template.middle, *template.suffix]
    rows = architecture.vocab_size
    largest = max([len(spec.vocab) - 1, *(token.id for token in spec.added_tokens), *around])
    if largest >= rows:
        raise CheckpointError(
            f"the tokenizer has ids up to {largest}, but config.json has vocab_size {rows}: they do not belong together"
        )
    types = [template.first_type]
    types += [] if encoder else [template.second_type]
    types += [template.prefix_type] * bool(template.prefix)
    types += [template.middle_type] * bool(template.middle)
    types += [template.suffix_type] * bool(template.suffix)
    if max(types) >= architecture.type_vocab_size:
        raise CheckpointError(
            f"the tokenizer gives token types up to {max(types)}, but config.json has type_vocab_size "
            f"{architecture.type_vocab_size}: they do not belong together"
        )
    if encoder and max(types) > 0:
        raise CheckpointError(
            f"tokenizer.json: post_processor.single gives token type {max(types)}: bgert's encoders have 0 alone"
        )
    if not around:
        raise CheckpointError(
            "the tokenizer puts no special tokens around a text, so an empty one has no tokens, and PyTorch gives NaN "
            "for it or fails: add a post_processor with special tokens to tokenizer.json"
        )
