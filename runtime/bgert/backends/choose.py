"""Which engine serves a device by name. Engine libraries are imported by the backend that is taken."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bgert.errors import (
    DeviceMemoryError,
    DeviceUnavailableError,
    DeviceWarning,
    EngineNotInstalledError,
    InvalidOptionError,
    warn_caller,
)
from bgert.option_types import DEVICE_NAMES, Mode, Precision, values_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bgert.backends.protocol import Backend
    from bgert.model_folder import GraphEntry, Manifest

__all__ = ["open_backend", "parse_devices"]

_DEVICE = re.compile(r"auto|cpu|tensorrt(-rtx)?|cuda(:(\d+|all))?")
_said: set[str] = set()
EXPORTED = {
    ("cpu", "fp32"): "cpu",
    ("cpu", "bf16"): "cpu-bf16",
    ("cpu", "int8"): "cpu-int8",
    ("cuda", "fp16"): "cuda",
    ("cuda", "fp8"): "cuda-fp8",
    ("tensorrt", "fp16"): "tensorrt",
    ("tensorrt", "bf16"): "tensorrt-bf16",
}
"""Device and precision to the `--target` of export that writes the graph."""


def open_backend(
    folder: Path,
    manifest: Manifest,
    *,
    device: str | Sequence[str],
    precision: str,
    threads: int | None,
    mode: str,
    gpu_memory_limit: int | None = None,
) -> Backend:
    """Load the graph of a model folder that fits the device.

    Args:
        folder: the model folder.
        manifest: its manifest.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `cuda:all`, a list of CUDA devices, `tensorrt` or
            `tensorrt-rtx`.
        precision: of the graph; `auto` takes the first of the device.
        threads: cores of the CPU backend.
        mode: `throughput` or `latency`, on the CPU; a GPU serves both at once.
        gpu_memory_limit: bytes an engine may take on each GPU.

    Raises:
        InvalidOptionError: unknown device, precision or mode, or a number below one.
        DeviceUnavailableError: the device is not there, or the folder has no graph for it with this precision.
        DeviceMemoryError: the model does not fit on the device.
        EngineNotInstalledError: the engine's library is missing; the message says which extra brings it.
        EngineNotBuiltError: TensorRT has no engine of this model for this GPU yet.
        IntegrityError: a file of the graph is not the one that export wrote.
    """
    for name, chosen, literal in (("precision", precision, Precision), ("mode", mode, Mode)):
        if chosen not in (known := values_of(literal)):
            raise InvalidOptionError(f"unknown {name} {chosen!r}: use {', '.join(known[:-1])} or {known[-1]}")
    for name, value in (("threads", threads), ("gpu_memory_limit", gpu_memory_limit)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise InvalidOptionError(f"{name} is {value!r}: use a whole number from 1, or None for all there is")
    names = parse_devices(device)
    if names == ["auto"]:
        return _open_auto(folder, manifest, precision, threads, mode, gpu_memory_limit)
    if names == ["cpu"]:
        if gpu_memory_limit is not None:
            raise InvalidOptionError("gpu_memory_limit is for a GPU, and device is 'cpu'")
        return _open_cpu(folder, manifest, precision, threads, mode)
    if names[0] in ("tensorrt", "tensorrt-rtx"):
        return _open_tensorrt(folder, manifest, precision, mode, names[0])
    return _open_cuda(folder, manifest, names, precision, gpu_memory_limit)


def parse_devices(device: str | Sequence[str]) -> list[str]:
    """A device, or several CUDA devices, as a list of names.

    Raises:
        InvalidOptionError: a name is unknown, or named twice, or devices that do not go together.
    """
    names: list[Any] = list(device) if isinstance(device, (list, tuple)) else [device]
    for name in names:
        if not isinstance(name, str) or not _DEVICE.fullmatch(name):
            raise InvalidOptionError(f"unknown device {name!r}: use {DEVICE_NAMES}")
    if not names or (len(names) > 1 and not all(re.fullmatch(r"cuda:\d+", name) for name in names)):
        raise InvalidOptionError(f"the devices {names!r} do not go together: list CUDA devices, as 'cuda:0', 'cuda:1'")
    if len(set(names)) < len(names):
        raise InvalidOptionError(f"the devices {names!r} name one twice")
    return names


def _open_cpu(folder: Path, manifest: Manifest, precision: str, threads: int | None, mode: str) -> Backend:
    """The `cpu` graph on ONNX Runtime."""
    from bgert.backends.onnx_cpu import OnnxCpuBackend

    graph = _graph(folder, manifest, "cpu", precision)
    outputs = [entry for name in graph.token_outputs for entry in manifest.token_outputs if entry.name == name]
    return OnnxCpuBackend(
        folder,
        graph,
        manifest.architecture,
        columns=manifest.columns,
        token_outputs=outputs,
        threads=threads,
        mode=mode,
    )


def _open_cuda(folder: Path, manifest: Manifest, names: list[str], precision: str, memory_limit: int | None) -> Backend:
    """The `cuda` graph on ONNX Runtime, on each of the devices."""
    graph = _graph(folder, manifest, "cuda", precision)
    from bgert.backends.cuda.backend import OnnxCudaBackend
    from bgert.backends.cuda.check import count_devices, parse_cuda_devices
    from bgert.backends.cuda.device_pool import DevicePool

    count = count_devices()
    numbers = [number for name in names for number in parse_cuda_devices(name, count)]
    backends = [
        OnnxCudaBackend(
            folder,
            graph,
            device=number,
            pad_token_id=int(manifest.architecture.get("pad_token_id", 0)),
            max_tokens=manifest.positions,
            memory_limit=memory_limit,
        )
        for number in numbers
    ]
    return backends[0] if len(backends) == 1 else DevicePool(backends)


def _open_tensorrt(folder: Path, manifest: Manifest, precision: str, mode: str, device: str) -> Backend:
    """The `tensorrt` graph, through the engine that `bgert build` made of it."""
    from bgert.backends.tensorrt.backend import TensorRtBackend

    graph = _graph(folder, manifest, "tensorrt", precision)
    return TensorRtBackend(folder, manifest, graph, mode=mode, device=device)


def _open_auto(
    folder: Path, manifest: Manifest, precision: str, threads: int | None, mode: str, memory_limit: int | None
) -> Backend:
    """The first GPU where there is one and the folder has a graph for it, else the CPU.

    A machine without a GPU, and a folder made for the CPU, are no news. That a GPU is there, was prepared for and is
    not used is said, once a process for each reason.
    """
    from bgert.backends.cuda.check import installed, nvidia_device_present

    wanted = None if precision == "auto" else precision
    has_cpu = manifest.graph("cpu", wanted) is not None
    has_cuda = manifest.graph("cuda", wanted) is not None
    reason = None
    if nvidia_device_present() or manifest.graph("cpu") is None:
        if has_cuda:
            try:
                return _open_cuda(folder, manifest, ["cuda"], precision, memory_limit)
            except (DeviceUnavailableError, DeviceMemoryError, EngineNotInstalledError) as error:
                if not has_cpu:
                    raise
                reason = str(error)
        elif wanted is None and installed("onnxruntime-gpu") is not None:
            reason = "the model folder has no cuda graph: export it with `--target cpu --target cuda`"
    if reason is not None and reason not in _said:
        _said.add(reason)
        warn_caller(
            f"there is an NVIDIA GPU here, and the CPU is used: {reason} (device='cpu' says nothing)",
            DeviceWarning,
        )
    return _open_cpu(folder, manifest, precision, threads, mode)


def _graph(folder: Path, manifest: Manifest, target: str, precision: str) -> GraphEntry:
    graph = manifest.graph(target, None if precision == "auto" else precision)
    if graph is None:
        have = ", ".join(f"{entry.target} {entry.precision}" for entry in manifest.graphs) or "none"
        known = {name: argument for (where, name), argument in EXPORTED.items() if where == target}
        if precision in ("auto", *known):
            advice = f"`bgert export --target {known.get(precision, target)}` writes it"
        else:
            elsewhere = " and ".join(dict.fromkeys(where for where, name in EXPORTED if name == precision))
            others = " or ".join(f"{name} (`bgert export --target {argument}`)" for name, argument in known.items())
            advice = f"{precision} is for {elsewhere}, {target} takes {others}"
        raise DeviceUnavailableError(
            f"{folder} has no graph for device {target!r} with precision {precision!r} (it has: {have}): {advice}"
        )
    return graph
