"""Texts to token ids: the native tokenizer, and what it is built from."""

from bgert.tokenizer.tokenizer import TRUNCATIONS, TokenBatch, Tokenizer

__all__ = ["TRUNCATIONS", "TokenBatch", "Tokenizer"]
