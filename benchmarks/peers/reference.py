"""What is true: transformers in fp32, one text at a time and so without padding. Not timed."""

from __future__ import annotations

from typing import Any

import numpy as np


def load(task: dict[str, Any]) -> Any:
    """Load the checkpoint."""
    return Encoder(task) if task["kind"] == "encoder" else Reranker(task)


class Encoder:
    """`AutoModel`, pooled as the checkpoint says."""

    def __init__(self, task: dict[str, Any]) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(task["checkpoint"])
        self.model = AutoModel.from_pretrained(task["checkpoint"]).float().eval()
        self.pooling, self.max_length = task["pooling"], task["max_length"]
        self.settings = {"batch": 1}

    def encode(self, texts: list[str]) -> Any:
        """Vectors."""
        import torch

        rows = []
        with torch.inference_mode():
            for text in texts:
                fed = self.tokenizer(text, truncation=True, max_length=self.max_length, return_tensors="pt")
                hidden = self.model(**fed).last_hidden_state[0]
                vector = hidden[0] if self.pooling == "cls" else hidden.mean(0)
                rows.append(torch.nn.functional.normalize(vector, dim=0).numpy())
        return np.stack(rows)


class Reranker:
    """`AutoModelForSequenceClassification`, raw logits."""

    def __init__(self, task: dict[str, Any]) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(task["checkpoint"])
        self.model = AutoModelForSequenceClassification.from_pretrained(task["checkpoint"]).float().eval()
        self.max_length = task["max_length"]
        self.settings = {"batch": 1}

    def score(self, pairs: list[tuple[str, str]]) -> Any:
        """Raw logits."""
        import torch

        scores = []
        with torch.inference_mode():
            for query, text in pairs:
                fed = self.tokenizer(query, text, truncation=True, max_length=self.max_length, return_tensors="pt")
                scores.append(float(self.model(**fed).logits[0, 0]))
        return scores
