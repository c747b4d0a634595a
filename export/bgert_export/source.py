"""Where a checkpoint is and where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bgert_export.errors import UnsupportedCheckpointError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ADAPTER", "Source", "adapter_error"]

ADAPTER = "adapter_config.json"
"""PEFT's; sentence-transformers and transformers apply the adapter that it describes, whatever else is there."""


def adapter_error(where: str | Path) -> UnsupportedCheckpointError:
    """The refusal of a checkpoint that is an adapter, or has one beside the weights of its base."""
    return UnsupportedCheckpointError(
        f"{where} has a LoRA adapter ({ADAPTER}), which bgert does not apply: merge it into its base with peft, "
        "`PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(folder)`, put the tokenizer's "
        f"and sentence-transformers' files beside the result and export that. If it is merged already, delete {ADAPTER}"
    )


@dataclass(frozen=True)
class Source:
    """Where a checkpoint is and where it came from."""

    folder: Path
    hub_id: str | None = None
    revision: str | None = None
    """Commit of the hub's repository."""
