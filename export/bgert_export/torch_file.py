"""Weights in PyTorch's own files, `pytorch_model.bin`, read through torch with `weights_only=True`.

The file is somebody else's: of what torch restores, weights are plain tensors in memory that the file fills.
"""

from __future__ import annotations

import math
import re
import zipfile
from typing import TYPE_CHECKING, Any

from bgert.checked_file import open_regular
from bgert.errors import install_extra
from bgert_export import safetensors_file
from bgert_export.errors import CheckpointError, ExtraNotInstalledError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["TorchWeights"]

_TYPES = ("torch.float32", "torch.float16", "torch.bfloat16", "torch.float64")
# Tied weights share memory, layers that are all one do it often; a file that describes more than this is an attack.
_MOST_SHARING = 32


class TorchWeights:
    """The weights of one or several files, see `bgert_export.weights.Weights`.

    Raises:
        CheckpointError: a file holds something else than weights, or a weight is in two of them.
        ExtraNotInstalledError: torch is not installed.
    """

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self._state: dict[str, Any] = {}
        owner: dict[str, Path] = {}
        for path in files:
            for name, value in _load(path).items():
                if name in owner:
                    raise CheckpointError(f"the weight {name} is in {owner[name].name} and {path.name}")
                owner[name] = path
                self._state[name] = value
        self.shapes = {name: tuple(value.shape) for name, value in self._state.items()}

    def blocks(self, name: str) -> Iterator[NDArray[np.float32]]:
        """See `bgert_export.weights.Weights`."""
        weight = self._state[name].detach()
        if str(weight.dtype) not in _TYPES:
            raise safetensors_file.wrong_type(name, str(weight.dtype).removeprefix("torch."))
        if weight.dim() == 0:
            weight = weight.reshape(1)
        step = max(1, safetensors_file.BLOCK_BYTES // max(1, 4 * math.prod(weight.shape[1:])))
        for start in range(0, weight.shape[0], step):
            block: NDArray[np.float32] = weight[start : start + step].float().resolve_neg().contiguous().numpy()
            yield block


def _load(path: Path) -> dict[str, Any]:
    """The tensors of a file by name, checked."""
    try:
        import torch
    except ImportError:
        raise ExtraNotInstalledError(
            f"reading {path.name} needs PyTorch: {install_extra('verify')} (or find a model.safetensors)"
        ) from None
    with open_regular(path, CheckpointError) as file:
        mapped = zipfile.is_zipfile(file)  # files of before torch 1.6 are not, and cannot be mapped
    size = path.stat().st_size
    if mapped:
        _check_archive(path, size)
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises many types
        raise CheckpointError(_reason(path, str(error))) from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not a dictionary of weights")
    described = 0
    memory: dict[int, int] = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            what = f"{name!r:.80} is a {type(value).__name__}" if isinstance(name, str) else f"the key {name!r:.80}"
            raise CheckpointError(
                f"{path} is not a dictionary of weights ({what}): save model.state_dict() alone, or use save_pretrained"
            )
        if problem := _odd(value):
            raise CheckpointError(f"{path}: the weight {name} is {problem}: save it as an ordinary tensor")
        storage = value.untyped_storage()
        if value.numel() * value.element_size() > storage.nbytes():
            raise CheckpointError(f"{path}: the weight {name} has more numbers than the file holds for it: refused")
        described += value.numel() * value.element_size()
        memory[storage.data_ptr()] = storage.nbytes()
    if sum(memory.values()) > size or described > _MOST_SHARING * size:
        raise CheckpointError(f"{path} describes more numbers than it holds: refused")
    return state


def _check_archive(path: Path, size: int) -> None:
    """Raise CheckpointError unless the archive's entries lie in it as they are: torch never compresses."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): download it again") from None
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise CheckpointError(
            f"{path} is a TorchScript program, not weights: save the model with save_pretrained(folder)"
        )
    if any(entry.compress_type for entry in entries) or sum(entry.file_size for entry in entries) > size:
        raise CheckpointError(f"{path} is a compressed archive, as torch.save makes none: refused")


def _odd(value: Any) -> str:
    """What keeps a tensor from being an array of numbers; "" if nothing does."""
    if value.is_nested:
        return "a nested tensor"
    if str(value.layout) != "torch.strided":
        return f"a sparse tensor ({value.layout})"
    if value.is_quantized:
        return f"a quantised tensor ({value.dtype})"
    if value.device.type != "cpu":
        return f"a tensor without numbers (device {value.device.type})"
    return ""


def _reason(path: Path, error: str) -> str:
    """What to say when torch does not load a file; its own advice is to run the code of a stranger."""
    if found := re.search(r"GLOBAL (\S+)", error):
        return (
            f"{path} holds more than weights (the class {found[1]}), and reading that would run code: load it where it "
            "was made and save it with model.save_pretrained(folder)"
        )
    lines = re.sub(r"\x1b\[[0-9;]*m", "", error).strip().splitlines()
    return f"{path} cannot be read as weights alone, it may be damaged: {lines[0] if lines else 'no reason given'}"
