"""What the matrices of a network read, over the calibration texts: what weights can be rounded by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx

from bgert.backends.onnx_cpu import feeds_of
from bgert_export.graphs.quality import calibration_texts, mixed_batches
from bgert_export.graphs.sensitivity import session_with_outputs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.tokenizer import Tokenizer
    from bgert_export.network import Network

    Array = NDArray[np.float32]

__all__ = ["MatrixInputs", "matrices_of", "matrix_inputs"]

CALIBRATION_TOKENS = 64  # of each text: more of them change nothing that can be measured
_BYTES_AT_ONCE = 600 << 20  # of products; what does not fit is left to another pass over the texts


@dataclass(frozen=True)
class MatrixInputs:
    """Rows that some matrices read."""

    value: str
    """Its name in the graph: of a LayerNorm the LayerNorm's."""
    layer_norm: bool
    """Whether a LayerNorm makes it."""
    readers: tuple[str, ...]
    """The matrices, names of weights without `.weight`."""
    products: Array
    """`x.T @ x`, float32[K, K]."""
    largest: Array
    """Largest magnitude of each channel, float32[K]."""


def matrices_of(network: Network) -> list[str]:
    """The matrices of all layers, names of weights without `.weight`."""
    parts = [f"attention.self.{part}" for part in ("query", "key", "value")]
    parts += ["attention.output.dense", "intermediate.dense", "output.dense"]
    if network.architecture.gated:
        parts.append("intermediate.gate")
    return [
        f"encoder.layer.{layer}.{part}" for layer in range(network.architecture.num_hidden_layers) for part in parts
    ]


def matrix_inputs(network: Network, fp32_graph: Path, tokenizer: Tokenizer, max_tokens: int) -> Iterator[MatrixInputs]:
    """What all matrices read, in the order of the graph.

    Args:
        network: the weights.
        fp32_graph: of `graphs/cpu.py`.
        tokenizer: of the same checkpoint.
        max_tokens: longest input.
    """
    makers, readers = _readers(network, fp32_graph)
    shapes = network.architecture.weight_shapes()
    most = min(CALIBRATION_TOKENS, max_tokens)
    batches = list(mixed_batches(tokenizer, calibration_texts(), network.architecture.kind, most))
    values = list(readers)
    while values:
        chosen, held = list[str](), 0
        while values and (not chosen or held + 4 * shapes[f"{readers[values[0]][0]}.weight"][1] ** 2 <= _BYTES_AT_ONCE):
            chosen.append(values.pop(0))
            held += 4 * shapes[f"{readers[chosen[-1]][0]}.weight"][1] ** 2
        session = session_with_outputs(fp32_graph, chosen)
        inputs = [entry.name for entry in session.get_inputs()]
        sums, largest = dict[str, "Array"](), dict[str, "Array"]()
        for batch in batches:
            for value, rows in zip(chosen, session.run(chosen, feeds_of(inputs, batch)), strict=True):
                product, most_of = rows.T @ rows, np.abs(rows).max(0)
                if value in sums:
                    sums[value] += product
                    np.maximum(largest[value], most_of, out=largest[value])
                else:
                    sums[value], largest[value] = product, most_of
        del session
        for value in chosen:
            norm = makers[value].op_type.startswith("AddLayerNorm")
            yield MatrixInputs(value, norm, tuple(readers[value]), sums.pop(value), largest.pop(value))


def _readers(network: Network, fp32_graph: Path) -> tuple[dict[str, onnx.NodeProto], dict[str, list[str]]]:
    """What makes each value, and the matrices that read a value or some of its rows."""
    nodes = onnx.load(fp32_graph, load_external_data=False).graph.node
    makers = {output: node for node in nodes for output in node.output}
    reads = {name: node.input[0] for node in nodes for name in node.input if name.endswith(".weight")}
    readers: dict[str, list[str]] = {}
    for name in matrices_of(network):
        at, _, half = name.rpartition(".")
        both = f"{at}.weight"  # of a gate and its other half, which lie in one
        value = reads[both if at.endswith(".intermediate") and both in reads else f"{name}.weight"]
        if makers[value].op_type == "Gather" and half == "query":  # the rows of one token a text
            value = makers[value].input[0]
        readers.setdefault(value, []).append(name)
    places = {output: place for place, node in enumerate(nodes) for output in node.output}
    return makers, {value: readers[value] for value in sorted(readers, key=places.__getitem__)}
