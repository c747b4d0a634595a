"""The contract between export and runtime: a folder with a `manifest.json` that lists every other file.

Export builds a `Manifest` and calls `Manifest.write`; the runtime calls `Manifest.read`, which checks the schema,
and `verify_files`, which checks sizes and SHA-256 sums. `manifest.schema.json` beside this file is the same contract
as JSON Schema.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from bgert.errors import IntegrityError, ModelFolderError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MANIFEST_NAME", "SCHEMA_VERSION", "CallParity", "FileEntry", "GraphEntry", "Manifest", "Parity"]

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1
_REEXPORT = "export the checkpoint again with `bgert export SOURCE -o DIR`"


@dataclass(frozen=True)
class FileEntry:
    """One file of the folder."""

    name: str
    """Path relative to the folder, with forward slashes, inside the folder."""
    size: int
    """Bytes."""
    sha256: str
    """Lower-case hex digest."""

    @classmethod
    def of(cls, folder: Path, name: str) -> FileEntry:
        """Measure an existing file."""
        path = folder / name
        return cls(name=name, size=path.stat().st_size, sha256=sha256_of(path))


@dataclass(frozen=True)
class CallParity:
    """How far a call of the runtime is from the same call of another library on the checkpoint's folder."""

    call: str
    """`encode`, `encode_queries`, `encode_corpus` or `score`."""
    reference: str
    """Library, version and call."""
    count: int
    """How many texts or pairs; 0 if there was nothing to compare with."""
    max_abs_error: float | None
    """Of components of vectors at length one, or of raw logits; None if nothing was compared."""
    not_compared: str = ""
    """What the comparison leaves out, and why."""


@dataclass(frozen=True)
class Parity:
    """How far a graph's outputs are from the PyTorch checkpoint's."""

    reference: str
    """What it was compared with, with versions."""
    corpus: str
    """Which texts."""
    count: int
    """How many texts (for rerankers: pairs)."""
    max_abs_error: float
    min_cosine: float | None = None
    """Encoders only."""
    mean_cosine: float | None = None
    """Encoders only."""
    rank_agreement: float | None = None
    """Rerankers only: share of queries whose documents come in the same order."""
    engine: str = ""
    """Engine and version that ran the graph."""
    calls: list[CallParity] = field(default_factory=list)
    """The runtime's calls beside sentence-transformers', with prompts and limits; of one graph of a folder."""


@dataclass(frozen=True)
class GraphEntry:
    """One ONNX graph."""

    target: str
    """`cpu`, `cuda` or `tensorrt`."""
    precision: str
    """`fp32`, `fp16`, `bf16` or `int8`."""
    files: list[FileEntry]
    """The graph itself first, then its external data."""
    inputs: list[str]
    output: str
    opset: dict[str, int]
    ir_version: int
    minimum_engine: str
    """Oldest engine that reads the graph, for example `onnxruntime 1.20`."""
    parity: Parity | None
    """None when the export was told not to verify."""
    floor: float | None = None
    """int8: the least mean cosine to PyTorch (rerankers: correlation of scores) that the exporter of it accepted."""


@dataclass(frozen=True)
class Choice:
    """Something export decided, and why."""

    field: str
    value: Any
    why: str


@dataclass(frozen=True)
class Manifest:
    """Everything the runtime needs to know about a model."""

    kind: str
    """`encoder` or `reranker`."""
    generator: str
    """What wrote the folder, with its version."""
    source: dict[str, Any]
    """`id` or `path`, `revision`, and `weights_sha256` (file name to digest)."""
    architecture: dict[str, Any]
    """Hyperparameters: `model_type`, `num_hidden_layers`, `hidden_size`, ..."""
    tokenizer: dict[str, Any]
    """`kind`, `settings`, `files` (list of file names), see `bgert.tokenizer.spec`."""
    tokenizer_files: list[FileEntry]
    max_tokens: int
    """Longest input in tokens, special tokens counted."""
    graphs: list[GraphEntry]
    pooling: str | None = None
    """`cls` or `mean`; None for rerankers."""
    normalize: bool = False
    """Whether the graph L2-normalises its output."""
    dimensions: int | None = None
    """Length of an embedding; None for rerankers."""
    num_labels: int | None = None
    """Logits a pair; None for encoders."""
    prompts: dict[str, str] = field(default_factory=dict)
    """Prompt name to the text put before an input (for rerankers: before the query), empty texts included. `query` and
    `document` are what `encode_queries` and `encode_corpus` use."""
    default_prompt: str | None = None
    """Name of the prompt that plain `encode` uses, and `score`."""
    choices: list[Choice] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into an existing folder."""
        text = json.dumps(asdict(self), ensure_ascii=False, indent=2)
        (folder / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """Read and check `manifest.json`.

        Raises:
            ModelNotFoundError: the folder does not exist.
            ModelFolderError: it is no model folder, or one of another schema version.
        """
        folder = Path(folder)
        path = folder / MANIFEST_NAME
        if not folder.exists():
            raise ModelNotFoundError(f"no such model folder: {folder}")
        if not folder.is_dir():
            raise ModelFolderError(f"{folder} is a file; a model is a folder written by `bgert export`")
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            hint = "a checkpoint: " if (folder / "config.json").exists() else ""
            raise ModelFolderError(f"{folder} has no {MANIFEST_NAME} ({hint}{_REEXPORT})") from None
        except OSError as error:
            raise ModelFolderError(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise ModelFolderError(f"{path} is not valid JSON ({error}): {_REEXPORT}") from None
        if not isinstance(raw, dict):
            raise ModelFolderError(f"{path} does not hold an object: {_REEXPORT}")
        version = raw.get("schema_version")
        if version != SCHEMA_VERSION:
            newer = isinstance(version, int) and version > SCHEMA_VERSION
            what = "upgrade bgert" if newer else _REEXPORT
            raise ModelFolderError(f"{path} has schema version {version!r}, this bgert reads {SCHEMA_VERSION}: {what}")
        manifest: Manifest = _build(cls, raw, str(path))
        for entry in manifest.files():
            _check_name(entry.name, path)
        for name in manifest.tokenizer.get("files", []):
            _check_name(name, path)
        if manifest.kind not in ("encoder", "reranker"):
            raise ModelFolderError(f"{path}: kind {manifest.kind!r} is neither encoder nor reranker")
        return manifest

    def files(self) -> list[FileEntry]:
        """All files the manifest answers for."""
        return [*self.tokenizer_files, *(entry for graph in self.graphs for entry in graph.files)]

    def graph(self, target: str, precision: str | None = None) -> GraphEntry | None:
        """The first graph of a target, in the precision asked for if any; None if there is none."""
        for entry in self.graphs:
            if entry.target == target and precision in (None, entry.precision):
                return entry
        return None


def verify_files(folder: Path, entries: Iterable[FileEntry]) -> None:
    """Check that files are those the manifest was written for.

    Raises:
        IntegrityError: a file is missing, has another size or another SHA-256.
    """
    for entry in entries:
        path = folder / entry.name
        try:
            size = path.stat().st_size
            if size != entry.size:
                raise IntegrityError(
                    f"{path} has {size} bytes, the manifest says {entry.size}: it is truncated or from "
                    f"another export; copy the folder again or {_REEXPORT}"
                )
            digest = sha256_of(path)
        except FileNotFoundError:
            raise IntegrityError(f"{path} is missing: copy the folder again or {_REEXPORT}") from None
        except OSError as error:
            raise IntegrityError(f"cannot read {path}: {error.strerror}") from error
        if digest != entry.sha256:
            raise IntegrityError(
                f"{path} has SHA-256 {digest[:12]}..., the manifest says {entry.sha256[:12]}...: "
                f"it changed after export; copy the folder again or {_REEXPORT}"
            )


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_name(name: Any, manifest: Path) -> None:
    """Refuse names that lead out of the folder."""
    pure = PurePosixPath(name) if isinstance(name, str) else PurePosixPath()
    unsafe = not pure.parts or pure.is_absolute() or ".." in pure.parts
    if unsafe or "\\" in name or ":" in name or "\0" in name:
        raise ModelFolderError(f"{manifest} names the file {name!r}, which is not inside the folder: refused")


_NESTED: dict[tuple[str, str], type] = {
    ("Manifest", "graphs"): GraphEntry,
    ("Manifest", "tokenizer_files"): FileEntry,
    ("Manifest", "choices"): Choice,
    ("GraphEntry", "files"): FileEntry,
    ("GraphEntry", "parity"): Parity,
    ("Parity", "calls"): CallParity,
}
_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "dict": (dict,),
    "list": (list,),
    "None": (type(None),),
}


def _build(cls: type, raw: Any, where: str) -> Any:
    """Turn decoded JSON into a dataclass, refusing unknown, missing and mistyped fields."""
    if not isinstance(raw, dict):
        raise ModelFolderError(f"{where}: expected an object: {_REEXPORT}")
    known = {f.name: f for f in fields(cls)}
    if unknown := sorted(raw.keys() - known.keys()):
        raise ModelFolderError(f"{where}: unknown field {unknown[0]!r}: {_REEXPORT}, or upgrade bgert")
    values: dict[str, Any] = {}
    try:
        cls(**dict.fromkeys(raw))
    except TypeError as error:
        raise ModelFolderError(f"{where}: {error}: {_REEXPORT}") from None
    for name, value in raw.items():
        kinds = [part.strip().split("[")[0] for part in str(known[name].type).split("|")]
        nested = _NESTED.get((cls.__name__, name))
        place = f"{where}: {name}"
        if nested is not None and value is not None:
            if kinds[0] == "list":
                if not isinstance(value, list):
                    raise ModelFolderError(f"{place} is not a list: {_REEXPORT}")
                values[name] = [_build(nested, item, f"{place}[{i}]") for i, item in enumerate(value)]
            else:
                values[name] = _build(nested, value, place)
            continue
        if "Any" not in kinds and nested is None:
            allowed = tuple(kind for key in kinds for kind in _JSON_TYPES[key])
            if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
                raise ModelFolderError(f"{place} is {value!r}, not {known[name].type}: {_REEXPORT}")
        values[name] = value
    return cls(**values)
