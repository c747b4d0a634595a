"""What goes into a TensorRT engine, and what is written down beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bgert.model_folder import GraphEntry

__all__ = ["FORMAT", "LEAN", "RTX", "TENSORRT", "EngineRecord", "Environment", "Profile", "Recipe", "graph_digest"]

FORMAT = 2
TENSORRT, LEAN, RTX = "tensorrt", "tensorrt_lean", "tensorrt_rtx"
_OF_ANY = ("8.0", "8.6", "8.9")  # and 12.0 and later (docs.nvidia.com: TensorRT for RTX, engines built on a CPU)


@dataclass(frozen=True)
class Environment:
    """What an engine is tied to."""

    library: str
    """`tensorrt`, `tensorrt_lean` or `tensorrt_rtx`."""
    tensorrt: str
    """Full version."""
    gpu: str
    """Empty, as what follows, for an engine that was built for targets and not on a GPU."""
    compute_capability: str
    multiprocessors: int
    driver: int
    targets: str = ""
    """Of TensorRT for RTX: `any`, or names such as `sm86,sm89`."""

    def mismatch(self, here: Environment) -> str | None:
        """Why an engine built for this environment does not run in the other; None where it does."""
        if RTX in (self.library, here.library):
            return self._rtx_mismatch(here)
        for name in ("gpu", "compute_capability", "multiprocessors", "driver", "library"):
            mine, theirs = getattr(self, name), getattr(here, name)
            if mine != theirs:
                return f"it was built for {name} {mine}, here is {theirs}"
        if self.library == LEAN:  # version-compatible within a major version, from the builder's on
            built, found = (_numbers(version) for version in (self.tensorrt, here.tensorrt))
            fits = built[0] == found[0] and built <= found
        else:
            fits = self.tensorrt == here.tensorrt
        return None if fits else f"it was built with TensorRT {self.tensorrt}, here is {here.tensorrt}"

    def _rtx_mismatch(self, here: Environment) -> str | None:
        """GPU and driver do not count: kernels are compiled where the engine is loaded."""
        if self.library != here.library:
            return f"it was built for library {self.library}, here is {here.library}"
        if self.tensorrt != here.tensorrt:
            return f"it was built with TensorRT for RTX {self.tensorrt}, here is {here.tensorrt}"
        if here.targets:  # a build that asks what the cache has
            return None if self.targets == here.targets else f"it was built for {self.targets}, not for {here.targets}"
        runs = here.compute_capability in _OF_ANY or _numbers(here.compute_capability) >= (12,)
        if self.targets != "any":
            runs = "sm" + here.compute_capability.replace(".", "") in self.targets.split(",")
        return None if runs else f"it was built for {self.targets}, this GPU is {here.compute_capability}"


@dataclass(frozen=True)
class Profile:
    """One shape range of an engine: texts padded to `length`, from 1 to `texts` of them, tuned for `texts`."""

    length: int
    texts: int


@dataclass(frozen=True)
class Recipe:
    """Everything that goes into an engine."""

    graph: str
    """See `graph_digest`."""
    precision: str
    environment: Environment
    profiles: list[Profile]
    """Shortest first."""
    workspace: int | None
    """Bytes that a kernel may use; None for no limit."""
    level: int
    """TensorRT's builder optimisation level."""
    format: int = FORMAT

    def key(self) -> str:
        """SHA-256 over all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class EngineRecord:
    """An engine in the cache."""

    recipe: Recipe
    plan: str
    """File name."""
    size: int
    sha256: str
    seconds: float
    """That the build took."""
    fused_attention: list[int] | None
    """Fused attention layers by profile; None where the engine could not be inspected."""
    notes: list[str] = field(default_factory=list)
    activations: list[int] | None = None
    """Bytes by profile, as the builder planned them; None where it did not say."""
    weights: int | None = None
    """Bytes."""


def graph_digest(graph: GraphEntry) -> str:
    """SHA-256 over the names and digests of a graph's files."""
    listed = [[entry.name, entry.sha256] for entry in graph.files]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
