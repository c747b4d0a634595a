"""Download of a checkpoint through huggingface_hub: only the files that export reads, in one form of the weights.

The hub's address, cache, token and offline mode are huggingface_hub's own (`HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`,
`HF_HUB_OFFLINE`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bgert.errors import ModelNotFoundError
from bgert_export.checkpoint import Source
from bgert_export.errors import DownloadError
from bgert_export.weights import SAFETENSORS, SAFETENSORS_INDEX, TORCH

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["download"]

SMALL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_*_config.json",
    "?_*/config.json",
)
_SHARDS = "model-*-of-*.safetensors"


def download(repository: str, *, revision: str | None = None, progress: Callable[[str], None] | None = None) -> Source:
    """Fetch a repository into huggingface_hub's cache, or take it from there when offline.

    Raises:
        ModelNotFoundError: the hub has no such repository or revision.
        DownloadError: the hub cannot be reached, needs a login, or failed.
    """
    from huggingface_hub import HfApi, constants, errors, snapshot_download

    where = f"{repository} at {revision}" if revision else repository
    try:
        if constants.HF_HUB_OFFLINE:
            patterns = [*SMALL_FILES, SAFETENSORS, SAFETENSORS_INDEX, _SHARDS, TORCH]
        else:
            files = HfApi().list_repo_files(repository, revision=revision)
            patterns = [*SMALL_FILES, *_weight_files(files, where)]
            if progress is not None:
                progress(f"downloading {where} from {constants.ENDPOINT}")
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except errors.GatedRepoError:
        raise DownloadError(
            f"{repository} is gated: accept its terms on {constants.ENDPOINT}/{repository} and log in with "
            "`hf auth login` (or set HF_TOKEN)"
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelNotFoundError(f"{repository} has no revision {revision!r} on {constants.ENDPOINT}") from None
    except errors.RepositoryNotFoundError:
        raise ModelNotFoundError(
            f"there is no folder {repository} here and no model of this name on {constants.ENDPOINT} "
            "(or it is private: log in with `hf auth login`)"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise DownloadError(
            f"there is no folder {repository} here, and {where} is neither in the cache nor to be had: the hub "
            f"{constants.ENDPOINT} is {'switched off (HF_HUB_OFFLINE)' if constants.HF_HUB_OFFLINE else 'not reached'}"
        ) from None
    except Exception as error:
        if not _is_transport(error):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DownloadError(f"cannot download {where} from {constants.ENDPOINT}: {reason}") from error
    return Source(folder, hub_id=repository, revision=folder.name)


def _weight_files(files: list[str], where: str) -> list[str]:
    """The one form of the weights that export would open, so that no other is downloaded."""
    if SAFETENSORS in files:
        return [SAFETENSORS]
    if SAFETENSORS_INDEX in files:
        return [SAFETENSORS_INDEX, _SHARDS]
    if TORCH in files:
        return [TORCH]
    raise DownloadError(f"{where} has no weights: none of {SAFETENSORS}, {SAFETENSORS_INDEX}, {TORCH}")


def _is_transport(error: Exception) -> bool:
    """Whether it came from the network or the file system, whichever HTTP library this huggingface_hub uses."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("httpx", "requests", "urllib3")
