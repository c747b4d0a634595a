"""What Encoder and Reranker have in common: loading a model folder, and input cut into windows."""

from __future__ import annotations

import sys
import warnings
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from bgert.backends.choose import open_backend
from bgert.errors import InvalidOptionError, ModelFolderError, TruncationWarning
from bgert.hub import locate
from bgert.model_folder import Manifest
from bgert.results import RunInfo
from bgert.runner import Runner
from bgert.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.backends.protocol import Backend

__all__ = ["Model"]

Item = TypeVar("Item")
WINDOW = 16_384
WINDOW_CHARACTERS = 1 << 25
CLASSES = {"encoder": "bgert.Encoder", "reranker": "bgert.Reranker"}
MODELS = {"encoder": "an encoder", "reranker": "a reranker"}


class Model:
    """A model folder with its tokenizer and a backend that runs it: an Encoder or a Reranker.

    Args:
        path: the model folder (`bgert export` writes it from a checkpoint), `~` expanded, or the hub id of one.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `cuda:all`, a list such as `["cuda:0", "cuda:2"]`, or `tensorrt`. A
            device that cannot run the model is an error. `auto` is the first GPU where there is one and the folder has
            a CUDA graph for it, else the CPU; where that GPU is there and cannot be used, a `DeviceWarning` says why.
        precision: precision of the graph, for example `fp32`; `auto` takes the first the folder has.
        threads: cores that all calls of this model use together; None for all that the process may use (affinity and
            cgroup limit).
        mode: `throughput` runs one batch a core; `latency` puts all cores on one batch, for single texts.
            A GPU serves both at once.
        gpu_memory_limit: bytes that the engine may take on each GPU, weights included; None for no limit.
        split_special_tokens: treat `[SEP]` and its like inside a text as plain text. By default they are what
            they are to PyTorch's tokenizer: a user who writes them puts special tokens into the input.

    Raises:
        InvalidOptionError: an option has a value that it cannot have, or `path` is no path.
        ModelNotFoundError: there is no such folder, here or on the hub.
        ModelFolderError: the folder is not a model of this kind or version.
        IntegrityError: a file was truncated or changed after export.
        EngineNotInstalledError: the engine's library is missing; the message says which extra brings it.
        DeviceUnavailableError: the device is not there, or the folder has no graph for it.
        DeviceMemoryError: the model does not fit on the device.
    """

    kind: ClassVar[str]
    """`encoder` or `reranker`, as in a manifest."""
    always_prompts: ClassVar[tuple[str, ...]] = ()
    """Prompts that are there, empty, even if the manifest has none of the name."""

    def __init__(
        self,
        path: str | Path,
        *,
        device: str | Sequence[str] = "auto",
        precision: str = "auto",
        threads: int | None = None,
        mode: str = "throughput",
        gpu_memory_limit: int | None = None,
        split_special_tokens: bool = False,
    ) -> None:
        folder = locate(path)
        options = (device, precision, threads, mode, gpu_memory_limit, split_special_tokens)
        self._opened = (str(folder.absolute()), *options)
        self.manifest = Manifest.read(folder)
        columns = self.manifest.columns
        if self.manifest.kind != self.kind:
            found = self.manifest.kind
            raise ModelFolderError(f"{folder} holds {MODELS[found]}: load it with {CLASSES[found]}")
        self.tokenizer = Tokenizer.from_manifest(folder, self.manifest)
        backend = open_backend(
            folder,
            self.manifest,
            device=device,
            precision=precision,
            threads=threads,
            mode=mode,
            gpu_memory_limit=gpu_memory_limit,
        )
        self._runner = Runner(backend, columns=columns, max_tokens=self.manifest.max_tokens, threads=threads)
        self.split_special_tokens = split_special_tokens
        self.max_length = self.manifest.max_tokens

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied as folder and options: whoever unpickles opens the folder, which has to be there."""
        return _reopen, (type(self), *self._opened)

    @property
    def backend(self) -> Backend:
        """The engine with the model in it."""
        return self._runner.backend

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

    def prompt_text(self, name: str | None) -> str:
        """The text of a prompt; None for the default one, empty if the model has none.

        Raises:
            InvalidOptionError: the model has no prompt of this name.
        """
        prompts = self.manifest.prompts
        name = self.manifest.default_prompt if name is None else name
        if name is None:
            return ""
        if not isinstance(name, str) or (name not in prompts and name not in self.always_prompts):
            have = ", ".join(sorted({*prompts, *self.always_prompts})) or "none"
            raise InvalidOptionError(
                f"unknown prompt {name!r}: this model has {have}; put other words before the text yourself"
            )
        return prompts.get(name, "")

    def check_max_length(self, max_length: int | None, *, pair: bool = False) -> None:
        """Raise InvalidOptionError unless the model takes it and a token of text fits beside the special ones."""
        if max_length is not None:
            special = self.tokenizer.pair_special_tokens if pair else self.tokenizer.special_tokens
            check_whole("max_length", max_length, special + 1, self.max_length)


def _reopen(
    kind: type[Model],
    folder: str,
    device: Any,
    precision: str,
    threads: int | None,
    mode: str,
    gpu_memory_limit: int | None,
    split_special_tokens: bool,
) -> Model:
    return kind(
        folder,
        device=device,
        precision=precision,
        threads=threads,
        mode=mode,
        gpu_memory_limit=gpu_memory_limit,
        split_special_tokens=split_special_tokens,
    )


def check_whole(name: str, value: object, least: int, most: int | None) -> None:
    """Raise InvalidOptionError unless `value` is an int from `least` to `most`."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):  # type: ignore[operator]
        wanted = f"a whole number from {least}"
        said = f"use {wanted}" if most is None else f"this model takes {wanted} to {most}"
        raise InvalidOptionError(f"{name} is {value!r}: {said}")


def warn_truncated(truncated: NDArray[np.bool_], limit: int, *, stacklevel: int) -> None:
    """Say that texts were cut, naming the line of the caller `stacklevel` - 1 calls up."""
    if count := int(np.count_nonzero(truncated)):
        which = "the only input" if len(truncated) == 1 else f"{count} of {len(truncated)} inputs"
        verb, whose = ("was", "its") if count == 1 else ("were", "their")
        warnings.warn(
            f"{which} {verb} longer than {limit} tokens and lost {whose} end; `result.info.truncated` says which",
            TruncationWarning,
            stacklevel=stacklevel,
        )


def bounded(items: Iterable[Item], block: int) -> Iterator[list[Item]]:
    """Cut texts or pairs into lists of at most `block` items and about WINDOW_CHARACTERS characters."""
    source = iter(items)
    while True:
        window: list[Item] = []
        characters = 0
        for item in islice(source, min(block, sys.maxsize)):
            window.append(item)
            for text in (item,) if isinstance(item, str) else item if isinstance(item, tuple) else ():
                characters += len(text) if isinstance(text, str) else 0
            if characters > WINDOW_CHARACTERS:
                break
        if not window:
            return
        yield window
