"""What an 8-bit graph needs besides the weights: smoothing, and proof that it is good enough.

Activations are quantised row by row with a scale of their own (`graphs/linears.py`), so nothing is calibrated to be
able to run. Smoothing makes it better: a channel that is always large makes every row's step large, so it is divided by
a factor before and the weights multiplied by the same (SmoothQuant, arXiv:2211.10438, equation 4 with alpha = 1/2),
which moves the difficulty into weights, where each column has a scale. Factors are powers of two: they round nothing.

Then the graph is held to its floor (`floor.py`), and where it is below, matrices go back to float32 in the order of the
quality that each alone costs for its arithmetic (`sensitivity.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bgert.backends.onnx_cpu import feeds_of, open_session
from bgert.cpu_count import available_cpus
from bgert_export.graphs.floor import Floor, by_loss
from bgert_export.graphs.linears import quantize_columns
from bgert_export.graphs.quality import calibration_texts, mixed_batches, session_run
from bgert_export.graphs.sensitivity import losses, session_with_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.tokenizer import Tokenizer
    from bgert_export.graphs.floor import Settled
    from bgert_export.graphs.quality import Run
    from bgert_export.network import Network

    Array = NDArray[np.float32]
    WriteInt8 = Callable[[Mapping[str, Array], Collection[str]], Path]

__all__ = ["quantize"]

TOKENS = 64  # of a typical text


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
    """Write the int8 graph, by `write(smoothing, in_fp32)`, as fast as the floor allows.

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
    smoothing = smoothing_factors(network, _largest_activations(network, tokenizer, fp32_graph, max_tokens))
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
        return session_run(open_session(write(smoothing, in_fp32), available_cpus()))

    run = run_of([])
    best = target.judge(run, [])
    if target.reached(best):
        return best
    all_losses = 1 - target.on_probes(run).mean
    del run
    costs = _candidates(network, cls)
    found = losses(network, fp32_graph, target.probes, Int8Product(network, smoothing), costs)
    for names, loss in found.items():
        target.lost(names, loss)
    order = by_loss(found, costs, _multiplications_of_all(network) / 3)
    return target.reach(best, found, order, all_losses, lambda kept: target.judge(run_of(kept), kept))


class Int8Product:
    """What int8 makes of rows, as `Int8Linears` and the kernels do it."""

    def __init__(self, network: Network, smoothing: Mapping[str, Array]) -> None:
        self._network = network
        self._factors = {reader: smoothing[name] for name in smoothing for reader in _readers(network, name)}

    def __call__(self, name: str, rows: Array) -> Array:
        weights, factors = self._network.read(f"{name}.weight"), self._factors.get(name)
        if factors is not None:
            rows, weights = rows * factors, weights / factors
        quantized, scales = quantize_columns(weights)
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


def smoothing_factors(network: Network, largest: Mapping[str, Array]) -> dict[str, Array]:
    """What to multiply activations by, float32[K] under the name of the LayerNorm that makes them.

    1 / s with s = sqrt(largest activation / largest weight) of each channel, rounded to a power of two.
    """
    factors = {}
    for name, activations in largest.items():
        weights = np.zeros_like(activations)
        for reader in _readers(network, name):
            np.maximum(weights, np.abs(network.read(f"{reader}.weight")).max(0), out=weights)
        ratio = np.maximum(activations, 1e-5).astype(np.float64) / np.maximum(weights, 1e-5)
        factors[name] = np.exp2(-np.rint(np.log2(ratio) / 2)).astype(np.float32)
    return factors


def _readers(network: Network, layer_norm: str) -> list[str]:
    """The matrices that read what a LayerNorm makes."""
    architecture = network.architecture
    pre_norm = architecture.family.pre_norm
    if layer_norm.startswith("embeddings"):
        layer, feeds_attention = 0, True
    else:
        layer = int(layer_norm.split(".")[2])
        *_, last = architecture.layer_norms(layer)
        # Behind its parts a layer's last LayerNorm feeds the next layer, before them its own feed-forward network.
        feeds_attention = (layer_norm == last) is not pre_norm
        layer += feeds_attention and not pre_norm
    if layer == architecture.num_hidden_layers:
        return []
    at = f"encoder.layer.{layer}"
    if feeds_attention:
        return [f"{at}.attention.self.{part}" for part in ("query", "key", "value")]
    halves = ("dense", "gate") if architecture.gated else ("dense",)
    return [f"{at}.intermediate.{half}" for half in halves]


def _largest_activations(network: Network, tokenizer: Tokenizer, graph: Path, max_tokens: int) -> dict[str, Array]:
    """The largest magnitude of each channel after each LayerNorm, over texts that every installation has alike."""
    names = ["embeddings.LayerNorm"]
    for layer in range(network.architecture.num_hidden_layers):
        names += network.architecture.layer_norms(layer)
    names = [name for name in names if _readers(network, name)]
    session = session_with_outputs(graph, names)
    largest = {name: np.zeros(network.architecture.hidden_size, np.float32) for name in names}
    inputs = [entry.name for entry in session.get_inputs()]
    for batch in mixed_batches(tokenizer, calibration_texts(), network.architecture.kind, max_tokens):
        for name, rows in zip(names, session.run(names, feeds_of(inputs, batch)), strict=True):
            np.maximum(largest[name], np.abs(rows).max(0), out=largest[name])
    return largest


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
