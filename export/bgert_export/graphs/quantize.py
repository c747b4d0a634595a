"""What an 8-bit graph needs besides the weights: smoothing, and proof that it is good enough.

Activations are quantised row by row with a scale of their own (`graphs/linears.py`), so nothing is calibrated to be
able to run. Smoothing makes it better: a channel that is always large makes every row's step large, so it is divided by
a factor before and the weights multiplied by the same (SmoothQuant, arXiv:2211.10438, equation 4 with alpha = 1/2),
which moves the difficulty into weights, where each column has a scale. Factors are powers of two: they round nothing.

Then the graph runs beside the float32 graph, on texts that smoothing has not seen and on those that every export is
verified on, so that what passes here passes there. If it is not near enough on both, matrices go back to float32, in
the order of the quality that each gives for its arithmetic and as few as needed; if a third of the arithmetic is not
enough, there is no int8 graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from bgert.backends.onnx_cpu import feeds_of, open_session
from bgert.batching import PackedBatch, plan_batches, reorder, slice_batch
from bgert.cpu_count import available_cpus
from bgert.evaluation.sample_texts import sample_texts
from bgert_export.errors import QuantizationError
from bgert_export.graphs.builder import FLOAT
from bgert_export.verification import texts as built_in
from bgert_export.verification.correlation import least_correlation
from bgert_export.verification.groups import built_in_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.tokenizer import TokenBatch, Tokenizer
    from bgert_export.network import Network
    from bgert_export.verification.groups import Group

    Array = NDArray[np.float32]
    WriteInt8 = Callable[[Mapping[str, Array], Collection[str]], Path]

__all__ = ["Quality", "Quantized", "quantize"]

TOKEN_BUDGET = 512
HELD_OUT = 128
TOKENS = 64  # of a typical text


@dataclass(frozen=True)
class Quality:
    """How near a graph is to the float32 graph, on one set of inputs."""

    mean: float
    """Encoders: mean cosine of the vectors. Rerankers: correlation of the scores."""
    worst: float
    """Encoders: least cosine. Rerankers: largest error of a score, in standard deviations of the scores."""
    inputs: int

    def __str__(self) -> str:
        return f"{self.mean:.5f} ({self.worst:.5f} at worst of {self.inputs})"


@dataclass(frozen=True)
class Quantized:
    """What was settled."""

    measure: str
    """What `Quality.mean` is, in words."""
    in_fp32: list[str]
    """Matrices that stay in float32."""
    held_out: Quality
    """On texts that smoothing has not seen."""
    verification: Quality
    """On the texts that every export is verified on."""

    @property
    def lower(self) -> float:
        """The lower of the two means, which is held to the floor."""
        return min(self.held_out.mean, self.verification.mean)

    def __str__(self) -> str:
        return f"{self.measure} {self.held_out} on held-out and {self.verification} on verification texts"


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
) -> Quantized:
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
    kind = network.architecture.kind
    smoothing = smoothing_factors(network, _largest_activations(network, tokenizer, fp32_graph, max_tokens))
    reference = open_session(fp32_graph, available_cpus())
    held_out = _Judge(kind, list(_mixed_batches(tokenizer, held_out_texts(), kind, max_tokens)), reference)
    groups = built_in_groups(kind, max_tokens, network.architecture.max_tokens)  # as verify_folder
    verification = _Judge(kind, list(_verification_batches(tokenizer, groups, prefix)), reference)
    probes = _Judge(
        kind, list(_mixed_batches(tokenizer, held_out_texts()[::4], kind, min(TOKENS, max_tokens))), reference
    )
    del reference

    def session(in_fp32: Collection[str]) -> Any:
        return open_session(write(smoothing, in_fp32), available_cpus())

    def quality(opened: Any, in_fp32: list[str]) -> Quantized:
        settled = Quantized(_named(kind), in_fp32, held_out(opened), verification(opened))
        say(f"int8: {settled} with {len(in_fp32) or 'no'} matrices in fp32")
        return settled

    whole = session([])
    best = quality(whole, [])
    if best.lower >= floor:
        return best
    say(f"int8: that is below the floor of {floor}, so it is measured which matrices cost most")
    costs = _candidates(network, cls)
    without = probes(whole).mean
    gains = {}
    for names in costs:
        gains[names] = probes(session(names)).mean - without
        say(f"int8: {gains[names]:+.6f} with {' and '.join(names)} in fp32")
    order = _by_gain(gains, costs, _multiplications_of_all(network) / 3)

    def first(count: int) -> list[str]:
        return [name for names in order[:count] for name in names]

    best = quality(session(first(len(order))), first(len(order)))
    if not best.lower >= floor:
        raise QuantizationError(
            f"the int8 graph reaches a {best}, below the floor of {floor}, with a third of the arithmetic in fp32: "
            "nothing was written. Leave cpu-int8 out, take cpu-bf16, or lower the floor with --int8-floor"
        )
    too_few, enough = 0, len(order)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        settled = quality(session(first(middle)), first(middle))
        if settled.lower >= floor:
            best, enough = settled, middle
        else:
            too_few = middle
    write(smoothing, best.in_fp32)
    return best


def _by_gain(
    gains: Mapping[tuple[str, ...], float], costs: Mapping[tuple[str, ...], float], most: float
) -> list[tuple[str, ...]]:
    """What gains anything, by its gain for its cost, without what would bring the costs above `most`."""
    order, spent = list[tuple[str, ...]](), 0.0
    for names in sorted(gains, key=lambda names: -gains[names] / costs[names]):
        if gains[names] > 0 and spent + costs[names] <= most:
            order.append(names)
            spent += costs[names]
    return order


def calibration_texts() -> list[str]:
    """What smoothing sees: English of all lengths, Chinese, other languages, odd text."""
    held_out = set(held_out_texts())
    return [text for text in built_in.mixed() if text not in held_out]


def held_out_texts() -> list[str]:
    """What it does not see: English, and every other of the few texts in other languages."""
    mixed = built_in.mixed()
    # The sample that `mixed` begins, after its end: no docstring is in both.
    english = sample_texts(len(mixed) + HELD_OUT, seed=1)[len(mixed) :]
    return english + [text for text in mixed if not text.isascii()][::2]


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
    session = _session_with_outputs(graph, names)
    largest = {name: np.zeros(network.architecture.hidden_size, np.float32) for name in names}
    inputs = [entry.name for entry in session.get_inputs()]
    for batch in _mixed_batches(tokenizer, calibration_texts(), network.architecture.kind, max_tokens):
        for name, rows in zip(names, session.run(names, feeds_of(inputs, batch)), strict=True):
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


class _Judge:
    """Compares graphs with the float32 graph on one set of inputs."""

    def __init__(self, kind: str, batches: list[PackedBatch], reference: Any) -> None:
        self._kind, self._batches = kind, batches
        self._expected = self._run(reference)

    def __call__(self, session: Any) -> Quality:
        expected, found = self._expected, self._run(session)
        if self._kind == "encoder":
            lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
            cosines = (expected * found).sum(1) / np.maximum(lengths, 1e-12)
            return Quality(float(cosines.mean()), float(cosines.min()), len(cosines))
        error = np.abs(found - expected).max() / max(expected.std(0).min(), 1e-12)
        return Quality(least_correlation(expected, found), float(error), len(expected))

    def _run(self, session: Any) -> NDArray[np.float64]:
        inputs = [entry.name for entry in session.get_inputs()]
        rows = [session.run(None, feeds_of(inputs, batch))[0] for batch in self._batches]
        return np.concatenate(rows).astype(np.float64)


def _verification_batches(tokenizer: Tokenizer, groups: Iterable[Group], prefix: str) -> Iterator[PackedBatch]:
    for group in groups:
        yield from _batches(group.encode(tokenizer, prefix))


def _mixed_batches(tokenizer: Tokenizer, texts: list[str], kind: str, max_tokens: int) -> Iterator[PackedBatch]:
    """Texts, or for rerankers pairs of each text with the next."""
    seconds = None if kind == "encoder" else texts[1:] + texts[:1]
    yield from _batches(tokenizer.encode_batch(texts, seconds, max_length=max_tokens))


def _batches(encoded: TokenBatch) -> Iterator[PackedBatch]:
    packed = PackedBatch(encoded.ids, encoded.cu_seqlens, encoded.type_ids)
    plan = plan_batches(np.diff(packed.cu_seqlens), TOKEN_BUDGET)
    packed = reorder(packed, plan.order)
    for start, stop in zip(plan.cuts, plan.cuts[1:], strict=False):
        yield slice_batch(packed, start, stop)


def _named(kind: str) -> str:
    return "mean cosine" if kind == "encoder" else "correlation of scores"
