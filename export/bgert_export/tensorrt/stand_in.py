"""A padded graph run on ONNX Runtime's CPU provider: one for TensorRT where there is none, or a portable one.

Two ways, and an export must pass both where both are possible: the written file itself (not in bfloat16: ONNX Runtime
has no kernels for it on the CPU), which proves the graph; and the same with every 16-bit value rounded
(`graphs.rounding`), which proves the precision of the 16-bit ones. Neither proves anything about TensorRT's kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.backends.graph_file import verify_graph
from bgert.backends.onnxruntime_import import import_onnxruntime
from bgert.backends.padded_layout import PaddedLayout
from bgert.batching import PackedBatch, plan_batches, reorder, slice_batch
from bgert.errors import EngineError
from bgert_export.graphs.rounding import rounded_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.model_folder import GraphEntry, Manifest

__all__ = ["StandIn"]

_TOKEN_BUDGET = 2048
_LARGEST_GRAPH = 2**31 - 1  # a portable one has its weights inside


class StandIn:
    """One graph on the CPU.

    Args:
        folder: the model folder.
        manifest: its manifest.
        graph: an entry of target `tensorrt` or `portable`.
        rounded: round every 16-bit value instead of running the file as it is.
        partial_sums: see `graphs.rounding`.

    Raises:
        EngineNotInstalledError: ONNX Runtime is not installed.
        ModelFolderError: a file is damaged, or the graph is not one that bgert writes.
        EngineError: ONNX Runtime cannot load the graph.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, graph: GraphEntry, *, rounded: bool, partial_sums: bool = False
    ) -> None:
        onnxruntime = import_onnxruntime()
        self._layout = PaddedLayout.of(graph.inputs, manifest.architecture)
        path = verify_graph(folder, graph, _LARGEST_GRAPH)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_mem_pattern = False
        source: str | bytes = str(path)
        how = "as written"
        if rounded:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
            source = rounded_model(path, partial_sums=partial_sums)
            how = f"every {graph.precision} value rounded, sums in {graph.precision if partial_sums else 'fp32'}"
        self.engine = f"onnxruntime {onnxruntime.__version__} on the CPU, {how}"
        try:
            self._session: Any = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            raise EngineError(f"ONNX Runtime cannot load {path}: {error}") from error
        self._output = graph.output
        self._dtype = np.int64 if self._session.get_inputs()[0].type == "tensor(int64)" else np.int32

    def run(self, batch: PackedBatch) -> NDArray[np.float32]:
        """One batch as it is, padded to its longest text, to float32[B, columns]."""
        feeds = {name: array.astype(self._dtype) for name, array in self._layout.arrays(batch).items()}
        rows: NDArray[np.float32] = self._session.run([self._output], feeds)[0]
        return rows

    def run_sorted(self, batch: PackedBatch) -> NDArray[np.float32]:
        """Texts in batches of like length, rows in the order given."""
        plan = plan_batches(np.diff(batch.cu_seqlens), _TOKEN_BUDGET)
        ordered = reorder(batch, plan.order)
        parts = [
            self.run(slice_batch(ordered, start, stop)) for start, stop in zip(plan.cuts, plan.cuts[1:], strict=False)
        ]
        joined = np.concatenate(parts)
        rows = np.empty_like(joined)
        rows[plan.order] = joined
        return rows
