"""The inputs of a verification, in groups that run together."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.errors import InvalidOptionError
from bgert_export.verification import texts as built_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bgert.tokenizer import TokenBatch, Tokenizer
    from bgert_export.verification.torch_reference import Tokens

    Array = NDArray[np.float32]

__all__ = ["Group", "built_in_groups", "corpus_of", "file_groups", "pooled_rows", "run_in_batches"]


@dataclass
class Group:
    """Inputs that run together."""

    name: str
    texts: list[str]
    max_length: int
    second: list[str] | None = None
    """Documents, for pairs."""
    one_batch: bool = False
    """Run as one batch in this order, instead of in batches of the runtime's choice."""
    inputs: list[Tokens] = field(default_factory=list)
    expected: Array = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def encode(self, tokenizer: Tokenizer, prefix: str) -> TokenBatch:
        """Token ids, of texts after the model's default prompt."""
        texts = [prefix + text for text in self.texts]
        return tokenizer.encode_batch(texts, self.second, max_length=self.max_length)


def built_in_groups(kind: str, max_tokens: int, positions: int = 0) -> list[Group]:
    """The texts that every export is verified on, or pairs of texts for a reranker.

    Args:
        kind: `encoder` or `reranker`.
        max_tokens: longest input that is not asked for.
        positions: longest input that can be asked for.
    """
    beyond = built_in.lengths_beyond(max_tokens, positions)
    if kind == "reranker":
        groups = [
            Group(f"query {number}", [query] * len(documents), max_tokens, documents)
            for number, (query, documents) in enumerate(built_in.pairs())
        ]
        # The same pairs in one batch, where padding would be most of the work.
        mixed = [(query, document) for query, documents in built_in.pairs() for document in documents[-4:]]
        queries, documents = ([pair[side] for pair in mixed] for side in (0, 1))
        groups.append(Group("uneven batch", queries, max_tokens, documents, one_batch=True))
        lengths = built_in.ladder_lengths(max_tokens, least=6) + beyond
        query = "which length is this?"
        words = built_in.long_text(max(lengths)).split()
        return groups + [Group(f"length {n}", [query], n, [" ".join(words[:n])]) for n in lengths]
    groups = [Group("mixed texts", built_in.mixed(), max_tokens)]
    groups += [
        Group(f"uneven batch {number}", texts, max_tokens, one_batch=True)
        for number, texts in enumerate(built_in.adversarial())
    ]
    lengths = built_in.ladder_lengths(max_tokens) + beyond
    words = built_in.long_text(len(lengths) + max(lengths)).split()
    for number, n in enumerate(lengths):
        # One at a time, each with other words; two tokens are the special ones alone.
        text = " ".join(words[number : number + n]) if n > 2 else ""
        groups.append(Group(f"length {n}", [text], max(n, 3)))
    return groups


def corpus_of(groups: Sequence[Group], texts_file: str | None) -> str:
    """What the inputs are, for reports: by the lengths that they have, not by those that they were to have."""
    lengths = sorted({len(entry.ids) for group in groups for entry in group.inputs})
    count = sum(len(group.inputs) for group in groups)
    if texts_file:
        return f"{count} inputs of {Path(texts_file).name}, of {lengths[0]} to {lengths[-1]} tokens"
    past = ", ".join(str(n) for n in lengths if n > built_in.EVEN)
    return (
        f"{count} built-in texts of {lengths[0]} to {lengths[-1]} tokens, {len(lengths)} lengths"
        f"{f' ({past} among them)' if past else ''}: English, Chinese, other languages, odd text, uneven batches"
    )


def file_groups(kind: str, max_tokens: int, name: str) -> list[Group]:
    """The texts of a file, or for a reranker lines of query, tab, document.

    Raises:
        InvalidOptionError: the file has no texts, or a line of pairs no tab.
        BgertError: the file cannot be read.
    """
    from bgert.jobs.text_files import read_texts

    lines = list(read_texts(name))
    if not lines:
        raise InvalidOptionError(f"{name} holds no texts")
    if kind == "encoder":
        return [Group("texts", lines, max_tokens)]
    split = [line.split("\t", 1) for line in lines]
    for number, parts in enumerate(split, 1):
        if len(parts) != 2:
            raise InvalidOptionError(f"{name}: line {number} has no tab between query and document")
    by_query: dict[str, list[str]] = {}
    for query, document in split:
        by_query.setdefault(query, []).append(document)
    return [
        Group(f"query {number}", [query] * len(documents), max_tokens, documents)
        for number, (query, documents) in enumerate(by_query.items())
    ]


def pooled_rows(model: Any, group: Group, prefix: str) -> Array:
    """What the runtime gives for a group's texts: of multi-vector models, which have nothing for users here, means."""
    if model.manifest.roles:
        rows: Array = model._embed(group.texts, prefix, group.max_length, None, "float32", False)[0]
        return rows
    return np.asarray(model.encode(group.texts, max_length=group.max_length))


def run_in_batches(folder: Path, groups: Sequence[Group], prefix: str, engine: Any) -> list[Array]:
    """What a stand-in with `run` and `run_sorted` makes of every group."""
    from bgert.batching import PackedBatch
    from bgert.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_folder(folder)
    found = []
    for group in groups:
        batch = group.encode(tokenizer, prefix)
        run = engine.run if group.one_batch else engine.run_sorted
        found.append(run(PackedBatch(batch.ids, batch.cu_seqlens, batch.type_ids)))
    return found
