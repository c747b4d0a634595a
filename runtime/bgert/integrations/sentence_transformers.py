"""Modules that run bgert inside sentence-transformers 5.7 to 6.2; `modules.json` of every model folder names one.

`SentenceTransformer(folder, trust_remote_code=True)` and `CrossEncoder(folder, trust_remote_code=True)` find it there:
since version 6 sentence-transformers asks for that argument wherever a class is not its own. Prompts, batches,
quantizing and pools are its own; texts come here, and vectors or logits with the bits of `bgert.Encoder` go back.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bgert.encoder import Encoder
from bgert.errors import (
    DeviceUnavailableError,
    EngineNotInstalledError,
    InvalidOptionError,
    InvalidTextError,
    ModelFolderError,
    warn_caller,
)
from bgert.exported_models import targets_for
from bgert.hub import locate
from bgert.model import Model, check_whole, warn_truncated
from bgert.model_folder import Choice, Manifest
from bgert.reranker import Reranker

try:
    import torch
    from sentence_transformers.base.modules import Dense, InputModule
except ImportError as error:
    raise EngineNotInstalledError(
        f"bgert.integrations.sentence_transformers needs sentence-transformers 5.7 or later, with its PyTorch: {error}"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bgert.results import RunInfo

__all__ = ["EncoderModule", "RerankerModule"]

_OPTIONS = tuple(name for name in inspect.signature(Model).parameters if name != "path")
_CONFIG = "config_sentence_transformers.json"
_LIBRARIES = ("bgert", "sentence_transformers", "torch")
_WHICH = "`bgert.Tokenizer(folder).count(texts)` tells which"
_DTYPE = "a graph has one precision: choose it with model_kwargs={'precision': 'bf16'}, of those that were exported"


class _Module(InputModule):
    """What the two modules share: a model folder, the torch device it is placed on, and the limit of its texts."""

    model_class: ClassVar[type[Model]]
    output: ClassVar[str]
    """What it adds to sentence-transformers' features."""

    def __init__(self, path: str | Path, **options: Any) -> None:
        torch.nn.Module.__init__(self)
        for name in options:
            if name not in _OPTIONS:
                why = _DTYPE if name in ("dtype", "torch_dtype") else f"there are {', '.join(_OPTIONS)}"
                raise InvalidOptionError(f"unknown option {name!r}: {why}")
        self.folder = locate(path, targets_for(options.get("device"), options.get("precision"))).absolute()
        self.manifest = Manifest.read(self.folder)
        if self.manifest.kind != self.model_class.kind:
            classes = {"encoder": "SentenceTransformer", "reranker": "CrossEncoder"}
            raise ModelFolderError(
                f"{self.folder} holds a model of kind {self.manifest.kind}: it is for {classes[self.manifest.kind]}"
            )
        self.options = options
        self.placement = torch.nn.Parameter(torch.empty(0), requires_grad=False)
        """No weights: it is what sentence-transformers moves, and asks for the device and dtype."""
        self._model: Any = None
        self._opened_for: Any = None
        self._limit: int | None = None
        self._warn_of_prompts = True

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        backend: str = "torch",
        **_: Any,
    ) -> Any:
        """The module of a folder, here or on the hub; sentence-transformers calls this.

        Args:
            model_name_or_path: the folder, or a hub id.
            subfolder: where in it the model folder is.
            token: the hub's.
            cache_folder: the hub's.
            revision: the hub's.
            local_files_only: the hub's.
            model_kwargs: options of `bgert.Encoder`, such as `precision` and `threads`.
            processor_kwargs: `model_max_length` alone, which `CrossEncoder(max_length=)` becomes.
            config_kwargs: `num_labels` alone, which has to be the model's.
            backend: `torch`, the default; the engine is bgert's all the same.

        Raises:
            InvalidOptionError: anything else there.
            BgertError: as `bgert.Encoder`.
        """
        if backend != "torch":
            raise InvalidOptionError(f"backend is {backend!r}: bgert runs this folder, so leave backend= out")
        place = {"token": token, "cache_folder": cache_folder, "revision": revision}
        folder = cls.load_dir_path(model_name_or_path, subfolder, local_files_only=local_files_only, **place)
        module = cls(folder, **(model_kwargs or {}))
        module._warn_of_prompts = False  # sentence-transformers reads them from the folder too
        for given, known in (processor_kwargs, "model_max_length"), (config_kwargs, "num_labels"):
            if unknown := sorted({*(given or {})} - {known}):
                raise InvalidOptionError(f"{', '.join(unknown)}: bgert has no such option for this model")
        module.max_seq_length = (processor_kwargs or {}).get("model_max_length")
        labels = (config_kwargs or {}).get("num_labels")
        if labels not in (None, module.manifest.num_labels):
            raise InvalidOptionError(f"num_labels is {labels!r}: the model has {module.manifest.num_labels}")
        return module

    @property
    def settings(self) -> dict[str, Any]:
        """What to pass to sentence-transformers beside `modules=`, where it does not read the folder itself."""
        return {"prompts": dict(self.manifest.prompts), "default_prompt_name": self.manifest.default_prompt}

    @property
    def max_seq_length(self) -> int:
        """Tokens that an input may have; None, when it is set, is the model's own limit, the largest there is."""
        return self._limit or self.manifest.max_tokens

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        if value is not None:
            check_whole("max_seq_length", value, 1, self.manifest.max_tokens)
        self._limit = value

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, task: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """Features of inputs: the inputs themselves, which `forward` tokenizes."""
        if options:
            raise InvalidOptionError(f"{', '.join(options)}: bgert has no such option; max_seq_length is settable")
        if self._warn_of_prompts and not prompt and (task is not None or prompt is None):
            self._warn_of_prompt(task)
        return {"inputs": list(inputs), "prompt": prompt or ""}

    def _warn_of_prompt(self, task: str | None) -> None:
        name = self.manifest.default_prompt if task is None else task
        if text := self.manifest.prompts.get(name or "", ""):
            self._warn_of_prompts = False
            warn_caller(
                f"nothing is put before inputs, and the model has the prompt {name!r}, {text!r}: build it with "
                f"modules=[module], **module.settings",
                UserWarning,
                _LIBRARIES,
            )

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add vectors or logits, as a float32 tensor on the device where the module was placed.

        Raises:
            InvalidTextError: an input is no text, or no pair of them.
            BgertError: as `bgert.Encoder.encode` and `bgert.Reranker.score`.
        """
        model = self._open()
        try:
            rows, info = self._run(model, features["inputs"], features["prompt"])
        except InvalidTextError as error:  # sentence-transformers sorts inputs: their numbers are not the caller's
            raise InvalidTextError(re.sub(r"^(texts\[\d+\]|pair \d+)", "an input", str(error))) from None
        warn_truncated(info.truncated, self.max_seq_length, _WHICH, _LIBRARIES)
        return _Outputs({self.output: torch.from_numpy(rows).to(self.placement.device)})

    def _run(self, model: Any, inputs: list[Any], prompt: str) -> tuple[NDArray[np.float32], RunInfo]:
        raise NotImplementedError

    def _open(self) -> Any:
        """The model on the device where the module is now; opened anew after a move."""
        place = self.placement.device
        device = self.options.get("device")
        if device is None and place.type not in ("cpu", "cuda"):
            raise DeviceUnavailableError(
                f"the model was placed on {place}, where bgert does not run: pass device='cpu'"
            )
        wanted = str(place) if device is None else device
        if self._model is None or self._opened_for != wanted:
            try:
                self._model = self.model_class(self.folder, **{**self.options, "device": wanted})
            except DeviceUnavailableError as error:
                if device is not None or place.type == "cpu":
                    raise
                raise DeviceUnavailableError(
                    f"{error}. sentence-transformers takes a GPU where it is not told device='cpu'"
                ) from error
            self._opened_for = wanted
        return self._model

    def _apply(self, function: Any, *arguments: Any, **options: Any) -> Any:
        """Go where torch moves it; the first move is the constructor's of sentence-transformers, which opens the model.

        Later moves open it when it is used: a pool moves its parent's model to the CPU for nothing.
        """
        if function(torch.empty(0, device=self.placement.device)).dtype != torch.float32:
            raise InvalidOptionError(f"half(), bfloat16() and double() cannot change this model: {_DTYPE}")
        moved = super()._apply(function, *arguments, **options)
        if self._model is None:
            self._open()
        return moved

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write the model folder again, with the limit and the prompts that the sentence-transformers model has now."""
        target = Path(output_path)
        manifest = self.manifest
        choices = list(manifest.choices)
        if self.max_seq_length != manifest.max_tokens:
            choices.append(Choice("max_tokens", self.max_seq_length, "asked for, in sentence-transformers"))
        prompts, default = manifest.prompts, manifest.default_prompt
        if (target / _CONFIG).is_file():  # sentence-transformers wrote it before
            config = json.loads((target / _CONFIG).read_bytes())
            prompts, default = dict(config["prompts"]), config["default_prompt_name"]
        for name, text in prompts.items():
            if manifest.prompts.get(name, "") != text:
                choices.append(Choice(f"prompts.{name}", text, "asked for, in sentence-transformers"))
        for entry in manifest.files():
            _copy(self.folder / entry.name, target / entry.name)
        replace(
            manifest, max_tokens=self.max_seq_length, prompts=prompts, default_prompt=default, choices=choices
        ).write(target)

    def __repr__(self) -> str:
        model = repr(self._model) if self._model is not None else f"{self.folder.name!r}, not opened yet"
        return f"{type(self).__name__}({model})"


class EncoderModule(_Module):
    """An encoder as the one module of a `SentenceTransformer`.

    By itself, which needs no `trust_remote_code`:

        module = EncoderModule("bge-small-en-v1.5")
        model = SentenceTransformer(modules=[module], **module.settings)

    Args:
        path: a model folder, a checkpoint or a hub id, as for `bgert.Encoder`.
        options: those of `bgert.Encoder`. Where `device` is none of them, the model runs where sentence-transformers
            places it; where it is, such as `tensorrt`, that placement only says where the tensors go.

    Raises:
        InvalidOptionError: an unknown option.
        ModelFolderError: the folder holds a reranker, or as for `bgert.Encoder`.
    """

    model_class = Encoder
    output = "sentence_embedding"

    def get_embedding_dimension(self) -> int:
        """Numbers in a vector."""
        return self.manifest.columns

    def _run(self, model: Encoder, inputs: list[Any], prompt: str) -> tuple[NDArray[np.float32], RunInfo]:
        model.require_pooled()
        rows, info, _ = model._embed(inputs, prompt, self._limit, None, "float32", False)
        return rows, info


class RerankerModule(_Module, Dense):
    """A reranker as the one module of a `CrossEncoder`, which gives it raw logits.

    By itself, which needs no `trust_remote_code`:

        module = RerankerModule("bge-reranker-base")
        model = CrossEncoder(modules=[module], **module.settings)

    It is a `Dense` for that is what `CrossEncoder` asks how many labels there are.

    Args:
        path: as for `EncoderModule`.
        options: as for `EncoderModule`.

    Raises:
        InvalidOptionError: an unknown option.
        ModelFolderError: the folder holds an encoder, or as for `bgert.Reranker`.
    """

    model_class = Reranker
    output = module_output_name = "scores"

    @property
    def out_features(self) -> int:
        """Labels."""
        return self.manifest.columns

    @property
    def settings(self) -> dict[str, Any]:
        """What to pass to `CrossEncoder` beside `modules=`, where it does not read the folder itself."""
        names = [choice.value for choice in self.manifest.choices if choice.field == "activation"]
        function = getattr(torch.nn, str(names[-1]), None) if names else None
        return super().settings | {"activation_fn": function() if function else None}

    def _run(self, model: Reranker, inputs: list[Any], prompt: str) -> tuple[NDArray[np.float32], RunInfo]:
        def place(side: str, _: int) -> str:
            return "an input" + {"texts": ": the query", "pairs": ": the document"}.get(side, "")

        scores = model._score(
            inputs, len(inputs), prompt, model._truncation(self._limit, "longest_first", None), "logit", False, place
        )
        return np.asarray(scores).reshape(len(inputs), -1), scores.info


class _Outputs(dict[str, Any]):
    """Features that say what is not among them."""

    def __missing__(self, name: str) -> Any:
        raise InvalidOptionError(f"there are no {name}: bgert gives {', '.join(self)} alone, pooled and in one piece")


def _copy(source: Path, target: Path) -> None:
    """Copy a file in one step: whoever has an older one mapped keeps it."""
    if target.exists() and source.samefile(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".copying-")
    os.close(handle)
    try:
        shutil.copyfile(source, temporary)
        shutil.copymode(source, temporary)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
