"""Reads what the tokenizer needs out of a SentencePiece `.model` file, which is a protocol buffer."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SentencePieceModel", "read_model"]

UNIGRAM = 1
USER_DEFINED = 4
_FLOAT = struct.Struct("<f")


@dataclass
class SentencePieceModel:
    """The parts of a `ModelProto` that tokenizers are made of."""

    pieces: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    """1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte."""
    model_type: int = UNIGRAM
    charsmap: bytes = b""


def read_model(data: bytes) -> SentencePieceModel:
    """Decode the file.

    Raises:
        ValueError: it is not such a file.
    """
    model = SentencePieceModel()
    for number, value in _fields(memoryview(data)):
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            piece, score, kind = "", 0.0, 1
            for inner, content in _fields(value):
                if inner == 1 and isinstance(content, memoryview):
                    piece = bytes(content).decode()
                elif inner == 2 and isinstance(content, memoryview) and len(content) == 4:
                    (score,) = _FLOAT.unpack(content)
                elif inner == 3 and isinstance(content, int):
                    kind = content
            model.pieces.append(piece)
            model.scores.append(score)
            model.types.append(kind)
        elif number == 2:
            model.model_type = next((v for n, v in _fields(value) if n == 3 and isinstance(v, int)), UNIGRAM)
        elif number == 3:
            model.charsmap = next((bytes(v) for n, v in _fields(value) if n == 2 and isinstance(v, memoryview)), b"")
    if not model.pieces:
        raise ValueError("it has no pieces")
    return model


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Numbers and values of the fields of a message; values of fixed size come as bytes."""
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        wire = key & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield key >> 3, value
            continue
        if wire == 2:
            size, position = _varint(data, position)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {position}")
        if position + size > end:
            raise ValueError(f"cut off at byte {position}")
        yield key >> 3, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """A number and the position behind it."""
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError(f"no number at byte {position}")
