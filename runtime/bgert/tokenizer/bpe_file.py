"""`bpe.bin`, a byte-level BPE vocabulary in a model folder; runtime/src/tokenizer/bpe_file.h has the layout.

Here it is put together, and its tokens are listed; the native tokenizer reads the rest and checks everything.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["pack", "tokens"]

_HEADER = struct.Struct("<8sIIIQ")
_MAGIC, _VERSION = b"BGERTBPE", 1
_MERGE_BYTES = 12
MOST_TOKENS = 2**21  # kMostTokens of runtime/src/tokenizer/text_model.h


def pack(vocab: Sequence[str], merges: Sequence[tuple[int, int, int]]) -> bytes:
    """The content of the file.

    Args:
        vocab: tokens by id, empty where an id has none.
        merges: by rank, the ids of the left token, of the right one, and of what they become.

    Raises:
        ValueError: the vocabulary cannot be written.
    """
    body = "".join(token + "\0" for token in vocab)
    if body.count("\0") != len(vocab):
        raise ValueError(f"token {next(i for i, token in enumerate(vocab) if chr(0) in token)} holds a NUL")
    try:
        text = body.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"token {body.count(chr(0), 0, error.start)} holds a lone surrogate") from None
    header = _HEADER.pack(_MAGIC, _VERSION, len(vocab), len(merges), len(text))
    return b"".join((header, np.asarray(merges, dtype="<u4").tobytes(), text))


def tokens(data: bytes) -> list[str]:
    """The tokens by id.

    Raises:
        ValueError: the content is not that of such a file.
    """
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise ValueError("not a BPE file")
    _, version, count, merges, size = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise ValueError(f"BPE file of version {version}, which this bgert does not know: upgrade bgert")
    if count > MOST_TOKENS:
        raise ValueError(f"BPE file of more than {MOST_TOKENS} tokens: no vocabulary is that large")
    start = _HEADER.size + _MERGE_BYTES * merges
    try:
        listed = (data[start:] if start + size == len(data) else b"").decode().split("\0")
    except UnicodeDecodeError:
        raise ValueError("damaged BPE file: its tokens are not UTF-8") from None
    if listed.pop() or len(listed) != count:
        raise ValueError("damaged BPE file: it does not hold the tokens that its header says")
    return listed
