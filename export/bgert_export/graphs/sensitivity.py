"""What each matrix of a graph costs in quality when it alone is quantised.

The float32 graph runs once and gives what its matrices read. A quantised matrix makes of these rows what it makes of
them in its own graph, but for the errors of those before it, and the difference is added to the matrix's output where
the float32 graph runs again: what comes out differs by that matrix alone, through everything that follows it. No
graph is written for it, so any arithmetic can be measured that numpy can imitate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from bgert.backends.onnx_cpu import feeds_of, open_session
from bgert.cpu_count import available_cpus
from bgert_export.graphs.builder import FLOAT
from bgert_export.graphs.quality import quality_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.batching import PackedBatch
    from bgert_export.network import Network

    Array = NDArray[np.float32]
    Product = Callable[[str, Array], Array]
    """Of a matrix's name and float32[T, K] rows: the quantised matrix's float32[T, N], without bias."""

__all__ = ["losses", "session_with_outputs"]


def losses(
    network: Network,
    fp32_graph: Path,
    batches: Sequence[PackedBatch],
    product: Product,
    together: Iterable[tuple[str, ...]],
) -> dict[tuple[str, ...], float]:
    """For each set of matrices, 1 - `Quality.mean` with these alone quantised.

    Args:
        network: the weights.
        fp32_graph: of `graphs/cpu.py`.
        batches: inputs; a few hundred tokens are enough.
        product: the arithmetic.
        together: names of matrices that the graph has as float32 output, without activation.
    """
    together = list(together)
    model = onnx.load(fp32_graph, load_external_data=False)
    makers = {node.output[0]: node for node in model.graph.node}
    reads = {name: makers[name].input[0] for names in together for name in names}
    captured = _captured(fp32_graph, sorted(set(reads.values())), batches)
    session = _perturbable(fp32_graph, list(reads))
    inputs = [entry.name for entry in session.get_inputs() if not entry.name.endswith(_ERROR)]
    nothing = {name + _ERROR: np.zeros((1, 1), np.float32) for name in reads}

    def run(errors: dict[str, list[Array]]) -> NDArray[np.float64]:
        rows = []
        for number, batch in enumerate(batches):
            feeds = feeds_of(inputs, batch) | nothing | {name: parts[number] for name, parts in errors.items()}
            rows.append(session.run(None, feeds)[0])
        return np.concatenate(rows).astype(np.float64)

    expected = run({})
    found = {}
    for names in together:
        errors = {}
        for name in names:
            parts = captured[reads[name]]
            rows = np.concatenate(parts)
            error = product(name, rows) - rows @ network.read(f"{name}.weight").T
            errors[name + _ERROR] = np.split(error, np.cumsum([len(part) for part in parts])[:-1])
        found[names] = 1 - quality_of(network.architecture.kind, expected, run(errors)).mean
    return found


_ERROR = ".error"


def _captured(graph: Path, names: list[str], batches: Iterable[PackedBatch]) -> dict[str, list[Array]]:
    """Values from inside the graph, for each batch."""
    session = session_with_outputs(graph, names)
    inputs = [entry.name for entry in session.get_inputs()]
    values: dict[str, list[Array]] = {name: [] for name in names}
    for batch in batches:
        for name, rows in zip(names, session.run(names, feeds_of(inputs, batch)), strict=True):
            values[name].append(rows)
    return values


def session_with_outputs(graph: Path, names: Collection[str]) -> Any:
    """A session that gives values from inside the graph, and computes nothing behind them."""
    model = onnx.load(graph, load_external_data=False)
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, FLOAT, None) for name in names)
    last = max(place for place, node in enumerate(model.graph.node) if set(node.output) & set(names))
    del model.graph.node[last + 1 :]
    return _opened_beside(graph, model)


def _perturbable(graph: Path, names: Collection[str]) -> Any:
    """A session that adds `{name}.error` to each of these values: of their shape, or [1, 1]."""
    model = onnx.load(graph, load_external_data=False)
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        if node.output[0] not in names:
            continue
        (name,) = node.output
        node.output[0] = f"{name}.exact"
        nodes.append(onnx.helper.make_node("Add", [node.output[0], name + _ERROR], [name]))
        model.graph.input.append(onnx.helper.make_tensor_value_info(name + _ERROR, FLOAT, [None, None]))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return _opened_beside(graph, model, [name + _ERROR for name in names])


def _opened_beside(graph: Path, model: onnx.ModelProto, also: Collection[str] = ()) -> Any:
    """A session of a changed graph, whose weights are those beside the one that it was made from."""
    beside = graph.with_name("calibration.onnx")
    try:
        beside.write_bytes(model.SerializeToString())
        return open_session(beside, available_cpus(), also=also)
    finally:
        beside.unlink(missing_ok=True)
