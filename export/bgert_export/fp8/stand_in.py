"""A `cuda-fp8` graph run in numpy: what its arithmetic gives, known on a machine that has no such GPU.

The written file is read and each of its operators computed as the device rounds: E4M3 by row and by channel bit for
bit (`arithmetic.py`), every float16 value rounded to float16, the rest and all sums in float32. Every batch is computed
in FP8, also those below `least_tokens`, which the device computes in fp16 and nearer to the checkpoint.

What it does not show is the device's sums. cublasLt adds the products in another order; the tensor cores of
compute capability 9.0 align the products of one instruction to the largest and cut bits off (about 14 remain), and with
fast accumulation, which is off here, they add instructions so too. Nor does it show attention's blocks, the last bit of
exp and GELU, or what ONNX Runtime's kernels keep wider than float16 inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from bgert.backends.cuda.packed_layout import InputPlan, bucket_of
from bgert.backends.graph_file import verify_graph
from bgert.batching import plan_batches, reorder, slice_batch
from bgert.errors import ModelFolderError
from bgert_export.fp8.arithmetic import decode
from bgert_export.fp8.operators import OPERATORS

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.batching import PackedBatch
    from bgert.model_folder import GraphEntry, Manifest

__all__ = ["Fp8StandIn"]

_TOKEN_BUDGET = 256  # rows and what is computed of them stay in a cache
_FP8_READS, _HALF_READS = (0, 1, 3, 4, 6), (2, 5, 6)  # of LinearFp8's inputs, with many rows and with few


class Fp8StandIn:
    """One graph on the CPU.

    Args:
        path: the graph file, as `graphs.cuda_fp8` writes it.
        inputs: names of its inputs.
        pad_token_id: see `bgert.backends.cuda.packed_layout.InputPlan`.

    Raises:
        ModelFolderError: the graph has an input or an operator that bgert does not know.
    """

    engine = "bgert's numpy evaluator, E4M3 as the device rounds it, sums in fp32"

    def __init__(self, path: Path, inputs: list[str], *, pad_token_id: int) -> None:
        model = onnx.load(str(path))
        self._nodes = list(model.graph.node)
        if unknown := sorted({node.op_type for node in self._nodes} - OPERATORS.keys()):
            raise ModelFolderError(f"{path} has an operator {unknown[0]} that this bgert does not know")
        try:
            self._plan = InputPlan(inputs, pad_token_id=pad_token_id)
        except ValueError as error:
            raise ModelFolderError(f"{path} has an input {error} that this bgert does not know") from None
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._weights: dict[str, NDArray[Any]] = {}
        self._output = model.graph.output[0].name
        self.in_half: Collection[str] = ()
        """Outputs of `LinearFp8` to compute in fp16 all the same."""

    @classmethod
    def of(cls, folder: Path, manifest: Manifest, graph: GraphEntry) -> Fp8StandIn:
        """The graph of a model folder.

        Raises:
            IntegrityError: a file of it is not the one that export wrote.
            ModelFolderError: the graph is not one that bgert writes.
        """
        path = verify_graph(folder, graph)
        return cls(path, graph.inputs, pad_token_id=int(manifest.architecture.get("pad_token_id", 0)))

    def run(self, batch: PackedBatch) -> NDArray[np.float32]:
        """One batch as it is, to float32[B, columns]."""
        bucket = bucket_of(np.diff(batch.cu_seqlens))
        block = np.zeros(self._plan.nbytes(bucket), np.uint8)
        self._plan.fill(block, batch, bucket)
        values: dict[str, Any] = {}
        for name, dtype, shape, offset in self._plan.places(bucket):
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            values[name] = block[offset : offset + size].view(dtype).reshape(shape)
        with np.errstate(invalid="ignore", over="ignore"):
            for node in self._nodes:
                self._compute(node, values)
        rows: NDArray[np.float32] = values[self._output][: len(batch)]
        return rows

    def run_sorted(self, batch: PackedBatch) -> NDArray[np.float32]:
        """Texts in batches of like length, rows in the order given."""
        plan = plan_batches(np.diff(batch.cu_seqlens), _TOKEN_BUDGET)
        ordered = reorder(batch, plan.order)
        joined = np.concatenate(
            [self.run(slice_batch(ordered, start, stop)) for start, stop in zip(plan.cuts, plan.cuts[1:], strict=False)]
        )
        rows = np.empty_like(joined)
        rows[plan.order] = joined
        return rows

    def _compute(self, node: onnx.NodeProto, values: dict[str, Any]) -> None:
        operator, names = node.op_type, list(node.input)
        if operator == "LinearFp8":
            in_half = node.output[0] in self.in_half
            operator = "LinearFp16" if in_half else operator
            names = [names[place] for place in (_HALF_READS if in_half else _FP8_READS)]
        inputs = [values[name] if name in values else self._weight(name) for name in names]
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        found = OPERATORS[operator](*inputs, **attributes)
        results = found if isinstance(found, tuple) else (found,)
        values.update(zip(node.output, results, strict=True))

    def _weight(self, name: str) -> NDArray[Any]:
        """An initializer; those of float16 and E4M3 in float32."""
        if name not in self._weights:
            stored = numpy_helper.to_array(self._tensors[name])
            if stored.dtype == np.uint8:
                stored = decode(stored)
            self._weights[name] = stored.astype(np.float32) if stored.dtype == np.float16 else stored
        return self._weights[name]
