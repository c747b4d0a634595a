"""Text to embeddings: tokenizer, batches and backend put together."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bgert.errors import InvalidOptionError, InvalidTextError
from bgert.inputs import as_iterable, as_list, naming
from bgert.joined_calls import JoinedCalls
from bgert.lifecycle import never_copied
from bgert.model import WINDOW, Model, bounded, check_whole, warn_truncated, with_prompt
from bgert.output_run import available_outputs, first_of, run_outputs
from bgert.outputs import max_sims
from bgert.progress import progress_bar, token_bar
from bgert.results import Embeddings, convert, cosines, dtype_name, output_shape, shorten
from bgert.text_roles import expanded, role_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from bgert.option_types import Device, Dtype, Mode, Precision
    from bgert.outputs import EncoderOutputs
    from bgert.results import RunInfo
    from bgert.runner import Window
    from bgert.text_roles import TextRole
    from bgert.tokenizer import TokenBatch

__all__ = ["Encoder"]


class Encoder(Model):
    """An embedding model loaded from a folder that `bgert export` wrote. Arguments and errors are those of `Model`."""

    kind = "encoder"
    always_prompts = ("query", "document")

    def __init__(
        self,
        path: str | Path,
        *,
        device: Device | Sequence[Device] | None = "auto",
        precision: Precision = "auto",
        threads: int | None = None,
        mode: Mode = "throughput",
        gpu_memory_limit: int | None = None,
        split_special_tokens: bool = False,
        max_length: int | None = None,
    ) -> None:
        # Here too, for a TypeError to name the class that was called.
        super().__init__(
            path,
            device=device,
            precision=precision,
            threads=threads,
            mode=mode,
            gpu_memory_limit=gpu_memory_limit,
            split_special_tokens=split_special_tokens,
            max_length=max_length,
        )

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return self._runner.columns

    def _size(self) -> str:
        return f"{self.dimensions} dimensions"

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        prompt: str | None = None,
        prefix: str | None = None,
        max_length: int | None = None,
        dimensions: int | None = None,
        dtype: Dtype = "float32",
        show_progress: bool | None = None,
    ) -> Embeddings:
        """Embed one text or a list of texts.

        Args:
            texts: a `str`, or any iterable of them with an order: a list, an array, a pandas column, a generator.
            prompt: name of a prompt of the manifest to put before every text; None for the model's default, if it
                has one. `query` and `document` are there in every model, empty if it does not say.
            prefix: literal text to put before every text instead of a prompt; `""` for nothing, no default either.
            max_length: tokens a text may have, special tokens counted, up to the model's table of positions; longer
                texts are cut with a `TruncationWarning`. None for `self.max_length`.
            dimensions: keep only the first so many, at length one again (for models trained for that).
            dtype: `float32`, `float16`, `int8` (rows scaled to +-127), `ubinary` (packed bits) or `binary` (the same
                less 128, as int8); numpy's types too.
            show_progress: a progress bar; None for one on long work in a terminal or a notebook.

        Returns:
            `[dim]` for a `str`, `[n, dim]` for a list, in the caller's order, with an `info` that tells device,
            precision, tokens and which texts were cut.

        Raises:
            InvalidTextError: an item is not a `str` or holds a lone surrogate.
            InvalidOptionError: an unknown prompt or dtype, or a number out of range.
            NonFiniteOutputError: the model produced NaN or infinity.
        """
        before = self.text_before(prompt, prefix)
        return self._encode(texts, before, max_length, dimensions, dtype_name(dtype), show_progress)

    def encode_queries(
        self,
        texts: str | Iterable[str],
        *,
        prefix: str | None = None,
        max_length: int | None = None,
        dimensions: int | None = None,
        dtype: Dtype = "float32",
        show_progress: bool | None = None,
    ) -> Embeddings:
        """Embed search queries: as `encode`, with the prompt `query` before each, or the literal `prefix`.

        A model without one puts nothing there, not its default prompt either, as in sentence-transformers 6.
        """
        before = self.prompt_text("query") if prefix is None else self.text_before(None, prefix)
        return self._encode(texts, before, max_length, dimensions, dtype_name(dtype), show_progress)

    def encode_corpus(
        self,
        texts: str | Iterable[str],
        *,
        prefix: str | None = None,
        max_length: int | None = None,
        dimensions: int | None = None,
        dtype: Dtype = "float32",
        show_progress: bool | None = None,
    ) -> Embeddings:
        """Embed what is searched: as `encode`, with the prompt `document` before each, or the literal `prefix`.

        A model without one puts nothing there, not its default prompt either, as in sentence-transformers 6.
        """
        before = self.prompt_text("document") if prefix is None else self.text_before(None, prefix)
        return self._encode(texts, before, max_length, dimensions, dtype_name(dtype), show_progress)

    encode_query = encode_queries
    encode_document = encode_corpus

    @property
    def outputs(self) -> tuple[str, ...]:
        """What `encode_outputs` can give on this device: `dense`, `sparse`, `multi_vector`."""
        return available_outputs(self)

    def encode_outputs(
        self,
        texts: str | Iterable[str],
        outputs: str | Iterable[str] | None = None,
        *,
        prompt: str | None = None,
        prefix: str | None = None,
        max_length: int | None = None,
        show_progress: bool | None = None,
    ) -> EncoderOutputs:
        """Dense, sparse and multi-vector outputs of one text or a list of texts, of one run of the model.

        bge-m3 has all three, a SPLADE model the sparse one, a ColBERT model the multi-vector one, most encoders the
        dense one alone. A ColBERT model reads queries and documents in two ways: `prompt` says which they are.

        Args:
            texts: as in `encode`.
            outputs: names of `outputs`; None for all of them.
            prompt: as in `encode`.
            prefix: as in `encode`.
            max_length: as in `encode`; None for the limit of queries where a ColBERT model has one.
            show_progress: as in `encode`.

        Raises:
            InvalidOptionError: an output that the model does not have on this device, or as in `encode`.
            InvalidTextError: as in `encode`.
            NonFiniteOutputError: as in `encode`.
        """
        before = self.text_before(prompt, prefix)
        role = role_of(self.manifest.roles, prompt)
        items = [texts] if isinstance(texts, str) else as_list(texts, "texts")
        found = run_outputs(self, items, outputs, before, max_length, show_progress, role)
        warn_truncated(found.info.truncated, self._limit(max_length, role))
        return first_of(found) if isinstance(texts, str) else found

    def similarity(
        self, queries: ArrayLike | Sequence[ArrayLike], documents: ArrayLike | Sequence[ArrayLike]
    ) -> NDArray[np.float32]:
        """Cosines of every query with every document, as `similarity` of sentence-transformers.

        Of a ColBERT model MaxSim: `queries` and `documents` are then its multi-vector outputs, a list of [tokens, dim].

        Args:
            queries: embeddings [q, dim], or [dim] for one, in float32, float16 or int8.
            documents: embeddings [n, dim], or [dim] for one.

        Returns:
            float32[q, n].

        Raises:
            InvalidOptionError: packed bits, whose distance is Hamming's, or shapes that do not fit.
        """
        if self.manifest.roles:
            return max_sims(queries, documents)
        return cosines(cast("ArrayLike", queries), cast("ArrayLike", documents))

    def stream(
        self,
        texts: Iterable[str],
        *,
        prompt: str | None = None,
        prefix: str | None = None,
        max_length: int | None = None,
        dimensions: int | None = None,
        dtype: Dtype = "float32",
        block: int = WINDOW,
        show_progress: bool = False,
        total: int | None = None,
    ) -> Iterator[Embeddings]:
        """Embed any number of texts in bounded memory.

        Options and errors are those of `encode`; they are checked before the first text is taken.

        Args:
            texts: any iterable of `str`; it is read only as far as needed.
            prompt: as in `encode`.
            prefix: as in `encode`.
            max_length: as in `encode`.
            dimensions: as in `encode`.
            dtype: as in `encode`.
            block: texts a block. A block of very long texts is cut earlier.
            show_progress: a progress bar in tokens; where `total` is given it has an end, an estimate at first.
            total: number of texts, for the bar.

        Returns:
            An iterator of arrays `[<= block, dim]`, which joined are the embeddings in order.
        """
        self.require_pooled()
        texts = as_iterable(texts, "texts")
        if not isinstance(block, int) or isinstance(block, bool) or not 1 <= block < 2**31:
            raise InvalidOptionError(f"block is {block!r}: use a whole number from 1 to {2**31 - 1}")
        if total is not None:
            check_whole("total", total, 0, None)
        before = self.text_before(prompt, prefix)
        name = dtype_name(dtype)
        self._options(max_length, dimensions, name)
        return self._stream(texts, before, max_length, dimensions, name, block, show_progress, total)

    def _stream(
        self,
        texts: Iterable[str],
        prefix: str,
        max_length: int | None,
        dimensions: int | None,
        dtype: str,
        block: int,
        show_progress: bool,
        total: int | None,
    ) -> Iterator[Embeddings]:
        columns, numpy_type = self._options(max_length, dimensions, dtype)
        windows = with_prompt(bounded(texts, block), prefix)
        with token_bar(total, show_progress) as bar:
            for window in self._runner.windows(windows, self._tokenize(max_length, prefix)):
                rows = np.empty((len(window), columns), numpy_type)
                if bar is None:
                    self._fill(rows, window, dimensions, dtype)
                else:
                    bar.window(len(window), window.tokens)
                    self._fill(rows, window, dimensions, dtype, bar.advance, window.tokens)
                warn_truncated(window.truncated, max_length or self.max_length)
                yield Embeddings.of(rows, self._run_info(window.truncated, window.tokens, window.plan.padding))

    def _encode(
        self,
        texts: str | Iterable[str],
        prefix: str,
        max_length: int | None,
        dimensions: int | None,
        dtype: str,
        show_progress: bool | None,
    ) -> Embeddings:
        self.require_pooled()
        single = isinstance(texts, str)
        items = [texts] if isinstance(texts, str) else as_list(texts, "texts")
        rows, info, _ = self._embed(items, prefix, max_length, dimensions, dtype, show_progress)
        warn_truncated(info.truncated, max_length or self.max_length)
        return Embeddings.of(rows[0] if single else rows, info)

    def _embed(
        self,
        items: Sequence[str],
        prefix: str,
        max_length: int | None,
        dimensions: int | None,
        dtype: str,
        show_progress: bool | None,
    ) -> tuple[NDArray[Any], RunInfo, NDArray[np.int64]]:
        """Rows, what happened, and the tokens of each text; warns of nothing."""
        columns, numpy_type = self._options(max_length, dimensions, dtype)
        rows = np.empty((len(items), columns), numpy_type)
        truncated = np.zeros(len(items), np.bool_)
        lengths = np.zeros(len(items), np.int64)
        padding, done, tokenizing, running = 0, 0, 0.0, 0.0
        with progress_bar(len(items), show_progress) as advance:
            windows = with_prompt(bounded(items, WINDOW), prefix)
            for window in self._runner.windows(windows, self._tokenize(max_length, prefix)):
                stop = done + len(window)
                start = perf_counter()
                self._fill(rows[done:stop], window, dimensions, dtype, advance)
                running += perf_counter() - start
                tokenizing += window.tokenize_seconds
                truncated[done:stop] = window.truncated
                lengths[done:stop][window.plan.order] = np.diff(window.batch.cu_seqlens)
                padding += window.plan.padding
                done = stop
        tokens = int(lengths.sum())
        info = self._run_info(truncated, tokens, padding, tokenize_seconds=tokenizing, run_seconds=running)
        return rows, info, lengths

    async def aencode(
        self,
        texts: str | Iterable[str],
        *,
        prompt: str | None = None,
        prefix: str | None = None,
        max_length: int | None = None,
        dimensions: int | None = None,
        dtype: Dtype = "float32",
    ) -> Embeddings:
        """As `encode`, in a thread: calls of one event loop that wait with the same options run as one batch.

        The `info` has the caller's tokens and cut texts, and the padding and timings of the whole batch.
        """
        self.require_pooled()
        options = (self.text_before(prompt, prefix), max_length, dimensions, dtype_name(dtype))
        self._options(*options[1:])
        items = [texts] if isinstance(texts, str) else as_list(texts, "texts")
        with never_copied:
            joined = self.__dict__.setdefault("_joined", JoinedCalls(self._embed))
        rows, info = await joined.call(items, options)
        warn_truncated(info.truncated, max_length or self.max_length)
        return Embeddings.of(rows[0] if isinstance(texts, str) else rows, info)

    def _fill(
        self,
        rows: NDArray[Any],
        window: Window,
        dimensions: int | None,
        dtype: str,
        advance: Any = None,
        units: int | None = None,
    ) -> None:
        normalize = self.manifest.normalize

        def store(index: NDArray[np.intp], vectors: NDArray[np.float32]) -> None:
            rows[index] = convert(shorten(vectors, dimensions, normalize), dtype)

        self._runner.run(window, store, advance, units)

    def require_pooled(self) -> None:
        """Raise InvalidOptionError where the model has no vector for a whole text."""
        if self.manifest.roles:
            raise InvalidOptionError(
                "this model gives a vector for every token and none for a text: call encode_outputs(texts, "
                "prompt='query').multi_vector, with prompt='document' for documents"
            )

    def _limit(self, max_length: int | None, role: TextRole | None) -> int:
        return max_length or (role and role.max_tokens) or self.max_length

    def _tokenize(
        self, max_length: int | None, prefix: str, role: TextRole | None = None
    ) -> Callable[[list[str], int, int], TokenBatch]:
        limit = self._limit(max_length, role)
        tokenizer = self.tokenizer if role is None else self.tokenizer.inserting(role.prefix_ids)
        if role is not None:
            check_whole("max_length", limit, tokenizer.special_tokens + 1, self.manifest.positions)

        def tokenize(texts: list[str], first: int, cores: int) -> TokenBatch:
            try:
                batch = tokenizer.encode_batch(
                    texts, max_length=limit, split_special_tokens=self.split_special_tokens, threads=cores
                )
            except InvalidTextError as error:
                raise naming(error, lambda _, index: f"texts[{first + index}]", prefix) from None
            return batch if role is None else expanded(batch, role, limit)

        return tokenize

    def _options(self, max_length: int | None, dimensions: int | None, dtype: str) -> tuple[int, type[Any]]:
        self.check_max_length(max_length)
        if dimensions is not None:
            check_whole("dimensions", dimensions, 1, self.dimensions)
        return output_shape(dimensions or self.dimensions, dtype)
