"""The graphs that export can write, by the name a user asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import bgert
from bgert.errors import InvalidOptionError
from bgert.model_folder import FileEntry, GraphEntry
from bgert_export.graphs import cpu, tensorrt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

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


def _write_cpu(job: Job) -> GraphEntry:
    network, settings = job.checkpoint.network, job.settings
    if settings.pooling is None:
        written = cpu.write_reranker(network, job.folder, version=bgert.__version__)
    else:
        written = cpu.write_encoder(
            network, job.folder, pooling=settings.pooling, normalize=settings.normalize, version=bgert.__version__
        )
    return GraphEntry(
        target="cpu",
        precision="fp32",
        files=[FileEntry.of(job.folder, name) for name in written.files],
        inputs=written.inputs,
        output=written.output,
        opset=dict(cpu.OPSET),
        ir_version=cpu.IR_VERSION,
        minimum_engine=cpu.MINIMUM_ENGINE,
        parity=None,
    )


def _write_tensorrt(job: Job, precision: str) -> GraphEntry:
    network, settings = job.checkpoint.network, job.settings
    version = bgert.__version__
    if settings.pooling is None:
        written = tensorrt.write_reranker(network, job.folder, precision=precision, version=version)
    else:
        written = tensorrt.write_encoder(
            network,
            job.folder,
            precision=precision,
            pooling=settings.pooling,
            normalize=settings.normalize,
            version=version,
        )
    return GraphEntry(
        target="tensorrt",
        precision=precision,
        files=[FileEntry.of(job.folder, name) for name in written.files],
        inputs=written.inputs,
        output=written.output,
        opset=dict(tensorrt.OPSET),
        ir_version=tensorrt.IR_VERSION,
        minimum_engine=tensorrt.MINIMUM_ENGINE,
        parity=None,
    )


TARGETS: dict[str, Callable[[Job], GraphEntry]] = {
    "cpu": _write_cpu,
    "tensorrt": lambda job: _write_tensorrt(job, "fp16"),
    "tensorrt-bf16": lambda job: _write_tensorrt(job, "bf16"),
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
