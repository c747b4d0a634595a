"""txtai: `Embeddings(method="bgert.integrations.txtai.BgertVectors", path=...)`."""

from __future__ import annotations

from typing import Any

import numpy as np

from bgert.errors import InvalidOptionError
from bgert.integrations.adapted import AdaptedEncoder, imports_of, shared_encoder

with imports_of("txtai"):
    from txtai.vectors import Vectors

__all__ = ["BgertVectors"]


class BgertVectors(Vectors):
    """Queries and data each with what the model puts before them, or with the literal texts of txtai's `instructions`.

    Of a configuration it reads `path` (a model folder, a checkpoint or a hub id), `vectors` (options of
    `bgert.Encoder` and its `encode`, `bgert.integrations.adapted.EncoderOptions`), `gpu` (False is the CPU, otherwise
    `device` of `vectors` says), `maxlength` (`max_length`) and `instructions`.
    """

    def __init__(self, config: Any, scoring: Any, models: Any) -> None:
        super().__init__(config, scoring, models)
        self.instructions = None  # the model has them; txtai would put them there twice

    def load(self, path: str) -> AdaptedEncoder:
        """Open the model, once for equal configurations; txtai's own cache does not look at all of these."""
        return self.loadmodel(path)

    def loadmodel(self, path: str) -> AdaptedEncoder:
        """Open the model."""
        if self.config.get("encodeargs"):
            raise InvalidOptionError("there is no encodeargs here: `vectors` takes its options, by bgert's names")
        options = dict(self.config.get("vectors") or {})
        if self.config.get("gpu") is False:
            options.setdefault("device", "cpu")
        if self.config.get("maxlength") is not None:
            options.setdefault("max_length", self.config["maxlength"])
        before = self.config.get("instructions") or {}
        return shared_encoder(
            path, options, query_instruction=before.get("query"), document_instruction=before.get("data")
        )

    def encode(self, data: Any, category: str | None = None) -> Any:
        """float32[n, dim]."""
        encode = self.model.documents if category == "data" else self.model.queries
        return np.asarray(encode(data))
