"""Truncation, special tokens and packing around a tokenizer of HF `tokenizers`, as `_native.BatchEncoder` does them."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from bgert.errors import InvalidOptionError, InvalidTextError
from bgert.tokenizer.huggingface import HuggingFaceModel, RowError, check_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bgert.tokenizer.protocol import TextModel
    from bgert.tokenizer.spec import TemplateSpec

__all__ = ["HuggingFaceEncoder", "truncate_pair"]

_MOST_TEMPLATE_TOKENS = 512  # kMostTemplateTokens of runtime/src/tokenizer/check_template.h
_UNLIMITED = 1 << 62


class HuggingFaceEncoder:
    """What `_native.BatchEncoder` is. Safe to share between threads."""

    def __init__(self, model: TextModel, single: TemplateSpec, pair: TemplateSpec) -> None:
        """Take the model and the templates of one text and of a pair.

        Raises:
            ValueError: a template has an id that is no token's, too many of them, or some in the midst of one text.
        """
        if not isinstance(model, HuggingFaceModel):
            raise ValueError("the model is none of HF tokenizers")
        for layout in (single, pair):
            around = [*layout.prefix, *layout.middle, *layout.suffix]
            if len(around) > _MOST_TEMPLATE_TOKENS:
                raise ValueError(f"a template has {len(around)} tokens, at most {_MOST_TEMPLATE_TOKENS} can be")
            for index in around:
                if model.token(index) is None:
                    raise ValueError(f"a template has the id {index}, which is that of no token")
        if single.middle:
            raise ValueError("the template of one text has tokens between two")
        self._model = model
        self._single, self._pair = single, pair

    def encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        *,
        max_length: int | None,
        truncation: str,
        query_max_length: int | None,
        truncation_side: str,
        add_special_tokens: bool,
        split_special_tokens: bool,
        threads: int,
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]:
        """See `Tokenizer.encode_batch`, which checks the options."""
        texts, pairs = tuple(texts), None if pairs is None else tuple(pairs)
        for name, items in (("texts", texts), ("pairs", pairs or ())):
            for number, item in enumerate(items):
                check_text(item, f"{name}[{number}]")
        layout = self._single if pairs is None else self._pair
        prefix, middle, suffix = (layout.prefix, layout.middle, layout.suffix) if add_special_tokens else ([], [], [])
        special = len(prefix) + len(middle) + len(suffix)
        limit = _UNLIMITED if max_length is None or truncation == "do_not_truncate" else max_length
        if limit < special:
            raise InvalidOptionError(f"max_length is {limit}, but the special tokens alone are {special}")
        room, left = limit - special, truncation_side == "left"
        firsts, seconds = (self._ids(items, split_special_tokens, threads) for items in (texts, pairs or ()))
        most_first = _most_of_first(limit, truncation, query_max_length)
        types = (layout.prefix_type, layout.first_type, layout.middle_type, layout.second_type, layout.suffix_type)

        parts: list[Sequence[int]] = []
        truncated = np.zeros(len(texts), np.bool_)
        for row, first in enumerate(firsts):
            if pairs is None:
                keep = min(len(first), room)
                parts += (prefix, _cut(first, keep, left), (), (), suffix)
                truncated[row] = keep < len(first)
                continue
            second = seconds[row]
            kept = truncate_pair(min(len(first), most_first), len(second), room, truncation)
            if kept is None:
                own, other = ("pair", "text") if truncation == "only_first" else ("text", "pair")
                raise InvalidTextError(
                    f"texts[{row}]: its {own} alone has {room} tokens or more, so cutting the {other} cannot bring it "
                    "under max_length"
                )
            parts += (prefix, _cut(first, kept[0], left), middle, _cut(second, kept[1], left), suffix)
            truncated[row] = kept[0] < len(first) or kept[1] < len(second)

        sizes = np.fromiter(map(len, parts), np.int64, len(parts)).reshape(-1, len(types))
        cuts = np.concatenate([[0], np.cumsum(sizes.sum(axis=1))])
        if cuts[-1] > np.iinfo(np.int32).max:
            row = int(np.argmax(cuts > np.iinfo(np.int32).max)) - 1
            raise InvalidTextError(
                f"texts[{row}]: with it the batch has more than {np.iinfo(np.int32).max} tokens, which int32 offsets "
                "cannot hold; encode fewer texts at a time"
            )
        ids = np.fromiter(chain.from_iterable(parts), np.int32, int(cuts[-1]))
        type_ids = np.repeat(np.tile(np.array(types, np.int32), len(texts)), sizes.ravel())
        return ids, cuts.astype(np.int32), type_ids, truncated

    def _ids(self, texts: Sequence[str], split_special_tokens: bool, threads: int) -> list[list[int]]:
        """Ids of each text; of equal ones, as the query of many pairs is, once."""
        different = list(dict.fromkeys(texts))
        try:
            rows = self._model.ids(different, split_special_tokens=split_special_tokens, threads=threads)
        except RowError as error:
            row = texts.index(different[error.row])
            raise InvalidTextError(f"texts[{row}]: HF tokenizers cannot encode it: {error}") from None
        found = dict(zip(different, rows, strict=True))
        return [found[text] for text in texts]


def truncate_pair(first: int, second: int, room: int, truncation: str) -> tuple[int, int] | None:
    """How many tokens of each text of a pair stay where there is room for `room`; None if cutting one is not enough."""
    if first + second <= room:
        return first, second
    if room == 0:
        return 0, 0
    if truncation == "only_first":
        return (room - second, second) if second < room else None
    if truncation in ("only_second", "flag_embedding"):
        return (first, room - first) if first < room else None
    less, more = sorted((first, second))
    more = less if less > room else max(less, room - less)
    if less + more > room:
        less = room // 2
        more = less + room % 2
    return (more, less) if first > second else (less, more)


def _most_of_first(limit: int, truncation: str, query_max_length: int | None) -> int:
    """Tokens that a first text may have before the pair is looked at."""
    if truncation != "flag_embedding":
        return _UNLIMITED
    if query_max_length is not None:
        return query_max_length
    return _UNLIMITED if limit == _UNLIMITED else limit * 3 // 4


def _cut(ids: list[int], keep: int, left: bool) -> list[int]:
    return ids[len(ids) - keep :] if left else ids[:keep]
