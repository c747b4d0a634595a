"""Texts to token ids: the native tokenizer, and what it is built from."""

from bgert.tokenizer.chunking import Chunk
from bgert.tokenizer.tokenizer import TRUNCATIONS, Token, TokenBatch, Tokenizer

__all__ = ["TRUNCATIONS", "Chunk", "Token", "TokenBatch", "Tokenizer"]
