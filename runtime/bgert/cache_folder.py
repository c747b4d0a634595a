"""The folder for what bgert makes once and keeps: `$BGERT_CACHE`, or `bgert` in `$XDG_CACHE_HOME` or in `~/.cache`."""

from __future__ import annotations

import os
from pathlib import Path

from bgert.paths import user_path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """The folder's path; nothing is made."""
    if chosen := os.environ.get("BGERT_CACHE"):
        return user_path(chosen, "BGERT_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bgert"
