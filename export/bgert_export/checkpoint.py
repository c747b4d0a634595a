"""A Hugging Face checkpoint, local or from the hub: config, tokenizer config, weights, and what it is called."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from bgert import checked_file
from bgert.errors import ModelNotFoundError
from bgert.model_folder import MANIFEST_NAME, sha256_of
from bgert.paths import user_path
from bgert_export.architecture import Architecture, map_weights
from bgert_export.errors import CheckpointError
from bgert_export.known_models import published_id
from bgert_export.network import Network
from bgert_export.sentence_transformers_files import MODULES, StatedKind, read_json, stated_kind
from bgert_export.source import ADAPTER, Source, adapter_error
from bgert_export.weights import open_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from bgert_export.weights import Weights

__all__ = ["Checkpoint", "CheckpointFolder", "Hyperparameters", "locate", "open_folder"]

_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?", re.ASCII)


def locate(source: str | Path, *, revision: str | None = None, progress: Callable[[str], None] | None = None) -> Source:
    """Find a local folder, or download a hub id. A local folder always wins.

    Args:
        source: path or hub id, for example `BAAI/bge-small-en-v1.5`.
        revision: branch, tag or commit of a hub id.
        progress: called with a line of text when a download starts.

    Raises:
        InvalidOptionError: it is neither path nor id.
        ModelNotFoundError: a path that does not exist, or no such model on the hub.
        CheckpointError: a file where a folder is needed, or a bgert model folder.
        DownloadError: the hub cannot be reached or refuses.
    """
    if source == "":  # a slip, not the working folder
        raise ModelNotFoundError("no such checkpoint folder: ''")
    path = user_path(source, "the checkpoint")
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:  # a name that is too long, say
        raise ModelNotFoundError(f"no such checkpoint folder: {str(path)[:100]!r}: {error.strerror}") from None
    if is_folder:
        if (path / MANIFEST_NAME).is_file() and not ((path / "config.json").is_file() and _has_weights(path)):
            raise CheckpointError(f"{path} is a model folder that bgert wrote: export the checkpoint it came from")
        return Source(path)
    if is_file:
        raise CheckpointError(f"{path} is a file: pass the checkpoint's folder")
    text = str(source)
    if isinstance(source, Path) or not _HUB_ID.fullmatch(text) or text.startswith("~"):
        raise ModelNotFoundError(f"no such checkpoint folder: {text!r}")
    if (published := published_id(text)) is not None:
        raise ModelNotFoundError(f"no such checkpoint folder: {text!r}: did you mean the hub id {published}?")
    from bgert_export.hub import download

    return download(text, revision=revision, progress=progress)


def _has_weights(folder: Path) -> bool:
    """Whether a folder may be a checkpoint: a model folder with a portable graph has a config.json too."""
    return any(path.suffix in (".safetensors", ".bin") for path in folder.iterdir())


def transformer_folder(folder: Path) -> Path:
    """Where `modules.json` says that the network is: in most checkpoints beside it, in old ones in `0_Transformer`.

    Raises:
        CheckpointError: `modules.json` is damaged or names a folder outside of the checkpoint.
    """
    try:
        modules = checked_file.read_json(folder / MODULES, CheckpointError)
    except FileNotFoundError:
        return folder
    first = modules[0] if isinstance(modules, list) and modules else None
    path = first.get("path") if isinstance(first, dict) and str(first.get("type")).endswith(".Transformer") else None
    if not isinstance(path, str):  # what is wrong with it is said where the modules are read
        return folder
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\0" in path:
        raise CheckpointError(f"{MODULES} names the folder {path!r}, which is not inside the checkpoint: refused")
    if not (folder / path).is_dir():
        raise CheckpointError(f"{folder} has no folder {path}, where {MODULES} says that the Transformer is")
    return folder / path


def open_folder(source: Source) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The folder of the network, its config.json and its tokenizer_config.json.

    Raises:
        CheckpointError: a file is missing or damaged, or it is an adapter.
    """
    if (source.folder / ADAPTER).exists():
        raise adapter_error(source.folder)
    folder = transformer_folder(source.folder)
    if (folder / ADAPTER).exists():
        raise adapter_error(folder)
    return folder, read_json(folder, "config.json", required=True), read_json(folder, "tokenizer_config.json")


def _besides(config: dict[str, Any], overruled: StatedKind | None) -> tuple[str, ...]:
    """How names of weights begin that are not the encoder's: a classifier's, or those of colbert-ai's layer."""
    if config.get("architectures") == ["HF_ColBERT"]:
        return ("linear.",)
    return ("classifier.",) if overruled else ()


class Hyperparameters(Protocol):
    """What settings, tokenizer and verification need to know of a network, whoever writes its graph."""

    @property
    def model_type(self) -> str: ...  # noqa: D102 - the fields are those of `architecture.Architecture`
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def vocab_size(self) -> int: ...  # noqa: D102
    @property
    def hidden_size(self) -> int: ...  # noqa: D102
    @property
    def num_hidden_layers(self) -> int: ...  # noqa: D102
    @property
    def num_attention_heads(self) -> int: ...  # noqa: D102
    @property
    def intermediate_size(self) -> int: ...  # noqa: D102
    @property
    def type_vocab_size(self) -> int: ...  # noqa: D102
    @property
    def num_labels(self) -> int | None: ...  # noqa: D102
    @property
    def max_tokens(self) -> int: ...  # noqa: D102
    @property
    def reads_token_types(self) -> bool: ...  # noqa: D102
    def as_dict(self) -> dict[str, Any]: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class CheckpointFolder(ABC):
    """What goes for a checkpoint of any network."""

    source: Source
    transformer_folder: Path
    """Where config.json, the tokenizer and the weights are: `folder`, or in an old layout a folder in it."""
    config: dict[str, Any]
    tokenizer_config: dict[str, Any]
    overruled: StatedKind | None = None
    """Where the sentence-transformers files say another kind than config.json's architectures: theirs counts."""

    @property
    def folder(self) -> Path:
        """The local folder."""
        return self.source.folder

    @property
    @abstractmethod
    def architecture(self) -> Hyperparameters:
        """Hyperparameters."""

    @property
    @abstractmethod
    def weights(self) -> Weights:
        """The weights, read when they are needed."""

    def names(self) -> list[tuple[str, str]]:
        """Names under which the model may be known, the most telling first, each with where it is from."""
        names = [(self.source.hub_id, "the hub id")] if self.source.hub_id else []
        folder = self.folder.resolve()
        names.append((folder.name, "the folder's name"))
        # The hub's cache keeps a model in models--ORGANISATION--NAME/snapshots/COMMIT.
        names += [
            (parent.name.split("--")[-1], "the hub's cache")
            for parent in folder.parents
            if parent.name.startswith("models--")
        ]
        base = self.config.get("_name_or_path")
        if isinstance(base, str) and base:
            names.append((base, "_name_or_path of config.json"))
        return names

    def source_record(self) -> dict[str, Any]:
        """What the manifest says of the source; reads the weights once for their digests."""
        record: dict[str, Any] = (
            {"id": self.source.hub_id} if self.source.hub_id else {"path": str(self.folder.resolve())}
        )
        record["revision"] = self.source.revision
        record["weights_sha256"] = {path.name: sha256_of(path) for path in self.weights.files}
        return record


@dataclass(frozen=True, kw_only=True)
class Checkpoint(CheckpointFolder):
    """A checkpoint of a network that bgert writes itself, opened and checked."""

    network: Network

    @property
    def architecture(self) -> Architecture:
        """Hyperparameters."""
        return self.network.architecture

    @property
    def weights(self) -> Weights:
        """The weights, read when they are needed."""
        return self.network.weights

    @classmethod
    def open(cls, source: Source, *, ignore_unknown_weights: bool = False) -> Checkpoint:
        """Read and check everything but the weights' values.

        Args:
            source: where it is.
            ignore_unknown_weights: leave out weights that the network has no place for, see `map_weights`.

        Raises:
            CheckpointError: a file is missing or damaged, or weights and config.json disagree.
            UnsupportedCheckpointError: an architecture or setting that bgert does not export.
        """
        folder, config, tokenizer_config = open_folder(source)
        stated = stated_kind(source.folder)
        architecture = Architecture.from_config(config)
        overruled = stated if stated is not None and stated.kind != architecture.kind else None
        if overruled is not None:
            architecture = architecture.as_kind(overruled.kind)
        weights = open_weights(folder)
        try:
            weight_map = map_weights(
                architecture,
                weights.shapes,
                tolerated=_besides(config, overruled),
                ignore_unknown=ignore_unknown_weights,
            )
        except CheckpointError as error:
            if overruled is None:
                raise
            message = f"{error} (it is taken for the {overruled.kind} that {overruled.why})"
            raise CheckpointError(message) from None
        network = Network(architecture, weights, weight_map)
        return cls(
            source=source,
            transformer_folder=folder,
            config=config,
            tokenizer_config=tokenizer_config,
            overruled=overruled,
            network=network,
        )
