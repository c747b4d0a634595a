"""infinity-emb's engine array in process, on its torch engine: batches of 32, its default."""

from __future__ import annotations

from typing import Any

import numpy as np


def load(task: dict[str, Any]) -> Any:
    """Start the engine."""
    return Model(task)


class Model:
    """`SyncEngineArray` with one engine."""

    def __init__(self, task: dict[str, Any]) -> None:
        import torch
        from infinity_emb import EngineArgs
        from infinity_emb.sync_engine import SyncEngineArray

        torch.set_num_threads(task["threads"])
        self.model_id = task["checkpoint"]
        arguments = EngineArgs(
            model_name_or_path=self.model_id,
            engine="torch",
            device="cpu",
            dtype="float32",
            batch_size=32,
            model_warmup=False,
            bettertransformer=False,
        )
        self.engines = SyncEngineArray.from_args([arguments])
        self.settings = {"batch": 32, "engine": "torch"}

    def encode(self, texts: list[str]) -> Any:
        """Vectors."""
        vectors, _ = self.engines.embed(model=self.model_id, sentences=texts).result()
        return np.stack(vectors)
