"""Builds the `precompiled_charsmap` of a SentencePiece model from rules, for probes and tests."""

from __future__ import annotations

import struct
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["charsmap"]

_LEAF = 1 << 8
_VALUE = 1 << 31
_MOST_OFFSET = 1 << 21


def charsmap(rules: Mapping[str, str]) -> bytes:
    """The blob of rules from text to text: a Darts double array and the replacements, each ended by a NUL."""
    replacements = bytearray()
    offsets: dict[str, int] = {}
    root: dict[int, object] = {}
    for key, value in rules.items():
        if value not in offsets:
            offsets[value] = len(replacements)
            replacements += value.encode() + b"\0"
        node = root
        for byte in key.encode():
            node = node.setdefault(byte, {})  # type: ignore[assignment]
        node[-1] = offsets[value]
    units: dict[int, int] = {0: 0}
    _place(root, 0, 0, units)
    size = (max(units) | 255) + 1
    trie = struct.pack(f"<{size}I", *(units.get(i, 0) for i in range(size)))
    return struct.pack("<I", len(trie)) + trie + bytes(replacements)


def _place(root: dict[int, object], position: int, label: int, units: dict[int, int]) -> None:
    """Give every node below a free unit."""
    pending = [(root, position, label)]
    start = 1
    while pending:
        node, position, label = pending.pop()
        slots = [0 if byte < 0 else byte for byte in node]
        while start in units:
            start += 1
        base = next(b for b in count(start) if not any((b ^ slot) in units for slot in slots))
        offset = position ^ base
        if offset >= _MOST_OFFSET:
            raise ValueError("too many rules for this simple builder")
        units[position] = label | offset << 10 | (_LEAF if -1 in node else 0)
        for byte, child in node.items():
            if byte < 0:
                units[base] = _VALUE | int(child)  # type: ignore[call-overload]
            else:
                units[base ^ byte] = byte  # taken; its offset is set when it is placed
                pending.append((child, base ^ byte, byte))  # type: ignore[arg-type]
