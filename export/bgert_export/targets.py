"""The graphs that export can write, by the name a user asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import bgert
from bgert.errors import InvalidOptionError
from bgert.model_folder import FileEntry, GraphEntry
from bgert_export.graphs import cpu, cuda

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from types import ModuleType

    from bgert_export.checkpoint import Checkpoint
    from bgert_export.settings import Settings

__all__ = ["TARGETS", "Job", "check_targets"]


@dataclass(frozen=True)
class Job:
    """What a graph is written from, and where to."""

    checkpoint: Checkpoint
    settings: Settings
    folder: Path
    """Holds the tokenizer's files, and the graphs that were asked for earlier."""
    say: Callable[[str], None]


def _write_packed(job: Job, module: ModuleType, target: str, precision: str) -> GraphEntry:
    """Run one of the writers of packed graphs, which have one interface."""
    network, settings = job.checkpoint.network, job.settings
    if settings.pooling is None:
        written = module.write_reranker(network, job.folder, version=bgert.__version__)
    else:
        written = module.write_encoder(
            network, job.folder, pooling=settings.pooling, normalize=settings.normalize, version=bgert.__version__
        )
    return GraphEntry(
        target=target,
        precision=precision,
        files=[FileEntry.of(job.folder, name) for name in written.files],
        inputs=written.inputs,
        output=written.output,
        opset=dict(module.OPSET),
        ir_version=module.IR_VERSION,
        minimum_engine=module.MINIMUM_ENGINE,
        parity=None,
    )


TARGETS: dict[str, Callable[[Job], GraphEntry]] = {
    "cpu": lambda job: _write_packed(job, cpu, "cpu", "fp32"),
    "cuda": lambda job: _write_packed(job, cuda, "cuda", "fp16"),
}


def check_targets(names: Iterable[str]) -> list[str]:
    """The names, each once, in the order given.

    Raises:
        InvalidOptionError: a name is unknown, or there is none.
    """
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in TARGETS:
            raise InvalidOptionError(f"unknown target {name!r}: use {', '.join(TARGETS)}")
    if not wanted:
        raise InvalidOptionError(f"no target was asked for: use {', '.join(TARGETS)}")
    return wanted
