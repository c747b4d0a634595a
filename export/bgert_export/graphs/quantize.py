"""What an 8-bit graph needs besides the weights: smoothing, weights rounded together, and proof that it is good enough.

Activations are quantised row by row with a scale of their own (`graphs/linears.py`), so nothing is calibrated to be
able to run. Two things make it better. Smoothing: a channel that is always large makes every row's step large, so it is
divided by a factor before and the weights multiplied by the same (SmoothQuant, arXiv:2211.10438, equation 4), which
moves the difficulty into weights, where each column has a scale. Factors are powers of two: they round nothing. And
weights are rounded so that their errors cancel on what they read (`gptq.py`), which lets smoothing move more.

Then the graph is held to its floor (`floor.py`), and where it is below, matrices go back to float32 in the order of the
quality that each alone costs for its arithmetic (`sensitivity.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bgert.backends.onnx_cpu import open_session
from bgert.cpu_count import available_cpus
from bgert_export.graphs.floor import Floor, by_loss
from bgert_export.graphs.gptq import round_together
from bgert_export.graphs.linears import in_steps, nearest_byte
from bgert_export.graphs.matrix_inputs import matrix_inputs
from bgert_export.graphs.quality import session_run
from bgert_export.graphs.sensitivity import losses

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.tokenizer import Tokenizer
    from bgert_export.graphs.floor import Settled
    from bgert_export.graphs.quality import Run
    from bgert_export.network import Network

    Array = NDArray[np.float32]
    WriteInt8 = Callable[["Int8Weights", Collection[str]], Path]

__all__ = ["Int8Weights", "quantize", "rounded_weights"]

TOKENS = 64  # of a typical text
STRENGTH = 0.65  # of smoothing, SmoothQuant's alpha: see LOG.md


@dataclass(frozen=True)
class Int8Weights:
    """Matrices in 8 bits."""

    smoothing: dict[str, Array]
    """What activations are multiplied by, float32[K], under the name of the LayerNorm that makes them."""
    factors: dict[str, Array]
    """The same under the names of the matrices that read them."""
    quantized: dict[str, tuple[NDArray[np.int8], Array]]
    """Of each matrix int8[N, K] and scales float32[N], of weights that were divided by the factors."""


def quantize(
    network: Network,
    tokenizer: Tokenizer,
    fp32_graph: Path,
    write: WriteInt8,
    *,
    max_tokens: int,
    prefix: str,
    cls: bool,
    floor: float,
    say: Callable[[str], None],
) -> Settled:
    """Write the int8 graph, by `write(weights, in_fp32)`, as fast as the floor allows.

    Args:
        network: the weights.
        tokenizer: of the same checkpoint.
        fp32_graph: the float32 graph, to compare with.
        write: writes the graph, over one that is there, and returns its path.
        max_tokens: longest input.
        prefix: the model's default prompt.
        cls: the model gives the last hidden state of one token alone.
        floor: least `Quality.mean`, on both sets of inputs.
        say: called with a line for each step.

    Raises:
        QuantizationError: the floor cannot be reached with a third of the arithmetic in float32.
    """
    weights = rounded_weights(network, tokenizer, fp32_graph, max_tokens)
    target = Floor(
        floor,
        network,
        tokenizer,
        fp32_graph,
        max_tokens=max_tokens,
        prefix=prefix,
        precision="int8",
        higher="fp32",
        advice="Leave cpu-int8 out, take cpu-bf16, or lower the floor with --int8-floor",
        say=say,
    )

    def run_of(in_fp32: list[str]) -> Run:
        return session_run(open_session(write(weights, in_fp32), available_cpus()))

    run = run_of([])
    best = target.judge(run, [])
    if target.reached(best):
        return best
    all_losses = 1 - target.on_probes(run).mean
    del run
    costs = _candidates(network, cls)
    found = losses(network, fp32_graph, target.probes, Int8Product(weights), costs)
    for names, loss in found.items():
        target.lost(names, loss)
    order = by_loss(found, costs, _multiplications_of_all(network) / 3)
    return target.reach(best, found, order, all_losses, lambda kept: target.judge(run_of(kept), kept))


class Int8Product:
    """What int8 makes of rows, as `Int8Linears` and the kernels do it."""

    def __init__(self, weights: Int8Weights) -> None:
        self._weights = weights

    def __call__(self, name: str, rows: Array) -> Array:
        quantized, scales = self._weights.quantized[name]
        if name in self._weights.factors:
            rows = rows * self._weights.factors[name]
        product: Array = quantize_rows(rows) @ quantized.astype(np.float32).T * scales
        return product


def quantize_rows(rows: Array) -> Array:
    """float32[T, K] as they are after `quantize_row` of runtime/src/cpu_ops/int8.h: 255 steps from least to most."""
    low, high = (extreme(rows, axis=1, initial=0, keepdims=True) for extreme in (np.min, np.max))
    scale = (high - low) / 255
    inverse = 1 / np.where(scale > 0, scale, np.inf)
    zero = np.rint(-low * inverse)
    rounded: Array = (np.clip(np.rint(rows * inverse) + zero, 0, 255) - zero) * scale
    return rounded


def rounded_weights(network: Network, tokenizer: Tokenizer, fp32_graph: Path, max_tokens: int) -> Int8Weights:
    """All matrices in 8 bits, by what they read of the calibration texts."""
    made = Int8Weights({}, {}, {})
    for inputs in matrix_inputs(network, fp32_graph, tokenizer, max_tokens):
        parts = [network.read(f"{name}.weight") for name in inputs.readers]
        weights, products = np.concatenate(parts), inputs.products
        if inputs.layer_norm:
            factors = smoothing_factors(inputs.largest, np.abs(weights).max(0))
            weights, products = weights / factors, products * factors * factors[:, None]
            made.smoothing[inputs.value] = factors
            made.factors.update(dict.fromkeys(inputs.readers, factors))
        steps, scales = in_steps(weights)
        numbers = round_together(steps, products, nearest_byte).astype(np.int8)
        cuts = np.cumsum([len(part) for part in parts])[:-1]
        made.quantized.update(
            zip(inputs.readers, zip(np.split(numbers, cuts), np.split(scales, cuts), strict=True), strict=True)
        )
    return made


def smoothing_factors(activations: Array, weights: Array) -> Array:
    """What to multiply activations by, float32[K], from the largest magnitudes of activations and weights by channel.

    1 / s with s = activations^a / weights^(1 - a), a = `STRENGTH`, rounded to a power of two.
    """
    read, held = (np.log2(np.maximum(largest, 1e-5, dtype=np.float64)) for largest in (activations, weights))
    return np.exp2(-np.rint(STRENGTH * read - (1 - STRENGTH) * held)).astype(np.float32)


def _candidates(network: Network, cls: bool) -> dict[tuple[str, ...], float]:
    """What may go to float32 together, and its multiplications for each token."""
    architecture = network.architecture
    last = architecture.num_hidden_layers - 1
    found = {}
    for layer in range(last + 1):
        at = f"encoder.layer.{layer}"
        attention = tuple(f"{at}.attention.self.{part}" for part in ("query", "key", "value"))
        for names in (attention, (f"{at}.attention.output.dense",), (f"{at}.output.dense",)):
            # The last layer of a model that reads one token alone has one row for a whole text.
            rows = 1 / TOKENS if cls and layer == last and names is not attention else 1.0
            found[names] = rows * sum(_multiplications(network, name) for name in names)
    return found


def _multiplications_of_all(network: Network) -> int:
    architecture = network.architecture
    hidden = architecture.hidden_size
    wide = (3 if architecture.gated else 2) * architecture.intermediate_size
    return architecture.num_hidden_layers * hidden * (4 * hidden + wide)


def _multiplications(network: Network, name: str) -> int:
    rows, columns = network.architecture.weight_shapes()[f"{name}.weight"]
    return rows * columns
