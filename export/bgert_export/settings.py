"""Pooling, normalisation, prompts and length limit of an export, each with the reason for it.

What the caller says comes first, then the checkpoint's sentence-transformers files, then the table of known models.
Nothing that changes the vectors is guessed: where none of these says it, the error names the flag to pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bgert.errors import InvalidOptionError
from bgert.model_folder import Choice
from bgert_export.errors import UndecidedError
from bgert_export.known_models import KnownModel, find_known
from bgert_export.sentence_transformers_files import PROMPTS, SentenceTransformersFiles

if TYPE_CHECKING:
    from bgert_export.checkpoint import Checkpoint

__all__ = ["Options", "Settings", "decide"]

POOLINGS = ("cls", "mean")
_UNLIMITED = 1 << 20  # transformers writes 10**30 where a tokenizer knows no limit


@dataclass(frozen=True)
class Options:
    """What the caller asked for; None leaves it to the checkpoint."""

    pooling: str | None = None
    normalize: bool | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    max_tokens: int | None = None


@dataclass
class Settings:
    """What was decided."""

    pooling: str | None
    """`cls` or `mean`; None for rerankers."""
    normalize: bool
    max_tokens: int
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    choices: list[Choice] = field(default_factory=list)


def decide(checkpoint: Checkpoint, options: Options) -> Settings:
    """Settle everything that config.json does not say.

    Raises:
        UndecidedError: pooling or normalisation is said nowhere; the message names the flag.
        InvalidOptionError: an option does not fit the model.
        UnsupportedCheckpointError, CheckpointError: from the sentence-transformers files.
    """
    if options.pooling not in (None, *POOLINGS):
        raise InvalidOptionError(f"unknown pooling {options.pooling!r}: use {' or '.join(POOLINGS)}")
    return _Decision(checkpoint, options).settings()


class _Decision:
    def __init__(self, checkpoint: Checkpoint, options: Options) -> None:
        self._options = options
        self._architecture = checkpoint.architecture
        self._tokenizer = checkpoint.tokenizer_config
        self._choices: list[Choice] = []
        self._known = self._find_known(checkpoint)
        lowercase = self._tokenizer.get("do_lower_case")
        self._files: SentenceTransformersFiles | None = None
        if self._architecture.kind == "encoder":
            self._files = SentenceTransformersFiles.read(
                checkpoint.folder, hidden_size=self._architecture.hidden_size, lowercase=lowercase
            )
        if self._known and None not in (self._known.lowercase, lowercase) and self._known.lowercase != lowercase:
            self._say("lowercase", lowercase, f"tokenizer_config.json; the published {self._known.name} has "
                      f"{self._known.lowercase}")  # fmt: skip

    def settings(self) -> Settings:
        pooling, normalize = None, False
        prompts: dict[str, str] = {}
        default = None
        if self._architecture.kind == "encoder":
            files, known = self._files, self._known
            pooling = str(
                self._pick(
                    "pooling",
                    self._options.pooling,
                    (files.pooling, files.pooling_file) if files else None,
                    known.pooling if known else None,
                    "--pooling cls or --pooling mean",
                )
            )
            normalize = bool(
                self._pick(
                    "normalize",
                    self._options.normalize,
                    (files.normalize, f"modules.json {'has' if files.normalize else 'has no'} Normalize")
                    if files
                    else None,
                    known.normalize if known else None,
                    "--normalize or --no-normalize",
                )
            )
            prompts, default = self._prompts()
        elif any(value is not None for value in (self._options.pooling, self._options.normalize)):
            raise InvalidOptionError("pooling and normalisation are for encoders: this checkpoint is a reranker")
        elif any(value is not None for value in (self._options.query_prompt, self._options.document_prompt)):
            raise InvalidOptionError("prompts are for encoders: this checkpoint is a reranker")
        max_tokens = self._max_tokens()
        return Settings(pooling, normalize, max_tokens, prompts, default, self._choices)

    def _say(self, name: str, value: Any, why: str) -> None:
        self._choices.append(Choice(name, value, why))

    def _find_known(self, checkpoint: Checkpoint) -> KnownModel | None:
        known = find_known(checkpoint.names())
        if known is None or known.fits(checkpoint.architecture):
            return known
        self._say("known_model", None, f"the name is {known.name}'s, but the geometry is not: the table is not used")
        return None

    def _pick(self, name: str, asked: Any, files: tuple[Any, str] | None, known: Any, flag: str) -> Any:
        """The first source that knows, noting where the others differ."""
        table = f"the published {self._known.name}" if self._known else ""
        if asked is not None:
            differs = [f"{where} says {value!r}" for value, where in self._others(files, known) if value != asked]
            self._say(name, asked, "; ".join(["asked for", *differs]))
            return asked
        if files is not None:
            value, where = files
            self._say(name, value, where + (f"; {table} has {known!r}" if known not in (None, value) else ""))
            return value
        if known is not None:
            self._say(name, known, f"{table}; the checkpoint's files do not say")
            return known
        raise UndecidedError(
            f"the checkpoint does not say its {name} (it has no modules.json) and it is no known model: pass {flag}, "
            "as its authors use it"
        )

    def _others(self, files: tuple[Any, str] | None, known: Any) -> list[tuple[Any, str]]:
        others = [files] if files else []
        if self._known and known is not None:
            others.append((known, f"the published {self._known.name}"))
        return others

    def _prompts(self) -> tuple[dict[str, str], str | None]:
        files = self._files.prompts if self._files else {}
        table = self._known.prompts if self._known else {}
        name = self._known.name if self._known else ""
        prompts: dict[str, str] = {}
        if files:
            prompts = dict(files)
            same = not table or table == files
            self._say("prompts", prompts, PROMPTS + ("" if same else f"; the published {name} has {table!r}"))
        elif table:
            prompts = dict(table)
            self._say("prompts", prompts, f"the published {name}; the checkpoint's files have none")
        else:
            self._say("prompts", {}, "neither the checkpoint's files nor the table of known models have any")
        for key, text in (("query", self._options.query_prompt), ("document", self._options.document_prompt)):
            if text is None:
                continue
            self._say(f"prompts.{key}", text, "asked for")
            prompts.pop(key, None)
            if text:
                prompts[key] = text
        default = self._files.default_prompt if self._files else None
        if default is not None and default in prompts:
            self._say("default_prompt", default, PROMPTS)
            return prompts, default
        return prompts, None

    def _max_tokens(self) -> int:
        """sentence-transformers lets max_seq_length replace the tokenizer's limit; positions bound both."""
        most = self._architecture.max_tokens
        asked = self._options.max_tokens
        least = 3 if self._architecture.kind == "encoder" else 5
        if asked is not None:
            if isinstance(asked, bool) or not least <= asked <= most:
                raise InvalidOptionError(
                    f"max tokens is {asked!r}: this model takes a whole number from {least} to {most}"
                )
            self._say("max_tokens", asked, "asked for")
            return asked
        limit, why = most, "config.json max_position_embeddings"
        own = self._tokenizer.get("model_max_length")
        if self._files and self._files.max_seq_length:
            limit, why = self._files.max_seq_length, f"max_seq_length of {self._files.length_file}"
        elif isinstance(own, int) and 0 < own < _UNLIMITED:
            limit, why = own, "model_max_length of tokenizer_config.json"
        if limit > most:
            why = f"config.json max_position_embeddings; {why} is {limit}"
        limit = max(least, min(limit, most))
        known = self._known.max_tokens if self._known else limit
        self._say("max_tokens", limit, why + ("" if known == limit else f"; the published model has {known}"))
        return limit
