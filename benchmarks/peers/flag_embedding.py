"""FlagEmbedding with its own default batches: 256 texts, 128 pairs. fp16 is switched off: it is for GPUs."""

from __future__ import annotations

from typing import Any


def load(task: dict[str, Any]) -> Any:
    """Load the checkpoint."""
    import torch

    torch.set_num_threads(task["threads"])
    return Encoder(task) if task["kind"] == "encoder" else Reranker(task)


class Encoder:
    """`FlagModel`."""

    def __init__(self, task: dict[str, Any]) -> None:
        from FlagEmbedding import FlagModel

        self.model = FlagModel(
            task["checkpoint"], use_fp16=False, devices="cpu", pooling_method=task["pooling"], normalize_embeddings=True
        )
        self.max_length = task["max_length"]
        self.settings = {"batch": 256}

    def encode(self, texts: list[str]) -> Any:
        """Vectors."""
        return self.model.encode(texts, batch_size=256, max_length=self.max_length)


class Reranker:
    """`FlagReranker`, raw logits."""

    def __init__(self, task: dict[str, Any]) -> None:
        from FlagEmbedding import FlagReranker

        self.model = FlagReranker(task["checkpoint"], use_fp16=False, devices="cpu")
        self.max_length = task["max_length"]
        self.settings = {"batch": 128}

    def score(self, pairs: list[tuple[str, str]]) -> Any:
        """Raw logits."""
        return self.model.compute_score(pairs, batch_size=128, max_length=self.max_length, normalize=False)
