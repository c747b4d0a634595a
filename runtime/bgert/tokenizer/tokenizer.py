"""Texts to token ids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from reprlib import Repr
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np

from bgert.cpu_count import available_cpus
from bgert.errors import InvalidOptionError, InvalidTextError, ModelFolderError
from bgert.lifecycle import NativeCall
from bgert.model_folder import MANIFEST_NAME, Manifest, verify_files
from bgert.paths import existing_folder, user_path
from bgert.tokenizer.build import batch_encoder, build_tokenizer
from bgert.tokenizer.chunking import Chunk, Chunker
from bgert.tokenizer.results import Token, TokenBatch
from bgert.tokenizer.spec import TokenizerSpec, check_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["TRUNCATIONS", "TRUNCATION_SIDES", "Token", "TokenBatch", "Tokenizer"]

_REPR = Repr()  # numbers of any size, cut short
LARGEST_FILE = 1 << 26  # bytes; unigram.bin of XLM-R has 8 MB
TRUNCATIONS = ("longest_first", "only_first", "only_second", "flag_embedding", "do_not_truncate")
TRUNCATION_SIDES = ("right", "left")


class Tokenizer:
    """A tokenizer whose ids are those of Hugging Face `tokenizers`. Safe to share between threads.

    Attributes:
        max_length: longest row in tokens, special tokens counted; None if unlimited.
        special_tokens: how many tokens the template adds to one text.
        pair_special_tokens: how many it adds to a pair.
        vocab_size: tokens of the vocabulary, without added ones.
        notes: decisions taken where a checkpoint's files left a choice.
    """

    def __init__(self, source: str | Path | TokenizerSpec) -> None:
        """Load from a folder, see `from_folder`, or build from a spec.

        Raises:
            ModelNotFoundError: the folder does not exist.
            ModelFolderError: its tokenizer is missing, malformed or of an unsupported kind.
            InvalidOptionError: `source` is neither.
        """
        origin: str | TokenizerSpec
        if isinstance(source, (str, Path)):
            origin = str(user_path(source).absolute())
            source = _read_spec(source)
        else:
            origin = source
        if not isinstance(source, TokenizerSpec):
            raise InvalidOptionError(f"source is {type(source).__name__}: pass the path of a folder")
        check_spec(source)
        self._source = origin
        try:
            self._model, self._encoder = build_tokenizer(source)
        except (ValueError, MemoryError) as error:
            # What it says may quote a token, of any size and with line breaks.
            reason = shorten(str(error) or "out of memory", 300)
            raise ModelFolderError(f"the tokenizer cannot be built: {reason}") from error
        self.max_length = source.max_length
        self.special_tokens = len(source.single.prefix) + len(source.single.suffix)
        self.pair_special_tokens = len(source.pair.prefix) + len(source.pair.middle) + len(source.pair.suffix)
        if self.max_length is not None and not self.special_tokens <= self.max_length < 2**31:
            raise ModelFolderError(
                f"the tokenizer cannot be built: it puts {self.special_tokens} special tokens around a text, and a row "
                f"may have {_REPR.repr(self.max_length)} tokens"
            )
        self.vocab_size = self._model.vocab_size
        self.notes = tuple(source.notes)
        self._single = source.single

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[str | TokenizerSpec]]:
        """Pickled and copied as what it was made from: a folder has to be there again."""
        return type(self), (self._source,)

    @classmethod
    def from_folder(cls, path: str | Path) -> Tokenizer:
        """Load from a model folder that `bgert export` wrote, or from a Hugging Face checkpoint folder.

        Raises:
            InvalidOptionError: `path` is no path.
            ModelNotFoundError: the folder does not exist.
            ModelFolderError: its tokenizer is missing, malformed or of an unsupported kind.
            IntegrityError: a file of a model folder is not the one that export wrote.
        """
        return cls(user_path(path))

    @classmethod
    def from_manifest(cls, folder: Path, manifest: Manifest) -> Tokenizer:
        """Load from a model folder whose manifest was read.

        Raises:
            ModelFolderError: the tokenizer is malformed.
            IntegrityError: its file is not the one that export wrote.
        """
        tokenizer = cls(_spec_of(folder, manifest))
        tokenizer._source = str(folder.absolute())
        return tokenizer

    def encode(
        self,
        text: str,
        pair: str | None = None,
        *,
        add_special_tokens: bool = True,
        split_special_tokens: bool = False,
    ) -> NDArray[np.int32]:
        """All token ids of one text or pair, int32[T]: nothing is cut, however long it is.

        Args:
            text: the text.
            pair: the second text of a pair.
            add_special_tokens: put special tokens around the texts.
            split_special_tokens: treat special tokens that occur in a text as plain text.

        Raises:
            InvalidTextError: a text is no str or holds a lone surrogate.
            InvalidOptionError: an option has a value that is not allowed.
        """
        return self.encode_batch(
            [text],
            None if pair is None else [pair],
            truncation="do_not_truncate",
            add_special_tokens=add_special_tokens,
            split_special_tokens=split_special_tokens,
            threads=1,
        ).ids

    def count(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        add_special_tokens: bool = True,
        threads: int | None = None,
    ) -> NDArray[np.int32]:
        """How many tokens each text or pair has, int32[B]: nothing is cut.

        Args:
            texts: list or tuple of str, B of them.
            pairs: the second texts, as many; None for single texts.
            add_special_tokens: count those too.
            threads: cores to use; None for all that the process may use.

        Raises:
            InvalidTextError: as in `encode_batch`.
            InvalidOptionError: an option has a value that is not allowed.
        """
        batch = self.encode_batch(
            texts, pairs, truncation="do_not_truncate", add_special_tokens=add_special_tokens, threads=threads
        )
        return np.diff(batch.cu_seqlens)

    def tokens(self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False) -> list[Token]:
        """The tokens of one text with their places in it, which are the `offsets` of Hugging Face `tokenizers`.

        The ids are those of `encode`; this is slower. Where a charsmap deletes the first characters of a text, such as
        control characters, the offsets of `tokenizers` after them are too small, and so are these.

        Args:
            text: the text.
            add_special_tokens: put special tokens around the text.
            split_special_tokens: treat special tokens that occur in the text as plain text.

        Raises:
            InvalidTextError: the text is no str or holds a lone surrogate.
            InvalidOptionError: an option has a value that is not allowed.
        """
        around = _flag("add_special_tokens", add_special_tokens)
        split = _flag("split_special_tokens", split_special_tokens)
        with NativeCall():
            ids, offsets = self._model.encode_spans(text, split_special_tokens=split, as_hf=True)
        places = zip(ids.tolist(), offsets.tolist(), strict=True)
        listed = [Token(index, text[start:stop], False, start, stop) for index, (start, stop) in places]
        if not around:
            return listed
        before, after = ([self._special(index) for index in ids] for ids in (self._single.prefix, self._single.suffix))
        return [*before, *listed, *after]

    def decode(self, ids: Sequence[int] | NDArray[np.integer], skip_special_tokens: bool = False) -> str:
        """The text of token ids, as the `decode` of Hugging Face `tokenizers` gives it.

        It is not the text that was encoded: what the normaliser changed stays changed, and WordPiece does not know
        where spaces were.

        Args:
            ids: list of int or integer array [T].
            skip_special_tokens: leave special tokens out.

        Raises:
            InvalidTextError: `ids` is something else, or an id is that of no token.
            InvalidOptionError: `skip_special_tokens` is no bool.
        """
        skip = _flag("skip_special_tokens", skip_special_tokens)
        with NativeCall():
            return self._model.decode(_ids(ids), skip_special_tokens=skip)

    def chunk(self, text: str, max_tokens: int | None = None, overlap: int = 0) -> list[Chunk]:
        """Cut a text into parts `text[chunk.start:chunk.stop]` that each fit into `max_tokens`.

        Parts end between words where they can, and never within a token. Whitespace between parts belongs to none;
        every token is in one. A text without tokens has no parts.

        Args:
            text: the text.
            max_tokens: tokens a part may have when it is encoded by itself, special tokens counted; None for the
                tokenizer's own `max_length`.
            overlap: tokens that a part may have in common with the one before, fewer so that it begins with a word.

        Raises:
            InvalidTextError: the text is no str, holds a lone surrogate, or has more tokens at a place that cannot be
                cut (such as one character that stands for many) than `max_tokens` allows.
            InvalidOptionError: `max_tokens` has no room for a token, or `overlap` none for a new one.
        """
        limit = _whole("max_tokens", self.max_length if max_tokens is None else max_tokens, self.special_tokens + 1)
        if limit is None:
            raise InvalidOptionError("this tokenizer has no max_length of its own: pass max_tokens")
        room = limit - self.special_tokens
        shared = _whole("overlap", overlap, 0)
        if shared is None or shared >= room:
            raise InvalidOptionError(f"overlap is {overlap!r}: use a whole number below {room}")
        with NativeCall():
            _, offsets = self._model.encode_spans(text, split_special_tokens=False, as_hf=False)
        offsets = offsets[offsets[:, 0] < offsets[:, 1]]  # others are of whitespace alone
        chunker = Chunker(text, offsets, lambda part: len(self.encode(part)))
        return chunker.chunks(room, limit, shared)

    def id_to_token(self, index: int) -> str:
        """The token with an id, such as `##ing` or `[CLS]`.

        Raises:
            InvalidTextError: there is none, or `index` is no int.
        """
        token = self._model.token(int(_ids([index])[0]))
        if token is None:
            raise InvalidTextError(f"id {index} is that of no token of this tokenizer")
        return token

    def _special(self, index: int) -> Token:
        return Token(index, self.id_to_token(index), True, None, None)

    def inserting(self, ids: list[int]) -> Tokenizer:
        """This tokenizer, with ids behind the first special token of every single text; not for pairs or pickles."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        first, rest = self._single.prefix[:1], self._single.prefix[1:]
        made._single = replace(self._single, prefix=[*first, *ids, *rest])
        made.special_tokens = self.special_tokens + len(ids)
        made._encoder = batch_encoder(self._model, made._single, made._single)
        return made

    def encode_batch(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        truncation: str = "longest_first",
        query_max_length: int | None = None,
        truncation_side: str = "right",
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
            query_max_length: tokens that the first text may have by `flag_embedding`, without special ones, instead
                of 3/4 of `max_length`.
            truncation_side: `right` keeps the beginning of a text that is cut, `left` its end.
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
        if truncation_side not in TRUNCATION_SIDES:
            raise InvalidOptionError(f"unknown truncation_side {truncation_side!r}: use one of right, left")
        if truncation in ("only_second", "flag_embedding") and pairs is None:
            raise InvalidOptionError(f"truncation {truncation!r} needs pairs: use 'longest_first' for single texts")
        limit = _whole("max_length", max_length, 0)
        cores = _whole("threads", threads, 1)
        if query_max_length is not None and truncation != "flag_embedding":
            raise InvalidOptionError(f"query_max_length is for truncation 'flag_embedding', and this is {truncation!r}")
        with NativeCall():
            encoded = self._encoder.encode(
                texts,
                pairs,
                max_length=self.max_length if limit is None else limit,
                truncation=truncation,
                query_max_length=_whole("query_max_length", query_max_length, 1),
                truncation_side=truncation_side,
                add_special_tokens=_flag("add_special_tokens", add_special_tokens),
                split_special_tokens=_flag("split_special_tokens", split_special_tokens),
                threads=available_cpus() if cores is None else cores,
            )
        return TokenBatch(*encoded)


def _read_spec(path: str | Path) -> TokenizerSpec:
    """What a folder's tokenizer is made of."""
    folder = existing_folder(path)
    if (folder / MANIFEST_NAME).exists():
        return _spec_of(folder, Manifest.read(folder))
    # Not at the top: reading a model folder needs none of it.
    from bgert.tokenizer.checkpoint import read_checkpoint

    return read_checkpoint(folder)


def _spec_of(folder: Path, manifest: Manifest) -> TokenizerSpec:
    verify_files(folder, manifest.tokenizer_files, most=LARGEST_FILE)
    spec = TokenizerSpec.read(folder, manifest.tokenizer, manifest.max_tokens)
    _check_tables(folder, spec, manifest)
    return spec


def _check_tables(folder: Path, spec: TokenizerSpec, manifest: Manifest) -> None:
    """Raise ModelFolderError if an input could have no text, or an id, a position or a type without an embedding."""
    layout = spec.pair if manifest.kind == "reranker" else spec.single
    special = len(layout.prefix) + len(layout.middle) + len(layout.suffix)
    if special >= manifest.max_tokens:
        raise ModelFolderError(
            f"{folder}: {special} special tokens leave no room for text, as max_tokens is {manifest.max_tokens}"
        )
    offset = manifest.architecture.get("position_offset")
    largest = {
        "max_position_embeddings": manifest.max_tokens - 1 + (offset if isinstance(offset, int) else 0),
        "vocab_size": max([len(spec.vocab) - 1, *(token.id for token in spec.added_tokens)]),
        "type_vocab_size": max(
            layout.prefix_type, layout.first_type, layout.middle_type, layout.second_type, layout.suffix_type
        ),
    }
    for table, index in largest.items():
        rows = manifest.architecture.get(table)
        if isinstance(rows, int) and index >= rows:
            raise ModelFolderError(
                f"{folder}: the tokenizer and max_tokens reach row {_REPR.repr(index)} of an embedding, but the model's"
                f" {table} is {_REPR.repr(rows)}: they do not belong together"
            )


def _check_list(texts: object, name: str) -> None:
    """Raise InvalidTextError unless `texts` is a list or tuple; its items are checked by the encoder."""
    if not isinstance(texts, (list, tuple)):
        hint = f"[{name[:-1]}]" if isinstance(texts, str) else "a list of str"
        raise InvalidTextError(f"{name} is {type(texts).__name__}: pass {hint}")


def _ids(ids: object) -> NDArray[np.int64]:
    """Ids as int64[T]; InvalidTextError if they are none."""
    try:
        numbers = np.asarray(ids)
    except ValueError:  # rows of several lengths
        numbers = np.asarray(None)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise InvalidTextError(f"ids is {ids!r:.80}: pass a list of int, or an integer array of one dimension")
    if numbers.dtype == np.uint64:
        numbers = np.minimum(numbers, np.uint64(2**63 - 1))
    return np.ascontiguousarray(numbers, np.int64)


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
