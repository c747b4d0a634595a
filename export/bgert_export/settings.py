"""Pooling, normalisation, prompts and length limit of an export, each with the reason for it.

What the caller says comes first, then the checkpoint's sentence-transformers files, then the table of known models.
Nothing that changes the vectors is guessed: where none of these says it, the error names the flag to pass.

Prompts are what sentence-transformers 6 makes of them: an encoder always has `query` and `document`, empty where
nobody says them, so that a default prompt never stands in for them. `passage` and `corpus` are names like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from bgert.errors import InvalidOptionError
from bgert.model_folder import Choice
from bgert.tokenizer.checkpoint_files import stated_limit
from bgert_export.errors import CheckpointError, UndecidedError
from bgert_export.known_models import KnownModel, find_known
from bgert_export.mlm_head import read_mlm_head
from bgert_export.multi_vector import is_multi_vector, read_multi_vector
from bgert_export.pooling import MULTI_VECTOR, POOLINGS, SPLADES, modes_of
from bgert_export.sentence_transformers_files import (
    ALWAYS_THERE,
    MODULES,
    PROMPTS,
    SentenceTransformersFiles,
    no_prompt_outside_pooling,
)

if TYPE_CHECKING:
    from bgert_export.checkpoint import Checkpoint, CheckpointFolder
    from bgert_export.mlm_head import MlmHead
    from bgert_export.multi_vector import MultiVector
    from bgert_export.network import Network
    from bgert_export.projections import Projection
    from bgert_export.token_heads import TokenHead

__all__ = ["ASKED", "Options", "Settings", "decide"]

ASKED = "asked for"
"""How the reason of a choice begins that the caller made."""


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
    """As `bgert_export.pooling`; None for rerankers."""
    normalize: bool
    max_tokens: int
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    choices: list[Choice] = field(default_factory=list)
    similarity: str | None = None
    """Encoders: what sentence-transformers compares vectors by."""
    activation: str | None = None
    """Rerankers: the class of torch that `CrossEncoder.predict` puts over the logits."""
    projections: tuple[Projection, ...] = ()
    """Dense layers behind pooling."""
    mlm_head: MlmHead | None = None
    """What SPLADE's poolings take their scores from."""
    token_heads: tuple[TokenHead, ...] = ()
    """What is given for every token besides."""
    multi_vector: MultiVector | None = None
    """Of models that give nothing for a text."""

    def dimensions(self, hidden_size: int) -> int:
        """Numbers in a vector of an encoder."""
        if self.multi_vector is not None:
            return self.token_heads[0].entry.columns
        if self.mlm_head is not None:
            return len(self.mlm_head.decoder[1])
        return self.projections[-1].columns if self.projections else hidden_size * len(modes_of(self.pooling or "cls"))

    @property
    def default_prefix(self) -> str:
        """The text of the default prompt, empty if there is none."""
        return self.prompts.get(self.default_prompt, "") if self.default_prompt is not None else ""


def decide(checkpoint: CheckpointFolder, options: Options) -> Settings:
    """Settle everything that config.json does not say.

    Raises:
        UndecidedError: pooling or normalisation is said nowhere; the message names the flag.
        InvalidOptionError: an option does not fit the model.
        UnsupportedCheckpointError, CheckpointError: from the sentence-transformers files.
    """
    if options.pooling not in (None, *SPLADES):
        try:
            modes_of(options.pooling)
        except (ValueError, AttributeError):
            raise InvalidOptionError(
                f"unknown pooling {options.pooling!r}: use {', '.join(POOLINGS)}, or several joined by +, or "
                f"{', '.join(SPLADES)}"
            ) from None
    return _Decision(checkpoint, options).settings()


class _Decision:
    def __init__(self, checkpoint: CheckpointFolder, options: Options) -> None:
        self._options = options
        self._architecture = checkpoint.architecture
        self._network: Network | None = getattr(checkpoint, "network", None)
        self._config = checkpoint.config
        self._tokenizer = checkpoint.tokenizer_config
        self._choices: list[Choice] = []
        if checkpoint.overruled is not None:
            self._say("kind", checkpoint.overruled.kind, f"{checkpoint.overruled.why}; config.json has the "
                      f"architectures {self._config.get('architectures')!r}")  # fmt: skip
        self._named_by = ""
        self._known = self._find_known(checkpoint)
        lowercase = self._tokenizer.get("do_lower_case")
        self._multi_vector = self._read_multi_vector(checkpoint)
        self._files = (
            self._multi_vector.files
            if self._multi_vector is not None
            else SentenceTransformersFiles.read(
                checkpoint.folder,
                kind=self._architecture.kind,
                hidden_size=self._architecture.hidden_size,
                lowercase=lowercase,
                pooling_asked=options.pooling is not None,
            )
        )
        if self._files is None and (checkpoint.folder / PROMPTS).is_file():
            missing = "no model_type" if (checkpoint.folder / MODULES).is_file() else f"no {MODULES}"
            self._say("unread_files", [PROMPTS], f"there is {missing}, without which sentence-transformers 6 does not "
                      "read it either")  # fmt: skip
        if self._known and None not in (self._known.lowercase, lowercase) and self._known.lowercase != lowercase:
            self._say("lowercase", lowercase, f"tokenizer_config.json; the published {self._known.name} has "
                      f"{self._known.lowercase}")  # fmt: skip

    def settings(self) -> Settings:
        if self._multi_vector is not None:
            return self._of_multi_vector(self._multi_vector)
        pooling, normalize = None, False
        similarity = activation = None
        projections: tuple[Projection, ...] = ()
        if self._architecture.kind == "encoder":
            files, known = self._files, self._known
            pooling = str(
                self._pick(
                    "pooling",
                    self._options.pooling,
                    (files.pooling, files.pooling_file) if files and files.pooling else None,
                    known.pooling if known else None,
                    "--pooling cls, --pooling mean or another",
                )
            )
            if pooling in SPLADES:
                return self._splade(pooling)
            normalize = bool(
                self._pick(
                    "normalize",
                    self._options.normalize,
                    (files.normalize, f"{MODULES} {'has' if files.normalize else 'has no'} Normalize")
                    if files
                    else None,
                    known.normalize if known else None,
                    "--normalize or --no-normalize",
                )
            )
            projections = self._projections(pooling)
            prompts, default = self._encoder_prompts()
            similarity = (files.similarity if files else None) or "cosine"
        else:
            if any(value is not None for value in (self._options.pooling, self._options.normalize)):
                raise InvalidOptionError("pooling and normalisation are for encoders: this checkpoint is a reranker")
            if any(value is not None for value in (self._options.query_prompt, self._options.document_prompt)):
                raise InvalidOptionError("prompts are for encoders: this checkpoint is a reranker")
            prompts, default = self._reranker_prompts()
            activation = self._activation()
        max_tokens = self._max_tokens()
        return Settings(
            pooling, normalize, max_tokens, prompts, default, self._choices, similarity, activation, projections
        )

    def _splade(self, pooling: str) -> Settings:
        """A SPLADE model's, whose vectors nothing follows."""
        if self._options.normalize:
            raise InvalidOptionError(f"normalisation does not go with the pooling {pooling}")
        if self._network is None:
            raise InvalidOptionError(f"the pooling {pooling} does not go with --via")
        head = read_mlm_head(self._network, self._config)
        prompts, default = self._encoder_prompts()
        settings = Settings(pooling, False, self._max_tokens(), prompts, default, self._choices, "dot")
        settings.mlm_head = head
        return settings

    def _read_multi_vector(self, checkpoint: CheckpointFolder) -> MultiVector | None:
        if self._architecture.kind != "encoder" or not is_multi_vector(checkpoint):
            return None
        if self._network is None:
            raise InvalidOptionError("a multi-vector model does not go with --via")
        if self._options.pooling is not None or self._options.normalize is not None:
            raise InvalidOptionError("pooling and normalisation are not for a multi-vector model, whose files say all")
        return read_multi_vector(cast("Checkpoint", checkpoint))

    def _of_multi_vector(self, found: MultiVector) -> Settings:
        self._choices += found.choices
        why = f"{found.files.pooling_file}: a vector for every token, none for a text"
        self._say("pooling", MULTI_VECTOR, why)
        self._say("normalize", found.files.normalize, why.partition(":")[0])
        self._say("dense", [layer.described() for layer in found.files.projections], "over every token")
        prompts, default = self._encoder_prompts()
        settings = Settings(
            MULTI_VECTOR,
            found.files.normalize,
            self._max_tokens(),
            prompts,
            default,
            self._choices,
            found.files.similarity,
            multi_vector=found,
        )
        settings.token_heads = (found.head(),)
        return settings

    def _projections(self, pooling: str) -> tuple[Projection, ...]:
        found = self._files.projections if self._files else ()
        if found:
            width = len(modes_of(pooling)) * self._architecture.hidden_size
            if found[0].weight.shape[1] != width:
                raise InvalidOptionError(
                    f"the pooling {pooling} gives {width} numbers, and the checkpoint's Dense takes "
                    f"{found[0].weight.shape[1]}"
                )
            self._say("dense", [layer.described() for layer in found], f"{MODULES} has Dense")
        return found

    def _say(self, name: str, value: Any, why: str) -> None:
        self._choices.append(Choice(name, value, why))

    def _find_known(self, checkpoint: CheckpointFolder) -> KnownModel | None:
        for name, where in checkpoint.names():
            known = find_known([name])
            if known is None:
                continue
            if known.fits(checkpoint.architecture):
                self._named_by = f"the published {known.name} ({where} is {name})"
                return known
            self._say("known_model", None, f"{where} is {name}, but the geometry is not {known.name}'s: the table is "
                      "not used")  # fmt: skip
            return None
        return None

    def _pick(self, name: str, asked: Any, files: tuple[Any, str] | None, known: Any, flag: str) -> Any:
        """The first source that knows, noting where the others differ."""
        table = f"the published {self._known.name}" if self._known else ""
        if asked is not None:
            differs = [f"{where} says {value!r}" for value, where in self._others(files, known) if value != asked]
            self._say(name, asked, "; ".join([ASKED, *differs]))
            return asked
        if files is not None:
            value, where = files
            self._say(name, value, where + (f"; {table} has {known!r}" if known not in (None, value) else ""))
            return value
        if known is not None:
            self._say(name, known, f"{self._named_by}; the checkpoint's files do not say")
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

    def _encoder_prompts(self) -> tuple[dict[str, str], str | None]:
        """A name that is in the file counts, with an empty text too; the table and then "" are for names that are not.

        sentence-transformers finds `document` before `passage` and `corpus`, and it is always there.
        """
        files = self._files.prompts if self._files else {}
        table = self._known.prompts if self._known else {}
        prompts = dict(files)
        why = PROMPTS if files else "neither the checkpoint's files nor the table of known models have any"
        if differs := {name: text for name, text in table.items() if files.get(name, text) != text}:
            why += f"; the published {self._known.name if self._known else ''} has {differs!r}"
        if added := {name: text for name, text in table.items() if name not in files}:
            prompts |= added
            names = "none of them" if len(added) == len(table) else f"no {', '.join(added)}"
            why = f"{why}; " if files else ""
            why += f"{self._named_by}; the checkpoint's files have {names}"
        if "document" not in prompts and any(prompts.get(name) for name in ("passage", "corpus")):
            why += (
                "; there is no document prompt, so documents get none, as in sentence-transformers 6: "
                "pass --document-prompt if the other one is meant for them"
            )
        prompts = {name: "" for name in ALWAYS_THERE if name not in prompts} | prompts
        self._say("prompts", dict(prompts), why)
        for name, text in (("query", self._options.query_prompt), ("document", self._options.document_prompt)):
            if text is not None:
                self._say(f"prompts.{name}", text, ASKED)
                prompts[name] = text
        if self._files and not self._files.include_prompt and any(prompts.values()):
            raise no_prompt_outside_pooling(self._files.pooling_file)
        return prompts, self._default_prompt()

    def _reranker_prompts(self) -> tuple[dict[str, str], str | None]:
        """Prompts of a cross-encoder go before the query; there is none that is always there."""
        files = self._files
        prompts = dict(files.prompts) if files else {}
        if prompts:
            self._say("prompts", prompts, PROMPTS)
        return prompts, self._default_prompt()

    def _default_prompt(self) -> str | None:
        default = self._files.default_prompt if self._files else None
        if default is not None:
            self._say("default_prompt", default, PROMPTS)
        return default

    def _activation(self) -> str:
        """Note what `CrossEncoder.predict` puts over the logits, which bgert gives as they are."""
        section = self._config.get("sentence_transformers")
        stated = section.get("activation_fn") if isinstance(section, dict) else None
        name, where = self._files.activation if self._files else None, PROMPTS
        if name is None:
            name, where = stated or self._config.get("sbert_ce_default_activation_function"), "config.json"
        if not isinstance(name, str) or not name.startswith("torch."):
            name = f"torch.nn.{'Sigmoid' if self._architecture.num_labels == 1 else 'Identity'}"
            where = "sentence-transformers' default"
        self._say("activation", name.rsplit(".", 1)[-1], f"{where}: what CrossEncoder.predict gives; scores here are "
                  "raw logits unless sigmoid is asked for")  # fmt: skip
        return name

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
            self._say("max_tokens", asked, ASKED)
            return asked
        limit, why = most, "config.json max_position_embeddings"
        try:
            own, key = stated_limit(self._tokenizer)
        except ValueError as error:
            raise CheckpointError(str(error)) from None
        if self._files and self._files.max_seq_length:
            limit, why = self._files.max_seq_length, f"max_seq_length of {self._files.length_file}"
        elif own is not None:
            limit, why = own, f"{key} of tokenizer_config.json"
        if limit > most:
            why = f"config.json max_position_embeddings; {why} is {limit}"
        limit = max(least, min(limit, most))
        known = self._known.max_tokens if self._known else limit
        self._say("max_tokens", limit, why + ("" if known == limit else f"; the published model has {known}"))
        return limit
