"""fastembed with a custom local model; its own default batch of 256."""

from __future__ import annotations

from typing import Any

import numpy as np

BATCH = 256


def load(task: dict[str, Any]) -> Any:
    """Register the ONNX model as a custom one and load it."""
    return Encoder(task) if task["kind"] == "encoder" else Reranker(task)


class Encoder:
    """`TextEmbedding`."""

    def __init__(self, task: dict[str, Any]) -> None:
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType

        name = f"local/{task['model']}"
        if name not in {entry["model"] for entry in TextEmbedding.list_supported_models()}:
            TextEmbedding.add_custom_model(
                model=name,
                pooling=PoolingType.MEAN if task["pooling"] == "mean" else PoolingType.CLS,
                normalization=True,
                sources=ModelSource(hf=name),
                dim=task["dimensions"],
                model_file="onnx/model.onnx",
            )
        self.model = TextEmbedding(name, specific_model_path=task["exports"]["onnx"], threads=task["threads"])
        self.model.model.tokenizer.enable_truncation(task["max_length"])
        self.settings = {"batch": BATCH}

    def encode(self, texts: list[str]) -> Any:
        """Vectors."""
        return np.stack(list(self.model.embed(texts, batch_size=BATCH)))


class Reranker:
    """`TextCrossEncoder`; its default batch is 64."""

    def __init__(self, task: dict[str, Any]) -> None:
        from fastembed.common.model_description import ModelSource
        from fastembed.rerank.cross_encoder import TextCrossEncoder

        name = f"local/{task['model']}"
        if name not in {entry["model"] for entry in TextCrossEncoder.list_supported_models()}:
            TextCrossEncoder.add_custom_model(model=name, sources=ModelSource(hf=name), model_file="onnx/model.onnx")
        self.model = TextCrossEncoder(name, specific_model_path=task["exports"]["onnx"], threads=task["threads"])
        self.model.model.tokenizer.enable_truncation(task["max_length"])
        self.settings = {"batch": 64}

    def score(self, pairs: list[tuple[str, str]]) -> Any:
        """Raw logits."""
        return list(self.model.rerank_pairs(pairs, batch_size=64))
