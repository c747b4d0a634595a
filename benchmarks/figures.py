"""What tables and plots read out of a result: rows, ratios to the best peer, shares of the machine's rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peer_list import PEERS

__all__ = ["Best", "best_peer", "ours", "precision", "running", "share", "title", "tokens_per_text"]


@dataclass(frozen=True)
class Best:
    """The fastest peer of some precisions on one set: how many times as long as bgert it took, the median by round."""

    peer: str
    ratio: float


def title(name: str) -> str:
    """A peer's name in tables."""
    return PEERS[name].title if name in PEERS else name


def ours(name: str) -> bool:
    """Whether a row is bgert's."""
    return name == "bgert" or name.startswith("bgert-")


def precision(entry: dict[str, Any]) -> str:
    """`fp32`, `bf16` or `int8`, in one spelling."""
    found = str(entry.get("precision"))
    return {"f32": "fp32", "f16": "fp16"}.get(found, found)


def running(model: dict[str, Any]) -> dict[str, Any]:
    """The entries of a model that have figures, in the order of the peer list."""
    order = {name: number for number, name in enumerate(PEERS)}
    peers = sorted(model["peers"].items(), key=lambda item: order.get(item[0], len(order)))
    return {name: entry for name, entry in peers if "error" not in entry}


def best_peer(model: dict[str, Any], texts: str, *, exact: bool) -> Best | None:
    """The fastest peer on a set.

    Args:
        model: of the result.
        texts: name of the set.
        exact: among those that compute in fp32; otherwise among those that do not.
    """
    found = [
        Best(name, entry["sets"][texts]["ratio"]["median"])
        for name, entry in running(model).items()
        if not ours(name) and "ratio" in entry["sets"].get(texts, {}) and (precision(entry) == "fp32") == exact
    ]
    return min(found, key=lambda best: best.ratio, default=None)


def share(model: dict[str, Any], entry: dict[str, Any], texts: str) -> float | None:
    """A peer's arithmetic per second over the bare rate of its precision; None where that was not measured."""
    bare = model["gemm"].get({"fp32": "fp32", "int8": "u8s8"}.get(precision(entry), ""))
    if not bare or texts not in entry["sets"]:
        return None
    return float(entry["sets"][texts]["gflops"]["median"] / bare["layer"]["median"])


def tokens_per_text(model: dict[str, Any], texts: str) -> float:
    """Mean length of a set."""
    facts = model["sets"][texts]
    return float(facts["tokens"] / facts["texts"])
