"""Rotary positions: which angles turn queries and keys, read strictly from `config.json`.

A head's numbers i and i + D / 2 are a pair, which the token at position p turns by `p * frequency[i]` (RoFormer,
arXiv:2104.09864, in the order of GPT-NeoX). Everything is in float32 as PyTorch computes it: at position 8,000 the last
bit of a frequency moves an angle by 0.0005.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert_export.errors import CheckpointError, UnsupportedCheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[np.float32]

__all__ = ["Rotary", "number_of", "read_gte", "read_nomic", "theta_of"]


@dataclass(frozen=True)
class Rotary:
    """The angles of one kind of layer."""

    theta: float
    ntk_factor: float = 1.0
    """How many times longer texts may be than in training, by NTK scaling (kexue.fm/archives/9706, equation 6)."""
    fixed_up_to: int | None = None
    """Longest text whose angles do not depend on its length; None where none do (dynamic NTK scaling)."""

    def frequencies(self, head_size: int) -> Array:
        """float32[head_size / 2]: radians a position."""
        exponents = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
        # float64 rounds as torch's pow does; numpy's in float32 is off in the last bit of one in ten.
        powers = np.power(self.theta * self.ntk_factor, exponents.astype(np.float64)).astype(np.float32)
        return np.float32(1) / powers / np.float32(self.ntk_factor ** (2 / head_size))

    def turns(self, head_size: int, positions: int) -> Array:
        """float32[positions, head_size]: the cosines of the pairs' angles, then their sines."""
        angles = np.arange(positions, dtype=np.float32)[:, None] * self.frequencies(head_size)
        exact = angles.astype(np.float64)
        return np.concatenate([np.cos(exact), np.sin(exact)], axis=1).astype(np.float32)


def read_nomic(config: Mapping[str, Any]) -> Rotary:
    """nomic_bert: `rotary_emb_*` of its own code, or transformers' `rope_parameters`."""
    theta, dynamic = theta_of(config.get("rope_parameters"), 1000.0)
    theta = number_of(config, "rotary_emb_base", theta)
    _only(config, "rotary_emb_fraction", 1.0)
    _only(config, "rotary_emb_interleaved", False)
    _only(config, "rotary_emb_scale_base", None)
    if config.get("rotary_scaling_factor") is not None or dynamic:
        trained = config.get("max_trained_positions", config.get("max_position_embeddings"))
        if not isinstance(trained, int) or isinstance(trained, bool) or trained < 1:
            raise CheckpointError(f"config.json: max_trained_positions is {trained!r}, not a whole number")
        return Rotary(theta, fixed_up_to=trained)
    return Rotary(theta)


def read_gte(config: Mapping[str, Any]) -> Rotary:
    """gte, called `new` by its own code: `rope_theta` and `rope_scaling`, or transformers' `rope_parameters`."""
    # transformers' default, and that of its authors' code.
    default = 160_000.0 if config.get("model_type") == "gte" else 10_000.0
    theta, dynamic = theta_of(config.get("rope_parameters"), default)
    if dynamic:
        raise UnsupportedCheckpointError("config.json: rope_parameters of the type dynamic are not supported for gte")
    theta = number_of(config, "rope_theta", theta)
    for name, value in (("position_embedding_type", "rope"), ("logn_attention_scale", False)):
        _only(config, name, value)
    scaling = config.get("rope_scaling")
    if scaling is None:
        return Rotary(theta)
    if not isinstance(scaling, dict) or scaling.get("type", scaling.get("rope_type")) != "ntk":
        raise UnsupportedCheckpointError(f"config.json: rope_scaling {scaling!r} is not supported: bgert exports ntk")
    _only(scaling, "mixed_b", None)
    return Rotary(theta, ntk_factor=number_of(scaling, "factor", None))


def theta_of(parameters: Any, default: float) -> tuple[float, bool]:
    """Theta and whether the type is `dynamic`, of transformers' `rope_parameters`, which may be None."""
    if parameters is None:
        return default, False
    kind = parameters.get("rope_type", "default") if isinstance(parameters, dict) else None
    if kind not in ("default", "dynamic"):
        raise UnsupportedCheckpointError(
            f"config.json: rope_parameters {parameters!r} is not supported: bgert exports the rope_type default"
        )
    _only(parameters, "partial_rotary_factor", 1.0)
    return number_of(parameters, "rope_theta", default), kind == "dynamic"


def _only(config: Mapping[str, Any], name: str, value: Any) -> None:
    found = config.get(name, value)
    if found != value:
        raise UnsupportedCheckpointError(
            f"config.json: {name} {found!r} is not supported: bgert exports {name} {value!r} alone"
        )


def number_of(config: Mapping[str, Any], name: str, default: float | None) -> float:
    """A field that is a theta or a factor."""
    value = config.get(name, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 1 <= value < 1e12:
        raise CheckpointError(f"config.json: {name} is {value!r}, not a number from 1 to 1e12")
    return float(value)
