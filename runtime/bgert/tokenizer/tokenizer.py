"""Texts to token ids."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from bgert import _native
from bgert.cpu_count import available_cpus
from bgert.errors import InvalidOptionError, InvalidTextError, ModelFolderError
from bgert.lifecycle import NativeCall
from bgert.model_folder import MANIFEST_NAME, Manifest
from bgert.tokenizer.spec import TemplateSpec, TokenizerSpec, UnigramSettings, existing_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["TRUNCATIONS", "TokenBatch", "Tokenizer"]

TRUNCATIONS = ("longest_first", "only_first", "only_second", "flag_embedding", "do_not_truncate")


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Token ids of many texts, one row after the other without padding."""

    ids: NDArray[np.int32]
    """int32[T], T tokens in all."""
    cu_seqlens: NDArray[np.int32]
    """int32[B + 1]: row i is `ids[cu_seqlens[i]:cu_seqlens[i + 1]]`."""
    type_ids: NDArray[np.int32]
    """int32[T], token types."""
    truncated: NDArray[np.bool_]
    """bool[B]: whether the row lost tokens."""

    def __len__(self) -> int:
        """How many rows there are, B."""
        return len(self.truncated)

    def row(self, index: int) -> NDArray[np.int32]:
        """The ids of one row, a view; negative indices count from the end.

        Raises:
            IndexError: there is no such row.
        """
        index = range(len(self))[index]
        return self.ids[self.cu_seqlens[index] : self.cu_seqlens[index + 1]]

    def tolist(self) -> list[list[int]]:
        """The ids of each row as Python lists."""
        ids, cuts = self.ids.tolist(), self.cu_seqlens.tolist()
        return [ids[start:stop] for start, stop in pairwise(cuts)]


class Tokenizer:
    """A tokenizer whose ids are those of Hugging Face `tokenizers`. Safe to share between threads.

    Attributes:
        max_length: longest row in tokens, special tokens counted; None if unlimited.
        special_tokens: how many tokens the template adds to one text.
        pair_special_tokens: how many it adds to a pair.
        vocab_size: tokens of the vocabulary, without added ones.
        notes: decisions taken where a checkpoint's files left a choice.
    """

    def __init__(self, spec: TokenizerSpec) -> None:
        """Build from a spec, usually through `from_folder`.

        Raises:
            ModelFolderError: the parts of the spec do not fit together.
        """
        try:
            model = _build_model(spec)
            self._encoder = _native.BatchEncoder(model, _template(spec.single), _template(spec.pair))
        except ValueError as error:
            raise ModelFolderError(f"the tokenizer cannot be built: {error}") from error
        self.max_length = spec.max_length
        self.special_tokens = len(spec.single.prefix) + len(spec.single.suffix)
        self.pair_special_tokens = len(spec.pair.prefix) + len(spec.pair.middle) + len(spec.pair.suffix)
        self.vocab_size = model.vocab_size
        self.notes = tuple(spec.notes)

    @classmethod
    def from_folder(cls, path: str | Path) -> Tokenizer:
        """Load from a model folder that `bgert export` wrote, or from a Hugging Face checkpoint folder.

        Raises:
            ModelNotFoundError: the folder does not exist.
            ModelFolderError: its tokenizer is missing, malformed or of an unsupported kind.
        """
        folder = existing_folder(path)
        if (folder / MANIFEST_NAME).exists():
            manifest = Manifest.read(folder)
            return cls(TokenizerSpec.read(folder, manifest.tokenizer, manifest.max_tokens))
        # Not at the top: reading a model folder needs none of it.
        from bgert.tokenizer.checkpoint import read_checkpoint

        return cls(read_checkpoint(folder))

    def encode_batch(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        truncation: str = "longest_first",
        add_special_tokens: bool = True,
        split_special_tokens: bool = False,
        threads: int | None = None,
    ) -> TokenBatch:
        """Tokenize texts, or pairs of texts, without padding.

        Args:
            texts: list or tuple of str, B of them.
            pairs: the second texts, as many; None for single texts.
            max_length: tokens a row may have, special tokens counted; None for the tokenizer's own `max_length`.
            truncation: what to cut when a row is too long: `longest_first`, `only_first`, `only_second`, or
                `flag_embedding` (the first text to 3/4 of `max_length`, then as `only_second`), or `do_not_truncate`,
                which ignores `max_length`.
            add_special_tokens: put special tokens around the texts.
            split_special_tokens: treat special tokens that occur in a text as plain text.
            threads: cores to use; None for all that the process may use.

        Returns:
            `ids` int32[T], `cu_seqlens` int32[B + 1], `type_ids` int32[T], `truncated` bool[B].

        Raises:
            InvalidTextError: `texts` or `pairs` is no list of str, an item is no str or holds a lone surrogate, or
                a strategy other than `longest_first` cannot bring a pair under `max_length`.
            InvalidOptionError: an option has a value that is not allowed.
        """
        _check_list(texts, "texts")
        if pairs is not None:
            _check_list(pairs, "pairs")
            if len(pairs) != len(texts):
                raise InvalidTextError(f"pairs has {len(pairs)} items, texts has {len(texts)}: pass as many of each")
        if truncation not in TRUNCATIONS:
            raise InvalidOptionError(f"unknown truncation {truncation!r}: use one of {', '.join(TRUNCATIONS)}")
        if truncation in ("only_second", "flag_embedding") and pairs is None:
            raise InvalidOptionError(f"truncation {truncation!r} needs pairs: use 'longest_first' for single texts")
        limit = _whole("max_length", max_length, 0)
        cores = _whole("threads", threads, 1)
        with NativeCall():
            encoded = self._encoder.encode(
                texts,
                pairs,
                max_length=self.max_length if limit is None else limit,
                truncation=truncation,
                add_special_tokens=_flag("add_special_tokens", add_special_tokens),
                split_special_tokens=_flag("split_special_tokens", split_special_tokens),
                threads=available_cpus() if cores is None else cores,
            )
        return TokenBatch(*encoded)


def _build_model(spec: TokenizerSpec) -> _native.TextModel:
    """The native model of a spec's kind."""
    tokens = []
    for token in spec.added_tokens:
        flags = asdict(token)
        tokens.append(_native.AddedToken(token_id=flags.pop("id"), **flags))
    if isinstance(spec.model, UnigramSettings):
        return _native.UnigramModel(spec.model.data, added_tokens=tokens)
    return _native.WordPieceModel(spec.vocab, **asdict(spec.model), added_tokens=tokens)


def _template(spec: TemplateSpec) -> _native.Template:
    return _native.Template(**asdict(spec))


def _check_list(texts: object, name: str) -> None:
    """Raise InvalidTextError unless `texts` is a list or tuple; its items are checked by the encoder."""
    if not isinstance(texts, (list, tuple)):
        hint = f"[{name[:-1]}]" if isinstance(texts, str) else "a list of str"
        raise InvalidTextError(f"{name} is {type(texts).__name__}: pass {hint}")


def _whole(name: str, value: object, least: int) -> int | None:
    """Raise InvalidOptionError unless `value` is None or an int of at least `least`."""
    if value is None:
        return None
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not least <= value < 2**31:
        raise InvalidOptionError(f"{name} is {value!r}: use None or a whole number from {least}")
    return int(value)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise InvalidOptionError(f"{name} is {value!r}: use True or False")
    return bool(value)
