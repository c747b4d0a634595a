"""Write runtime/src/tokenizer/byte_level_tables.inc: what byte-level tokenizers call a letter, and what NFC composes.

Both are asked of Hugging Face `tokenizers`, as the crates inside it follow several Unicode versions.
Run `python tools/probe_byte_level_tables.py` after moving to another release; `--check` only compares.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from probed_tables import options_of, table, write_or_check

if TYPE_CHECKING:
    from collections.abc import Iterator

PROBED_VERSION = "0.23"
OUTPUT = Path(__file__).resolve().parent.parent / "runtime" / "src" / "tokenizer" / "byte_level_tables.inc"

# The bits of `char_class` in split_pattern.h.
CLASSES = {r"\p{L}": 1, r"\p{N}": 2, r"\s": 4, r"[\p{Lu}\p{Lt}]": 8, r"\p{Ll}": 16, r"\p{M}": 32}
HANGUL = range(0xAC00, 0xD7A4)


def code_points() -> Iterator[int]:
    """Every code point that a Rust string can hold."""
    yield from range(0xD800)
    yield from range(0xE000, 0x110000)


def classes() -> list[int]:
    """For every code point which of the classes it is in."""
    from tokenizers import Regex, pre_tokenizers

    found = [0] * 0x110000
    for pattern, bit in CLASSES.items():
        split = pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str
        for cp in code_points():
            found[cp] |= bit * (not split(chr(cp)))
    return found


def compositions() -> list[tuple[int, int, int]]:
    """Pairs of characters and the one that `NFC` puts in their place, without Hangul."""
    from tokenizers import normalizers

    decompose, compose = normalizers.NFD().normalize_str, normalizers.NFC().normalize_str
    found = []
    for cp in code_points():
        parts = decompose(chr(cp))
        if cp in HANGUL or len(parts) == 1 or compose(chr(cp)) != chr(cp):
            continue
        first = compose(parts[:-1])
        if len(first) != 1 or compose(first + parts[-1]) != chr(cp):
            raise RuntimeError(f"U+{cp:04X} is not composed of a character and a last one")
        found.append((ord(first), ord(parts[-1]), cp))
    return sorted(found)


def render() -> str:
    """The tables as C++ array initialisers."""
    changes, previous = [], -1
    for cp, flags in enumerate(classes()):
        if flags != previous:
            changes.append(f"{{0x{cp:X},{flags}}}")
            previous = flags
    composed = [f"{{0x{a:X},0x{b:X},0x{c:X}}}" for a, b, c in compositions()]
    return "\n".join(
        [
            f"// Made by tools/probe_byte_level_tables.py from tokenizers {PROBED_VERSION}; do not edit.",
            "// {first code point, classes} up to the next entry: 1 letter, 2 number, 4 whitespace,",
            "// 8 upper or title case, 16 lower case, 32 mark.",
            table("constexpr ClassChange kClassChanges[]", changes),
            "// {first, second, what NFC makes of them}, without Hangul.",
            table("constexpr Composition kCompositions[]", composed),
            "",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Write the tables, or with --check compare them."""
    options = options_of(__doc__).parse_args(argv)
    return write_or_check(PROBED_VERSION, OUTPUT, render, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
