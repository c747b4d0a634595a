"""Which matrices a `cuda-fp8` graph can afford in E4M3.

E4M3 has three bits of fraction whatever the scale, so nothing is smoothed; weights are rounded so that their errors
cancel (`weights.py`). The graph is computed as the device rounds (`stand_in.py`) and held to its floor
(`graphs/floor.py`); where it is below, matrices go back to fp16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bgert_export.fp8.stand_in import Fp8StandIn
from bgert_export.fp8.weights import quantized_network
from bgert_export.graphs.floor import Floor, by_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path
    from typing import Any

    from bgert.model_folder import GraphEntry
    from bgert.tokenizer import Tokenizer
    from bgert_export.graphs.floor import Settled
    from bgert_export.network import Network

    Names = tuple[str, ...]

__all__ = ["settle"]


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
    target = Floor(
        floor,
        network,
        tokenizer,
        fp32_graph,
        max_tokens=max_tokens,
        prefix=prefix,
        precision="fp8",
        higher="fp16",
        advice="Leave cuda-fp8 out, take cuda, or lower the floor with --fp8-floor",
        say=say,
    )
    candidates = _candidates(network, cls)
    matrices = [name for names in candidates for name in names]
    quantized = quantized_network(
        network, tokenizer=tokenizer, fp32_graph=fp32_graph, max_tokens=max_tokens, matrices=matrices
    )

    def graph_of(in_fp16: list[str]) -> Fp8StandIn:
        written = write(in_fp16, quantized)
        path, padding = folder / written.files[0].name, network.architecture.pad_token_id
        return Fp8StandIn(path, written.inputs, pad_token_id=padding)

    whole = graph_of([])
    best = target.judge(whole.run, [])
    if target.reached(best):
        return best
    all_losses = 1 - target.on_probes(whole.run).mean
    losses = {}
    for names, (output, _) in candidates.items():
        whole.in_half = [other for other, _ in candidates.values() if other != output]
        losses[names] = target.lost(names, 1 - target.on_probes(whole.run).mean)
    del whole
    costs = {names: cost for names, (_, cost) in candidates.items()}
    order = by_loss(losses, costs, sum(costs.values()) / 3)
    return target.reach(best, losses, order, all_losses, lambda kept: target.judge(graph_of(kept).run, kept))


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
