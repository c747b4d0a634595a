"""What a `tokenizer.json` says of offsets and decoding, which bgert takes from the kind of the model instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bgert.tokenizer.checkpoint_files import Checkpoint

__all__ = ["note_other_byte_level", "note_other_metaspace", "note_other_offsets", "note_other_wordpiece"]


def note_other_wordpiece(checkpoint: Checkpoint, prefix: str) -> None:
    """Note a decoder that is not the one of WordPiece with cleanup."""
    section = checkpoint.section("decoder")
    _note(checkpoint, section, section == {"type": "WordPiece", "prefix": prefix, "cleanup": True})


def note_other_metaspace(checkpoint: Checkpoint) -> None:
    """Note a decoder that is not the one of Metaspace."""
    section = checkpoint.section("decoder")
    plain = section.get("type") == "Metaspace" and section.get("replacement") == "\u2581"
    never = section.get("prepend_scheme") == "never" or section.get("add_prefix_space") is False
    _note(checkpoint, section, plain and not never)


def note_other_byte_level(checkpoint: Checkpoint) -> None:
    """Note a decoder that is not the one of byte-level BPE."""
    section = checkpoint.section("decoder")
    _note(checkpoint, section, section.get("type") == "ByteLevel")


def note_other_offsets(checkpoint: Checkpoint) -> None:
    """Note a post-processor that moves offsets."""
    section = checkpoint.section("post_processor")
    if section.get("type") == "RobertaProcessing" and section.get("trim_offsets", True):
        checkpoint.notes.append(
            "tokenizer.json trims whitespace from the offsets of tokens (RobertaProcessing); `tokens` does not"
        )


def _note(checkpoint: Checkpoint, section: dict[str, Any], usual: bool) -> None:
    if not usual:
        kind = section.get("type", "null")
        checkpoint.notes.append(
            f"tokenizer.json's decoder ({kind}) is not the usual one of this kind of model, which `decode` follows"
        )
