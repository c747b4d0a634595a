"""The contract between export and runtime: a folder with a `manifest.json` that lists every file the runtime reads.

Export builds a `Manifest` and calls `Manifest.write`; the runtime calls `Manifest.read`, which asks
`manifest.schema.json` beside this file, and `verify_files` and `read_entry`, which check sizes and SHA-256 sums.

A folder may come from a stranger, who makes every digest fit. So nothing is read that is not listed, and nothing
outside the folder. Files are hashed and then opened by who uses them; whoever can write into the folder meanwhile could
change mapped weights later too, and is trusted.
"""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bgert.cache_folder import remake
from bgert.checked_file import open_regular, read_bytes
from bgert.errors import IntegrityError, ModelFolderError
from bgert.json_schema import SchemaError, check, decode
from bgert.paths import existing_folder
from bgert.text_roles import ROLES, TextRole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "CallParity",
    "Choice",
    "FileEntry",
    "GraphEntry",
    "Manifest",
    "Parity",
    "TokenOutput",
    "read_entry",
    "sha256_of",
    "verify_files",
]

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1
LARGEST_MANIFEST = 1 << 24  # bytes
_BLOCK = 1 << 20


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
    """`encode`, `encode_queries`, `encode_corpus` or `score`; or an output that is beside PyTorch's, `sparse` or
    `multi_vector`."""
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
    """`cpu`, `cuda` or `tensorrt`, or `portable`, which other programs run."""
    precision: str
    """`fp32`, `fp16`, `bf16`, `int8` or `fp8`."""
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
    """int8, fp8: the least mean cosine to PyTorch (rerankers: correlation of scores) that its exporter accepted."""
    token_outputs: list[str] = field(default_factory=list)
    """Names of the manifest's `token_outputs` that the graph has, behind `output` and in this order."""

    @property
    def padded(self) -> bool:
        """Whether its inputs are rows and columns [B, S] instead of packed rows [T]."""
        return "attention_mask" in self.inputs


@dataclass(frozen=True)
class TokenOutput:
    """What graphs give for every token of a text, beside one row a text."""

    name: str
    """`sparse` (a weight a token) or `multi_vector` (a vector a token)."""
    output: str
    """The graphs' output, float32[tokens, columns]."""
    columns: int
    size: int | None = None
    """`sparse`: numbers of a vector of all ids, of which most are 0."""
    skip_first: int = 0
    """Tokens at the start of a text that are left out."""
    skip_ids: list[int] = field(default_factory=list)
    """Ids that are left out wherever they are."""


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
    """Longest input in tokens, special tokens counted, unless the caller asks for more: `positions` is the end."""
    graphs: list[GraphEntry]
    pooling: str | None = None
    """`cls`, `mean` or another name of sentence-transformers, several joined by `+`; `splade` and its kin, whose
    vectors are as long as the vocabulary; `multi_vector` for ColBERT's, which have none; None for rerankers."""
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
    token_outputs: list[TokenOutput] = field(default_factory=list)
    """What graphs can give for every token beside their embeddings."""
    roles: dict[str, TextRole] = field(default_factory=dict)
    """`query` and `document` of models of the pooling `multi_vector`; empty for others."""
    schema_version: int = SCHEMA_VERSION

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into an existing folder.

        Raises:
            ModelFolderError: a name, prompt or reason in it has a lone surrogate.
        """
        text = json.dumps(asdict(self), ensure_ascii=False, indent=2)
        try:
            content = f"{text}\n".encode()
        except UnicodeEncodeError as error:
            near = ascii(text[max(error.start - 40, 0) : error.end])
            raise ModelFolderError(f"the manifest would hold a lone surrogate, near {near}: no file can") from None
        (folder / MANIFEST_NAME).write_bytes(content)

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """Read and check `manifest.json`.

        Raises:
            InvalidOptionError: `folder` is no path.
            ModelNotFoundError: the folder does not exist.
            ModelFolderError: it is no model folder, one of another schema version, or its manifest is not what
                `manifest.schema.json` asks for.
        """
        folder = existing_folder(folder, "model folder")
        path = folder / MANIFEST_NAME
        if not _is_inside(path, folder):
            raise ModelFolderError(f"{path} is a link to a file outside the model folder: refused")
        try:
            raw = decode(read_bytes(path, ModelFolderError, limit=LARGEST_MANIFEST))
        except FileNotFoundError:
            if (folder / "config.json").exists() or (folder / "modules.json").exists():
                raise ModelFolderError(
                    f"{folder} is a checkpoint, no model folder: export it first with `bgert export {folder} -o DIR`"
                ) from None
            raise ModelFolderError(
                f"{folder} has no {MANIFEST_NAME}: it is no model folder, which `bgert export SOURCE -o DIR` writes"
            ) from None
        except ModelFolderError:
            raise
        except ValueError as error:
            raise ModelFolderError(f"{path} is not valid JSON ({error}): {remake(path)}") from None
        version = raw.get("schema_version") if isinstance(raw, dict) else SCHEMA_VERSION
        if version != SCHEMA_VERSION:
            newer = isinstance(version, int) and version > SCHEMA_VERSION
            what = "upgrade bgert" if newer else remake(path)
            raise ModelFolderError(
                f"{path} has schema version {reprlib.repr(version)}, this bgert reads {SCHEMA_VERSION}: {what}"
            )
        try:
            check(raw, _schema())
        except SchemaError as error:
            raise ModelFolderError(f"{path}: {error}: {remake(path)}, or upgrade bgert") from None
        manifest = _build(raw)
        if problem := manifest.contradiction():
            raise ModelFolderError(f"{path}: {problem}: {remake(path)}")
        return manifest

    def contradiction(self) -> str | None:
        """What does not fit together although each value is as the schema asks; None if all fits."""
        entries: dict[str, FileEntry] = {}
        for entry in self.files():
            if entries.setdefault(entry.name, entry) != entry:
                return f"the file {entry.name!r} has two sizes or digests"
        used, listed = self.tokenizer["files"], {entry.name for entry in self.tokenizer_files}
        if unchecked := [name for name in used if name not in listed]:
            return f"the tokenizer's file {reprlib.repr(unchecked[0])} has no size and digest in tokenizer_files"
        rows = self.architecture.get("max_position_embeddings", self.max_tokens)
        if (longest := rows - self.architecture.get("position_offset", 0)) < self.max_tokens:
            return f"max_tokens is {self.max_tokens}, and the model has positions for {longest}"
        named = [entry.name for entry in self.token_outputs]
        if len(set(named)) < len(named):
            return "two token_outputs have one name"
        if unknown := [name for graph in self.graphs for name in graph.token_outputs if name not in named]:
            return f"a graph has the output {reprlib.repr(unknown[0])}, which is none of token_outputs"
        needed = set(ROLES if self.pooling == "multi_vector" else ())
        if set(self.roles) != needed or (needed and "multi_vector" not in named):
            return "pooling, roles and token_outputs do not belong together"
        if self.default_prompt is not None and self.default_prompt not in self.prompts:
            return f"the default prompt {reprlib.repr(self.default_prompt)} is none of the prompts"
        return None

    def files(self) -> list[FileEntry]:
        """All files the manifest answers for."""
        return [*self.tokenizer_files, *(entry for graph in self.graphs for entry in graph.files)]

    @property
    def columns(self) -> int:
        """Numbers that the graphs give for an input: the dimensions of an embedding, or the logits of a pair."""
        return int((self.dimensions if self.kind == "encoder" else self.num_labels) or 0)

    @property
    def positions(self) -> int:
        """Longest input that the table of positions allows, special tokens counted; `max_tokens` if that is unsaid."""
        rows, offset = (self.architecture.get(name) for name in ("max_position_embeddings", "position_offset"))
        return self.max_tokens if rows is None or offset is None else int(rows - offset)

    def graph(self, target: str, precision: str | None = None) -> GraphEntry | None:
        """The first graph of a target, in the precision asked for if any; None if there is none."""
        for entry in self.graphs:
            if entry.target == target and precision in (None, entry.precision):
                return entry
        return None


def verify_files(folder: Path, entries: Iterable[FileEntry], *, most: int | None = None) -> None:
    """Check that files are those the manifest was written for, of at most `most` bytes each.

    Raises:
        IntegrityError: a file is missing or no regular file, lies outside the folder, or has another size or SHA-256.
        ModelFolderError: it is larger.
    """
    for entry in entries:
        _require_size(folder, entry, most)
        with _opened(folder, entry) as file:
            digest, left = hashlib.sha256(), entry.size
            while left and (block := file.read(min(left, _BLOCK))):
                digest.update(block)
                left -= len(block)
        _require_digest(folder, entry, digest.hexdigest())


def read_entry(folder: Path, entry: FileEntry, most: int) -> bytes:
    """The content of a file of at most `most` bytes, checked as `verify_files` does: what was hashed is what is used.

    Raises:
        IntegrityError: as `verify_files`.
        ModelFolderError: it is larger.
    """
    _require_size(folder, entry, most)
    with _opened(folder, entry) as file:
        content = file.read(entry.size)
    _require_digest(folder, entry, hashlib.sha256(content).hexdigest())
    return content


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a regular file, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with open_regular(path, ModelFolderError) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _opened(folder: Path, entry: FileEntry) -> Iterator[IO[bytes]]:
    """An entry's file, of the right size and inside the folder."""
    path = folder / entry.name
    try:
        if not _is_inside(path, folder):
            raise IntegrityError(
                f"{path} is a link to a file outside the model folder: refused; copy the folder with the files in it"
            )
        with open_regular(path, IntegrityError) as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry.size:
                raise IntegrityError(
                    f"{path} has {size} bytes, the manifest says {entry.size}: it is truncated or from "
                    f"another export; {remake(path, copied=True)}"
                )
            yield file
    except FileNotFoundError:
        raise IntegrityError(f"{path} is missing: {remake(path, copied=True)}") from None
    except OSError as error:
        raise IntegrityError(f"cannot read {path}: {error.strerror}") from error


def _require_size(folder: Path, entry: FileEntry, most: int | None) -> None:
    if most is not None and entry.size > most:
        raise ModelFolderError(f"{folder / entry.name} has {entry.size:,} bytes, and at most {most:,} are read")


def _require_digest(folder: Path, entry: FileEntry, digest: str) -> None:
    if digest != entry.sha256:
        path = folder / entry.name
        raise IntegrityError(
            f"{path} has SHA-256 {digest[:12]}..., the manifest says {entry.sha256[:12]}...: "
            f"it changed after export; {remake(path, copied=True)}"
        )


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether a file is in its folder once links are followed.

    The hub's cache is made of links: files of models--OWNER--NAME/snapshots/COMMIT lie in models--OWNER--NAME/blobs.
    """
    real, root = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    caches = [parent.parent for parent in root.parents if parent.name == "snapshots"]
    blobs = [cache / "blobs" for cache in caches if cache.name.startswith("models--")]
    return any(real.is_relative_to(room) for room in (root, *blobs))


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("manifest.schema.json").read_bytes())
    return schema


def _build(raw: dict[str, Any]) -> Manifest:
    """The manifest of a document that fits the schema."""
    graphs = []
    for graph in raw["graphs"]:
        nested = {"files": _entries(graph["files"]), "parity": _parity(graph["parity"])}
        graphs.append(GraphEntry(**graph | nested))
    choices = [Choice(**choice) for choice in raw["choices"]]
    outputs = [TokenOutput(**output) for output in raw.get("token_outputs", [])]
    built = {
        "tokenizer_files": _entries(raw["tokenizer_files"]),
        "graphs": graphs,
        "choices": choices,
        "token_outputs": outputs,
        "roles": {name: TextRole(**role) for name, role in raw.get("roles", {}).items()},
    }
    return Manifest(**raw | built)


def _parity(raw: dict[str, Any] | None) -> Parity | None:
    if raw is None:
        return None
    return Parity(**raw | {"calls": [CallParity(**call) for call in raw.get("calls", [])]})


def _entries(raw: list[dict[str, Any]]) -> list[FileEntry]:
    return [FileEntry(**entry) for entry in raw]
