"""ColBERT's checkpoints: how they read queries and documents, and the layers over every token.

Three forms, read as PyLate 1.6 and the `MultiVectorEncoder` of sentence-transformers 6.2 read them. `HF_ColBERT` is
colbert-ai's: `linear.weight` among the network's weights, and `artifact.metadata`. PyLate's has the modules Transformer
and Dense, and its settings in `config_sentence_transformers.json`. sentence-transformers' own has a module
MultiVectorMask; what it puts before texts are prompts. In the first two it is a token, behind the first of every text.
"""

from __future__ import annotations

import string
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert import checked_file
from bgert.errors import BgertError
from bgert.model_folder import Choice, TokenOutput
from bgert.text_roles import TextRole
from bgert.tokenizer import Tokenizer
from bgert.tokenizer.added_tokens import named_tokens
from bgert.tokenizer.checkpoint_files import stated_limit
from bgert_export.errors import CheckpointError, UnsupportedCheckpointError
from bgert_export.pooling import MULTI_VECTOR
from bgert_export.projections import Projection, read_projection
from bgert_export.sentence_transformers_files import (
    METADATA,
    MODULES,
    PROMPTS,
    SentenceTransformersFiles,
    read_json,
    read_modules,
    read_prompts,
    read_transformer,
)
from bgert_export.token_heads import TokenHead
from bgert_export.weights import read_whole

if TYPE_CHECKING:
    from bgert_export.checkpoint import Checkpoint, CheckpointFolder

__all__ = ["MultiVector", "is_multi_vector", "read_multi_vector"]

_LINEAR = "linear.weight"
_QUERY_LENGTH, _DOCUMENT_LENGTH = 32, 180
_PYLATE = ("query_prefix", "document_prefix", "do_query_expansion", "attend_to_expansion_tokens", "skiplist_words")
_KNOBS = ("query_length", "document_length", "query_expansion")


@dataclass
class MultiVector:
    """What a checkpoint says."""

    files: SentenceTransformersFiles
    """Prompts, the limit of documents, normalisation, and the layers as its projections."""
    query: TextRole
    document: TextRole
    choices: list[Choice] = field(default_factory=list)
    used: frozenset[str] = frozenset()
    """Weights that are read beside the network's."""

    @property
    def roles(self) -> dict[str, TextRole]:
        """For the manifest."""
        return {"query": self.query, "document": self.document}

    @property
    def expands_unseen(self) -> bool:
        """Whether tokens are added to queries that attention does not see."""
        return bool(self.query.expand_to) and not self.query.attend

    def head(self) -> TokenHead:
        """The layers over every token."""
        layers = self.files.projections
        columns = layers[-1].columns
        return TokenHead(layers, self.files.normalize, TokenOutput(MULTI_VECTOR, "token_vectors", columns))


def is_multi_vector(checkpoint: CheckpointFolder) -> bool:
    """Whether a checkpoint is one of ColBERT's."""
    if (checkpoint.folder / MODULES).is_file():
        names = [name for name, _ in read_modules(checkpoint.folder)]
        return len(names) > 1 and not {"Pooling", "SpladePooling"} & set(names)
    return checkpoint.config.get("architectures") == ["HF_ColBERT"]


def read_multi_vector(checkpoint: Checkpoint) -> MultiVector:
    """Read all of it.

    Raises:
        UnsupportedCheckpointError: a setting that bgert does not have; the message names it.
        CheckpointError: a file is missing or damaged, or contradicts the network.
    """
    reader = _Reader(checkpoint)
    if not (checkpoint.folder / MODULES).is_file():
        found = reader.colbert_ai()
    elif any(name == "MultiVectorMask" for name, _ in reader.modules):
        found = reader.sentence_transformers()
    else:
        found = reader.pylate()
    found.choices += reader.choices
    _check_expansion(checkpoint, found)
    return found


def _check_expansion(checkpoint: Checkpoint, found: MultiVector) -> None:
    arch, length = checkpoint.architecture, found.query.expand_to
    if not found.expands_unseen:
        return
    if arch.relative_attention_num_buckets is not None:
        raise UnsupportedCheckpointError(
            f"queries with tokens that attention does not see are not supported for {arch.model_type}"
        )
    windows = [window for layer in range(arch.num_hidden_layers) if (window := arch.window_of(layer)) is not None]
    if windows and length > min(windows) + 1:
        raise UnsupportedCheckpointError(
            f"queries are filled up to {length} tokens that attention does not see, and some layers see only "
            f"{min(windows)} on either side: bgert has up to {min(windows) + 1}"
        )


class _Reader:
    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._folder = checkpoint.folder
        self.modules = read_modules(self._folder) if (self._folder / MODULES).is_file() else []
        self.choices: list[Choice] = []
        self._ids: dict[str, int] | None = None

    def colbert_ai(self) -> MultiVector:
        try:
            metadata = checked_file.read_json(self._checkpoint.transformer_folder / METADATA, CheckpointError)
        except FileNotFoundError:
            raise CheckpointError(
                f"{self._folder} has no {METADATA}, which says how a HF_ColBERT reads texts: download it too"
            ) from None
        if not isinstance(metadata, dict):
            raise CheckpointError(f"{METADATA} does not hold an object: download it again")
        for name, value in (("similarity", "cosine"), ("interaction", "colbert")):
            if metadata.get(name, value) != value:
                raise UnsupportedCheckpointError(f"{METADATA}: {name} {metadata[name]!r} is not supported")
        weights = self._checkpoint.weights
        shape = weights.shapes.get(_LINEAR, ())
        width = self._checkpoint.architecture.hidden_size
        if len(shape) != 2 or shape[1] != width or metadata.get("dim", shape[0]) != shape[0]:
            raise CheckpointError(
                f"the weight {_LINEAR} has shape {list(shape)}: {METADATA} and config.json ask for "
                f"[{metadata.get('dim', 'n')}, {width}]"
            )
        matrix = read_whole(weights, _LINEAR)
        if not np.isfinite(matrix).all():
            raise CheckpointError(f"the weight {_LINEAR} has NaN or infinity: the checkpoint is damaged")
        skipped = list(string.punctuation) if metadata.get("mask_punctuation", True) else []
        length = self._length(metadata, "query_maxlen", METADATA, _QUERY_LENGTH)
        return MultiVector(
            self._files((Projection(matrix, None),), True, self._length(metadata, "doc_maxlen", METADATA), METADATA),
            TextRole(
                self._marker(metadata.get("query_token_id", "[unused0]"), METADATA),
                length,
                expand_to=int(length or 0),
                expansion_id=self._expansion(None),
                attend=bool(metadata.get("attend_to_mask_tokens", False)),
            ),
            TextRole(
                self._marker(metadata.get("doc_token_id", "[unused1]"), METADATA), skip_ids=self._skipped(skipped)
            ),
            used=frozenset([_LINEAR]),
        )

    def pylate(self) -> MultiVector:
        config = read_json(self._folder, PROMPTS)
        if config.get("model_type") == "MultiVectorEncoder":
            raise UnsupportedCheckpointError(f"{MODULES} has no MultiVectorMask, which a MultiVectorEncoder needs")
        read_transformer(self._folder, self.modules[0][1], self._lowercase, MULTI_VECTOR)
        length = self._length(config, "query_length", PROMPTS, _QUERY_LENGTH)
        expands = _flag(config, "do_query_expansion", default=True)
        words = config.get("skiplist_words")
        prefixes = [config.get(name) for name in ("query_prefix", "document_prefix")]
        markers = [
            self._marker(default if prefix is None else prefix, PROMPTS)
            for prefix, default in zip(prefixes, ("[Q] ", "[D] "), strict=True)
        ]
        return MultiVector(
            self._files(
                self._layers(forced=True),
                True,
                self._length(config, "document_length", PROMPTS, _DOCUMENT_LENGTH),
                PROMPTS,
            ),
            TextRole(
                markers[0],
                length,
                expand_to=int(length or 0) if expands else 0,
                expansion_id=self._expansion(None) if expands else 0,
                attend=expands and _flag(config, "attend_to_expansion_tokens", default=False),
            ),
            TextRole(markers[1], skip_ids=self._skipped(list(string.punctuation) if words is None else words)),
        )

    def sentence_transformers(self) -> MultiVector:
        config = read_json(self._folder, PROMPTS)
        if both := [name for name in _PYLATE if name in config]:
            raise UnsupportedCheckpointError(f"{PROMPTS}: {both[0]} is not supported beside a module MultiVectorMask")
        limit, where = read_transformer(self._folder, self.modules[0][1], self._lowercase, MULTI_VECTOR)
        knobs = self._knobs()
        path = next(path for name, path in self.modules if name == "MultiVectorMask")
        mask = read_json(self._folder, str(PurePosixPath(path) / "config.json"))
        if mask.get("keep_only_token_ids"):
            raise UnsupportedCheckpointError(f"{path}: keep_only_token_ids is not supported")
        skipped = self._skipped(mask.get("skiplist_words") or [])
        tasks = mask.get("skiplist_tasks") or ["document"]
        own = self._own_limit(limit)
        query_length = self._length(knobs, "query_length", where or "") if knobs.get("query_length") else own
        expansion = knobs.get("query_expansion")
        role = TextRole([], query_length)
        if expansion is not None:
            strategy = expansion.get("strategy") if isinstance(expansion, dict) else None
            if strategy not in ("fixed", "min"):
                raise UnsupportedCheckpointError(f"{where}: query_expansion {expansion!r} is not supported")
            length = int(self._length(expansion, "length", f"{where}, query_expansion") or 0)
            most = length if strategy == "fixed" else max(int(query_length or 0), length)
            role = TextRole(
                [],
                most,
                expand_to=length,
                expansion_id=self._expansion(expansion.get("token")),
                attend=_flag(expansion, "attend", default=False),
            )
        if config.get("similarity_fn_name") == "meanmaxsim":
            why = "its scores are MaxSim over the number of the query's vectors; those of bgert are not divided"
            self.choices.append(Choice("similarity", "meanmaxsim", why))
        stated = knobs.get("document_length") or own
        return MultiVector(
            self._files(
                self._layers(forced=False),
                any(name == "Normalize" for name, _ in self.modules),
                self._length({"document_length": stated}, "document_length", where or ""),
                where or PROMPTS,
            ),
            TextRole(**{**vars(role), "skip_ids": skipped if "query" in tasks else []}),
            TextRole(skip_ids=skipped if "document" in tasks else []),
        )

    @property
    def _lowercase(self) -> Any:
        return self._checkpoint.tokenizer_config.get("do_lower_case")

    def _own_limit(self, limit: int | None) -> int:
        """What sentence-transformers cuts at where a role has no length of its own."""
        try:
            own, _ = stated_limit(self._checkpoint.tokenizer_config)
        except ValueError as error:
            raise CheckpointError(str(error)) from None
        most = self._checkpoint.architecture.max_tokens
        return min(limit or own or most, most)

    def _knobs(self) -> dict[str, Any]:
        """Settings of the module Transformer that are of queries and documents."""
        for path in sorted((self._folder / self.modules[0][1]).glob("sentence_*_config.json")):
            config = read_json(path.parent, path.name)
            if found := {name: config[name] for name in _KNOBS if name in config}:
                return found
        return {}

    def _files(
        self, layers: tuple[Projection, ...], normalize: bool, limit: int | None, where: str
    ) -> SentenceTransformersFiles:
        config = read_json(self._folder, PROMPTS) if self.modules else {}
        prompts, default = read_prompts(config)
        return SentenceTransformersFiles(
            pooling=MULTI_VECTOR,
            pooling_file=MODULES if self.modules else "config.json",
            normalize=normalize,
            max_seq_length=limit,
            length_file=where,
            prompts=prompts,
            default_prompt=default,
            similarity="maxsim",
            projections=layers,
        )

    def _layers(self, *, forced: bool) -> tuple[Projection, ...]:
        """The modules Dense, over tokens; PyLate runs them there whatever they say."""
        found: list[Projection] = []
        width = self._checkpoint.architecture.hidden_size
        for name, path in self.modules:
            if name != "Dense":
                continue
            config = read_json(self._folder, str(PurePosixPath(path) / "config.json"), required=True)
            sides = {"module_input_name": "token_embeddings"}
            config = {**config, **sides, "module_output_name": None} if forced else {**sides, **config}
            found.append(read_projection(self._folder / path, path, config, width, "token_embeddings"))
            width = found[-1].columns
        if not found:
            raise UnsupportedCheckpointError(f"{MODULES} has no Dense: bgert exports multi-vector models that have one")
        return tuple(found)

    def _length(self, config: dict[str, Any], name: str, where: str, default: int | None = None) -> int | None:
        """A number of tokens, up to the model's positions."""
        value = config.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 4:
            raise CheckpointError(f"{where}: {name} is {value!r}, not a whole number from 4")
        most = self._checkpoint.architecture.max_tokens
        if value > most:
            self.choices.append(Choice(name, most, f"config.json max_position_embeddings; {where} has {value}"))
        return min(value, most)

    def _marker(self, token: Any, where: str) -> list[int]:
        """The id of what stands behind the first token; none for an empty one."""
        if token == "":
            return []
        if token not in self._vocabulary:
            raise UnsupportedCheckpointError(
                f"{where}: the marker {token!r} is no token of the tokenizer, so it has no trained vector: training "
                "adds it, and the tokenizer that was saved with the model has it"
            )
        return [self._vocabulary[token]]

    def _skipped(self, words: Any) -> list[int]:
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise CheckpointError(f"skiplist_words is {words!r:.80}, not a list of texts")
        if unknown := [word for word in words if word not in self._vocabulary]:
            why = "no tokens by themselves; their vectors stay, as in sentence-transformers 6"
            self.choices.append(Choice("skiplist_words", unknown, why))
        return sorted({self._vocabulary[word] for word in words if word in self._vocabulary})

    def _expansion(self, token: Any) -> int:
        """The id of what queries are filled up with, the mask if nothing else is said."""
        if token is None:
            folder, config = self._checkpoint.transformer_folder, self._checkpoint.tokenizer_config
            names = named_tokens(config, read_json(folder, "special_tokens_map.json"))
            mask = names.get("mask_token")
            token = None if mask is None else mask.content
        if token not in self._vocabulary:
            raise CheckpointError(f"queries are filled up with {token!r}, which is no token of the tokenizer")
        return self._vocabulary[token]

    @property
    def _vocabulary(self) -> dict[str, int]:
        """Every token's id, added ones too."""
        if self._ids is None:
            tokenizer = Tokenizer.from_folder(self._checkpoint.transformer_folder)
            self._ids = {}
            for index in range(self._checkpoint.architecture.vocab_size):
                with suppress(BgertError):  # rows that are there to make the table's size round
                    self._ids.setdefault(tokenizer.id_to_token(index), index)
        return self._ids


def _flag(config: dict[str, Any], name: str, *, default: bool) -> bool:
    value = config.get(name)
    if value is not None and not isinstance(value, bool):
        raise CheckpointError(f"{name} is {value!r}, not true or false")
    return default if value is None else value
