"""transformers with torch.compile (dynamic shapes), texts sorted by token length, batches of 32."""

from __future__ import annotations

from typing import Any

import numpy as np

from peers.packing import batches_by_length, pooled

BATCH = 32


def load(task: dict[str, Any]) -> Any:
    """Load and compile; the compiler runs at the first batches, which are the warm-up."""
    return Model(task)


class Model:
    """`torch.compile(AutoModel)`."""

    def __init__(self, task: dict[str, Any]) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        torch.set_num_threads(task["threads"])
        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(task["checkpoint"])
        self.model = torch.compile(AutoModel.from_pretrained(task["checkpoint"]).float().eval(), dynamic=True)
        self.pooling, self.max_length, self.columns = task["pooling"], task["max_length"], task["dimensions"]
        self.settings = {"batch": BATCH, "dynamic": True}

    def encode(self, texts: list[str]) -> Any:
        """Vectors."""
        rows_of = self.tokenizer(texts, truncation=True, max_length=self.max_length)["input_ids"]
        lengths = np.array([len(row) for row in rows_of])
        vectors = np.empty((len(texts), self.columns), np.float32)
        with self.torch.inference_mode():
            for rows in batches_by_length(lengths, texts=BATCH):
                fed = self.tokenizer.pad({"input_ids": [rows_of[row] for row in rows]}, return_tensors="pt")
                hidden = self.model(**fed).last_hidden_state
                vectors[rows] = pooled(hidden.numpy(), fed["attention_mask"].numpy(), self.pooling)
        return vectors
