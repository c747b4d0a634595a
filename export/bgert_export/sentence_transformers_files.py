"""What a checkpoint's sentence-transformers files say of pooling, normalisation, prompts and length.

Reads `modules.json`, the folders it names, `sentence_*_config.json` and `config_sentence_transformers.json` as
sentence-transformers 2 to 6 write them. Anything there that bgert would not reproduce is an error, not ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from bgert_export.errors import CheckpointError, UnsupportedCheckpointError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SentenceTransformersFiles", "read_json"]

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
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
_POOLINGS = ("cls", "mean")
_HARMLESS = {"max_seq_length", "do_lower_case", "modality_config", "unpad_inputs"}
_REQUIRED_VALUES = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
_PROMPT_NAMES = {"passage": "document", "corpus": "document"}


@dataclass(frozen=True)
class SentenceTransformersFiles:
    """The settings of a checkpoint that has a `modules.json`."""

    pooling: str
    """`cls` or `mean`."""
    pooling_file: str
    """Where that is said, for messages."""
    normalize: bool
    max_seq_length: int | None
    """Replaces the tokenizer's own limit in sentence-transformers; None if not said."""
    length_file: str | None
    prompts: dict[str, str] = field(default_factory=dict)
    """Non-empty prompts; `passage` and `corpus` are called `document`."""
    default_prompt: str | None = None

    @classmethod
    def read(cls, folder: Path, *, hidden_size: int, lowercase: bool | None) -> SentenceTransformersFiles | None:
        """Read the files of a checkpoint folder; None if it has no `modules.json`.

        Args:
            folder: the checkpoint.
            hidden_size: width of the model, which pooling must agree with.
            lowercase: `do_lower_case` of `tokenizer_config.json`; sentence-transformers can ask for it a second time.

        Raises:
            UnsupportedCheckpointError: a module or setting that bgert does not have; the message names it.
            CheckpointError: a file is damaged or contradicts the model.
        """
        if not (folder / MODULES).is_file():
            return None
        modules = _modules(folder)
        length, length_file = _transformer(folder, modules[0][1], lowercase)
        pooling_file = str(PurePosixPath(modules[1][1]) / "config.json")
        pooling, include_prompt = _pooling(folder, pooling_file, hidden_size)
        prompts, default = _prompts(folder)
        if prompts and not include_prompt:
            raise UnsupportedCheckpointError(
                f"{pooling_file}: include_prompt false with prompts is not supported: bgert pools over all tokens"
            )
        return cls(
            pooling=pooling,
            pooling_file=pooling_file,
            normalize=len(modules) > 2,
            max_seq_length=length,
            length_file=length_file,
            prompts=prompts,
            default_prompt=default,
        )


def read_json(folder: Path, name: str, *, required: bool = False) -> dict[str, Any]:
    """Decode a JSON object of a checkpoint; {} if there is no such file.

    Raises:
        CheckpointError: the file is damaged, not an object, or missing though required.
    """
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise CheckpointError(f"{folder} has no {name}: it is not a Hugging Face checkpoint") from None
        return {}
    except OSError as error:
        raise CheckpointError(f"cannot read {folder / name}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{folder / name} is not valid JSON ({error}): download it again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{folder / name} does not hold an object: download it again")
    return value


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Type and folder of Transformer, Pooling and perhaps Normalize, in this order."""
    damaged = CheckpointError(f"{folder / MODULES} is not a list of modules: download it again")
    try:
        entries = json.loads((folder / MODULES).read_text(encoding="utf-8"))
        found = [(str(entry["type"]), str(entry.get("path", ""))) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise damaged from None
    names = [kind.rsplit(".", 1)[-1] if kind.startswith("sentence_transformers.") else kind for kind, _ in found]
    for name in names:
        if name not in ("Transformer", "Pooling", "Normalize"):
            raise UnsupportedCheckpointError(
                f"{MODULES}: the module {name} is not supported: bgert exports Transformer, Pooling and Normalize"
            )
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise UnsupportedCheckpointError(
            f"{MODULES}: the modules {', '.join(names)} are not supported in this order: bgert exports Transformer, "
            "Pooling and, after them, Normalize"
        )
    for _, path in found:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise CheckpointError(f"{MODULES} names the folder {path!r}, which is not inside the checkpoint: refused")
    if found[0][1] not in ("", "."):
        raise UnsupportedCheckpointError(
            f"{MODULES}: the Transformer is in the folder {found[0][1]!r}: export that folder, with --pooling and "
            "--normalize"
        )
    return [(name, path) for name, (_, path) in zip(names, found, strict=True)]


def _transformer(folder: Path, path: str, lowercase: bool | None) -> tuple[int | None, str | None]:
    for name in _TRANSFORMER_CONFIGS:
        config = read_json(folder / path, name)
        if config:
            break
    else:
        return None, None
    for key, value in config.items():
        if key in _REQUIRED_VALUES:
            if value != _REQUIRED_VALUES[key]:
                raise UnsupportedCheckpointError(f"{name}: {key} {value!r} is not supported")
        elif value and key not in _HARMLESS:
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


def _pooling(folder: Path, name: str, hidden_size: int) -> tuple[str, bool]:
    config = read_json(folder, name, required=True)
    mode = config.get("pooling_mode")
    if mode is None:
        mode = [new for old, new in _OLD_POOLING.items() if config.get(old)] or ["mean"]
    modes = [mode] if isinstance(mode, str) else mode
    if not isinstance(modes, list) or len(modes) != 1 or modes[0] not in _POOLINGS:
        raise UnsupportedCheckpointError(f"{name}: the pooling {modes!r} is not supported: bgert has cls and mean")
    width = config.get("embedding_dimension", config.get("word_embedding_dimension", hidden_size))
    if width != hidden_size:
        raise CheckpointError(f"{name}: embedding dimension {width!r}, but config.json has hidden_size {hidden_size}")
    return str(modes[0]), config.get("include_prompt", True) is True


def _prompts(folder: Path) -> tuple[dict[str, str], str | None]:
    config = read_json(folder, PROMPTS)
    raw: dict[str, str | None] = config.get("prompts") or {}
    if not isinstance(raw, dict) or not all(isinstance(text, str | None) for text in raw.values()):
        raise CheckpointError(f"{PROMPTS}: prompts is not an object of texts")
    named = {name: _PROMPT_NAMES.get(name, name) if _PROMPT_NAMES.get(name, name) not in raw else name for name in raw}
    prompts: dict[str, str] = {}
    for name, text in raw.items():
        if text:
            prompts.setdefault(named[name], text)
    default = config.get("default_prompt_name")
    if default is not None and default not in raw:
        raise CheckpointError(f"{PROMPTS}: default_prompt_name {default!r} is none of the prompts")
    default = named[default] if default is not None else None
    return prompts, default if default in prompts else None
