"""FlagEmbedding's classes on bgert: arguments, defaults, instruction formats and return types of its version 1.4.2.

Neither FlagEmbedding nor PyTorch is needed. As there, nothing is put before a text unless an instruction is given: the
prompts of the model's manifest are not used, and an `InstructionWarning` says where one that is given is not the
model's.
"""

from __future__ import annotations

from typing import Any

from bgert.errors import InvalidOptionError
from bgert.integrations.flag_embedding.automatic import FlagAutoModel, FlagAutoReranker
from bgert.integrations.flag_embedding.encoder import FlagModel
from bgert.integrations.flag_embedding.m3 import BGEM3FlagModel
from bgert.integrations.flag_embedding.reranker import FlagReranker

__all__ = ["BGEM3FlagModel", "FlagAutoModel", "FlagAutoReranker", "FlagModel", "FlagReranker"]


class _NotHere:
    """A class of FlagEmbedding that can be imported, and says so when it is used."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ARG002 - whatever it is given
        here = ", ".join(name for name in __all__ if not name.startswith("FlagAuto"))
        raise InvalidOptionError(f"{type(self).__name__} is not here: bgert runs {here}")


class FlagICLModel(_NotHere):
    """Not here: a language model."""


class FlagLLMModel(_NotHere):
    """Not here: a language model."""


class FlagPseudoMoEModel(_NotHere):
    """Not here: a language model."""


class FlagLLMReranker(_NotHere):
    """Not here: a language model."""


class LayerWiseFlagLLMReranker(_NotHere):
    """Not here: a language model."""


class LightWeightFlagLLMReranker(_NotHere):
    """Not here: a language model."""
