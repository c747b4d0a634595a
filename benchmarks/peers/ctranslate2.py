"""CTranslate2's Encoder, tokens sorted by length, batches of 32, one replica on all cores.

Two replicas of one thread each were slower at every length but the shortest on the machine of the committed results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from peers.packing import batches_by_length, pooled, tokenizer_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 32


def export(task: dict[str, Any]) -> None:
    """Convert the checkpoint."""
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(task["checkpoint"]).convert(task["exports"]["ctranslate2"], force=True)


def load(task: dict[str, Any]) -> Any:
    """Load the converted model."""
    return Model(task)


class Model:
    """`ctranslate2.Encoder`."""

    def __init__(self, task: dict[str, Any]) -> None:
        import ctranslate2

        self.tokenizer = tokenizer_of(task["checkpoint"], task["max_length"])
        self.encoder = ctranslate2.Encoder(
            task["exports"]["ctranslate2"], device="cpu", intra_threads=task["threads"], compute_type="float32"
        )
        self.pooling, self.columns = task["pooling"], task["dimensions"]
        self.settings = {"batch": BATCH, "compute_type": self.encoder.compute_type}

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors."""
        encodings = self.tokenizer.encode_batch(texts)
        lengths = np.array([len(encoding.ids) for encoding in encodings])
        vectors = np.empty((len(texts), self.columns), np.float32)
        for rows in batches_by_length(lengths, texts=BATCH):
            output = self.encoder.forward_batch([encodings[row].ids for row in rows])
            hidden = np.asarray(output.last_hidden_state)
            mask = np.arange(hidden.shape[1]) < lengths[rows][:, None]
            vectors[rows] = pooled(hidden, mask, self.pooling)
        return vectors
