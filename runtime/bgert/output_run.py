"""The run of an encoder for several outputs at once."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bgert.errors import InvalidOptionError, NonFiniteOutputError
from bgert.model import WINDOW, bounded, with_prompt
from bgert.outputs import EncoderOutputs, SparseEmbeddings, kept_tokens, sparse_of_rows, sparse_of_tokens
from bgert.progress import progress_bar
from bgert.results import Embeddings
from bgert.runner import check_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from bgert.backends.protocol import TokenBackend
    from bgert.batching import PackedBatch
    from bgert.encoder import Encoder
    from bgert.model_folder import TokenOutput
    from bgert.runner import Window
    from bgert.text_roles import TextRole

__all__ = ["available_outputs", "first_of", "run_outputs"]

DENSE, SPARSE, MULTI_VECTOR = "dense", "sparse", "multi_vector"


def available_outputs(encoder: Encoder) -> tuple[str, ...]:
    """Names of what the graph that runs gives."""
    if encoder.manifest.roles:
        return tuple(_token_outputs(encoder))
    pooled = SPARSE if is_splade(encoder) else DENSE
    return (pooled, *_token_outputs(encoder))


def is_splade(encoder: Encoder) -> bool:
    """Whether an encoder's rows are as long as its vocabulary, and mostly 0."""
    return (encoder.manifest.pooling or "").startswith("splade")


def run_outputs(
    encoder: Encoder,
    items: Sequence[str],
    outputs: str | Iterable[str] | None,
    prefix: str,
    max_length: int | None,
    show_progress: bool | None,
    role: TextRole | None = None,
) -> EncoderOutputs:
    """See `Encoder.encode_outputs`; warns of nothing."""
    names = _asked(encoder, outputs)
    encoder.check_max_length(max_length)
    collected = _Collected(encoder, names, len(items), role)
    truncated = np.zeros(len(items), np.bool_)
    tokens = padding = done = 0
    with progress_bar(len(items), show_progress) as advance:
        windows = with_prompt(bounded(items, WINDOW), prefix)
        for window in encoder._runner.windows(windows, encoder._tokenize(max_length, prefix, role)):
            collected.start(window, done)
            encoder._runner.each(window, collected.run, collected.keep, advance)
            truncated[done : done + len(window)] = window.truncated
            tokens += window.tokens
            padding += window.plan.padding
            done += len(window)
    return collected.result(encoder._run_info(truncated, tokens, padding))


def first_of(outputs: EncoderOutputs) -> EncoderOutputs:
    """The outputs of the only text."""
    dense, sparse, vectors = outputs.dense, outputs.sparse, outputs.multi_vector
    return replace(
        outputs,
        dense=None if dense is None else Embeddings.of(dense[0], outputs.info),
        sparse=None if sparse is None else cast("SparseEmbeddings", sparse)[0],
        multi_vector=None if vectors is None else vectors[0],
    )


def _token_outputs(encoder: Encoder) -> Mapping[str, TokenOutput]:
    return getattr(encoder.backend, "token_outputs", {})


def _asked(encoder: Encoder, outputs: str | Iterable[str] | None) -> list[str]:
    have = available_outputs(encoder)
    if outputs is None:
        return list(have)
    names = [outputs] if isinstance(outputs, str) else list(outputs)
    for name in names:
        if name not in have:
            others = [entry.name for entry in encoder.manifest.token_outputs]
            more = f", and on the CPU {', '.join(others)}" if name in others else ""
            raise InvalidOptionError(f"output {name!r}: on {encoder.device} this model has {', '.join(have)}{more}")
    if not names:
        raise InvalidOptionError(f"outputs is empty: name some of {', '.join(have)}")
    return names


class _Collected:
    """Outputs of batches, in the caller's order."""

    def __init__(self, encoder: Encoder, names: list[str], count: int, role: TextRole | None) -> None:
        self._runner, self._names = encoder._runner, names
        self._outputs = _token_outputs(encoder)
        if role is not None:
            skipping = replace(self._outputs[MULTI_VECTOR], skip_ids=role.skip_ids)
            self._outputs = {**self._outputs, MULTI_VECTOR: skipping}
        self._of_tokens = [name for name in names if name in self._outputs]
        self._splade = is_splade(encoder)
        self._dense = np.empty((count, encoder.dimensions), np.float32) if DENSE in names else None
        self._size = encoder.dimensions if self._splade else (getattr(self._outputs.get(SPARSE), "size", None) or 0)
        self._lists: dict[str, list[Any]] = {name: [None] * count for name in names if name != DENSE}
        self._done = self._first = 0

    def start(self, window: Window, done: int) -> None:
        """The next window, after `done` texts."""
        self._done, self._first = done, window.first

    def run(self, batch: PackedBatch) -> list[NDArray[np.float32]]:
        """The rows of a batch, of all outputs."""
        if not self._of_tokens:
            return [self._runner.backend.run(batch)]
        return cast("TokenBackend", self._runner.backend).run_tokens(batch, self._of_tokens)

    def keep(self, batch: PackedBatch, index: NDArray[np.intp], found: list[NDArray[np.float32]]) -> None:
        """Put them where they belong."""
        check_rows(found[0], index, self._runner.columns, self._first)
        at = index + self._done
        if self._dense is not None:
            self._dense[at] = found[0]
        if self._splade:
            self._put(SPARSE, at, sparse_of_rows(found[0]))
        for name, rows in zip(self._of_tokens, found[1:], strict=True):
            finite = np.isfinite(rows).all(axis=1)
            if not finite.all():
                bad = index[int(np.searchsorted(batch.cu_seqlens, int(finite.argmin()), "right")) - 1]
                raise NonFiniteOutputError(
                    f"the model returned NaN or infinity in {name} for input {self._first + int(bad)}; nothing was "
                    "served. Run `bgert verify` on the model folder"
                )
            output = self._outputs[name]
            if name == SPARSE:
                self._put(name, at, sparse_of_tokens(batch, rows, output))
                continue
            kept, cuts = kept_tokens(batch, output), batch.cu_seqlens
            self._put(name, at, [rows[a:b][kept[a:b]] for a, b in pairwise(cuts)])

    def _put(self, name: str, at: NDArray[np.intp], values: list[Any]) -> None:
        listed = self._lists[name]
        for place, value in zip(at.tolist(), values, strict=True):
            listed[place] = value

    def result(self, info: Any) -> EncoderOutputs:
        """All of them."""
        sparse = self._lists.get(SPARSE)
        return EncoderOutputs(
            info,
            None if self._dense is None else Embeddings.of(self._dense, info),
            None if sparse is None else SparseEmbeddings.of(sparse, self._size),
            self._lists.get(MULTI_VECTOR),
        )
