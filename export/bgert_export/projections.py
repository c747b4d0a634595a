"""Dense layers behind pooling: sentence-transformers' module of that name, read from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert_export.errors import CheckpointError, UnsupportedCheckpointError
from bgert_export.weights import open_weights, read_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert_export.weights import Weights

    Array = NDArray[np.float32]

__all__ = ["ACTIVATIONS", "Projection", "read_projection"]

ACTIVATIONS = {
    "Identity": "identity",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
}
"""Class of `torch.nn`, without arguments, to bgert's name."""
_IN, _OUT = "module_input_name", "module_output_name"


@dataclass(frozen=True)
class Projection:
    """`activation(rows @ weight.T + bias)`, with the rows added again where there is a residual."""

    weight: Array
    """float32[out, in]."""
    bias: Array | None
    """float32[out]."""
    activation: str = "identity"
    """A value of `ACTIVATIONS`."""
    residual: bool = False
    """Whether the rows are added to the result."""
    residual_weight: Array | None = None
    """float32[out, in]: what the rows are multiplied by before they are added, where the widths differ."""

    @property
    def columns(self) -> int:
        """Numbers in a row of the result."""
        return len(self.weight)

    def described(self) -> str:
        """For the manifest."""
        parts = [f"{self.weight.shape[1]} to {self.columns}", self.activation]
        parts += [] if self.bias is not None else ["no bias"]
        return ", ".join(parts + (["residual"] if self.residual else []))


def read_projection(folder: Path, where: str, config: Mapping[str, Any], width: int, of: str) -> Projection:
    """Read a module `Dense`.

    Args:
        folder: holds its weights.
        where: the folder's name in the checkpoint, for messages.
        config: its config.json.
        width: numbers in a row that goes in.
        of: the feature that it must read and write, such as `sentence_embedding`.

    Raises:
        UnsupportedCheckpointError: a setting that bgert does not have; the message names it.
        CheckpointError: weights are missing, damaged, or do not fit the config.
    """
    for name, default in ((_IN, "sentence_embedding"), (_OUT, None)):
        value = config.get(name) or default or config.get(_IN, "sentence_embedding")
        if value != of:
            raise UnsupportedCheckpointError(f"{where}: {name} {value!r} is not supported: bgert has {of!r} here")
    activation = _activation(config.get("activation_function", "torch.nn.Tanh"), where)
    rows, columns = config.get("out_features"), config.get("in_features")
    if columns != width or not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
        raise CheckpointError(f"{where}: {columns!r} to {rows!r} features, and {width} go in")
    weights = open_weights(folder)
    residual = bool(config.get("use_residual", False))
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (rows, columns)}
    if config.get("bias", True):
        shapes["linear.bias"] = (rows,)
    if residual and rows != columns:
        shapes["residual.weight"] = (rows, columns)
    found = {name: _read(weights, name, shape, where) for name, shape in shapes.items()}
    if extra := sorted(weights.shapes.keys() - shapes.keys()):
        raise CheckpointError(f"{where} has a weight {extra[0]} that its config.json says nothing of")
    return Projection(
        found["linear.weight"], found.get("linear.bias"), activation, residual, found.get("residual.weight")
    )


def _activation(name: Any, where: str) -> str:
    module, _, short = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    if not (module == "torch.nn" or module.startswith("torch.nn.modules.")) or short not in ACTIVATIONS:
        raise UnsupportedCheckpointError(
            f"{where}: activation_function {name!r} is not supported: bgert has {', '.join(ACTIVATIONS)} of torch.nn"
        )
    return ACTIVATIONS[short]


def _read(weights: Weights, name: str, shape: tuple[int, ...], where: str) -> Array:
    if (found := weights.shapes.get(name)) != shape:
        state = "is missing" if found is None else f"has shape {list(found)}"
        raise CheckpointError(f"{where}: the weight {name} {state}, its config.json asks for {list(shape)}")
    value = read_whole(weights, name)
    if not np.isfinite(value).all():
        raise CheckpointError(f"{where}: the weight {name} has NaN or infinity: the checkpoint is damaged")
    return value
