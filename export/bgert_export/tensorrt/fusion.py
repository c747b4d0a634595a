"""Which attention the compiler fused, by the names of the layers that it made.

A fused attention over all tokens is called `_gemm_mha_v2_myl{profile}_{layer}`. That of one query, in the last layer of
CLS models, becomes `_gemv_mha_v1` at best and is not counted. The names are TensorRT for RTX's (1.6, 1.7: run) and
TensorRT's (10.10 on an A100: NVIDIA/TensorRT#4397, read).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from bgert.errors import EngineError

if TYPE_CHECKING:
    from bgert.backends.tensorrt.recipe import Profile

__all__ = ["fused_in_list", "fused_in_report", "fusion_notes"]

_FUSED = re.compile("gemm_mha|fmha", re.IGNORECASE)
_PROFILE = re.compile(r"_myl(\d+)_\d+$")
_LISTED = re.compile(r"^Name: ([^,]*), LayerType: ", re.MULTILINE)


def fused_in_list(text: str, profiles: int) -> list[int]:
    """Fused attention layers by profile, in the list of layers that a build logs.

    Raises:
        EngineError: it is no such list.
    """
    names = _LISTED.findall(text)
    if not names:
        raise EngineError("the compiler did not list the layers that it made, so their fusion cannot be told")
    counts = [0] * profiles
    for name in names:
        mark = _PROFILE.search(name)
        if _FUSED.search(name) and mark and int(mark.group(1)) < profiles:
            counts[int(mark.group(1))] += 1
    return counts


def fused_in_report(text: str, profile: int) -> int:
    """Fused attention layers of one profile, in the inspector's JSON.

    Whether the inspector lists the layers of all profiles or those of its context alone is not known: where any layer
    bears the number of this profile, those without it are not counted.

    Raises:
        EngineError: it is no such JSON.
    """
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"the engine inspector's answer cannot be read: {error!r}") from error
    names = [str(layer.get("Name", "")) if isinstance(layer, dict) else str(layer) for layer in layers]
    marks = [_PROFILE.search(name) for name in names]
    numbers = [None if mark is None else int(mark.group(1)) for mark in marks]
    if profile in numbers:
        names = [name for name, number in zip(names, numbers, strict=True) if number == profile]
    return sum(bool(_FUSED.search(name)) for name in names)


def fusion_notes(fused: list[int] | None, profiles: list[Profile], wanted: int) -> list[str]:
    """Where fewer layers are fused than have attention over all tokens (the last layer may ask for one token only)."""
    return [
        f"length {profile.length}: {count} of {wanted} attention layers are fused, which is slow"
        for profile, count in zip(profiles, fused or [], strict=False)
        if count < wanted
    ]
