"""An encoder for mteb, by the encoder protocol of mteb 2 (`mteb.models.EncoderProtocol`)."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.errors import EngineNotInstalledError, InvalidOptionError, install_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from bgert.encoder import Encoder

__all__ = ["MtebEncoder"]


class MtebEncoder:
    """What `mteb.evaluate(MtebEncoder(encoder), tasks)` calls.

    Texts that mteb marks as queries or documents get the model's `query` or `document` prompt, others its default
    prompt. mteb keeps results by name, revision and experiment: the experiment is device, precision and a digest of
    the graphs, the tokenizer and the prompts, so two exports of one checkpoint never share results.

    Args:
        encoder: the model.
        name: `organization/model` under which mteb keeps results; None for the hub id that the folder was exported
            from, which a local checkpoint does not have.

    Raises:
        InvalidOptionError: no name is known, or it has no organization.
        EngineNotInstalledError: mteb is missing (raised when mteb is first needed).
    """

    def __init__(self, encoder: Encoder, name: str | None = None) -> None:
        self.encoder = encoder
        self.name: str = encoder.manifest.source.get("id") or "" if name is None else name
        if not all(self.name.partition("/")):
            raise InvalidOptionError(f"name is {name!r}: mteb keeps results by organization/model")

    @property
    def mteb_model_meta(self) -> Any:
        """The `mteb.models.ModelMeta` of this model."""
        manifest = self.encoder.manifest
        source = manifest.source
        return _mteb("models").ModelMeta(
            loader=None,
            name=self.name,
            revision=source.get("revision") or _digest(source.get("weights_sha256")),
            release_date=None,
            languages=None,
            n_parameters=None,
            memory_usage_mb=None,
            max_tokens=self.encoder.max_length,
            embed_dim=self.encoder.dimensions,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["ONNX"],
            similarity_fn_name="cosine",
            use_instructions=any(manifest.prompts.values()),
            training_datasets=None,
            experiment_kwargs={
                "device": self.encoder.device,
                "precision": self.encoder.precision,
                "export": _digest(
                    [
                        [file.sha256 for graph in manifest.graphs for file in graph.files],
                        [file.sha256 for file in manifest.tokenizer_files],
                        [self.encoder.max_length, manifest.prompts, manifest.default_prompt, manifest.tokenizer],
                    ]
                ),
            },
        )

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,  # noqa: ARG002 - prompts are the model's own, not the task's
        hf_split: str,  # noqa: ARG002
        hf_subset: str,  # noqa: ARG002
        prompt_type: str | None = None,
        batch_size: int | None = None,  # noqa: ARG002 - batches are cut by tokens
        show_progress_bar: bool | None = None,
        precision: str = "float32",
    ) -> NDArray[np.float32]:
        """Embed the texts of batches.

        Args:
            inputs: batches, each with its texts under `text`: a torch DataLoader.
            task_metadata: not used.
            hf_split: not used.
            hf_subset: not used.
            prompt_type: `query`, `document` or None.
            batch_size: not used.
            show_progress_bar: None for a bar on long work in a terminal.
            precision: `float32` alone; the graph's precision is the encoder's.

        Returns:
            float32[n, dim].

        Raises:
            InvalidOptionError: another `prompt_type` or precision, or a batch without texts.
        """
        if precision != "float32":
            raise InvalidOptionError(f"precision is {precision!r}: embeddings are float32 here")
        methods: dict[str | None, Callable[..., NDArray[np.float32]]] = {
            None: self.encoder.encode,
            "query": self.encoder.encode_queries,
            "document": self.encoder.encode_corpus,
        }
        encode = methods.get(prompt_type)
        if encode is None:
            raise InvalidOptionError(f"unknown prompt_type {prompt_type!r}: query, document or None")
        texts = [text for batch in inputs for text in _texts(batch)]
        return np.asarray(encode(texts, show_progress=show_progress_bar))

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines of all pairs: a torch tensor [n1, n2]."""
        return _mteb("similarity_functions").cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines of row i with row i: a torch tensor [n]."""
        return _mteb("similarity_functions").pairwise_cos_sim(embeddings1, embeddings2)


def _texts(batch: Mapping[str, Any]) -> Sequence[str]:
    if "text" not in batch:
        raise InvalidOptionError(f"a batch has {', '.join(batch)} and no text: this model embeds text")
    texts: Sequence[str] = batch["text"]
    return texts


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _mteb(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"mteb.{module}")
    except ModuleNotFoundError as error:
        raise EngineNotInstalledError(f"this needs {error.name}: {install_extra('mteb')}") from None
