"""A checkpoint as transformers' own classes know it, whose network bgert has no description of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bgert_export.checkpoint import CheckpointFolder, open_folder
from bgert_export.errors import CheckpointError, UnsupportedCheckpointError
from bgert_export.sentence_transformers_files import stated_kind
from bgert_export.torch_model import reads_token_types, torch_class, transformers_config
from bgert_export.weights import Weights, open_weights

if TYPE_CHECKING:
    from pathlib import Path

    from bgert_export.source import Source

__all__ = ["TracedArchitecture", "TracedCheckpoint"]

_HEAD = "ForSequenceClassification"


@dataclass(frozen=True)
class TracedArchitecture:
    """What the rest of an export needs to know of a network that PyTorch or optimum writes."""

    model_type: str
    kind: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    position_offset: int
    type_vocab_size: int
    pad_token_id: int
    num_labels: int | None
    via: str
    """`torch` or `optimum`."""

    @property
    def max_tokens(self) -> int:
        """Longest input, special tokens counted."""
        return self.max_position_embeddings - self.position_offset

    @property
    def reads_token_types(self) -> bool:
        """Whether the network tells types of tokens apart."""
        return self.type_vocab_size > 1

    def as_dict(self) -> dict[str, Any]:
        """The fields, for the manifest."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class TracedCheckpoint(CheckpointFolder):
    """A checkpoint of any architecture that transformers itself has: code that a checkpoint brings is never run."""

    traced: TracedArchitecture

    @property
    def architecture(self) -> TracedArchitecture:
        """Hyperparameters."""
        return self.traced

    @classmethod
    def open(cls, source: Source, *, via: str) -> TracedCheckpoint:
        """Read and check everything but the weights' values.

        Raises:
            CheckpointError: a file is missing or damaged.
            UnsupportedCheckpointError: transformers has no class of its own for it.
        """
        folder, config, tokenizer_config = open_folder(source)
        stated = stated_kind(source.folder)
        classes = config.get("architectures")
        head = isinstance(classes, list) and len(classes) == 1 and str(classes[0]).endswith(_HEAD)
        kind = "reranker" if head else "encoder"
        overruled = stated if stated is not None and stated.kind != kind else None
        kind = overruled.kind if overruled is not None else kind
        architecture = _architecture(folder, kind, via)
        return cls(
            source=source,
            transformer_folder=folder,
            config=config,
            tokenizer_config=tokenizer_config,
            overruled=overruled,
            traced=architecture,
        )

    @cached_property
    def weights(self) -> Weights:
        """The checkpoint's weights."""
        return open_weights(self.transformer_folder)


def _architecture(folder: Path, kind: str, via: str) -> TracedArchitecture:
    """What transformers makes of a config.json, seen on a network without weights."""
    import torch

    config = transformers_config(folder)
    with torch.device("meta"):
        model = torch_class(config, kind)(config)
    sizes = {name: getattr(config, name, None) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    for name, value in sizes.items():
        if not isinstance(value, int):
            raise UnsupportedCheckpointError(f"config.json: {config.model_type} has no {name} that bgert can read")
    tables = {name.rsplit(".", 1)[-1]: part for name, part in model.named_modules() if hasattr(part, "num_embeddings")}
    positions = tables.get("position_embeddings")
    length = positions.num_embeddings if positions is not None else getattr(config, "max_position_embeddings", None)
    if not isinstance(length, int) or length < 3:
        raise UnsupportedCheckpointError(
            f"config.json: {config.model_type} says no max_position_embeddings, so nothing says how long a text may be"
        )
    # Families that count positions past padding give that row of the table to padding.
    skipped = getattr(positions, "padding_idx", None)
    types = tables["token_type_embeddings"].num_embeddings if "token_type_embeddings" in tables else 1
    pad = config.pad_token_id
    return TracedArchitecture(
        model_type=config.model_type,
        kind=kind,
        vocab_size=model.get_input_embeddings().num_embeddings,
        **{name: int(value) for name, value in sizes.items()},  # type: ignore[arg-type]
        intermediate_size=int(getattr(config, "intermediate_size", 0) or 0),
        max_position_embeddings=length,
        position_offset=0 if skipped is None else skipped + 1,
        type_vocab_size=types if reads_token_types(model) else 1,
        pad_token_id=pad if isinstance(pad, int) and pad >= 0 else 0,
        num_labels=_labels(config.num_labels) if kind == "reranker" else None,
        via=via,
    )


def _labels(count: Any) -> int:
    if not isinstance(count, int) or count < 1:
        raise CheckpointError(f"config.json: num_labels is {count!r}, not a whole number from 1")
    return count
