"""optimum's ORTModelForFeatureExtraction, as its documentation shows it: a transformers tokenizer, batches of 32."""

from __future__ import annotations

from typing import Any

import numpy as np

from peers.packing import pooled

BATCH = 32


def load(task: dict[str, Any]) -> Any:
    """Load the ONNX model."""
    return Model(task)


class Model:
    """The model, its tokenizer and pooling by hand."""

    def __init__(self, task: dict[str, Any]) -> None:
        from onnxruntime import SessionOptions
        from optimum.onnxruntime import ORTModelForFeatureExtraction
        from transformers import AutoTokenizer

        options = SessionOptions()
        options.intra_op_num_threads = task["threads"]
        self.model = ORTModelForFeatureExtraction.from_pretrained(
            task["exports"]["onnx"], subfolder="onnx", file_name="model.onnx", session_options=options
        )
        self.tokenizer = AutoTokenizer.from_pretrained(task["checkpoint"])
        self.pooling, self.max_length = task["pooling"], task["max_length"]
        self.settings = {"batch": BATCH, "sorted": False}

    def encode(self, texts: list[str]) -> Any:
        """Vectors."""
        parts = []
        for start in range(0, len(texts), BATCH):
            fed = self.tokenizer(
                texts[start : start + BATCH],
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="np",
            )
            hidden = self.model(**fed).last_hidden_state
            parts.append(pooled(np.asarray(hidden), fed["attention_mask"], self.pooling))
        return np.concatenate(parts)
