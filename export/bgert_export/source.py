"""Where a checkpoint is and where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Source"]


@dataclass(frozen=True)
class Source:
    """Where a checkpoint is and where it came from."""

    folder: Path
    hub_id: str | None = None
    revision: str | None = None
    """Commit of the hub's repository."""
