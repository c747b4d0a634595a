"""A model folder that somebody published on the Hugging Face hub: `Encoder("someone/bge-small-en-bgert")`.

This is for folders that `bgert export` wrote. A checkpoint is exported first. huggingface_hub is needed only here; its
address, cache, token and offline mode are its own (`HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`).
"""

from __future__ import annotations

import re
from pathlib import Path

from bgert.errors import BgertError, ModelFolderError, ModelNotFoundError
from bgert.model_folder import MANIFEST_NAME, Manifest
from bgert.paths import user_path

__all__ = ["locate"]

_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_OWNERS = {"bge-": "BAAI", "all-": "sentence-transformers"}
_NAME = re.compile(r"\w[\w.-]*", re.ASCII)


def locate(path_or_id: str | Path) -> Path:
    """The local folder of a path, which wins where it exists, or of a hub id, downloaded.

    Raises:
        InvalidOptionError: it is no path.
        ModelNotFoundError: there is no such folder, and the hub has no such repository or cannot be reached.
        ModelFolderError: the repository holds no model folder.
    """
    path = user_path(path_or_id)
    if not isinstance(path_or_id, str) or not (_ID.fullmatch(path_or_id) or _NAME.fullmatch(path_or_id)):
        return path
    try:
        path.stat()
        return path
    except OSError:
        missing = ModelNotFoundError(f"no such model folder: {path_or_id[:200]}: {_export_first(path_or_id)}")
    if _NAME.fullmatch(path_or_id):
        raise missing
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise missing from None
    hub_id = path_or_id
    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=[MANIFEST_NAME]))
        if not (folder / MANIFEST_NAME).exists():
            raise ModelFolderError(f"{hub_id} on the hub is a checkpoint, no model folder: {_export_first(hub_id)}")
        names = [entry.name for entry in Manifest.read(folder).files()]
        return Path(snapshot_download(hub_id, revision=folder.name, allow_patterns=[MANIFEST_NAME, *names]))
    except BgertError:
        raise
    except Exception as error:  # huggingface_hub's errors share no base class over its versions
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelNotFoundError(
            f"no folder {path} here, and the hub did not give it ({reason[0]}): {_export_first(hub_id)}"
        ) from error


def _export_first(name: str) -> str:
    """What to do about the name of a model that is a checkpoint elsewhere."""
    name = name[:200]
    folder = name.rsplit("/", 1)[-1]
    owner = next((owner for start, owner in _OWNERS.items() if name.startswith(start)), "ORGANISATION")
    source = name if "/" in name else f"{owner}/{name}"
    return f"export the checkpoint first with `bgert export {source} -o {folder}`, and load {folder!r}"
