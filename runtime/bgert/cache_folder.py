"""The folder for what bgert makes once and keeps: `$BGERT_CACHE`, or `bgert` in `$XDG_CACHE_HOME` or in `~/.cache`."""

from __future__ import annotations

import os
from pathlib import Path

from bgert.errors import BgertError
from bgert.paths import user_path

__all__ = ["cache_folder", "exports_folder", "remake"]


def cache_folder() -> Path:
    """The folder's path; nothing is made."""
    if chosen := os.environ.get("BGERT_CACHE"):
        return user_path(chosen, "BGERT_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bgert"


def exports_folder() -> Path:
    """Where checkpoints that were named instead of model folders are exported: `CHECKPOINT/DIGEST` below it."""
    return cache_folder() / "models"


def remake(path: Path, *, copied: bool = False) -> str:
    """What to do about a model folder that is not what it says it is, for messages.

    Args:
        path: the folder, or a file in it.
        copied: whether a copy that went wrong explains it too.
    """
    try:
        root = exports_folder().absolute()
    except (BgertError, RuntimeError):  # no home: then there is no cache either
        root = None
    if root is not None and root in path.absolute().parents:
        folder = root.joinpath(*path.absolute().relative_to(root).parts[:2])
        return f"remove {folder} and load the checkpoint again, which exports it anew"
    advice = "export the checkpoint again with `bgert export SOURCE -o DIR`"
    return f"copy the folder again or {advice}" if copied else advice
