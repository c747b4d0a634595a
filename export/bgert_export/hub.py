"""Download of a checkpoint through huggingface_hub: only the files that export reads, in one form of the weights.

The hub's address, cache, token and offline mode are huggingface_hub's own (`HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`,
`HF_HUB_OFFLINE`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bgert.errors import ModelNotFoundError
from bgert_export.errors import DownloadError
from bgert_export.sentence_transformers_files import METADATA
from bgert_export.source import ADAPTER, Source, adapter_error
from bgert_export.token_heads import FILES as HEADS
from bgert_export.weights import FORMS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["download"]

_OF_THE_NETWORK = (
    "config.json",
    ADAPTER,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "vocab.json",
    "merges.txt",
    *HEADS.values(),
    METADATA,
)
SMALL_FILES = (
    *_OF_THE_NETWORK,
    *(f"0_*/{name}" for name in _OF_THE_NETWORK),
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_*_config.json",
    "0_*/sentence_*_config.json",
    "?_*/config.json",
)


def download(repository: str, *, revision: str | None = None, progress: Callable[[str], None] | None = None) -> Source:
    """Fetch a repository into huggingface_hub's cache, or take it from there when offline.

    Raises:
        ModelNotFoundError: the hub has no such repository or revision.
        UnsupportedCheckpointError: it has a LoRA adapter.
        DownloadError: the hub cannot be reached, needs a login, or failed, and the cache has no copy.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub import utils as errors  # here in every version, huggingface_hub.errors only in newer ones

    hub = constants.ENDPOINT
    where = f"{repository} at {revision}" if revision else repository
    problem = "it is switched off (HF_HUB_OFFLINE)"
    try:
        if not constants.HF_HUB_OFFLINE:
            try:
                files = [entry.rfilename for entry in HfApi().model_info(repository, revision=revision).siblings or []]
                if ADAPTER in files:
                    raise adapter_error(where)
                if progress is not None:
                    progress(f"downloading {where} from {hub}")
                patterns = [*SMALL_FILES, *_weight_files(files, where), *_module_weights(files)]
                folder = Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
                return Source(folder, hub_id=repository, revision=folder.name)
            except Exception as error:
                if not _is_transport(error):
                    raise
                problem = _first_line(error)
        # The weights are left out here: of their several forms the cache holds one, and opening them will tell.
        cached = snapshot_download(
            repository, revision=revision, allow_patterns=list(SMALL_FILES), local_files_only=True
        )
        if progress is not None:
            progress(f"taking {where} from the cache, as the hub {hub} is not reached: {problem}")
        return Source(Path(cached), hub_id=repository, revision=Path(cached).name)
    except errors.GatedRepoError:
        raise DownloadError(
            f"{repository} is gated: accept its terms on {hub}/{repository} and log in with "
            "`hf auth login` (or set HF_TOKEN)"
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelNotFoundError(f"{repository} has no revision {revision!r} on {hub}") from None
    except errors.RepositoryNotFoundError:
        raise ModelNotFoundError(
            f"there is no folder {repository} here and no model of this name on {hub} "
            "(or it is private: log in with `hf auth login`)"
        ) from None
    except errors.LocalEntryNotFoundError:
        raise DownloadError(
            f"there is no folder {repository} here, {where} is not in the cache, and the hub {hub} is not reached: "
            f"{problem}"
        ) from None


def _weight_files(files: list[str], where: str) -> list[str]:
    """Patterns of the one form of the weights that export would open, so that no other is downloaded."""
    # Old models of sentence-transformers have the network in a folder of its own.
    folders = sorted({f"{name.split('/')[0]}/" for name in files if re.match(r"0_[^/]+/", name)})
    for folder in ("", *folders):
        for form in FORMS:
            if folder + form not in files:
                continue
            if not form.endswith(".json"):
                return [folder + form]
            stem, kind = form.removesuffix(".index.json").rsplit(".", 1)
            return [folder + form, f"{folder}{stem}-*-of-*.{kind}"]
    raise DownloadError(f"{where} has no weights: none of {', '.join(FORMS)}")


def _module_weights(files: list[str]) -> list[str]:
    """The one form of the weights of each module Dense, which has a folder of its own such as `2_Dense`."""
    folders = sorted({name.split("/")[0] for name in files if re.match(r"[1-9]_[^/]+/", name)})
    there = [[f"{folder}/{form}" for form in FORMS if f"{folder}/{form}" in files] for folder in folders]
    return [forms[0] for forms in there if forms]


def _is_transport(error: Exception) -> bool:
    """Whether the network or the server failed, and not the request; huggingface_hub changed HTTP libraries twice."""
    from huggingface_hub import utils as errors

    if isinstance(error, (errors.RepositoryNotFoundError, errors.RevisionNotFoundError)):
        return False
    library = type(error).__module__.split(".")[0]
    return isinstance(error, (OSError, errors.HfHubHTTPError)) or library.startswith(("httpx", "requests", "urllib3"))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
