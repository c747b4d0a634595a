"""What an 8-bit graph needs besides the weights: smoothing, and proof that it is good enough.

Activations are quantised row by row with a scale of their own (`graphs/linears.py`), so nothing is calibrated to be
able to run. Smoothing makes it better: a channel that is always large makes every row's step large, so it is divided by
a factor before and the weights multiplied by the same (SmoothQuant, arXiv:2211.10438, equation 4 with alpha = 1/2),
which moves the difficulty into weights, where each column has a scale. Factors are powers of two: they round nothing.

Then the graph runs beside the float32 graph on texts. If its vectors are not near enough, the matrices that cost the
most quality stay in float32, as few as needed; if that does not help either, there is no int8 graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from bgert.backends.onnx_cpu import feeds_of, open_session
from bgert.batching import PackedBatch, plan_batches, reorder, slice_batch
from bgert.sample_texts import sample_texts
from bgert_export import verification_texts as built_in
from bgert_export.errors import QuantizationError
from bgert_export.graphs.builder import FLOAT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.tokenizer import Tokenizer
    from bgert_export.network import Network

    Array = NDArray[np.float32]
    WriteInt8 = Callable[[Mapping[str, Array], Collection[str]], Path]

__all__ = ["Quantized", "quantize"]

TOKEN_BUDGET = 512
HELD_OUT = 128


@dataclass(frozen=True)
class Quantized:
    """What was settled."""

    in_fp32: list[str]
    """Matrices that stay in float32."""
    quality: float
    """Encoders: mean cosine to the float32 graph's vectors. Rerankers: correlation of the scores."""
    texts: int


def quantize(
    network: Network,
    tokenizer: Tokenizer,
    fp32_graph: Path,
    write: WriteInt8,
    *,
    max_tokens: int,
    floor: float,
    say: Callable[[str], None],
) -> Quantized:
    """Write the int8 graph, by `write(smoothing, in_fp32)`, as fast as the floor allows.

    Args:
        network: the weights.
        tokenizer: of the same checkpoint.
        fp32_graph: the float32 graph, to compare with.
        write: writes the graph, over one that is there, and returns its path.
        max_tokens: longest input.
        floor: least quality, see `Quantized.quality`.
        say: called with a line for each step.

    Raises:
        QuantizationError: the floor cannot be reached, even with every feed-forward network in float32.
    """
    encoder = network.architecture.kind == "encoder"
    reference = open_session(fp32_graph)
    smoothing = smoothing_factors(network, _largest_activations(network, tokenizer, fp32_graph, max_tokens))
    held_out = list(_batches(tokenizer, _held_out_texts(), encoder, max_tokens))
    expected = _run(reference, held_out)

    def quality(in_fp32: Collection[str]) -> float:
        found = _run(open_session(write(smoothing, in_fp32)), held_out)
        return _mean_cosine(expected, found) if encoder else _correlation(expected, found)

    in_fp32: list[str] = []
    reached = quality(in_fp32)
    say(f"int8: {_named(encoder)} {reached:.5f} to the fp32 graph with every matrix in int8")
    if reached < floor:
        last = network.architecture.num_hidden_layers
        layers = [f"encoder.layer.{layer}.output.dense" for layer in range(last)]
        gains = {name: quality([name]) - reached for name in layers}
        for name in sorted(layers, key=lambda name: -gains[name]):
            in_fp32.append(name)
            reached = quality(in_fp32)
            say(f"int8: {_named(encoder)} {reached:.5f} with {name} in fp32 too")
            if reached >= floor:
                break
    if not reached >= floor:
        raise QuantizationError(
            f"the int8 graph reaches a {_named(encoder)} of {reached:.5f} to the fp32 graph, below the floor of "
            f"{floor}, with the output of every feed-forward network in fp32: nothing was written. Leave cpu-int8 "
            "out, take cpu-bf16, or lower the floor with --int8-floor"
        )
    return Quantized(in_fp32, reached, sum(len(batch) for batch in held_out))


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
    if layer_norm.endswith("attention.output.LayerNorm"):
        return [layer_norm.replace("attention.output.LayerNorm", "intermediate.dense")]
    layer = 0 if layer_norm.startswith("embeddings") else int(layer_norm.split(".")[2]) + 1
    if layer == network.architecture.num_hidden_layers:
        return []
    return [f"encoder.layer.{layer}.attention.self.{part}" for part in ("query", "key", "value")]


def _largest_activations(network: Network, tokenizer: Tokenizer, graph: Path, max_tokens: int) -> dict[str, Array]:
    """The largest magnitude of each channel after each LayerNorm, over texts that every installation has alike."""
    layers = range(network.architecture.num_hidden_layers)
    names = ["embeddings.LayerNorm"]
    for layer in layers:
        names += [f"encoder.layer.{layer}.attention.output.LayerNorm", f"encoder.layer.{layer}.output.LayerNorm"]
    names = [name for name in names if _readers(network, name)]
    session = _session_with_outputs(graph, names)
    largest = {name: np.zeros(network.architecture.hidden_size, np.float32) for name in names}
    encoder = network.architecture.kind == "encoder"
    for batch in _batches(tokenizer, built_in.mixed(), encoder, max_tokens):
        for name, rows in zip(names, session.run(names, feeds_of(session, batch)), strict=True):
            np.maximum(largest[name], np.abs(rows).max(0), out=largest[name])
    return largest


def _session_with_outputs(graph: Path, names: list[str]) -> Any:
    """A session that also gives values from inside the graph."""
    model = onnx.load(graph, load_external_data=False)
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, FLOAT, None) for name in names)
    beside = graph.with_name("calibration.onnx")
    try:
        beside.write_bytes(model.SerializeToString())
        return open_session(beside)
    finally:
        beside.unlink(missing_ok=True)


def _held_out_texts() -> list[str]:
    """Texts that smoothing has not seen, and for other languages some that it has."""
    return sample_texts(HELD_OUT, seed=1) + [text for text in built_in.mixed() if not text.isascii()]


def _batches(tokenizer: Tokenizer, texts: list[str], encoder: bool, max_tokens: int) -> Iterator[PackedBatch]:
    """Packed texts, or for rerankers pairs of each text with the next, in batches."""
    seconds = None if encoder else texts[1:] + texts[:1]
    encoded = tokenizer.encode_batch(texts, seconds, max_length=max_tokens)
    packed = PackedBatch(encoded.ids, encoded.cu_seqlens, encoded.type_ids)
    plan = plan_batches(np.diff(packed.cu_seqlens), TOKEN_BUDGET)
    packed = reorder(packed, plan.order)
    for start, stop in zip(plan.cuts, plan.cuts[1:], strict=False):
        yield slice_batch(packed, start, stop)


def _run(session: Any, batches: list[PackedBatch]) -> NDArray[np.float64]:
    return np.concatenate([session.run(None, feeds_of(session, batch))[0] for batch in batches]).astype(np.float64)


def _mean_cosine(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    return float(((expected * found).sum(1) / np.maximum(lengths, 1e-12)).mean())


def _correlation(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Pearson's, of the first label's logits."""
    return float(np.corrcoef(expected[:, 0], found[:, 0])[0, 1])


def _named(encoder: bool) -> str:
    return "mean cosine" if encoder else "correlation of scores"
