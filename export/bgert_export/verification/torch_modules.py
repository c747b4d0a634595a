"""Pooling and dense layers in PyTorch, from the formulas and files of sentence-transformers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bgert_export.weights import open_weights, read_whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["dense_layer", "pool", "splade"]


def pool(rows: Any, mask: Any, mode: str) -> Any:
    """One mode of `bgert_export.pooling`: rows [B, S, H] and an integer mask [B, S] of 1 on tokens to [B, H]."""
    import torch

    real = mask[:, :, None].to(rows.dtype)
    count = real.sum(1)
    if mode == "cls":
        return rows[:, 0]
    if mode == "lasttoken":
        return rows[torch.arange(len(rows)), mask.sum(1) - 1]
    if mode == "max":
        return rows.masked_fill(real == 0, -torch.inf).amax(1)
    if mode == "weightedmean":
        real = real * torch.arange(1, rows.shape[1] + 1, dtype=rows.dtype)[None, :, None]
        count = real.sum(1)
    return (rows * real).sum(1) / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)


def splade(logits: Any, mask: Any, pooling: str) -> Any:
    """SPLADE's poolings: scores [B, S, V] and a mask to [B, V]."""
    weights = (logits * mask[:, :, None]).relu().log1p()
    if pooling == "splade_sum":
        return weights.sum(1)
    return (weights.log1p() if pooling == "splade_log1p" else weights).amax(1)


def dense_layer(folder: Path) -> Callable[[Any], Any]:
    """A module Dense of sentence-transformers, in float32."""
    import torch

    config = json.loads((folder / "config.json").read_bytes())
    weights = open_weights(folder)
    own = [name for name in weights.shapes if name.startswith(("linear.", "residual."))]
    parts = {name: torch.from_numpy(read_whole(weights, name)) for name in own}
    # The folder of a whole HF_ColBERT has the config.json of its network.
    default = "torch.nn.Identity" if "model_type" in config else "torch.nn.Tanh"
    name = config.get("activation_function", default).rpartition(".")[2]
    activation = getattr(torch.nn, name)()  # which it may be was settled when the checkpoint was read
    residual = config.get("use_residual", False)

    def layer(rows: Any) -> Any:
        result = activation(torch.nn.functional.linear(rows, parts["linear.weight"], parts.get("linear.bias")))
        if residual and "residual.weight" in parts:
            return result + torch.nn.functional.linear(rows, parts["residual.weight"])
        return result + rows if residual else result

    return layer
