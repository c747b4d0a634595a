"""Weights in E4M3 so that products lose little, not so that each weight is nearest.

What a rounded weight adds to a product is taken away again by the weights that are rounded after it, as far as their
inputs go together (GPTQ, arXiv:2210.17323, with its order by activation). Which inputs go together is seen on the texts
that smoothing of int8 sees too; weights rounded so need none of them to be right, they are only better by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

from bgert.backends.onnx_cpu import feeds_of
from bgert_export.fp8.arithmetic import LARGEST, LEAST, encode, rounded
from bgert_export.graphs.quality import calibration_texts, mixed_batches
from bgert_export.graphs.sensitivity import session_with_outputs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.tokenizer import Tokenizer
    from bgert_export.network import Network

    Array = NDArray[np.float32]
    Bits = NDArray[np.uint8]

__all__ = ["quantize_weights", "quantized_network"]

_BLOCK = 64
DAMPING = 0.01  # of the mean diagonal, so that inputs which hardly occur decide nothing


def quantize_weights(weights: Array, products: Array) -> tuple[Array, Array]:
    """float32[N, K] to E4M3 numbers, as float32[N, K], and scales float32[N], one an output channel.

    Args:
        weights: [out, in].
        products: [K, K], `x.T @ x` of rows that the matrix reads.
    """
    largest = np.maximum(np.abs(weights).max(axis=1), np.float32(LEAST))
    scales = largest / np.float32(LARGEST)
    order = np.argsort(-np.diag(products), kind="stable")
    damped = products[np.ix_(order, order)].astype(np.float64)
    damped += np.eye(len(damped)) * max(DAMPING * np.diag(damped).mean(), LEAST)
    # Row i of the factor: how much of an error in input i the inputs after it can take over.
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    left = (weights / scales[:, None]).astype(np.float64)[:, order]
    numbers = np.empty_like(weights)
    for start in range(0, len(order), _BLOCK):
        stop = min(start + _BLOCK, len(order))
        errors = np.empty((len(weights), stop - start))
        for i in range(start, stop):
            near = rounded(left[:, i].astype(np.float32))
            numbers[:, order[i]] = near
            errors[:, i - start] = (left[:, i] - near) / factor[i, i]
            left[:, i + 1 : stop] -= np.outer(errors[:, i - start], factor[i, i + 1 : stop])
        left[:, stop:] -= errors @ factor[start:stop, stop:]
    return numbers, scales


def quantized_network(
    network: Network, fp32_graph: Path, tokenizer: Tokenizer, max_tokens: int, matrices: Iterable[str]
) -> dict[str, tuple[Bits, Array]]:
    """Bits uint8[N, K] and scales float32[N] of matrices.

    Args:
        network: the weights.
        fp32_graph: of `graphs/cpu.py`.
        tokenizer: of the same checkpoint.
        max_tokens: longest input.
        matrices: names of weights without `.weight`.
    """
    products = _input_products(fp32_graph, tokenizer, network.architecture.kind, max_tokens, matrices)
    found = {}
    for name, product in products.items():
        numbers, scales = quantize_weights(network.read(f"{name}.weight"), product)
        found[name] = encode(numbers), scales
    return found


def _input_products(
    fp32_graph: Path, tokenizer: Tokenizer, kind: str, max_tokens: int, matrices: Iterable[str]
) -> dict[str, Array]:
    """`x.T @ x`, float32[K, K], of the rows that each matrix reads in the float32 graph."""
    model = onnx.load(fp32_graph, load_external_data=False)
    reads = {node.output[0]: node.input[0] for node in model.graph.node}
    reads = {name: reads[name] for name in matrices}
    values = sorted(set(reads.values()))
    session = session_with_outputs(fp32_graph, values)
    inputs = [entry.name for entry in session.get_inputs()]
    found: dict[str, Array] = {}
    for batch in mixed_batches(tokenizer, calibration_texts(), kind, max_tokens):
        for name, rows in zip(values, session.run(values, feeds_of(inputs, batch)), strict=True):
            found[name] = rows.T @ rows + found.get(name, np.float32(0))
    return {name: found[value] for name, value in reads.items()}
