"""The one graph of a model folder whose network another exporter wrote."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import bgert
from bgert.errors import InvalidOptionError
from bgert.model_folder import Choice, FileEntry, GraphEntry
from bgert_export.traced.graph import MINIMUM_ENGINE, rewrite
from bgert_export.traced.optimum_export import export_with_optimum, require_optimum
from bgert_export.traced.torch_export import export_with_torch, require_onnxscript

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bgert_export.settings import Settings
    from bgert_export.traced.checkpoint import TracedCheckpoint

__all__ = ["VIAS", "check_via", "write_traced"]

VIAS = ("torch", "optimum")
NOT_PROMISED = (
    "its rows are padded, so a text's vector may differ in the last bits with the texts beside it, and there is no "
    "bf16 or int8 graph, none for a GPU, and none of bgert's own operators"
)


def check_via(via: str, targets: Sequence[str], optimum_python: str | Path | None) -> None:
    """Refuse before anything is read what cannot be done.

    Raises:
        InvalidOptionError: an unknown exporter, another target than `cpu`, or an environment that nothing reads.
        ExtraNotInstalledError: what exports is not installed.
    """
    if via not in VIAS:
        raise InvalidOptionError(f"unknown exporter {via!r}: use {' or '.join(VIAS)}")
    if list(targets) != ["cpu"]:
        raise InvalidOptionError(f"--via {via} writes the target cpu alone, in fp32")
    if via == "optimum":
        require_optimum(optimum_python)
        return
    if optimum_python is not None:
        raise InvalidOptionError("--optimum-python is for --via optimum")
    require_onnxscript()


def write_traced(
    checkpoint: TracedCheckpoint, settings: Settings, folder: Path, optimum_python: str | Path | None
) -> GraphEntry:
    """Let the other exporter write its graph, and make it one of the model folder.

    Raises:
        UnsupportedCheckpointError: it cannot, or writes what bgert cannot run.
        CheckpointError, ExtraNotInstalledError: as said there.
    """
    arch = checkpoint.architecture
    with tempfile.TemporaryDirectory(dir=folder) as room:  # where there is room for a graph
        if arch.via == "torch":
            path, versions = export_with_torch(checkpoint, Path(room))
        else:
            path, versions = export_with_optimum(checkpoint, Path(room), optimum_python)
        written, opset, ir_version = rewrite(
            path,
            folder,
            "cpu-fp32",
            columns=arch.num_labels or settings.dimensions(arch.hidden_size),
            pooling=settings.pooling,
            projections=settings.projections,
            normalize=settings.normalize,
            version=bgert.__version__,
        )
    settings.choices.append(Choice("via", arch.via, f"asked for; {versions} wrote the graph: {NOT_PROMISED}"))
    return GraphEntry(
        target="cpu",
        precision="fp32",
        files=[FileEntry.of(folder, name) for name in written.files],
        inputs=written.inputs,
        output=written.output,
        opset=opset,
        ir_version=ir_version,
        minimum_engine=MINIMUM_ENGINE,
        parity=None,
    )
