"""What a checkpoint's sentence-transformers files say: encoder or reranker, pooling, prompts, length.

Reads `modules.json`, the folders it names, `sentence_*_config.json` and `config_sentence_transformers.json` as
sentence-transformers 2 to 6 write them and as version 6 reads them: without `modules.json` it reads none of the
others. Anything there that bgert would not reproduce is an error, not ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from bgert import checked_file
from bgert_export.errors import CheckpointError, UnsupportedCheckpointError
from bgert_export.pooling import joined, modes_of
from bgert_export.projections import Projection, read_projection

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "METADATA",
    "MODULES",
    "PROMPTS",
    "SentenceTransformersFiles",
    "StatedKind",
    "dense_folders",
    "no_prompt_outside_pooling",
    "read_json",
    "read_modules",
    "read_prompts",
    "read_transformer",
    "stated_kind",
]

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
METADATA = "artifact.metadata"
"""Of colbert-ai, which has none of the others."""
_TRANSFORMER_CONFIGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Old name of a pooling mode to new; several at once are concatenated, and none at all means mean.
_OLD_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_HARMLESS = {"max_seq_length", "do_lower_case", "unpad_inputs"}
_OF_MULTI_VECTOR = {"query_length", "document_length", "query_expansion"}
_REQUIRED_VALUES: dict[str, dict[str, Any]] = {
    "encoder": {
        "transformer_task": "feature-extraction",
        "module_output_name": "token_embeddings",
        "modality_config": "last_hidden_state",
    },
    "multi_vector": {
        "transformer_task": "feature-extraction",
        "module_output_name": "token_embeddings",
        "modality_config": "last_hidden_state",
    },
    "sparse": {
        "transformer_task": "fill-mask",
        "module_output_name": "token_embeddings",
        "modality_config": "logits",
    },
    "reranker": {
        "transformer_task": "sequence-classification",
        "module_output_name": "scores",
        "modality_config": "logits",
    },
}
_MODULES = ("Transformer", "MLMTransformer", "Pooling", "SpladePooling", "Dense", "Normalize", "MultiVectorMask")
_ORDERS = (
    "Transformer(,Pooling(,Dense)*(,Normalize)?)?",
    "(MLM)?Transformer,SpladePooling",
    "Transformer(,Dense)+(,MultiVectorMask)?(,Normalize)?",
    "Transformer(,Dense)+,Normalize,MultiVectorMask",
)
_SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
_CLASSES = {
    "SentenceTransformer": "encoder",
    "SparseEncoder": "encoder",
    "MultiVectorEncoder": "encoder",
    "ColBERT": "encoder",
    "CrossEncoder": "reranker",
}
_SPLADES = {("max", "relu"): "splade", ("sum", "relu"): "splade_sum", ("max", "log1p_relu"): "splade_log1p"}
ALWAYS_THERE = ("query", "document")
"""Prompts that every encoder of sentence-transformers 6 has, empty if the file does not say."""


@dataclass(frozen=True)
class StatedKind:
    """What the files say a checkpoint is, whatever config.json says."""

    kind: str
    """`encoder` or `reranker`."""
    why: str


@dataclass(frozen=True)
class SentenceTransformersFiles:
    """The settings of a checkpoint that has a `modules.json`."""

    pooling: str | None
    """As `bgert_export.pooling`; None for rerankers, and where the folder of Pooling is missing."""
    pooling_file: str
    """Where that is said, for messages."""
    normalize: bool
    max_seq_length: int | None
    """Replaces the tokenizer's own limit in sentence-transformers; None if not said."""
    length_file: str | None
    prompts: dict[str, str] = field(default_factory=dict)
    """By the names of the file, empty ones included."""
    default_prompt: str | None = None
    include_prompt: bool = True
    """Whether pooling counts the tokens of a prompt."""
    activation: str | None = None
    """Rerankers: the class that `CrossEncoder.predict` puts over the logits."""
    similarity: str | None = None
    """Encoders: what `SentenceTransformer.similarity` computes; None if not said."""
    projections: tuple[Projection, ...] = ()
    """Dense layers behind pooling."""

    @classmethod
    def read(
        cls,
        folder: Path,
        *,
        kind: str = "encoder",
        hidden_size: int,
        lowercase: bool | None,
        pooling_asked: bool = False,
    ) -> SentenceTransformersFiles | None:
        """Read the files of a checkpoint folder; None where sentence-transformers would not read them.

        Args:
            folder: the checkpoint.
            kind: `encoder` or `reranker`, from `stated_kind` where it says so.
            hidden_size: width of the model, which pooling must agree with.
            lowercase: `do_lower_case` of `tokenizer_config.json`; sentence-transformers can ask for it a second time.
            pooling_asked: the caller says the pooling, so that its folder may be missing.

        Raises:
            UnsupportedCheckpointError: a module or setting that bgert does not have; the message names it.
            CheckpointError: a file is damaged or contradicts the model.
        """
        if not (folder / MODULES).is_file():
            return None
        modules, stated = read_modules(folder), stated_kind(folder)
        if kind == "reranker" and stated is None:
            return None  # CrossEncoder takes the network of such a folder and none of its settings
        if kind == "encoder" and len(modules) < 2:
            raise _unsupported(["Transformer"])
        sparse = modules[-1][0] == "SpladePooling"
        length, length_file = read_transformer(folder, modules[0][1], lowercase, "sparse" if sparse else kind)
        config = read_json(folder, PROMPTS)
        prompts, default = read_prompts(config, ALWAYS_THERE if kind == "encoder" else ())
        if kind == "reranker":
            return cls(None, "", False, length, length_file, prompts, default, activation=_activation(config))
        if config.get("truncate_dim") is not None:
            raise UnsupportedCheckpointError(
                f"{PROMPTS}: truncate_dim {config['truncate_dim']!r} is not supported: remove it and pass "
                "dimensions= to encode instead"
            )
        pooling_file = str(PurePosixPath(modules[1][1]) / "config.json")
        pooling, include_prompt = None, True
        if sparse:
            pooling = _splade(folder, pooling_file)
        elif (folder / pooling_file).exists():
            pooling, include_prompt = _pooling(folder, pooling_file, hidden_size)
        elif not pooling_asked:
            raise CheckpointError(
                f"{folder} has no {pooling_file}, which {MODULES} names: download it too, or pass --pooling"
            )
        if any(prompts.values()) and not include_prompt:
            raise no_prompt_outside_pooling(pooling_file)
        return cls(
            pooling=pooling,
            pooling_file=pooling_file,
            normalize=modules[-1][0] == "Normalize",
            max_seq_length=length,
            length_file=length_file,
            prompts=prompts,
            default_prompt=default,
            include_prompt=include_prompt,
            similarity=name if (name := config.get("similarity_fn_name")) in _SIMILARITIES else None,
            projections=()
            if sparse
            else _projections(folder, modules, hidden_size * len(modes_of(pooling or "cls")), pooling is None),
        )


def stated_kind(folder: Path) -> StatedKind | None:
    """Whether the files say encoder or reranker; None where they leave it to config.json.

    sentence-transformers goes by `model_type` and `modules.json`, and takes the encoder out of a checkpoint whose
    architecture is a classifier when they say so. A lone Transformer without a `model_type` says neither.

    Raises:
        UnsupportedCheckpointError: another class of sentence-transformers, or modules that bgert does not have.
        CheckpointError: a file is damaged, or the two contradict each other.
    """
    if not (folder / MODULES).is_file():
        return None
    model_type = read_json(folder, PROMPTS).get("model_type")
    if model_type is not None and model_type not in _CLASSES:
        raise UnsupportedCheckpointError(
            f"{PROMPTS}: model_type {model_type!r} is not supported: bgert exports {' and '.join(_CLASSES)}"
        )
    names = [name for name, _ in read_modules(folder)]
    if model_type == "CrossEncoder":
        if len(names) > 1:
            raise CheckpointError(
                f"{PROMPTS} says CrossEncoder, but {MODULES} has {', '.join(names)}: they do not belong together"
            )
        return StatedKind("reranker", f"{PROMPTS} says CrossEncoder")
    if len(names) > 1:
        return StatedKind("encoder", f"{MODULES} has {' and '.join(names)}")
    return None


def dense_folders(folder: Path) -> list[Path]:
    """The folders of the modules Dense, in order; without `modules.json` the folder of a HF_ColBERT, or none."""
    if not (folder / MODULES).is_file():
        colbert = read_json(folder, "config.json").get("architectures") == ["HF_ColBERT"]
        return [folder] if colbert else []
    return [folder / path for name, path in read_modules(folder) if name == "Dense"]


def read_json(folder: Path, name: str, *, required: bool = False) -> dict[str, Any]:
    """Decode a JSON object of a checkpoint; {} if there is no such file.

    Raises:
        CheckpointError: the file is damaged, not an object, or missing though required.
    """
    try:
        value = checked_file.read_json(folder / name, CheckpointError)
    except FileNotFoundError:
        if required:
            raise CheckpointError(f"{folder} has no {name}: it is not a Hugging Face checkpoint") from None
        return {}
    if not isinstance(value, dict):
        raise CheckpointError(f"{folder / name} does not hold an object: download it again")
    return value


def read_modules(folder: Path) -> list[tuple[str, str]]:
    """Type and folder of Transformer alone, or of Transformer, Pooling, any Dense and perhaps Normalize, in order.

    Without Pooling they are those of a multi-vector model.
    """
    damaged = CheckpointError(f"{folder / MODULES} is not a list of modules: download it again")
    try:
        entries = checked_file.read_json(folder / MODULES, CheckpointError)
        found = [(str(entry["type"]), str(entry.get("path", ""))) for entry in entries]
    except (KeyError, TypeError, AttributeError):
        raise damaged from None
    ours = ("sentence_transformers.", "pylate.models.")
    names = [kind.rsplit(".", 1)[-1] if kind.startswith(ours) else kind for kind, _ in found]
    for name in names:
        if name not in _MODULES:
            raise UnsupportedCheckpointError(
                f"{MODULES}: the module {name} is not supported: bgert exports Transformer, Pooling, Dense, Normalize, "
                "SpladePooling and MultiVectorMask"
            )
    if not any(re.fullmatch(order, ",".join(names)) for order in _ORDERS):
        raise _unsupported(names)
    for _, path in found:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise CheckpointError(f"{MODULES} names the folder {path!r}, which is not inside the checkpoint: refused")
    return [(name, path) for name, (_, path) in zip(names, found, strict=True)]


def _unsupported(names: list[str]) -> UnsupportedCheckpointError:
    return UnsupportedCheckpointError(
        f"{MODULES}: the modules {', '.join(names)} are not supported in this order: bgert exports Transformer, "
        "Pooling and, after them, Dense and Normalize"
    )


def read_transformer(folder: Path, path: str, lowercase: bool | None, kind: str) -> tuple[int | None, str | None]:
    """The limit that the module Transformer sets, and the file that says so; `kind` is a key of `_REQUIRED_VALUES`."""
    for name in _TRANSFORMER_CONFIGS:
        config = read_json(folder / path, name)
        if config:
            break
    else:
        return None, None
    required = _REQUIRED_VALUES[kind]
    for key, value in config.items():
        if key == "modality_config":
            value = _output_of_text(value, required[key])
        harmless = _HARMLESS | (_OF_MULTI_VECTOR if kind == "multi_vector" else set()) | required.keys()
        if (key in required and value != required[key]) or (value and key not in harmless):
            raise UnsupportedCheckpointError(f"{name}: {key} {value!r} is not supported")
    if config.get("do_lower_case") and lowercase is not True:
        raise UnsupportedCheckpointError(
            f"{name}: do_lower_case true is not supported unless tokenizer_config.json says so too"
        )
    length = config.get("max_seq_length")
    if length is None:
        return None, None
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise CheckpointError(f"{name}: max_seq_length is {length!r}, not a whole number from 1")
    return length, name


def _output_of_text(config: Any, required: Any) -> Any:
    """Which output of the network a `modality_config` for text alone takes, else the config itself."""
    if not isinstance(config, dict) or list(config) != ["text"] or not isinstance(config["text"], dict):
        return config
    text = {"method": "forward"} | config["text"]
    return text.get("method_output_name", required) if text["method"] == "forward" else config


def no_prompt_outside_pooling(pooling_file: str) -> UnsupportedCheckpointError:
    """The refusal of prompts that pooling would have to leave out."""
    return UnsupportedCheckpointError(
        f"{pooling_file}: include_prompt false with prompts is not supported: bgert pools over all tokens"
    )


def _pooling(folder: Path, name: str, hidden_size: int) -> tuple[str, bool]:
    config = read_json(folder, name)
    mode = config.get("pooling_mode")
    if mode is None:
        mode = [new for old, new in _OLD_POOLING.items() if config.get(old)] or ["mean"]
    modes = [mode] if isinstance(mode, str) else mode
    try:
        pooling = joined(modes)
    except (ValueError, TypeError):
        raise UnsupportedCheckpointError(f"{name}: the pooling {modes!r} is not supported") from None
    width = config.get("embedding_dimension", config.get("word_embedding_dimension", hidden_size))
    if width != hidden_size:
        raise CheckpointError(f"{name}: embedding dimension {width!r}, but config.json has hidden_size {hidden_size}")
    return pooling, bool(config.get("include_prompt", True))


def _splade(folder: Path, name: str) -> str:
    config = read_json(folder, name, required=True)
    how = (config.get("pooling_strategy", "max"), config.get("activation_function", "relu"))
    if how not in _SPLADES:
        raise UnsupportedCheckpointError(f"{name}: {how[0]!r} of {how[1]!r} is not supported: bgert has {[*_SPLADES]}")
    return _SPLADES[how]


def _projections(
    folder: Path, modules: list[tuple[str, str]], width: int, pooling_unknown: bool
) -> tuple[Projection, ...]:
    """The modules Dense, the first of which takes `width` numbers; where no pooling says so, what it says itself."""
    found: list[Projection] = []
    for name, path in modules[2:]:
        where = str(PurePosixPath(path) / "config.json")
        if name == "Normalize":
            for key, value in read_json(folder, where).items():
                if key in ("module_input_name", "module_output_name") and value not in (None, "sentence_embedding"):
                    raise UnsupportedCheckpointError(f"{where}: {key} {value!r} is not supported")
            continue
        config = read_json(folder, where, required=True)
        if pooling_unknown and not found and isinstance(config.get("in_features"), int):
            width = config["in_features"]
        found.append(read_projection(folder / path, path, config, width, "sentence_embedding"))
        width = found[-1].columns
    return tuple(found)


def read_prompts(config: dict[str, Any], always: tuple[str, ...] = ALWAYS_THERE) -> tuple[dict[str, str], str | None]:
    """The prompts of the file, null as empty, and the name of the default one."""
    raw: dict[str, str | None] = config.get("prompts") or {}
    if not isinstance(raw, dict) or not all(isinstance(text, str | None) for text in raw.values()):
        raise CheckpointError(f"{PROMPTS}: prompts is not an object of texts")
    prompts = {name: text or "" for name, text in raw.items()}
    default = config.get("default_prompt_name")
    if default is not None and (not isinstance(default, str) or default not in {*prompts, *always}):
        raise CheckpointError(f"{PROMPTS}: default_prompt_name {default!r} is none of the prompts")
    return prompts, default


def _activation(config: dict[str, Any]) -> str | None:
    """sentence-transformers takes classes of torch alone, and its default for others."""
    name = config.get("activation_fn")
    return name if isinstance(name, str) and name.startswith("torch.") else None
