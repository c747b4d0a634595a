"""What the classes share: devices and formats as FlagEmbedding takes them, and options that mean nothing here."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeVar

from bgert.backends.cuda.check import nvidia_device_present
from bgert.errors import DeviceWarning, InvalidOptionError, warn_caller
from bgert.inputs import as_list
from bgert.model import Model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    Devices = str | int | Sequence[str] | Sequence[int] | None

__all__ = ["closed", "ignore_batch_size", "instructed", "open_model", "refuse_cache"]

AnyModel = TypeVar("AnyModel", bound=Model)
_said: set[str] = set()


def open_model(
    kind: Callable[..., AnyModel], path: str | Path, devices: Devices, *, use_fp16: bool, use_bf16: bool = False
) -> AnyModel:
    """An Encoder or Reranker with the graph that FlagEmbedding's arguments ask for."""
    precision = "bf16" if use_bf16 else "auto" if use_fp16 else "fp32"
    model = kind(path, device=_device(devices), precision=precision)
    if precision == "auto" and model.precision != "fp16":
        _say(
            f"use_fp16 is True, and what runs on {model.device} is {model.precision}, without FlagEmbedding's rounding "
            "of the weights to fp16; use_fp16=False asks for fp32 and says nothing",
            DeviceWarning,
        )
    left = devices is None and precision == "fp32" and model.device == "cpu" and model.manifest.graph("cuda")
    if left and nvidia_device_present():
        _say(
            "use_fp16 is False, there is a GPU, and this folder has no fp32 graph for it: the CPU is used; "
            "use_fp16=True takes the GPU, devices='cpu' says nothing",
            DeviceWarning,
        )
    return model


def _device(devices: Devices) -> str | list[str]:
    """FlagEmbedding's devices as bgert names them: GPUs by number too, several processes on the CPU as one."""
    if devices is None or isinstance(devices, str):
        return devices or "auto"
    names = [devices] if isinstance(devices, int) else list(devices)
    listed = [name if isinstance(name, str) else f"cuda:{name}" for name in names]
    return "cpu" if set(listed) == {"cpu"} else listed


def closed(model: AnyModel) -> AnyModel:
    """The model as it comes out of a pickle, not opened yet; this one is closed."""
    spare = copy.copy(model)
    model.close()
    return spare


def instructed(template: str, instruction: str, text: Any) -> Any:
    """Instruction and text in FlagEmbedding's format; what is no str stays, for the model to refuse by its index."""
    if not isinstance(text, str):
        return text
    try:
        return template.replace("\\n", "\n").format(instruction, text)
    except (AttributeError, IndexError, KeyError, ValueError) as error:
        raise InvalidOptionError(f"the format {template!r} does not take instruction and text: {error!r}") from None


def all_instructed(template: str, instruction: str | None, texts: str | Iterable[Any]) -> Any:
    """A text, or texts as a list, each with the instruction before it if there is one."""
    if isinstance(texts, str):
        return texts if instruction is None else instructed(template, instruction, texts)
    items = as_list(texts, "texts")
    return items if instruction is None else [instructed(template, instruction, item) for item in items]


def refuse_cache(cache_dir: object) -> None:
    """Raise InvalidOptionError for a folder that nothing would be put into."""
    if cache_dir is not None:
        raise InvalidOptionError("cache_dir is not here: the environment variable BGERT_CACHE names the cache")


def ignore_batch_size(batch_size: int | None) -> None:
    """Say, once, that a number that was given means nothing."""
    if batch_size is not None:
        _say("batch_size is ignored: bgert cuts batches by tokens", UserWarning)


def _say(message: str, category: type[Warning]) -> None:
    """Warn once a process, at the caller's line."""
    if message not in _said:
        _said.add(message)
        warn_caller(message, category)
