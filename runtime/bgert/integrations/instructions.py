"""What is put before a text: the caller's own words beside the model's, for adapters that take an instruction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bgert.errors import InstructionWarning, warn_caller

if TYPE_CHECKING:
    from bgert.encoder import Encoder

__all__ = ["warn_if_other_instruction"]

_told: set[tuple[str, str, str]] = set()
_ANY_TEXT = "a text"


def warn_if_other_instruction(encoder: Encoder, given: str, prompt: str = "query") -> None:
    """Warn, once a process for each pair of texts, that an instruction is not the one of the model's manifest.

    Two that give the same tokens, as those that differ in white space at their end mostly do, are the same. Where the
    caller gave no instruction and the adapter takes the model's, or where nothing is what its framework adds, there is
    nothing to call this for.

    Args:
        encoder: the model.
        given: the text that will stand before each query or document; empty if the caller asked for nothing there.
        prompt: the manifest's prompt of that side, `query` or `document`.
    """
    own = encoder.prompt_text(prompt)
    if given == own or (prompt, given, own) in _told or _tokens(encoder, given) == _tokens(encoder, own):
        return
    _told.add((prompt, given, own))
    model = f"the model's {prompt} instruction is {own!r}" if own else f"the model has no {prompt} instruction"
    warn_caller(
        f"{given!r} is put before each {prompt}, and {model}: vectors differ from `encode_"
        f"{'queries' if prompt == 'query' else 'corpus'}`'s; give {own!r} unless yours is meant",
        InstructionWarning,
    )


def _tokens(encoder: Encoder, instruction: str) -> list[int]:
    return [int(token) for token in encoder.tokenizer.encode(instruction + _ANY_TEXT)]
