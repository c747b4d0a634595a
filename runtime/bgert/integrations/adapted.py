"""What the adapters of frameworks share: a model with the options that its adapter was given, all checked at once."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast
from weakref import WeakValueDictionary

from bgert.encoder import Encoder
from bgert.errors import EngineNotInstalledError, InvalidOptionError, InvalidTextError, warn_caller
from bgert.inputs import as_list
from bgert.integrations.instructions import warn_if_other_instruction
from bgert.lifecycle import on_fork
from bgert.model import check_whole
from bgert.paths import user_path
from bgert.reranker import Reranker

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bgert.option_types import Device, Mode, Precision, Truncation
    from bgert.results import Embeddings

__all__ = [
    "AdaptedEncoder",
    "AdaptedReranker",
    "EncoderOptions",
    "ModelOptions",
    "RerankerOptions",
    "checked_options",
    "imports_of",
    "one_text",
    "opening",
    "path_text",
    "shared_encoder",
]


class _Opening:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        on_fork(self)

    def forked(self) -> None:
        self.lock = threading.Lock()


opening = _Opening()
"""Its lock is held where an adapter opens its model on first use: all that come at once get one model."""


class ModelOptions(TypedDict, total=False):
    """Options of `bgert.Encoder` and `bgert.Reranker`, and of their calls; `None` is a call's default."""

    device: Device | Sequence[str] | None
    precision: Precision
    threads: int | None
    mode: Mode
    gpu_memory_limit: int | None
    split_special_tokens: bool
    max_length: int | None
    show_progress: bool | None


class EncoderOptions(ModelOptions, total=False):
    """Those of an encoder. `normalize` changes nothing: where it is not what the model does, it is refused."""

    dimensions: int | None
    normalize: bool | None


class RerankerOptions(ModelOptions, total=False):
    """Those of a reranker. Scores are from 0 to 1 unless `sigmoid` is False."""

    sigmoid: bool
    truncation: Truncation
    query_max_length: int | None


_OF_CALLS = ("max_length", "show_progress", "dimensions", "normalize", "sigmoid", "truncation", "query_max_length")
# Names that frameworks have for the same thing.
_ALIASES = {"normalize_embeddings": "normalize", "show_progress_bar": "show_progress", "progress_bar": "show_progress"}
_IGNORED = ("batch_size",)
_ELSEWHERE = {
    "backend": "the model folder says it, and `precision=` takes one of its graphs",
    "cache_dir": "BGERT_CACHE names the cache",
    "cache_folder": "BGERT_CACHE names the cache",
    "encode_kwargs": "give its options here, by bgert's names",
    "local_files_only": "a folder, or HF_HUB_OFFLINE=1, keeps off the hub",
    "model_kwargs": "give its options here, by bgert's names",
    "multi_process": "`threads=` and `device=` say what is used",
    "parallel": "`threads=` and `device=` say what is used",
    "parallel_process": "`threads=` and `device=` say what is used",
    "pooling": "the model folder says it",
    "prompts": "give the instruction itself",
    "query_encode_kwargs": "give the query instruction itself",
    "query_prefix": "put it into the query",
    "revision": "export that revision and give its folder",
    "suffix": "put it into the texts",
    "target_devices": "`device=` takes a list",
    "token": "log in to the hub, or give a folder",
    "tokenizer_kwargs": "the model folder says it",
    "torch_dtype": "`precision=` takes one of the model folder's graphs",
    "trust_remote_code": "bgert never runs a checkpoint's code",
    "truncate_dim": "it is `dimensions=` here",
}


class AdaptedEncoder:
    """An encoder, what stands before its queries and documents, and the options of its calls.

    Args:
        model: as in `bgert.Encoder`: a model folder, a checkpoint or a hub id.
        options: `EncoderOptions`, as the caller gave them.
        query_instruction: literal text before each query, `""` for nothing; None for the model's prompt `query`.
        document_instruction: the same for documents.

    Raises:
        InvalidOptionError: an option that there is not, or a value that the model does not take.
        BgertError: as in `bgert.Encoder`.
    """

    def __init__(
        self,
        model: str | Path,
        options: Mapping[str, Any],
        *,
        query_instruction: str | None = None,
        document_instruction: str | None = None,
    ) -> None:
        opening, calls = _options_of(options, EncoderOptions)
        self.encoder = Encoder(model, **opening)
        self._show_progress = calls.pop("show_progress", None)
        normalize = calls.pop("normalize", None)
        if normalize is not None and bool(normalize) != self.encoder.manifest.normalize:
            has, flag = ("are not", "--normalize") if normalize else ("are", "--no-normalize")
            raise InvalidOptionError(
                f"normalize is {normalize!r} and the model's vectors {has} normalised: export it with {flag}, or leave"
                " normalize out"
            )
        self.encoder.check_max_length(calls.get("max_length"))
        if calls.get("dimensions") is not None:
            check_whole("dimensions", calls["dimensions"], 1, self.encoder.dimensions)
        self._calls = calls
        self._query = self._text_before("query", query_instruction)
        self._document = self._text_before("document", document_instruction)

    def _text_before(self, prompt: str, instruction: str | None) -> str:
        if instruction is None:
            return self.encoder.prompt_text(prompt)
        if not isinstance(instruction, str):
            raise InvalidOptionError(f"the {prompt} instruction is {type(instruction).__name__}: pass a str")
        warn_if_other_instruction(self.encoder, instruction, prompt)
        return instruction

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return cast("int", self._calls.get("dimensions") or self.encoder.dimensions)

    def queries(self, texts: Iterable[str]) -> Embeddings:
        """float32[n, dim]."""
        return self._encode(texts, self._query)

    def documents(self, texts: Iterable[str]) -> Embeddings:
        """float32[n, dim]."""
        return self._encode(texts, self._document)

    def stream(self, texts: Iterable[str]) -> Iterator[Embeddings]:
        """As `documents` for any number of them: blocks, in order, in bounded memory."""
        return self.encoder.stream(texts, prefix=self._document, **self._calls)

    async def aqueries(self, texts: Iterable[str]) -> Embeddings:
        """As `queries`; calls that wait run as one batch."""
        return await self.encoder.aencode(as_list(texts, "texts"), prefix=self._query, **self._calls)

    async def adocuments(self, texts: Iterable[str]) -> Embeddings:
        """As `documents`; calls that wait run as one batch."""
        return await self.encoder.aencode(as_list(texts, "texts"), prefix=self._document, **self._calls)

    def _encode(self, texts: Iterable[str], prefix: str) -> Embeddings:
        items = as_list(texts, "texts")
        return self.encoder.encode(items, prefix=prefix, show_progress=self._show_progress, **self._calls)


_shared: WeakValueDictionary[str, AdaptedEncoder] = WeakValueDictionary()


def shared_encoder(model: str | Path, options: Mapping[str, Any], **instructions: str | None) -> AdaptedEncoder:
    """An `AdaptedEncoder`, the same one for the same arguments while anybody has it.

    It is for frameworks that make their object again from its configuration whenever a table is opened.
    """
    key = json.dumps([str(Path.cwd()), str(model), options, instructions], sort_keys=True, default=repr)
    with opening.lock:
        encoder = _shared.get(key)
        if encoder is None:
            encoder = _shared[key] = AdaptedEncoder(model, options, **instructions)
        return encoder


class AdaptedReranker:
    """A reranker with one label and the options of its calls.

    Args:
        model: as in `bgert.Reranker`: a model folder, a checkpoint or a hub id.
        options: `RerankerOptions`, as the caller gave them.

    Raises:
        InvalidOptionError: an option that there is not, a value that the model does not take, or several labels.
        BgertError: as in `bgert.Reranker`.
    """

    def __init__(self, model: str | Path, options: Mapping[str, Any]) -> None:
        opening, calls = _options_of(options, RerankerOptions)
        self.reranker = Reranker(model, **opening)
        if self.reranker.num_labels != 1:
            raise InvalidOptionError(f"{model} gives {self.reranker.num_labels} scores a pair: one is needed to rank")
        self._calls = {"sigmoid": True, **calls}
        self.score([])  # refuses options of calls that the model does not take

    def score(self, pairs: Iterable[tuple[str, str]]) -> list[float]:
        """The score of each (query, document)."""
        scores: list[float] = self.reranker.score(
            as_list(pairs, "pairs", "(query, document)", 2), **self._calls
        ).tolist()
        return scores

    def rank(self, query: str, documents: Sequence[str], top: int | None) -> list[tuple[int, float]]:
        """(index, score) of the best `top` documents, None for all, best first."""
        return self.reranker.rank(query, documents, top_k=top, **self._calls)


def checked_options(options: Mapping[str, Any], known: type[Any]) -> dict[str, Any]:
    """The options that a model will be opened with later, by bgert's names.

    Raises:
        InvalidOptionError: there is no such option; the message says where it went.
    """
    opening, calls = _options_of(options, known)
    return {**opening, **calls}


def path_text(model: str | Path) -> str:
    """A model's path as a configuration keeps it, where the model is opened later.

    Raises:
        InvalidOptionError: it is no path.
    """
    user_path(model, "model")
    return str(model)


def one_text(text: str, name: str = "text") -> list[str]:
    """A list of this one text, for calls that take no list."""
    if not isinstance(text, str):
        raise InvalidTextError(f"{name} is {type(text).__name__}: pass one str")
    return [text]


@contextmanager
def imports_of(packages: str) -> Iterator[None]:
    """Imports of another library: where one is missing, an EngineNotInstalledError says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise EngineNotInstalledError(f"this needs {error.name}: pip install {packages}") from None


def _options_of(options: Mapping[str, Any], known: type[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of opening a model and options of its calls.

    Raises:
        InvalidOptionError: there is no such option; the message says where it went.
    """
    names = known.__annotations__.keys() | ModelOptions.__annotations__.keys()
    opening: dict[str, Any] = {}
    calls: dict[str, Any] = {}
    for given, value in options.items():
        name = _ALIASES.get(given, given)
        if name in names:
            (calls if name in _OF_CALLS else opening)[name] = value
        elif name in _IGNORED:
            warn_caller(f"{name} is ignored: bgert cuts batches by tokens", UserWarning)
        elif name in _ELSEWHERE:
            raise InvalidOptionError(f"there is no {name} here: {_ELSEWHERE[name]}")
        else:
            raise InvalidOptionError(f"unknown option {name!r}: there are {', '.join(sorted(names))}")
    return opening, calls
