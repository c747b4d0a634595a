"""What is embedded: sets of texts that any machine with Python has, and more where a corpora folder is named.

All are drawn with a fixed seed from the docstrings of the standard library: `short` queries, `passages`, `mixed`
(as `bgert bench`) and `long` (cut at the model's length). `chinese` and `cranfield` come from `--corpora`.
Lengths are counted with the checkpoint's own `tokenizers` file, special tokens included, after the cut.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from itertools import accumulate, cycle, islice
from typing import TYPE_CHECKING, Any

from bgert.evaluation.sample_texts import docstrings, sample_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["SETS", "TextSet", "lacking", "latency_text", "lengths_of", "make"]

SETS = ("short", "passages", "mixed", "long", "chinese", "cranfield")
FOLDERS = {"chinese": "zh", "cranfield": "cranfield"}
FEWEST = 64
PAIR_QUERY_WORDS = 8


@dataclass(frozen=True)
class TextSet:
    """Texts, or (query, text) pairs for a reranker, and their token counts."""

    name: str
    texts: list[Any]
    lengths: list[int]

    def facts(self) -> dict[str, Any]:
        """For the results."""
        ordered = sorted(self.lengths)
        return {
            "texts": len(self.texts),
            "tokens": sum(self.lengths),
            "median_tokens": ordered[len(ordered) // 2],
            "longest": ordered[-1],
        }


def lacking(name: str, corpora: Path | None) -> str | None:
    """Why a set cannot be had, None if it can."""
    folder = FOLDERS.get(name)
    if folder is None or (corpora is not None and (corpora / folder).is_dir()):
        return None
    return f"needs --corpora with a folder {folder}"


def make(name: str, tokenizer: Any, *, tokens: int, kind: str, corpora: Path | None) -> TextSet:
    """The texts of a set, as many as reach `tokens` and at least 64 (8 of `long`).

    Args:
        name: of `SETS`.
        tokenizer: `tokenizers.Tokenizer` that cuts at the model's length.
        tokens: about how many to give.
        kind: `reranker` for pairs.
        corpora: folder with `zh/` and `cranfield/`.
    """
    single = joined(SOURCES[name](corpora), tokenizer) if name == "long" else SOURCES[name](corpora)
    source: Iterator[Any] = pairs(single) if kind == "reranker" else single
    texts: list[Any] = []
    lengths: list[int] = []
    fewest = 8 if name == "long" else FEWEST
    total = 0
    while total < tokens or len(texts) < fewest:
        block = list(islice(source, 16))
        for text, length in zip(block, lengths_of(tokenizer, block), strict=True):
            if total < tokens or len(texts) < fewest:
                texts.append(text)
                lengths.append(length)
                total += length
    return TextSet(name, texts, lengths)


def lengths_of(tokenizer: Any, texts: list[Any]) -> list[int]:
    """Tokens of each text or pair."""
    inputs = [tuple(text) if isinstance(text, (list, tuple)) else text for text in texts]
    return [len(encoding.ids) for encoding in tokenizer.encode_batch(inputs)]


def latency_text(tokenizer: Any, length: int, kind: str) -> Any:
    """One text (or pair) with as many tokens as come near `length` from below."""
    words = " ".join(shuffled(0)).split()
    best: Any = None
    for count in accumulate([1] * (2 * length)):
        text: Any = " ".join(words[:count])
        if kind == "reranker":
            text = [" ".join(words[: min(4, count)]), " ".join(words[4:count])]
        if lengths_of(tokenizer, [text])[0] > length:
            break
        best = text
        if lengths_of(tokenizer, [text])[0] == length:
            break
    return best


def shuffled(seed: int) -> list[str]:
    """All docstrings in a drawn order."""
    pool = list(docstrings().values())
    random.Random(seed).shuffle(pool)
    return pool


def short(_: Path | None) -> Iterator[str]:
    """First lines, at most 12 words: what a search box gets."""
    lines = [" ".join(text.split("\n", 1)[0].split()[:12]) for text in shuffled(1)]
    return cycle([line for line in lines if len(line.split()) >= 3])


def passages(_: Path | None) -> Iterator[str]:
    """Paragraphs of 60 to 140 words."""
    found: list[str] = []
    words: list[str] = []
    for text in shuffled(2):
        words += text.split()
        if len(words) >= 60:
            found.append(" ".join(words[:140]))
            words = []
    return cycle(found)


def mixed(_: Path | None) -> Iterator[str]:
    """The texts of `bgert bench`."""
    return cycle(sample_texts(1500))


def chinese(corpora: Path | None) -> Iterator[str]:
    """Lines of the Chinese text files."""
    folder = within(corpora, "chinese")
    lines = [
        line.strip()
        for path in sorted(folder.glob("*.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if sum("\u4e00" <= letter <= "\u9fff" for letter in line) > len(line) / 2
    ]
    random.Random(3).shuffle(lines)
    return cycle(lines)


def cranfield(corpora: Path | None) -> Iterator[str]:
    """Abstracts of the Cranfield collection."""
    lines = (within(corpora, "cranfield") / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    return cycle([f"{row.get('title', '')} {row['text']}".strip() for row in rows if row["text"].strip()])


def within(corpora: Path | None, name: str) -> Path:
    """The folder of a set."""
    if corpora is None:
        raise ValueError(lacking(name, corpora))
    return corpora / FOLDERS[name]


def joined(source: Iterator[str], tokenizer: Any) -> Iterator[str]:
    """Texts put together until the tokenizer cuts them."""
    limit = tokenizer.truncation["max_length"]
    while True:
        text = next(source)
        while lengths_of(tokenizer, [text])[0] < limit:
            text += "\n\n" + next(source)
        yield text


def pairs(source: Iterator[str]) -> Iterator[list[str]]:
    """A query, the beginning of another text, before each text."""
    before = next(source)
    for text in source:
        yield [" ".join(before.split()[:PAIR_QUERY_WORDS]), text]
        before = text


SOURCES: dict[str, Callable[[Path | None], Iterator[str]]] = {
    "short": short,
    "passages": passages,
    "mixed": mixed,
    "long": mixed,
    "chinese": chinese,
    "cranfield": cranfield,
}
