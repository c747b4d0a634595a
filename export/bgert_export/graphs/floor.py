"""Which matrices of a graph in a low precision go back to a higher one, so that it reaches a floor.

One search for every such precision: the graph is compared with the float32 graph on texts held out for this and on
those that every export is verified on. Where it is below the floor, matrices go back in the order of what each alone
loses for its arithmetic. Such losses add up, so how many are needed is reckoned and then checked, at most `CHECKS`
times however many matrices there are. A third of the arithmetic at most goes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bgert.backends.onnx_cpu import open_session
from bgert.cpu_count import available_cpus
from bgert_export.errors import QuantizationError
from bgert_export.graphs.quality import Judge, held_out_texts, mixed_batches, session_run, verification_batches
from bgert_export.verification.groups import built_in_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bgert.tokenizer import Tokenizer
    from bgert_export.graphs.quality import Quality, Run
    from bgert_export.network import Network

    Names = tuple[str, ...]

__all__ = ["Floor", "Settled", "by_loss"]

CHECKS = 4  # of a whole graph with some matrices back, the last of them with all that may go back
PROBE_STEP, PROBE_TOKENS = 8, 16  # of the held-out texts, for what each matrix costs: every so many, cut to so many


@dataclass(frozen=True)
class Settled:
    """What was settled."""

    measure: str
    """What `Quality.mean` is, in words."""
    kept: list[str]
    """Matrices that stay in the higher precision."""
    held_out: Quality
    """On texts that no choice was made by."""
    verification: Quality
    """On the texts that every export is verified on."""

    @property
    def lower(self) -> float:
        """The lower of the two means, which is held to the floor."""
        return min(self.held_out.mean, self.verification.mean)

    def __str__(self) -> str:
        return f"{self.measure} {self.held_out} on held-out and {self.verification} on verification texts"


class Floor:
    """The least quality of a graph, and the inputs that it is held to on.

    Args:
        least: `Quality.mean`, on both sets of inputs.
        network: the weights.
        tokenizer: of the same checkpoint.
        fp32_graph: the float32 graph, to compare with.
        max_tokens: longest input.
        prefix: the model's default prompt.
        precision: of the graph, in words.
        higher: the precision that matrices go back to.
        advice: what to do where the floor cannot be reached.
        say: called with a line for each step.
    """

    def __init__(
        self,
        least: float,
        network: Network,
        tokenizer: Tokenizer,
        fp32_graph: Path,
        *,
        max_tokens: int,
        prefix: str,
        precision: str,
        higher: str,
        advice: str,
        say: Callable[[str], None],
    ) -> None:
        self._least, self._precision, self._higher, self._advice = least, precision, higher, advice
        self._say = say
        kind = network.architecture.kind
        self._measure = "mean cosine" if kind == "encoder" else "correlation of scores"
        reference = session_run(open_session(fp32_graph, available_cpus()))
        self._held_out = Judge(kind, list(mixed_batches(tokenizer, held_out_texts(), kind, max_tokens)), reference)
        groups = built_in_groups(kind, max_tokens, network.architecture.max_tokens)  # as verify_folder
        self._verification = Judge(kind, list(verification_batches(tokenizer, groups, prefix)), reference)
        few = held_out_texts()[::PROBE_STEP]
        self.probes = list(mixed_batches(tokenizer, few, kind, min(PROBE_TOKENS, max_tokens)))
        """A few short inputs, for what each matrix loses."""
        self.on_probes = Judge(kind, self.probes, reference)

    def judge(self, run: Run, kept: list[str]) -> Settled:
        """How near a graph is, with these matrices in the higher precision."""
        settled = Settled(self._measure, kept, self._held_out(run), self._verification(run))
        self._say(f"{self._precision}: {settled} with {len(kept) or 'no'} matrices in {self._higher}")
        return settled

    def reached(self, settled: Settled) -> bool:
        """Whether the floor is, or it is said that losses are measured now."""
        if settled.lower >= self._least:
            return True
        self._say(
            f"{self._precision}: that is below the floor of {self._least}, so it is measured what each matrix costs"
        )
        return False

    def lost(self, names: Names, loss: float) -> float:
        """`loss`, said."""
        self._say(f"{self._precision}: {loss:.3e} lost by {' and '.join(names)}")
        return loss

    def reach(
        self,
        best: Settled,
        losses: Mapping[Names, float],
        order: list[Names],
        all_losses: float,
        measured: Callable[[list[str]], Settled],
    ) -> Settled:
        """Put as few matrices back as the floor needs.

        Args:
            best: what the graph reaches with none.
            losses: what each loses alone, on the probes.
            order: in which they go back.
            all_losses: of all together, on the probes.
            measured: writes the graph with these matrices in the higher precision, and judges it.

        Raises:
            QuantizationError: the floor cannot be reached.
        """
        # Shares of what is lost, as texts differ in how much that is.
        shares = np.cumsum([0.0] + [losses[names] / all_losses for names in order])
        start, count, correction = 1 - best.lower, 0, 1.0
        for left in reversed(range(CHECKS)):
            if best.lower >= self._least or count == len(order):
                break
            enough = int(np.searchsorted(shares * correction, 1 - (1 - self._least) / start))
            count = min(max(enough, count + 1), len(order)) if left else len(order)
            best = measured([name for names in order[:count] for name in names])
            correction = max((1 - (1 - best.lower) / start) / shares[count], 1e-3)
        if best.lower < self._least:
            raise QuantizationError(
                f"the {self._precision} graph reaches a {best}, below the floor of {self._least}, with a third of "
                f"the arithmetic in {self._higher}: nothing was written. {self._advice}"
            )
        return best


def by_loss(losses: Mapping[Names, float], costs: Mapping[Names, float], most: float) -> list[Names]:
    """What loses anything, by its loss for its cost, without what would bring the costs above `most`."""
    order, spent = list[tuple[str, ...]](), 0.0
    for names in sorted(losses, key=lambda names: -losses[names] / costs[names]):
        if losses[names] > 0 and spent + costs[names] <= most:
            order.append(names)
            spent += costs[names]
    return order
