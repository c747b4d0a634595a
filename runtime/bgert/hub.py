"""A model folder that somebody published on the Hugging Face hub: `Encoder("someone/bge-small-en-bgert")`.

This is for folders that `bgert export` wrote. A checkpoint is exported first. huggingface_hub is needed only here; its
address, cache, token and offline mode are its own (`HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`).
"""

from __future__ import annotations

import re
from pathlib import Path

from bgert.errors import ModelFolderError, ModelNotFoundError
from bgert.model_folder import MANIFEST_NAME, Manifest

__all__ = ["locate"]

_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


def locate(path_or_id: str | Path) -> Path:
    """The local folder of a path, which wins where it exists, or of a hub id, downloaded.

    Raises:
        ModelNotFoundError: the hub has no such repository or cannot be reached, or huggingface_hub is missing.
        ModelFolderError: the repository holds no model folder.
    """
    path = Path(path_or_id)
    if path.exists() or not isinstance(path_or_id, str) or not _ID.fullmatch(path_or_id):
        return path
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ModelNotFoundError(
            f"no such model folder: {path} (to load it as a hub id: pip install huggingface_hub)"
        ) from None
    try:
        folder = Path(snapshot_download(path_or_id, allow_patterns=[MANIFEST_NAME]))
        if not (folder / MANIFEST_NAME).exists():
            raise ModelFolderError(
                f"{path_or_id} on the hub is no model folder: export it with `bgert export {path_or_id} -o DIR`"
            )
        names = [entry.name for entry in Manifest.read(folder).files()]
        return Path(snapshot_download(path_or_id, revision=folder.name, allow_patterns=[MANIFEST_NAME, *names]))
    except ModelFolderError:
        raise
    except Exception as error:  # huggingface_hub's errors share no base class over its versions
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelNotFoundError(f"no folder {path} here, and the hub did not give it: {reason[0]}") from error
