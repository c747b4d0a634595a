"""What Encoder and Reranker have in common: loading a model folder, and input cut into windows."""

from __future__ import annotations

import warnings
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from bgert.backends import open_backend
from bgert.errors import InvalidOptionError, ModelFolderError, TruncationWarning
from bgert.hub import locate
from bgert.model_folder import Manifest, verify_files
from bgert.results import RunInfo
from bgert.runner import Runner
from bgert.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Model"]

Item = TypeVar("Item")
WINDOW = 16_384
WINDOW_CHARACTERS = 1 << 25
CLASSES = {"encoder": "bgert.Encoder", "reranker": "bgert.Reranker"}


class Model:
    """A model folder with its tokenizer and a backend that runs it."""

    def __init__(
        self,
        path: str | Path,
        kind: str,
        *,
        device: str | Sequence[str],
        precision: str,
        threads: int | None,
        mode: str,
        gpu_memory_limit: int | None,
        split_special_tokens: bool,
    ) -> None:
        folder = locate(path)
        self.manifest = Manifest.read(folder)
        columns = self.manifest.dimensions if kind == "encoder" else self.manifest.num_labels
        if self.manifest.kind != kind or columns is None:
            found = self.manifest.kind
            raise ModelFolderError(f"{folder} holds the model of a {found}: load it with {CLASSES[found]}")
        verify_files(folder, self.manifest.tokenizer_files)
        self.tokenizer = Tokenizer.from_folder(folder)
        backend = open_backend(
            folder,
            self.manifest,
            device=device,
            precision=precision,
            threads=threads,
            mode=mode,
            gpu_memory_limit=gpu_memory_limit,
        )
        self._runner = Runner(backend, columns=columns)
        self._threads = threads
        self.split_special_tokens = split_special_tokens
        self.max_length = self.manifest.max_tokens

    @property
    def device(self) -> str:
        """The device the model runs on."""
        return self._runner.backend.info.device

    @property
    def precision(self) -> str:
        """The precision of the graph that runs."""
        return self._runner.backend.info.precision

    @property
    def engine(self) -> str:
        """The library that runs the graph, with its version."""
        return self._runner.backend.info.engine

    def run_info(self, truncated: NDArray[np.bool_], tokens: int, padding: int) -> RunInfo:
        """How a result came about, for its `info`."""
        return RunInfo(self.device, self.precision, self.engine, tokens, truncated, padding=padding)

    def check_max_length(self, max_length: int | None, *, pair: bool = False) -> None:
        """Raise InvalidOptionError unless the model takes it and a token of text fits beside the special ones."""
        if max_length is not None:
            special = self.tokenizer.pair_special_tokens if pair else self.tokenizer.special_tokens
            check_whole("max_length", max_length, special + 1, self.max_length)


def check_whole(name: str, value: object, least: int, most: int | None) -> None:
    """Raise InvalidOptionError unless `value` is an int from `least` to `most`."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):  # type: ignore[operator]
        upper = "" if most is None else f" to {most}"
        raise InvalidOptionError(f"{name} is {value!r}: this model takes a whole number from {least}{upper}")


def warn_truncated(truncated: NDArray[np.bool_], limit: int, *, stacklevel: int) -> None:
    """Say that texts were cut, naming the line of the caller `stacklevel` - 1 calls up."""
    if count := int(np.count_nonzero(truncated)):
        warnings.warn(
            f"{count} of {len(truncated)} inputs were longer than {limit} tokens and lost their end; "
            "`result.info.truncated` says which",
            TruncationWarning,
            stacklevel=stacklevel,
        )


def bounded(items: Iterable[Item], block: int) -> Iterator[list[Item]]:
    """Cut texts or pairs into lists of at most `block` items and about WINDOW_CHARACTERS characters."""
    source = iter(items)
    while True:
        window: list[Item] = []
        characters = 0
        for item in islice(source, block):
            window.append(item)
            for text in (item,) if isinstance(item, str) else item if isinstance(item, tuple) else ():
                characters += len(text) if isinstance(text, str) else 0
            if characters > WINDOW_CHARACTERS:
                break
        if not window:
            return
        yield window
