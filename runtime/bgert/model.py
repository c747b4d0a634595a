"""What Encoder and Reranker have in common: loading a model folder, and input cut into windows."""

from __future__ import annotations

import logging
import sys
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from bgert.backends.choose import open_backend
from bgert.cpu_count import omp_threads, warn_above_cores
from bgert.errors import EngineError, InvalidOptionError, ModelFolderError, TruncationWarning, warn_caller
from bgert.exported_models import targets_for
from bgert.hub import locate
from bgert.lifecycle import never_copied
from bgert.model_folder import Manifest
from bgert.results import RunInfo
from bgert.runner import Runner
from bgert.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from bgert.backends.protocol import Backend
    from bgert.option_types import Device, Mode, Precision

__all__ = ["Model"]

_log = logging.getLogger(__name__)

Item = TypeVar("Item")
Self = TypeVar("Self", bound="Model")
_SAME = " Arguments and errors are those of `Model`."
_OPENED = ("_runner", "tokenizer", "manifest", "_max_length")
"""What only an opened model has, and no pickle."""
WINDOW = 16_384
WINDOW_CHARACTERS = 1 << 25
CLASSES = {"encoder": "bgert.Encoder", "reranker": "bgert.Reranker"}
MODELS = {"encoder": "an encoder", "reranker": "a reranker"}


class Model:
    """A model folder with its tokenizer and a backend that runs it: an Encoder or a Reranker.

    Pickled or copied it is its folder and options, and is opened again on first use. `close()` or `with` frees it.

    Args:
        path: a model folder (`bgert export` writes it from a checkpoint), `~` expanded, or the hub id of one. A
            checkpoint's hub id or folder is exported on first use into the cache (`bgert.exported_models`).
        device: `auto` or None, `cpu`, `cuda`, `cuda:1`, `cuda:all`, a list such as `["cuda:0", "cuda:2"]`, or
            `tensorrt`. A device that cannot run the model is an error. `auto` is the first GPU where there is one
            and the folder has a CUDA graph for it, else the CPU; where that GPU
            is there and cannot be used, a `DeviceWarning` says why.
        precision: precision of the graph, for example `fp32`; `auto` takes the first the folder has.
        threads: cores that all calls of this model use together; None for OMP_NUM_THREADS where it is set, else
            all that the process may use (affinity and cgroup limit).
        mode: `throughput` runs one batch a core; `latency` puts all cores on one batch, for single texts.
            A GPU serves both at once.
        gpu_memory_limit: bytes that the engine may take on each GPU, weights included; None for no limit.
        split_special_tokens: treat `[SEP]` and its like inside a text as plain text. By default they are what
            they are to PyTorch's tokenizer: a user who writes them puts special tokens into the input.
        max_length: tokens an input may have, special tokens counted, up to the model's table of positions; None for
            the limit that the checkpoint's authors set.

    Raises:
        InvalidOptionError: an option has a value that it cannot have, or `path` is no path.
        ModelNotFoundError: there is no such folder, here or on the hub.
        ModelFolderError: the folder is not a model of this kind or version.
        IntegrityError: a file was truncated or changed after export.
        EngineNotInstalledError: a library of the engine, or of a first export, is missing; the message names the extra.
        DeviceUnavailableError: the device is not there, or the folder has no graph for it.
        DeviceMemoryError: the model does not fit on the device.

    Attributes:
        manifest: what the folder says of itself: prompts, pooling, where the checkpoint came from.
        tokenizer: its `bgert.Tokenizer`.
        split_special_tokens: as given.
    """

    kind: ClassVar[str]
    """`encoder` or `reranker`, as in a manifest."""
    always_prompts: ClassVar[tuple[str, ...]] = ()
    """Prompts that are there, empty, even if the manifest has none of the name."""

    def __init_subclass__(cls) -> None:
        options = (Model.__doc__ or "").partition("    Args:")  # python -OO has no docstrings
        cls.__doc__ = (cls.__doc__ or "").replace(_SAME, "\n\n" + options[1] + options[2]) or None

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
        if isinstance(device, int):
            raise InvalidOptionError(f"device is {device!r}: name it, as in device='cuda:{int(device)}' or 'cpu'")
        folder = locate(path, targets_for(device, precision))
        self._folder = folder.absolute()
        self._given: dict[str, Any] = {
            "device": "auto" if device is None else device,
            "precision": precision,
            "threads": threads,
            "mode": mode,
            "gpu_memory_limit": gpu_memory_limit,
            "split_special_tokens": split_special_tokens,
            "max_length": max_length,
        }
        self.split_special_tokens = split_special_tokens
        self._closed = False
        self._open()

    def _open(self) -> None:
        folder, given = self._folder, self._given
        threads = omp_threads() if given["threads"] is None else given["threads"]
        self.manifest = Manifest.read(folder)
        columns = self.manifest.columns
        if self.manifest.kind != self.kind:
            found = self.manifest.kind
            raise ModelFolderError(f"{folder} holds {MODELS[found]}: load it with {CLASSES[found]}")
        self.tokenizer = Tokenizer.from_manifest(folder, self.manifest)
        self.check_max_length(given["max_length"])
        backend = open_backend(
            folder,
            self.manifest,
            device=given["device"],
            precision=given["precision"],
            threads=threads,
            mode=given["mode"],
            gpu_memory_limit=given["gpu_memory_limit"],
        )
        warn_above_cores(given["threads"])
        self._runner = Runner(backend, columns=columns, max_tokens=self.manifest.positions, threads=threads)
        self._max_length: int = given["max_length"] or self.manifest.max_tokens
        _log.info(
            "opened %s on %s %s with %s, %d threads, %s tokens at most",
            folder, self.device, self.precision, self.engine, self._runner.cores, self.max_length,
        )  # fmt: skip

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            """Open a model that came out of a pickle when it is first used."""
            if name not in _OPENED or "_given" not in self.__dict__:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            if self._closed:
                raise EngineError("the model is closed: load it again")
            with never_copied:
                if name not in self.__dict__:
                    self._open()
            return self.__dict__[name]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in (*_OPENED, "_joined")}

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the engine and its memory; using the model then is an EngineError, as calls that still run may get."""
        self._closed = True
        for name in _OPENED:
            self.__dict__.pop(name, None)

    def __repr__(self) -> str:
        if "_runner" not in self.__dict__:
            return f"{type(self).__name__}({self._folder.name!r}, {'closed' if self._closed else 'not opened yet'})"
        return f"{type(self).__name__}({self._folder.name!r}, {self._size()}, {self.device} {self.precision})"

    def _size(self) -> str:
        return f"{self._runner.columns} columns"

    @property
    def backend(self) -> Backend:
        """The engine with the model in it."""
        return self._runner.backend

    @property
    def max_length(self) -> int:
        """Tokens an input may have unless a call says otherwise, special tokens counted; can be set."""
        return self._max_length

    @max_length.setter
    def max_length(self, value: int) -> None:
        self.check_max_length(value)
        self._given["max_length"] = self._max_length = int(value)

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

    @property
    def verified(self) -> bool:
        """Whether export compared the graph that runs with PyTorch."""
        target = self.device.partition(":")[0].partition("-")[0]
        graph = self.manifest.graph(target, self.precision)
        return graph is not None and graph.parity is not None

    def _run_info(self, truncated: NDArray[np.bool_], tokens: int, padding: int, **seconds: float) -> RunInfo:
        """How a result came about, for its `info`; `seconds` are its timings."""
        return RunInfo(
            self.device,
            self.precision,
            self.engine,
            tokens,
            truncated,
            padding=padding,
            verified=self.verified,
            **seconds,
        )

    def text_before(self, prompt: str | None, prefix: str | None) -> str:
        """The literal `prefix` where there is one, else the text of the prompt.

        Raises:
            InvalidOptionError: both are given, `prefix` is no str, or the model has no such prompt.
        """
        if prefix is None:
            return self.prompt_text(prompt)
        if prompt is not None:
            raise InvalidOptionError("prompt names a prompt of the model and prefix is a text: pass one of them")
        if not isinstance(prefix, str):
            raise InvalidOptionError(f"prefix is {type(prefix).__name__}: pass a str, empty for nothing")
        return prefix

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
            raise InvalidOptionError(f"unknown prompt {name!r}: this model has {have}; prefix= takes any other text")
        return prompts.get(name, "")

    def check_max_length(self, max_length: int | None) -> None:
        """Raise InvalidOptionError unless the model has the positions and a token fits beside the special ones."""
        if max_length is None:
            return
        tokenizer, manifest = self.tokenizer, self.manifest
        special = tokenizer.pair_special_tokens if self.kind == "reranker" else tokenizer.special_tokens
        try:
            check_whole("max_length", max_length, special + 1, manifest.positions)
        except InvalidOptionError as error:
            if {"max_position_embeddings", "position_offset"} <= manifest.architecture.keys():
                raise
            raise InvalidOptionError(
                f"{error}; the folder does not say how many positions the model has: for more export it again"
            ) from None


def check_whole(name: str, value: object, least: int, most: int | None) -> None:
    """Raise InvalidOptionError unless `value` is an int from `least` to `most`."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):  # type: ignore[operator]
        wanted = f"a whole number from {least}"
        said = f"use {wanted}" if most is None else f"this model takes {wanted} to {most}"
        raise InvalidOptionError(f"{name} is {value!r}: {said}")


def warn_truncated(
    truncated: NDArray[np.bool_],
    limit: int,
    advice: str = "`result.info.truncated` says which",
    libraries: tuple[str, ...] = ("bgert",),
) -> None:
    """Say that texts were cut, at the line of the first caller outside `libraries`."""
    if count := int(np.count_nonzero(truncated)):
        _log.info("%d of %d inputs were longer than %d tokens and were cut", count, len(truncated), limit)
        which = "the only input" if len(truncated) == 1 else f"{count} of {len(truncated)} inputs"
        verb, whose = ("was", "its") if count == 1 else ("were", "their")
        warn_caller(
            f"{which} {verb} longer than {limit} tokens and lost {whose} end; {advice}",
            TruncationWarning,
            libraries,
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


def with_prompt(windows: Iterator[list[str]], prefix: str) -> Iterator[list[str]]:
    """Put the prompt before every text; items that are no str stay, for the tokenizer to refuse by index."""
    if not prefix:
        return windows
    return ([prefix + text if isinstance(text, str) else text for text in window] for window in windows)
