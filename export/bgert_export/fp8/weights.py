"""Weights in E4M3 so that products lose little, not so that each weight is nearest.

They are rounded together (`graphs/gptq.py`). Which inputs go together is seen on the texts that int8 sees too; weights
rounded so need none of them to be right, they are only better by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bgert_export.fp8.arithmetic import LARGEST, LEAST, encode, rounded
from bgert_export.graphs.gptq import round_together
from bgert_export.graphs.matrix_inputs import matrix_inputs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.tokenizer import Tokenizer
    from bgert_export.network import Network

    Array = NDArray[np.float32]
    Bits = NDArray[np.uint8]

__all__ = ["quantize_weights", "quantized_network"]


def quantize_weights(weights: Array, products: Array) -> tuple[Array, Array]:
    """float32[N, K] to E4M3 numbers, as float32[N, K], and scales float32[N], one an output channel.

    Args:
        weights: [out, in].
        products: [K, K], `x.T @ x` of rows that the matrix reads.
    """
    largest = np.maximum(np.abs(weights).max(axis=1), np.float32(LEAST))
    scales = largest / np.float32(LARGEST)
    return round_together(weights / scales[:, None], products, rounded), scales


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
    wanted, found = set(matrices), {}
    for inputs in matrix_inputs(network, fp32_graph, tokenizer, max_tokens):
        for name in (reader for reader in inputs.readers if reader in wanted):
            numbers, scales = quantize_weights(network.read(f"{name}.weight"), inputs.products)
            found[name] = encode(numbers), scales
    return found
