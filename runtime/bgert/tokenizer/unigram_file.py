"""`unigram.bin`, the file that holds a Unigram tokenizer in a model folder; runtime/src/unigram_file.h has the layout.

Here it is put together, and its pieces are listed; the native tokenizer reads the rest and checks everything.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["pack", "pieces"]

_HEADER = struct.Struct("<8sIIQQQ")
MOST_PIECES = 2**21  # kMostTokens of runtime/src/tokenizer/text_model.h
_MAGIC, _VERSION = b"BGERTUNI", 1


def pack(vocab: Sequence[str], scores: Sequence[float], unk_id: int, charsmap: bytes) -> bytes:
    """The content of the file.

    Args:
        vocab: pieces by id.
        scores: as many, in any precision up to float64.
        unk_id: id of the unknown piece.
        charsmap: `precompiled_charsmap` of the SentencePiece model, empty if it has none.

    Raises:
        ValueError: the vocabulary cannot be written.
    """
    body = "".join(piece + "\0" for piece in vocab)
    if body.count("\0") != len(vocab):
        raise ValueError(f"piece {next(i for i, piece in enumerate(vocab) if chr(0) in piece)} holds a NUL")
    try:
        text = body.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"piece {body.count(chr(0), 0, error.start)} holds a lone surrogate") from None
    try:
        numbers = np.asarray(scores, dtype="<f8")
    except OverflowError:  # an int that is larger than any float
        raise ValueError("there is not one finite score for each piece") from None
    if numbers.shape != (len(vocab),) or not np.isfinite(numbers).all():
        raise ValueError("there is not one finite score for each piece")
    if not 0 <= unk_id < len(vocab):
        raise ValueError(f"unk_id {unk_id} is no piece of the vocabulary")
    header = _HEADER.pack(_MAGIC, _VERSION, unk_id, len(vocab), len(text), len(charsmap))
    return b"".join((header, numbers.tobytes(), text, charsmap))


def pieces(data: bytes) -> list[str]:
    """The pieces by id.

    Raises:
        ValueError: the content is not that of such a file.
    """
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise ValueError("not a unigram file")
    _, version, _, count, size, _ = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise ValueError(f"unigram file of version {version}, which this bgert does not know: upgrade bgert")
    if count > (len(data) - _HEADER.size) // 9:  # a score and a NUL each
        raise ValueError("damaged unigram file: it does not hold the pieces that its header says")
    if count > MOST_PIECES:
        raise ValueError(f"unigram file of more than {MOST_PIECES} pieces: no vocabulary is that large")
    start = _HEADER.size + 8 * count
    text = data[start : start + size] if start + size <= len(data) else b""
    try:
        listed = text.decode().split("\0")
    except UnicodeDecodeError:
        raise ValueError("damaged unigram file: its pieces are not UTF-8") from None
    if listed.pop() or len(listed) != count:
        raise ValueError("damaged unigram file: it does not hold the pieces that its header says")
    return listed
