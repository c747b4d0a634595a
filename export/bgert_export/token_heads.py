"""What a checkpoint gives for each token beside its pooled vector: the two heads of bge-m3.

As FlagEmbedding reads them: `sparse_linear.pt` and `colbert_linear.pt` beside the weights, both or none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.errors import BgertError
from bgert.model_folder import TokenOutput
from bgert.tokenizer.added_tokens import named_tokens
from bgert_export.errors import CheckpointError
from bgert_export.projections import Projection
from bgert_export.sentence_transformers_files import read_json
from bgert_export.torch_file import TorchWeights
from bgert_export.weights import read_whole

if TYPE_CHECKING:
    from pathlib import Path

    from bgert.tokenizer import Tokenizer
    from bgert_export.checkpoint import Checkpoint

__all__ = ["FILES", "TokenHead", "has_token_heads", "read_token_heads"]

FILES = {"sparse": "sparse_linear.pt", "multi_vector": "colbert_linear.pt"}
"""Output to file."""
_OUTPUTS = {"sparse": "token_weights", "multi_vector": "token_vectors"}
_UNUSED = ("cls_token", "eos_token", "pad_token", "unk_token")
_ROBERTA_TOKENS = {"cls_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
_BERT_TOKENS = {"cls_token": "[CLS]", "pad_token": "[PAD]", "unk_token": "[UNK]"}


@dataclass(frozen=True)
class TokenHead:
    """Layers over every token's last hidden state."""

    projections: tuple[Projection, ...]
    normalize: bool
    """Whether a token's vector is divided by its length."""
    entry: TokenOutput
    """What the manifest says of it."""


def has_token_heads(folder: Path) -> bool:
    """Whether the folder of a network has bge-m3's heads.

    Raises:
        CheckpointError: it has one of them.
    """
    there = [name for name in FILES.values() if (folder / name).exists()]
    if len(there) == 1:
        missing = next(name for name in FILES.values() if name not in there)
        raise CheckpointError(f"{folder} has {there[0]} and no {missing}: download it too, or remove the first")
    return bool(there)


def read_token_heads(checkpoint: Checkpoint, tokenizer: Tokenizer, *, normalize: bool) -> tuple[TokenHead, ...]:
    """The heads of an encoder, none for most.

    Args:
        checkpoint: an encoder.
        tokenizer: of the same checkpoint.
        normalize: whether vectors are divided by their lengths.

    Raises:
        CheckpointError: a head is missing, damaged, or does not fit the network.
        ExtraNotInstalledError: torch, which reads them, is not installed.
    """
    folder = checkpoint.transformer_folder
    if not has_token_heads(folder):
        return ()
    width = checkpoint.architecture.hidden_size
    sparse, vectors = (_read(folder, name, width) for name in FILES)
    if sparse.columns != 1:
        raise CheckpointError(f"{FILES['sparse']} gives {sparse.columns} weights a token, not one")
    unused = _unused_ids(folder, checkpoint, tokenizer)
    return (
        TokenHead(
            (Projection(sparse.weight, sparse.bias, "relu"),),
            False,
            TokenOutput("sparse", _OUTPUTS["sparse"], 1, size=checkpoint.architecture.vocab_size, skip_ids=unused),
        ),
        # What stands for the whole text is the dense vector already.
        TokenHead(
            (vectors,),
            normalize,
            TokenOutput("multi_vector", _OUTPUTS["multi_vector"], vectors.columns, skip_first=1),
        ),
    )


def _read(folder: Path, name: str, width: int) -> Projection:
    file = FILES[name]
    weights = TorchWeights([folder / file])
    found = {part: weights.shapes.get(part) for part in ("weight", "bias")}
    shape = found["weight"] or ()
    if len(shape) != 2 or shape[1] != width or found["bias"] != shape[:1] or weights.shapes.keys() - found.keys():
        listed = ", ".join(f"{part} {list(shape)}" for part, shape in weights.shapes.items())
        raise CheckpointError(f"{file} holds {listed}: not the weight [n, {width}] and the bias [n] of a linear layer")
    weight, bias = (read_whole(weights, part) for part in ("weight", "bias"))
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise CheckpointError(f"{file} has NaN or infinity: the checkpoint is damaged")
    return Projection(weight, bias)


def _unused_ids(folder: Path, checkpoint: Checkpoint, tokenizer: Tokenizer) -> list[int]:
    """Ids of the special tokens that get no weight, as FlagEmbedding chooses them."""
    defaults = _ROBERTA_TOKENS if checkpoint.architecture.family.positions_after_padding else _BERT_TOKENS
    special_tokens_map: dict[str, Any] = read_json(folder, "special_tokens_map.json")
    ids = set()
    for name, token in named_tokens(checkpoint.tokenizer_config, special_tokens_map, defaults).items():
        if name not in _UNUSED or token is None:
            continue
        try:
            found = tokenizer.encode(token.content, add_special_tokens=False)
        except BgertError as error:
            raise CheckpointError(f"the {name} {token.content!r} has no id: {error}") from None
        if len(found) != 1:
            raise CheckpointError(f"the {name} {token.content!r} is no token of the vocabulary")
        ids.add(int(found[0]))
    return sorted(ids)
