"""Which matrices a `cuda-fp8` graph can afford in E4M3.

E4M3 has three bits of fraction whatever the scale, so nothing is smoothed; weights are rounded so that their errors
cancel (`weights.py`). The graph is computed as the device rounds (`stand_in.py`) beside the float32 graph, on texts
held out for this and on those that every export is verified on. If it is not near enough on both, matrices go back to
fp16, in the order of what each alone loses for its arithmetic, and as few as needed: such losses add up. If a third of
the arithmetic is not enough, there is no FP8 graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bgert.backends.onnx_cpu import feeds_of, open_session
from bgert.cpu_count import available_cpus
from bgert_export.errors import QuantizationError
from bgert_export.fp8.stand_in import Fp8StandIn
from bgert_export.fp8.weights import quantized_network
from bgert_export.graphs.quality import held_out_texts, mixed_batches, quality_of, verification_batches
from bgert_export.verification.groups import built_in_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from bgert.batching import PackedBatch
    from bgert.model_folder import GraphEntry
    from bgert.tokenizer import Tokenizer
    from bgert_export.graphs.quality import Quality
    from bgert_export.network import Network

    Names = tuple[str, ...]

__all__ = ["Settled", "settle"]

PROBE_STEP, PROBE_TOKENS = 8, 32  # of the held-out texts, for what each matrix costs: every so many, cut to so many


@dataclass(frozen=True)
class Settled:
    """What was settled."""

    measure: str
    """What `Quality.mean` is, in words."""
    in_fp16: list[str]
    """Matrices that stay in float16, beside those that are never quantised."""
    held_out: Quality
    verification: Quality
    """On the texts that every export is verified on."""

    @property
    def lower(self) -> float:
        """The lower of the two means, which is held to the floor."""
        return min(self.held_out.mean, self.verification.mean)

    def __str__(self) -> str:
        return f"{self.measure} {self.held_out} on held-out and {self.verification} on verification texts"


class _Inputs:
    """Batches, with what the float32 graph makes of them."""

    def __init__(self, kind: str, batches: Sequence[PackedBatch], reference: Any) -> None:
        self._kind, self._batches = kind, batches
        names = [entry.name for entry in reference.get_inputs()]
        rows = [reference.run(None, feeds_of(names, batch))[0] for batch in batches]
        self._expected = np.concatenate(rows).astype(np.float64)

    def quality(self, graph: Fp8StandIn) -> Quality:
        found = np.concatenate([graph.run(batch) for batch in self._batches]).astype(np.float64)
        return quality_of(self._kind, self._expected, found)


def settle(
    network: Network,
    tokenizer: Tokenizer,
    fp32_graph: Path,
    folder: Path,
    write: Callable[[Collection[str], Mapping[str, Any]], GraphEntry],
    *,
    max_tokens: int,
    prefix: str,
    cls: bool,
    floor: float,
    say: Callable[[str], None],
) -> Settled:
    """Write the FP8 graph, by `write(in_fp16, quantized)`, as fast as the floor allows.

    Args:
        network: the weights.
        tokenizer: of the same checkpoint.
        fp32_graph: the float32 graph, to compare with.
        folder: where `write` writes.
        write: writes the graph, over one that is there.
        max_tokens: longest input.
        prefix: the model's default prompt.
        cls: the model gives the last hidden state of the first token alone.
        floor: least `Quality.mean`, on both sets of inputs.
        say: called with a line for each step.

    Raises:
        QuantizationError: the floor cannot be reached with a third of the arithmetic in float16.
    """
    kind = network.architecture.kind
    reference = open_session(fp32_graph, available_cpus())
    held_out = _Inputs(kind, list(mixed_batches(tokenizer, held_out_texts(), kind, max_tokens)), reference)
    groups = built_in_groups(kind, max_tokens, network.architecture.max_tokens)  # as verify_folder
    verification = _Inputs(kind, list(verification_batches(tokenizer, groups, prefix)), reference)
    few = held_out_texts()[::PROBE_STEP]
    probes = _Inputs(kind, list(mixed_batches(tokenizer, few, kind, min(PROBE_TOKENS, max_tokens))), reference)
    del reference
    candidates = _candidates(network, cls)
    matrices = [name for names in candidates for name in names]
    quantized = quantized_network(
        network, tokenizer=tokenizer, fp32_graph=fp32_graph, max_tokens=max_tokens, matrices=matrices
    )

    def measured(in_fp16: list[str]) -> tuple[Settled, Fp8StandIn]:
        written = write(in_fp16, quantized)
        path, padding = folder / written.files[0].name, network.architecture.pad_token_id
        graph = Fp8StandIn(path, written.inputs, pad_token_id=padding)
        settled = Settled(
            "mean cosine" if kind == "encoder" else "correlation of scores",
            in_fp16,
            held_out.quality(graph),
            verification.quality(graph),
        )
        say(f"fp8: {settled} with {len(in_fp16) or 'no'} matrices in fp16")
        return settled, graph

    best, whole = measured([])
    if best.lower >= floor:
        return best
    say(f"fp8: that is below the floor of {floor}, so it is measured what each matrix costs")
    start = 1 - best.lower
    all_losses = 1 - probes.quality(whole).mean
    losses = {}
    for names, (output, _) in candidates.items():
        whole.in_half = [other for other, _ in candidates.values() if other != output]
        losses[names] = 1 - probes.quality(whole).mean
        say(f"fp8: {losses[names]:.3e} lost by {' and '.join(names)}")
    del whole
    order = _by_loss(losses, {names: cost for names, (_, cost) in candidates.items()})
    # Shares of what is lost, as texts differ in how much that is.
    shares = np.cumsum([0.0] + [losses[names] / all_losses for names in order])
    count, correction = 0, 1.0
    while best.lower < floor:
        if count == len(order):
            raise QuantizationError(
                f"the fp8 graph reaches a {best}, below the floor of {floor}, with a third of the arithmetic in fp16: "
                "nothing was written. Leave cuda-fp8 out, take cuda, or lower the floor with --fp8-floor"
            )
        enough = int(np.searchsorted(shares * correction, 1 - (1 - floor) / start))
        count = min(max(enough, count + 1), len(order))
        best, _ = measured([name for names in order[:count] for name in names])
        correction = max((1 - (1 - best.lower) / start) / shares[count], 1e-3)
    return best


def _by_loss(losses: dict[Names, float], costs: dict[Names, int]) -> list[Names]:
    """What loses anything, by its loss for its cost, without what would bring the costs above a third."""
    order, left = list[tuple[str, ...]](), sum(costs.values()) / 3
    for names in sorted(losses, key=lambda names: -losses[names] / costs[names]):
        if losses[names] > 0 and costs[names] <= left:
            order.append(names)
            left -= costs[names]
    return order


def _candidates(network: Network, cls: bool) -> dict[Names, tuple[str, int]]:
    """What may go to float16 together: the name of its product in the graph, and its multiplications for each token."""
    arch = network.architecture
    hidden, inner = arch.hidden_size, arch.intermediate_size
    found: dict[Names, tuple[str, int]] = {}
    for layer in range(arch.num_hidden_layers):
        at = f"encoder.layer.{layer}"
        qkv = tuple(f"{at}.attention.self.{part}" for part in ("query", "key", "value"))
        if cls and layer == arch.num_hidden_layers - 1:
            found[qkv] = f"{at}.keys", 2 * hidden * hidden  # its query, and all that follows, is in fp16
            break
        found[qkv] = f"{at}.qkv", 3 * hidden * hidden
        for name, cost in (
            (f"{at}.attention.output.dense", hidden * hidden),
            (f"{at}.intermediate.dense", hidden * inner),
            (f"{at}.output.dense", hidden * inner),
        ):
            found[(name,)] = name, cost
    return found
