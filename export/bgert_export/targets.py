"""The graphs that export can write, by the name a user asks for them."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bgert
from bgert.errors import InvalidOptionError
from bgert.model_folder import Choice, FileEntry, GraphEntry
from bgert.tokenizer import Tokenizer
from bgert_export.errors import UnsupportedCheckpointError
from bgert_export.graphs import cpu, cuda, cuda_fp8, cuda_fused, portable, tensorrt
from bgert_export.graphs.linears import Bf16Linears, Fp32Linears, Int8Linears

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from types import ModuleType

    from bgert.tokenizer.spec import TokenizerSpec
    from bgert_export.checkpoint import Checkpoint
    from bgert_export.graphs.quantize import Int8Weights
    from bgert_export.settings import Settings

__all__ = ["TARGETS", "Job", "check_targets"]


@dataclass(frozen=True)
class Job:
    """What a graph is written from, and where to."""

    checkpoint: Checkpoint
    settings: Settings
    tokenizer: TokenizerSpec
    folder: Path
    """Holds the tokenizer's files, and the graphs that were asked for earlier."""
    say: Callable[[str], None]
    int8_floor: float
    """Least quality of an int8 graph, see `bgert_export.graphs.floor.Floor`."""
    fp8_floor: float
    """Of an fp8 graph, see `bgert_export.graphs.floor.Floor`."""


def _write(job: Job, target: str, precision: str, module: ModuleType, /, *arguments: Any, **options: Any) -> GraphEntry:
    """Run one of the writers, which have one interface but for what comes in `arguments` and `options`."""
    network, settings = job.checkpoint.network, job.settings
    options["version"] = bgert.__version__
    multi_vector = settings.multi_vector
    if (settings.mlm_head is not None or multi_vector is not None) and module is not cpu:
        raise UnsupportedCheckpointError(
            f"the pooling {settings.pooling} has no target {target}: export the target cpu"
        )
    if settings.pooling is None:
        written = module.write_reranker(network, job.folder, *arguments, **options)
    else:
        written = module.write_encoder(
            network,
            job.folder,
            *arguments,
            pooling=settings.pooling,
            projections=settings.projections,
            **(_cpu_options(settings) if module is cpu else {}),
            normalize=settings.normalize,
            **options,
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
        token_outputs=[head.entry.name for head in settings.token_heads] if module is cpu else [],
    )


def _cpu_options(settings: Settings) -> dict[str, Any]:
    seen = settings.multi_vector is not None and settings.multi_vector.expands_unseen
    return {"heads": settings.token_heads, "mlm_head": settings.mlm_head, "seen": seen}


def _write_cpu(job: Job, precision: str, linears: cpu.MakeLinears) -> GraphEntry:
    return _write(job, "cpu", precision, cpu, f"cpu-{precision}", linears)


def _write_cuda_fused(job: Job, *, exact_gelu: bool) -> GraphEntry:
    why = (
        "asked for: a kernel after the product, within 4e-6 of erf"
        if exact_gelu
        else "cuBLAS's form inside the product, within 4.7e-4 of erf; the target cuda-fused-erf has the other"
    )
    job.settings.choices.append(Choice("gelu", "erf" if exact_gelu else "tanh", why))
    return _write(job, "cuda", "fp16", cuda_fused, exact_gelu=exact_gelu)


def _write_tensorrt(job: Job, precision: str) -> GraphEntry:
    return _write(job, "tensorrt", precision, tensorrt, precision=precision)


@contextmanager
def _fp32_graph(job: Job) -> Iterator[Path]:
    """The float32 graph, to compare with."""
    with tempfile.TemporaryDirectory(dir=job.folder) as folder:  # where there is room for a graph
        reference = job.folder / "cpu-fp32.onnx"
        if not reference.exists():  # it was not asked for
            fp32 = _write_cpu(replace(job, folder=Path(folder)), "fp32", Fp32Linears)
            reference = Path(folder) / fp32.files[0].name
        yield reference


def _write_cpu_int8(job: Job) -> GraphEntry:
    from bgert_export.graphs.quantize import quantize

    entry: list[GraphEntry] = []

    def write(weights: Int8Weights, in_fp32: Collection[str]) -> Path:
        linears = partial(Int8Linears, smoothing=weights.smoothing, in_fp32=in_fp32, quantized=weights.quantized)
        entry[:] = [_write_cpu(job, "int8", linears)]
        return job.folder / entry[0].files[0].name

    with _fp32_graph(job) as reference:
        settled = quantize(
            job.checkpoint.network,
            Tokenizer(job.tokenizer),
            reference,
            write,
            max_tokens=job.settings.max_tokens,
            prefix=job.settings.default_prefix,
            cls=job.settings.pooling in (None, "cls", "lasttoken") and not job.settings.token_heads,
            floor=job.int8_floor,
            say=job.say,
        )
    job.settings.choices.append(
        Choice("int8", settled.kept, f"matrices left in fp32: so the floor of {job.int8_floor} is reached, with "
               f"{settled}")
    )  # fmt: skip
    return replace(entry[0], floor=job.int8_floor)


def _write_cuda_fp8(job: Job) -> GraphEntry:
    from bgert_export.fp8.search import settle

    entry: list[GraphEntry] = []

    def write(in_fp16: Collection[str], quantized: Mapping[str, Any]) -> GraphEntry:
        entry[:] = [_write(job, "cuda", "fp8", cuda_fp8, in_fp16, quantized)]
        return entry[0]

    write((), {})  # refuses what the target does not take before anything is computed
    with _fp32_graph(job) as reference:
        settled = settle(
            job.checkpoint.network,
            Tokenizer(job.tokenizer),
            reference,
            job.folder,
            write,
            max_tokens=job.settings.max_tokens,
            prefix=job.settings.default_prefix,
            cls=job.settings.pooling != "mean",
            floor=job.fp8_floor,
            say=job.say,
        )
    why = f"matrices left in fp16: so the floor of {job.fp8_floor} is reached, with {settled}"
    job.settings.choices.append(Choice("fp8", settled.kept, why))
    return replace(entry[0], floor=job.fp8_floor)


TARGETS: dict[str, Callable[[Job], GraphEntry]] = {
    "cpu": lambda job: _write_cpu(job, "fp32", Fp32Linears),
    "cpu-bf16": lambda job: _write_cpu(job, "bf16", Bf16Linears),
    "cpu-int8": _write_cpu_int8,
    "cuda": lambda job: _write(job, "cuda", "fp16", cuda),
    "cuda-fused": lambda job: _write_cuda_fused(job, exact_gelu=False),
    "cuda-fused-erf": lambda job: _write_cuda_fused(job, exact_gelu=True),
    "cuda-fp8": _write_cuda_fp8,
    "tensorrt": lambda job: _write_tensorrt(job, "fp16"),
    "tensorrt-bf16": lambda job: _write_tensorrt(job, "bf16"),
    "portable": lambda job: _write(job, "portable", "fp32", portable),
}

_CUDA_FP16 = ("cuda", "cuda-fused", "cuda-fused-erf")


def check_targets(names: Iterable[str]) -> list[str]:
    """The names, each once, in the order of `TARGETS`: a device's first graph is the one that `precision="auto"` takes.

    Raises:
        InvalidOptionError: a name is unknown, or there is none, or two are one graph for the runtime.
    """
    asked = set(names)
    for name in sorted(asked):
        if name not in TARGETS:
            raise InvalidOptionError(f"unknown target {name!r}: use {', '.join(TARGETS)}")
    if not asked:
        raise InvalidOptionError(f"no target was asked for: use {', '.join(TARGETS)}")
    if len(same := [name for name in _CUDA_FP16 if name in asked]) > 1:
        raise InvalidOptionError(
            f"{' and '.join(same)} are each the fp16 graph of the device cuda: ask for one, or export into two folders"
        )
    return [name for name in TARGETS if name in asked]
