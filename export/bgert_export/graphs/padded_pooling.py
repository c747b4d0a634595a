"""Pooling of padded rows [B, S, H], in float32: a text's own tokens come first, and its mask says how many they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bgert_export.errors import UnsupportedCheckpointError
from bgert_export.graphs.builder import FLOAT

if TYPE_CHECKING:
    from collections.abc import Callable

    from bgert_export.graphs.builder import GraphBuilder

__all__ = ["PaddedPooling"]

_LEAST = -1e30
"""What is added to the rows of padding before a maximum: far below any value, and no sum with it is infinite."""


@dataclass
class PaddedPooling:
    """The modes of `bgert_export.pooling`; `counts` says whether the engine can count tokens, which some need."""

    builder: GraphBuilder
    mask: str
    """int32 or int64 [B, S]: 1 on tokens, 0 on padding."""
    counts: bool = False
    _made: dict[str, str] = field(default_factory=dict)

    def pooled(self, make_rows: Callable[[], str], modes: list[str]) -> str:
        """float32 rows [B, S, H] to [B, H * modes], in their order.

        Raises:
            UnsupportedCheckpointError: a mode needs the index of each token, and this engine is not asked to count.
        """
        for mode in modes:
            if mode in ("lasttoken", "weightedmean") and not self.counts:
                raise UnsupportedCheckpointError(
                    f"the pooling {mode} is not in the target tensorrt: export the target cpu"
                )
        rows, b = make_rows(), self.builder
        parts = [_MODES[mode](self, rows) for mode in modes]
        return parts[0] if len(parts) == 1 else b.node("Concat", parts, "pooling.joined", attributes={"axis": 1})

    def _cls(self, rows: str) -> str:
        index = self.builder.constant("pooling.first", np.array(0, np.int32))
        return self.builder.node("Gather", [rows, index], "pooling.cls", attributes={"axis": 1})

    def _mean(self, rows: str) -> str:
        return self.builder.node("Div", [self._sum(rows), self._count()], "pooling.mean")

    def _mean_sqrt(self, rows: str) -> str:
        root = self.builder.node("Sqrt", [self._count()], "pooling.root")
        return self.builder.node("Div", [self._sum(rows), root], "pooling.mean_sqrt_len_tokens")

    def _weighted(self, rows: str) -> str:
        b, axis = self.builder, self._axis()
        weights = b.node("Mul", [self._places(), self._real()], "pooling.weights")
        weighted = b.node("Mul", [rows, self._as_column("pooling.weights.column", weights)], "pooling.weighted")
        total = b.node("ReduceSum", [weighted, axis], "pooling.weighted.sum", attributes={"keepdims": 0})
        whole = b.node("ReduceSum", [weights, axis], "pooling.weights.sum", attributes={"keepdims": 1})
        return b.node("Div", [total, whole], "pooling.weightedmean")

    def _last(self, rows: str) -> str:
        b = self.builder
        is_last = b.node("Equal", [self._places(), self._count()], "pooling.is_last")
        last = b.node("Cast", [is_last], "pooling.last_place", attributes={"to": FLOAT})
        last = b.node("Mul", [last, self._real()], "pooling.last_token")
        own = b.node("Mul", [rows, self._as_column("pooling.last_column", last)], "pooling.last_row")
        return b.node("ReduceSum", [own, self._axis()], "pooling.lasttoken", attributes={"keepdims": 0})

    def _places(self) -> str:
        """float32 [B, S]: 1, 2, 3 ... for a text's tokens, and their number for its padding."""

        def make(name: str) -> str:
            axis = self.builder.constant("pooling.along", np.array(1, np.int64))
            return self.builder.node("CumSum", [self._real(), axis], name)

        return self._once("pooling.place", make)

    def _max(self, rows: str) -> str:
        b = self.builder
        both = (("one", 1), ("least", _LEAST))
        one, least = (b.constant(f"pooling.{name}", np.array([[[value]]], np.float32)) for name, value in both)
        padding = b.node("Mul", [b.node("Sub", [one, self._column()], "pooling.padding"), least], "pooling.far_below")
        own = b.node("Add", [rows, padding], "pooling.own_or_least")
        return b.node("ReduceMax", [own, self._axis()], "pooling.max", attributes={"keepdims": 0})

    def _sum(self, rows: str) -> str:
        def make(name: str) -> str:
            own = self.builder.node("Mul", [rows, self._column()], "pooling.own")
            return self.builder.node("ReduceSum", [own, self._axis()], name, attributes={"keepdims": 0})

        return self._once("pooling.sum", make)

    def _count(self) -> str:
        """float32 [B, 1]."""

        def make(name: str) -> str:
            return self.builder.node("ReduceSum", [self._real(), self._axis()], name, attributes={"keepdims": 1})

        return self._once("pooling.count", make)

    def _real(self) -> str:
        return self._once(
            "pooling.real", lambda name: self.builder.node("Cast", [self.mask], name, attributes={"to": FLOAT})
        )

    def _column(self) -> str:
        return self._once("pooling.column", lambda name: self._as_column(name, self._real()))

    def _as_column(self, name: str, values: str) -> str:
        """[B, S] to [B, S, 1]."""
        last = self._once("pooling.last", lambda own: self.builder.constant(own, np.array([2], np.int64)))
        return self.builder.node("Unsqueeze", [values, last], name)

    def _axis(self) -> str:
        return self._once("pooling.axis", lambda name: self.builder.constant(name, np.array([1], np.int64)))

    def _once(self, name: str, make: Callable[[str], str]) -> str:
        if name not in self._made:
            self._made[name] = make(name)
        return self._made[name]


_MODES: dict[str, Callable[[PaddedPooling, str], str]] = {
    "cls": PaddedPooling._cls,
    "mean": PaddedPooling._mean,
    "mean_sqrt_len_tokens": PaddedPooling._mean_sqrt,
    "max": PaddedPooling._max,
    "weightedmean": PaddedPooling._weighted,
    "lasttoken": PaddedPooling._last,
}
