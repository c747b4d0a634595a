"""The graphs that export can write, by the name a user asks for them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import bgert
from bgert.errors import InvalidOptionError
from bgert.model_folder import Choice, FileEntry, GraphEntry
from bgert.tokenizer import Tokenizer
from bgert_export.graphs import cpu, cuda, tensorrt
from bgert_export.graphs.linears import Bf16Linears, Fp32Linears, Int8Linears

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

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
    int8_floor: float
    """Least quality of an int8 graph, see `bgert_export.quantize.Quantized`."""


def _write_cpu(job: Job, precision: str, linears: cpu.MakeLinears) -> GraphEntry:
    network, settings, stem = job.checkpoint.network, job.settings, f"cpu-{precision}"
    if settings.pooling is None:
        written = cpu.write_reranker(network, job.folder, stem, linears, version=bgert.__version__)
    else:
        written = cpu.write_encoder(
            network,
            job.folder,
            stem,
            linears,
            pooling=settings.pooling,
            normalize=settings.normalize,
            version=bgert.__version__,
        )
    return GraphEntry(
        target="cpu",
        precision=precision,
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


def _write_cpu_int8(job: Job) -> GraphEntry:
    from bgert_export.quantize import quantize

    entry: list[GraphEntry] = []

    def write(smoothing: Mapping[str, NDArray[np.float32]], in_fp32: Collection[str]) -> Path:
        linears = partial(Int8Linears, smoothing=smoothing, in_fp32=in_fp32)
        entry[:] = [_write_cpu(job, "int8", linears)]
        return job.folder / entry[0].files[0].name

    with tempfile.TemporaryDirectory(dir=job.folder) as folder:  # beside it, where there is room for a graph
        fp32 = _write_cpu(replace(job, folder=Path(folder)), "fp32", Fp32Linears)
        settled = quantize(
            job.checkpoint.network,
            Tokenizer.from_folder(job.checkpoint.folder),
            Path(folder) / fp32.files[0].name,
            write,
            max_tokens=job.settings.max_tokens,
            prefix=job.settings.prompts.get(job.settings.default_prompt or "", ""),
            cls=job.settings.pooling != "mean",
            floor=job.int8_floor,
            say=job.say,
        )
    job.settings.choices.append(
        Choice("int8", settled.in_fp32, f"matrices left in fp32: so the floor of {job.int8_floor} is reached, with "
               f"{settled}")
    )  # fmt: skip
    return replace(entry[0], floor=job.int8_floor)


def _write_cuda(job: Job) -> GraphEntry:
    network, settings = job.checkpoint.network, job.settings
    if settings.pooling is None:
        written = cuda.write_reranker(network, job.folder, version=bgert.__version__)
    else:
        written = cuda.write_encoder(
            network, job.folder, pooling=settings.pooling, normalize=settings.normalize, version=bgert.__version__
        )
    return GraphEntry(
        target="cuda",
        precision="fp16",
        files=[FileEntry.of(job.folder, name) for name in written.files],
        inputs=written.inputs,
        output=written.output,
        opset=dict(cuda.OPSET),
        ir_version=cuda.IR_VERSION,
        minimum_engine=cuda.MINIMUM_ENGINE,
        parity=None,
    )


TARGETS: dict[str, Callable[[Job], GraphEntry]] = {
    "cpu": lambda job: _write_cpu(job, "fp32", Fp32Linears),
    "cpu-bf16": lambda job: _write_cpu(job, "bf16", Bf16Linears),
    "cpu-int8": _write_cpu_int8,
    "cuda": _write_cuda,
    "tensorrt": lambda job: _write_tensorrt(job, "fp16"),
    "tensorrt-bf16": lambda job: _write_tensorrt(job, "bf16"),
}


def check_targets(names: Iterable[str]) -> list[str]:
    """The names, each once, in the order of `TARGETS`: a device's first graph is the one that `precision="auto"` takes.

    Raises:
        InvalidOptionError: a name is unknown, or there is none.
    """
    asked = set(names)
    for name in sorted(asked):
        if name not in TARGETS:
            raise InvalidOptionError(f"unknown target {name!r}: use {', '.join(TARGETS)}")
    if not asked:
        raise InvalidOptionError(f"no target was asked for: use {', '.join(TARGETS)}")
    return [name for name in TARGETS if name in asked]
