"""From what a tokenizer is made of to what runs it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from bgert import _native
from bgert.tokenizer.spec import BpeSettings, HuggingFaceSettings, UnigramSettings

if TYPE_CHECKING:
    from bgert.tokenizer.protocol import BatchEncoder, TextModel
    from bgert.tokenizer.spec import TemplateSpec, TokenizerSpec

__all__ = ["batch_encoder", "build_tokenizer"]


def build_tokenizer(spec: TokenizerSpec) -> tuple[TextModel, BatchEncoder]:
    """What encodes one text, and what encodes many with special tokens around them.

    Raises:
        ValueError: the parts do not fit together.
        MemoryError: they are too large.
        EngineNotInstalledError: it takes HF `tokenizers`, which is not here.
    """
    if isinstance(spec.model, HuggingFaceSettings):
        # Not at the top: nothing else needs it.
        from bgert.tokenizer.huggingface import HuggingFaceModel

        model: TextModel = HuggingFaceModel(spec.model.data, spec.model.library)
    else:
        model = _native_model(spec)
    return model, batch_encoder(model, spec.single, spec.pair)


def batch_encoder(model: TextModel, single: TemplateSpec, pair: TemplateSpec) -> BatchEncoder:
    """What puts the special tokens of these templates around the model's ids.

    Raises:
        ValueError: a template is not the model's.
    """
    if isinstance(model, _native.TextModel):
        return _native.BatchEncoder(model, _template(single), _template(pair))
    # Not at the top: nothing else needs it.
    from bgert.tokenizer.huggingface_batch import HuggingFaceEncoder

    return HuggingFaceEncoder(model, single, pair)


def _native_model(spec: TokenizerSpec) -> _native.TextModel:
    """The native model of a spec's kind."""
    tokens = []
    for token in spec.added_tokens:
        flags = asdict(token)
        tokens.append(_native.AddedToken(token_id=flags.pop("id"), **flags))
    if isinstance(spec.model, UnigramSettings):
        return _native.UnigramModel(spec.model.data, added_tokens=tokens)
    if isinstance(spec.model, BpeSettings):
        return _native.BpeModel(**asdict(spec.model), added_tokens=tokens)
    return _native.WordPieceModel(spec.vocab, **asdict(spec.model), added_tokens=tokens)


def _template(spec: TemplateSpec) -> _native.Template:
    return _native.Template(**asdict(spec))
