"""Pooling of packed rows: text b is the rows from `cu_seqlens[b]` to `cu_seqlens[b + 1]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bgert_export.graphs.builder import FLOAT

if TYPE_CHECKING:
    from collections.abc import Callable

    from bgert_export.graphs.builder import GraphBuilder

    MakeRows = Callable[[str, str], str]
    """Rows [T, H] and a name to one row a text, [B, H], of that name."""

__all__ = ["PackedPooling"]


@dataclass
class PackedPooling:
    """The modes of `bgert_export.pooling`, of a mean and a maximum that an engine has."""

    builder: GraphBuilder
    cu_seqlens: str
    """int32 [B + 1]."""
    mean: MakeRows
    maximum: MakeRows
    first_rows: Callable[[], str]
    """int32 [B]: the row of each text's first token."""
    positions: Callable[[], str]
    """int32 [T]: the index of each token in its text."""

    def pooled(self, rows: str, modes: list[str]) -> str:
        """Rows [T, H] to [B, H * modes], in their order."""
        parts = [self._mode(rows, mode, f"pooling.{number}.{mode}") for number, mode in enumerate(modes)]
        if len(parts) == 1:
            return parts[0]
        return self.builder.node("Concat", parts, "pooling.joined", attributes={"axis": 1})

    def last_rows(self, name: str = "pooling.last") -> str:
        """int32 [B]: the row of each text's last token."""
        one = self.builder.constant(f"{name}.one", np.array(1, np.int32))
        return self.builder.node("Sub", [self._ends(name), one], name)

    def sums(self, rows: str, name: str) -> str:
        """The sum of each text's rows, [B, H]."""
        return self.builder.node("Mul", [self.mean(rows, f"{name}.mean"), self._lengths(name)], name)

    def _mode(self, rows: str, mode: str, name: str) -> str:
        b = self.builder
        if mode == "cls":
            return b.node("Gather", [rows, self.first_rows()], name)
        if mode == "lasttoken":
            return b.node("Gather", [rows, self.last_rows(f"{name}.rows")], name)
        if mode == "max":
            return self.maximum(rows, name)
        if mode == "mean":
            return self.mean(rows, name)
        lengths = self._lengths(name)
        if mode == "mean_sqrt_len_tokens":
            return b.node("Mul", [self.mean(rows, f"{name}.mean"), b.node("Sqrt", [lengths], f"{name}.root")], name)
        # The weights 1, 2, ... n sum up to n * (n + 1) / 2, and the mean has divided by n.
        one, two = (b.constant(f"{name}.{part}", np.array(n, np.float32)) for part, n in (("one", 1), ("two", 2)))
        weights = b.node("Cast", [self.positions()], f"{name}.positions", attributes={"to": FLOAT})
        shape = b.constant(f"{name}.column", np.array([-1, 1], np.int64))
        weights = b.node("Reshape", [b.node("Add", [weights, one], f"{name}.places"), shape], f"{name}.weights")
        mean = self.mean(b.node("Mul", [rows, weights], f"{name}.weighted"), f"{name}.mean")
        scale = b.node("Div", [two, b.node("Add", [lengths, one], f"{name}.more")], f"{name}.scale")
        return b.node("Mul", [mean, scale], name)

    def _ends(self, name: str) -> str:
        return self._slice(f"{name}.ends", 1, np.iinfo(np.int32).max)

    def _lengths(self, name: str) -> str:
        """float32 [B, 1]."""
        b = self.builder
        counts = b.node("Sub", [self._ends(name), self._slice(f"{name}.starts", 0, -1)], f"{name}.counts")
        axis = b.constant(f"{name}.lengths.axis", np.array([1], np.int64))
        wide = b.node("Cast", [counts], f"{name}.counts.float32", attributes={"to": FLOAT})
        return b.node("Unsqueeze", [wide, axis], f"{name}.lengths")

    def _slice(self, name: str, start: int, stop: int) -> str:
        both = (("start", start), ("stop", stop))
        ends = [self.builder.constant(f"{name}.{part}", np.array([value], np.int64)) for part, value in both]
        return self.builder.node("Slice", [self.cu_seqlens, *ends], name)
