"""From what a user names to a model folder: a path, or an id on the Hugging Face hub as `BAAI/bge-small-en-v1.5`.

A repository that holds a model folder is downloaded; a checkpoint, there or here, is exported once (`exported_models`).
huggingface_hub is needed only for ids; its address, cache, token and offline mode are its own (`HF_ENDPOINT`,
`HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bgert.errors import BgertError, ModelNotFoundError, install_extra
from bgert.exported_models import ExportedModels
from bgert.model_folder import MANIFEST_NAME, Manifest
from bgert.paths import user_path

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["locate"]

_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_OWNERS = {"bge-": "BAAI", "all-": "sentence-transformers"}
_NAME = re.compile(r"\w[\w.-]*", re.ASCII)


def locate(path_or_id: str | Path, targets: Sequence[str] | None = ("cpu",)) -> Path:
    """The local model folder of a path, which wins where it exists, or of a hub id.

    Args:
        path_or_id: a model folder, a checkpoint folder, or the hub id of either.
        targets: the graphs to export of a checkpoint; None to leave a checkpoint's folder as it is.

    Raises:
        InvalidOptionError: it is no path.
        ModelNotFoundError: there is no such folder, and the hub has no such repository or cannot be reached.
        EngineNotInstalledError: it is a checkpoint, and the libraries that export it are not here.
        BgertError: what export raises.
    """
    path = user_path(path_or_id)
    try:
        path.stat()
        if targets is not None and (path / "config.json").is_file() and not (path / MANIFEST_NAME).is_file():
            return ExportedModels(path, targets).folder()
        return path
    except OSError as error:
        if isinstance(error, BgertError):
            raise
    if not isinstance(path_or_id, str) or not (_ID.fullmatch(path_or_id) or _NAME.fullmatch(path_or_id)):
        return path
    if _NAME.fullmatch(path_or_id):
        raise ModelNotFoundError(f"no such model folder: {path_or_id[:200]}: {_advice(path_or_id)}")
    return _from_hub(path_or_id, targets or ("cpu",))


def _from_hub(hub_id: str, targets: Sequence[str]) -> Path:
    exported = ExportedModels(hub_id, targets)
    commit = exported.last_commit()
    try:
        from huggingface_hub import snapshot_download, utils
    except ImportError:
        if commit is not None:
            return exported.folder(commit)
        raise ModelNotFoundError(
            f"no such model folder: {hub_id[:200]}: if it is a hub id, {install_extra('export')}, or {_advice(hub_id)}"
        ) from None
    refused = (utils.RepositoryNotFoundError, utils.RevisionNotFoundError, utils.GatedRepoError)
    try:
        snapshot = Path(snapshot_download(hub_id, allow_patterns=[MANIFEST_NAME]))
        if (snapshot / MANIFEST_NAME).exists():
            names = [entry.name for entry in Manifest.read(snapshot).files()]
            return Path(snapshot_download(hub_id, revision=snapshot.name, allow_patterns=[MANIFEST_NAME, *names]))
        commit = snapshot.name
    except BgertError:
        raise
    except Exception as error:  # huggingface_hub's errors share no base class over its versions
        if commit is None or isinstance(error, refused):
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelNotFoundError(
                f"no folder {hub_id} here, and the hub did not give it ({reason[0]}): {_advice(hub_id)}"
            ) from error
    return exported.folder(commit)


def _advice(name: str) -> str:
    """What to do about the name of a model that is a checkpoint elsewhere."""
    name = name[:200]
    folder = name.rsplit("/", 1)[-1]
    owner = next((owner for start, owner in _OWNERS.items() if name.startswith(start)), "ORGANISATION")
    source = name if "/" in name else f"{owner}/{name}"
    whole = "" if "/" in name else f"name its hub id in full ({source}), or "
    return f"{whole}export the checkpoint first with `bgert export {source} -o {folder}`, and load {folder!r}"
