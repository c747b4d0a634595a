"""bgert. `throughput` mode for sets, `latency` mode for single texts."""

from __future__ import annotations

import warnings
from typing import Any


def load(task: dict[str, Any]) -> Any:
    """Open the model folder."""
    warnings.simplefilter("ignore")  # the long set is cut on purpose
    return Encoder(task) if task["kind"] == "encoder" else Reranker(task)


def arguments(task: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of both classes."""
    precision = task["options"].get("precision", "fp32")
    return {"device": "cpu", "precision": precision, "threads": task["threads"], "mode": task["mode"]}


class Encoder:
    """`bgert.Encoder`."""

    def __init__(self, task: dict[str, Any]) -> None:
        import bgert

        self.encoder = bgert.Encoder(task["exports"]["bgert"], **arguments(task))
        self.max_length = task["max_length"]
        self.settings = {"mode": task["mode"], "precision": self.encoder.precision, "engine": self.encoder.engine}

    def encode(self, texts: list[str]) -> Any:
        """Vectors."""
        return self.encoder.encode(texts, max_length=self.max_length, show_progress=False)


class Reranker:
    """`bgert.Reranker`."""

    def __init__(self, task: dict[str, Any]) -> None:
        import bgert

        self.reranker = bgert.Reranker(task["exports"]["bgert"], **arguments(task))
        self.max_length = task["max_length"]
        self.settings = {"mode": task["mode"], "precision": self.reranker.precision, "engine": self.reranker.engine}

    def score(self, pairs: list[tuple[str, str]]) -> Any:
        """Raw logits."""
        return self.reranker.score(pairs, max_length=self.max_length, show_progress=False)
