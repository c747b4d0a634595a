"""How near a graph in a lower precision is to the float32 graph, and the texts that it is judged on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.backends.onnx_cpu import feeds_of
from bgert.batching import PackedBatch, plan_batches, reorder, slice_batch
from bgert.evaluation.sample_texts import sample_texts
from bgert_export.verification import texts as built_in
from bgert_export.verification.correlation import least_correlation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from bgert.tokenizer import TokenBatch, Tokenizer
    from bgert_export.verification.groups import Group

    Run = Callable[[PackedBatch], NDArray[np.float32]]

__all__ = [
    "Judge",
    "Quality",
    "calibration_texts",
    "held_out_texts",
    "mixed_batches",
    "quality_of",
    "session_run",
    "verification_batches",
]

TOKEN_BUDGET = 512
HELD_OUT = 128


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


def quality_of(kind: str, expected: NDArray[np.float64], found: NDArray[np.float64]) -> Quality:
    """How near `found` is to `expected`, both [inputs, columns]."""
    if kind == "encoder":
        lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
        cosines = (expected * found).sum(1) / np.maximum(lengths, 1e-12)
        return Quality(float(cosines.mean()), float(cosines.min()), len(cosines))
    error = np.abs(found - expected).max() / max(expected.std(0).min(), 1e-12)
    return Quality(least_correlation(expected, found), float(error), len(expected))


class Judge:
    """Compares graphs with the float32 graph on one set of inputs."""

    def __init__(self, kind: str, batches: list[PackedBatch], reference: Run) -> None:
        self._kind, self._batches = kind, batches
        self._expected = self._run(reference)

    def __call__(self, run: Run) -> Quality:
        """How near a graph is."""
        return quality_of(self._kind, self._expected, self._run(run))

    def _run(self, run: Run) -> NDArray[np.float64]:
        return np.concatenate([run(batch) for batch in self._batches]).astype(np.float64)


def session_run(session: Any) -> Run:
    """A session of ONNX Runtime as what makes rows of a batch."""
    inputs = [entry.name for entry in session.get_inputs()]

    def run(batch: PackedBatch) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = session.run(None, feeds_of(inputs, batch))[0]
        return rows

    return run


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


def verification_batches(tokenizer: Tokenizer, groups: Iterable[Group], prefix: str) -> Iterator[PackedBatch]:
    """The inputs of a verification."""
    for group in groups:
        yield from _batches(group.encode(tokenizer, prefix))


def mixed_batches(tokenizer: Tokenizer, texts: list[str], kind: str, max_tokens: int) -> Iterator[PackedBatch]:
    """Texts, or for rerankers pairs of each text with the next."""
    seconds = None if kind == "encoder" else texts[1:] + texts[:1]
    yield from _batches(tokenizer.encode_batch(texts, seconds, max_length=max_tokens))


def _batches(encoded: TokenBatch) -> Iterator[PackedBatch]:
    packed = PackedBatch(encoded.ids, encoded.cu_seqlens, encoded.type_ids)
    plan = plan_batches(np.diff(packed.cu_seqlens), TOKEN_BUDGET)
    packed = reorder(packed, plan.order)
    for start, stop in zip(plan.cuts, plan.cuts[1:], strict=False):
        yield slice_batch(packed, start, stop)
