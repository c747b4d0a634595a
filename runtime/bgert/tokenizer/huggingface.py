"""Runs a `tokenizer.json` by Hugging Face's `tokenizers`, a package built in Rust, for those that bgert has none for.

Nothing comes here but a model folder that was exported with `--tokenizer huggingface`. This is the only module that
imports the package.
"""

from __future__ import annotations

from contextlib import contextmanager
from textwrap import shorten
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.checked_file import decode_json
from bgert.cpu_count import available_cpus
from bgert.errors import BgertError, EngineNotInstalledError, InvalidTextError, install_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["EXTRA", "HuggingFaceModel", "library_version", "open_library", "vocabulary"]

EXTRA = "hf-tokenizers"
_SLICE = 1 << 20  # characters that are with the library at a time: it takes some hundred bytes a token
_RANDOM = {"BPE": ("dropout",), "Unigram": ("alpha", "nbest_size")}


def library_version() -> str:
    """The package and its version.

    Raises:
        EngineNotInstalledError: it is not installed.
    """
    return f"tokenizers {_import().__version__}"


def open_library(data: bytes) -> Any:
    """The package's own tokenizer of a `tokenizer.json`, that cuts and pads nothing.

    Raises:
        EngineNotInstalledError: the package is not installed.
        ValueError: the file is damaged, of a form that this version does not read, or would give ids by chance.
    """
    tokenizers = _import()
    with _library_errors(lambda reason: ValueError(f"tokenizer.json: {library_version()} cannot read it: {reason}")):
        library = tokenizers.Tokenizer.from_str(data.decode("utf-8"))
        library.no_truncation()
        library.no_padding()
        kind = type(library.model).__name__
        if kind == "Unigram":
            library.model = _exact_unigram(tokenizers, data)
        for name in _RANDOM.get(kind, ()):
            if getattr(library.model, name, None):
                raise ValueError(f"model.{name} is set, so that ids would be random")
    return library


def vocabulary(library: Any, most: int) -> list[str]:
    """Tokens by id, added ones too; the empty string stands for an id that has none.

    Raises:
        ValueError: there is no token, or an id of `most` or above.
    """
    ids = library.get_vocab(with_added_tokens=True)
    largest = max(ids.values(), default=-1)
    if not 0 <= largest < most:
        raise ValueError(f"tokenizer.json: the largest id is {largest}, where 0 to {most - 1} can be")
    tokens = [""] * (largest + 1)
    for token, index in ids.items():
        tokens[index] = token
    return tokens


class HuggingFaceModel:
    """What `_native.TextModel` is, by the package. Safe to share between threads."""

    def __init__(self, data: bytes, library: Any | None = None) -> None:
        """Take a `tokenizer.json`, and the package's tokenizer of it if there is one already.

        Raises:
            EngineNotInstalledError: the package is not installed.
            ValueError: see `open_library`.
        """
        self._data = data
        self._whole = open_library(data) if library is None else library
        self._splitting: Any | None = None
        self._lock = Lock()

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary, without added ones."""
        return int(self._whole.get_vocab_size(with_added_tokens=False))

    def token(self, token_id: int) -> str | None:
        """The token with an id; None if there is none."""
        token: str | None = self._whole.id_to_token(token_id) if 0 <= token_id < 2**31 else None
        return token

    def decode(self, ids: NDArray[np.int64], *, skip_special_tokens: bool) -> str:
        """The text of ids [T].

        Raises:
            InvalidTextError: an id is that of no token.
        """
        listed = ids.tolist()
        unknown = {index for index in set(listed) if self.token(index) is None}
        for place, index in enumerate(listed):
            if index in unknown:
                raise InvalidTextError(f"ids[{place}] is {index}, which is the id of no token of this tokenizer")
        with _library_errors(lambda reason: InvalidTextError(f"HF tokenizers cannot decode these ids: {reason}")):
            return str(self._whole.decode(listed, skip_special_tokens=skip_special_tokens))

    def encode_spans(
        self, text: str, *, split_special_tokens: bool, as_hf: bool
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Ids [T] and characters [T, 2].

        Raises:
            InvalidTextError: the text is no str, holds a lone surrogate, is refused by the package, or - unless
                `as_hf` - has places that the package counts wrongly.
        """
        check_text(text, "text")
        library = self._library(split_special_tokens)
        with _library_errors(lambda reason: InvalidTextError(f"text: HF tokenizers cannot encode it: {reason}")):
            encoded = library.encode(text, add_special_tokens=False)
            gone = 0 if as_hf else _deleted_first(library, text)
            if gone:  # the package counts what stays as if it began at 0
                cut = library.encode(text[gone:], add_special_tokens=False)
                if cut.ids != encoded.ids:
                    raise ValueError("its first characters are deleted, and offsets behind them are not known")
                encoded = cut
        spans = np.array(encoded.offsets, np.int32).reshape(-1, 2) + gone
        return np.array(encoded.ids, np.int32), spans.astype(np.int32)

    def ids(self, texts: Sequence[str], *, split_special_tokens: bool, threads: int) -> list[list[int]]:
        """Ids of each text, on one core, or on all where `threads` allows them: the package knows nothing between.

        Raises:
            RowError: the package refuses a text.
        """
        library = self._library(split_special_tokens)
        found: list[list[int]] = []
        start = 0
        while start < len(texts):
            stop, size = start + 1, len(texts[start])
            while stop < len(texts) and (size := size + len(texts[stop])) <= _SLICE:
                stop += 1
            found += self._slice(library, list(texts[start:stop]), start, all_cores=1 < available_cpus() <= threads)
            start = stop
        return found

    def _slice(self, library: Any, texts: list[str], first: int, *, all_cores: bool) -> list[list[int]]:
        if all_cores:
            try:
                with _library_errors(ValueError):
                    return [row.ids for row in library.encode_batch_fast(texts, add_special_tokens=False)]
            except ValueError:  # of which text, is what the loop below finds
                pass
        rows = []
        for number, text in enumerate(texts, first):
            with _library_errors(lambda reason, row=number: RowError(row, reason)):  # type: ignore[misc]
                rows.append(library.encode(text, add_special_tokens=False).ids)
        return rows

    def _library(self, split_special_tokens: bool) -> Any:
        """Whether special tokens are found in texts is a setting of the package's tokenizer, so there are two."""
        if not split_special_tokens:
            return self._whole
        with self._lock:
            if self._splitting is None:
                self._splitting = open_library(self._data)
                self._splitting.encode_special_tokens = True
        return self._splitting


class RowError(ValueError):
    """The package refuses a text; `row` is its number."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row = row


def check_text(text: object, place: str) -> None:
    """Raise InvalidTextError, as the native tokenizer does, if a text is no str or no UTF-8 can hold it."""
    if not isinstance(text, str):
        raise InvalidTextError(f"{place} is {type(text).__name__}, not str")
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidTextError(
            f"{place} has a lone surrogate at position {error.start}, which no UTF-8 text can hold; decode the text "
            "with errors='replace'"
        ) from None


def _import() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise EngineNotInstalledError(
            f"the tokenizer of this model is run by HF tokenizers, which is not here ({error}): {install_extra(EXTRA)}"
        ) from None
    return tokenizers


def _exact_unigram(tokenizers: Any, data: bytes) -> Any:
    """The model with its scores as they are written: the package's own reader is off in a last digit of some."""
    model = decode_json(data)["model"]
    names = ("unk_id", "byte_fallback", *_RANDOM["Unigram"])
    options = {name: model[name] for name in names if model.get(name) is not None}
    return tokenizers.models.Unigram([(piece, float(score)) for piece, score in model["vocab"]], **options)


def _deleted_first(library: Any, text: str) -> int:
    """How many characters at the beginning of a text the normaliser deletes."""
    normalizer = library.normalizer
    if normalizer is None:
        return 0
    gone = 0
    while gone < len(text) and not text[gone].isspace() and normalizer.normalize_str(text[gone]) == "":
        gone += 1
    return gone


@contextmanager
def _library_errors(make: Callable[[str], Exception]) -> Iterator[None]:
    """Turn whatever the package raises into an error of ours; its panics are no `Exception`."""
    try:
        yield
    except (BgertError, MemoryError, RowError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise make(shorten(str(error) or type(error).__name__, 300)) from None
