"""The tokenizer of a checkpoint as `transformers.AutoTokenizer` makes it, for HF `tokenizers` to run (a Rust package).

For those that bgert has none for, and only where it was asked for: `bgert export --tokenizer huggingface`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bgert.errors import BgertError, InvalidOptionError, install_extra
from bgert.tokenizer import Tokenizer
from bgert.tokenizer.checkpoint import read_checkpoint
from bgert.tokenizer.checkpoint_files import OPTION, Checkpoint
from bgert.tokenizer.huggingface import EXTRA, library_version, open_library, vocabulary
from bgert.tokenizer.spec import MOST_TOKENS, HuggingFaceSettings, TemplateSpec, TokenizerSpec
from bgert_export.errors import CheckpointError, ExtraNotInstalledError, UnsupportedCheckpointError
from bgert_export.verification import texts as built_in

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RUNNERS", "check_runner", "read_tokenizer"]

RUNNERS = ("bgert", "huggingface")
_PROBES = 2000  # tokens that are tried until one is found again in a text of its own


def check_runner(runner: str) -> None:
    """Refuse before anything is fetched what would be refused later.

    Raises:
        InvalidOptionError: there is no such runner.
        ExtraNotInstalledError: a library is missing; the message names the extra that brings it.
    """
    if runner not in RUNNERS:
        raise InvalidOptionError(f"unknown tokenizer {runner!r}: use {' or '.join(RUNNERS)}")
    if runner == "huggingface":
        try:
            library_version()
            importlib.import_module("transformers")
        except ImportError as error:
            raise ExtraNotInstalledError(
                f"{OPTION} takes what transformers makes of the checkpoint, and {error}: {install_extra('verify')}"
            ) from None


def read_tokenizer(folder: Path, runner: str) -> TokenizerSpec:
    """What a checkpoint's tokenizer is made of, for `bgert` to run or for `huggingface`.

    Raises:
        ModelFolderError: bgert does not know the tokenizer, or a file is damaged.
        CheckpointError: transformers cannot load it, or it has no form that HF `tokenizers` runs.
        ExtraNotInstalledError: a library is missing; the message names the extra that brings it.
    """
    return read_checkpoint(folder) if runner == "bgert" else _read_by_transformers(folder)


def _read_by_transformers(folder: Path) -> TokenizerSpec:
    auto = _auto_tokenizer(folder)
    backend = getattr(auto, "backend_tokenizer", None)
    if backend is None:
        raise UnsupportedCheckpointError(
            f"{folder}: transformers' {type(auto).__name__} is written in Python: HF tokenizers does not run it either"
        )
    checkpoint = Checkpoint.load(folder)
    for name, usual in (("truncation_side", "right"), ("split_special_tokens", False)):
        if getattr(auto, name, usual) != usual:
            raise checkpoint.error(f"tokenizer_config.json: {name} is set, which bgert leaves to calls: remove it")
    backend.no_truncation()
    backend.no_padding()
    try:
        settings = HuggingFaceSettings(library_version(), backend.to_str().encode())
        library = open_library(settings.data)
        vocab = vocabulary(library, MOST_TOKENS)
        single, pair = _templates(library, vocab)
    except ValueError as error:
        raise UnsupportedCheckpointError(f"{folder}: {error}") from None
    notes = [
        "asked for: HF tokenizers makes the ids, a package built in Rust, at its speed; whoever opens the folder needs "
        f"the extra `{EXTRA}`"
    ]
    if _bgert_has_it(folder):
        notes.append(f"bgert has this tokenizer itself, many times as fast and without Rust: leave {OPTION} out")
    if "token_type_ids" not in auto.model_input_names:
        single, pair = (TemplateSpec(prefix=one.prefix, middle=one.middle, suffix=one.suffix) for one in (single, pair))
        notes.append("all tokens have type 0: model_input_names has no token_type_ids")
    spec = TokenizerSpec("huggingface", settings, vocab, [], single, pair, checkpoint.max_length, notes)
    _compare(Tokenizer(spec), auto, folder)
    return spec


def _auto_tokenizer(folder: Path) -> Any:
    # Not at the top: it is slow to import.
    import transformers

    from bgert_export.verification.torch_reference import quiet

    with quiet():
        try:
            return transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        except Exception as error:  # transformers raises whatever its parts raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise CheckpointError(f"transformers cannot load the tokenizer of {folder}: {reason:.500}") from error


def _bgert_has_it(folder: Path) -> bool:
    try:
        read_checkpoint(folder)
    except BgertError:
        return False
    return True


def _templates(library: Any, vocab: list[str]) -> tuple[TemplateSpec, TemplateSpec]:
    """Where the package puts special tokens around one text and around two, read off what it makes of some.

    Raises:
        ValueError: it does something else than that, or no text was found that has a token.
    """
    first, second = _two_texts(library, vocab)
    found = []
    for texts in ((first,), (first, second)):
        encoded = library.encode(*texts)
        ids, types, places = encoded.ids, encoded.type_ids, encoded.sequence_ids
        runs: list[tuple[int | None, list[int], set[int]]] = []
        for index, kind, place in zip(ids, types, places, strict=True):
            if not runs or runs[-1][0] != place:
                runs.append((place, [], set()))
            runs[-1][1].append(index)
            runs[-1][2].add(kind)
        around: list[tuple[list[int], int]] = []
        of_text: list[int] = []
        for number, text in enumerate(texts):
            before = runs.pop(0) if runs and runs[0][0] is None else (None, [], {0})
            own = runs.pop(0) if runs else (None, [], {0})
            if own[0] != number or own[1] != library.encode(text, add_special_tokens=False).ids:
                raise ValueError("tokenizer.json: post_processor does more than to put special tokens around texts")
            around.append((before[1], _one(before[2])))
            of_text.append(_one(own[2]))
        after = runs.pop(0) if runs else (None, [], {0})
        if runs or after[0] is not None:
            raise ValueError("tokenizer.json: post_processor has a text more than once")
        around.append((after[1], _one(after[2])))
        (prefix, prefix_type), *middles, (suffix, suffix_type) = around
        middle, middle_type = middles[0] if middles else ([], 0)
        found.append(
            TemplateSpec(
                prefix=prefix,
                suffix=suffix,
                middle=middle,
                prefix_type=prefix_type,
                first_type=of_text[0],
                middle_type=middle_type,
                second_type=of_text[-1] if len(texts) > 1 else 0,
                suffix_type=suffix_type,
            )
        )
    return found[0], found[1]


def _one(types: set[int]) -> int:
    if len(types) > 1:
        raise ValueError("tokenizer.json: post_processor gives neighbouring special tokens, or one text, several types")
    return next(iter(types), 0)


def _two_texts(library: Any, vocab: list[str]) -> tuple[str, str]:
    """Two texts of different tokens."""
    found: dict[tuple[int, ...], str] = {}
    for text in ("a", "text", "one two", *vocab[:_PROBES]):
        try:
            ids = tuple(library.encode(text, add_special_tokens=False).ids)
        except Exception:  # noqa: S112 - a model without an unknown token refuses the words that it does not have
            continue
        if ids:
            found.setdefault(ids, text)
        if len(found) == 2:
            first, second = found.values()
            return first, second
    raise ValueError("tokenizer.json: no text was found that has tokens")


def _compare(ours: Tokenizer, auto: Any, folder: Path) -> None:
    """Ids and types of the folder's tokenizer beside those of transformers' own calls; verification has more texts.

    Raises:
        UnsupportedCheckpointError: they differ.
    """
    texts = built_in.mixed()
    for pairs in (None, texts[::-1]):
        try:
            batch = ours.encode_batch(texts, pairs, max_length=48)
            theirs = auto(texts, pairs, truncation="longest_first", max_length=48, return_attention_mask=False)
        except (BgertError, ValueError) as error:
            raise CheckpointError(f"{folder}: the tokenizer refuses a text: {error}") from None
        types = theirs.get("token_type_ids") or [[0] * len(ids) for ids in theirs["input_ids"]]
        rows = zip(batch.cu_seqlens, batch.cu_seqlens[1:], strict=False)
        if batch.tolist() != theirs["input_ids"] or [batch.type_ids[i:j].tolist() for i, j in rows] != types:
            raise UnsupportedCheckpointError(
                f"{folder}: {type(auto).__name__} of transformers gives other ids or token types than its "
                "tokenizer.json: HF tokenizers alone does not make them"
            )
