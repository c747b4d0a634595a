"""Layers in which a token sees its neighbours alone (ModernBERT, arXiv:2412.13663), read from `config.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bgert_export.errors import CheckpointError, UnsupportedCheckpointError
from bgert_export.rotary import Rotary, number_of, theta_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LocalAttention", "read_modernbert_global", "read_modernbert_local"]

_KINDS = ("full_attention", "sliding_attention")


@dataclass(frozen=True)
class LocalAttention:
    """Which layers, how far they see, and how positions turn their queries and keys."""

    layers: tuple[int, ...]
    window: int
    """A token sees as many before it and as many after it."""
    rotary: Rotary


def read_modernbert_global(config: Mapping[str, Any]) -> Rotary:
    """The angles of the layers that see everything."""
    return _rotary(config, "full_attention", "global_rope_theta", 160_000.0)


def read_modernbert_local(config: Mapping[str, Any], layers: int) -> LocalAttention:
    """`layer_types`, or before transformers 5 `global_attn_every_n_layers`."""
    kinds = config.get("layer_types")
    if kinds is None:
        every = config.get("global_attn_every_n_layers", 3)
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise CheckpointError(f"config.json: global_attn_every_n_layers is {every!r}, not a whole number from 1")
        kinds = [_KINDS[1] if layer % every else _KINDS[0] for layer in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in _KINDS for kind in kinds):
        raise UnsupportedCheckpointError(
            f"config.json: layer_types is not a list of {' or '.join(_KINDS)} for each of {layers} layers"
        )
    whole = config.get("local_attention", 128)
    if not isinstance(whole, int) or isinstance(whole, bool) or not 2 <= whole <= 1 << 20:
        raise CheckpointError(f"config.json: local_attention is {whole!r}, not a whole number from 2 to 2^20")
    rotary = _rotary(config, _KINDS[1], "local_rope_theta", 10_000.0)
    return LocalAttention(tuple(n for n, kind in enumerate(kinds) if kind == _KINDS[1]), whole // 2, rotary)


def _rotary(config: Mapping[str, Any], kind: str, old: str, default: float) -> Rotary:
    if config.get("rope_scaling") is not None:
        raise UnsupportedCheckpointError(f"config.json: rope_scaling {config['rope_scaling']!r} is not supported")
    parameters = config.get("rope_parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise CheckpointError(f"config.json: rope_parameters is {parameters!r}, not an object")
    theta, dynamic = theta_of((parameters or {}).get(kind), number_of(config, old, default))
    if dynamic:
        raise UnsupportedCheckpointError("config.json: rope_parameters of the type dynamic are not supported")
    return Rotary(theta)
