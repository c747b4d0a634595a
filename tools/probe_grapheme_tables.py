"""Write runtime/src/tokenizer/grapheme_tables.inc from what `tokenizers`' Precompiled normaliser does.

That normaliser works cluster by cluster: in a cluster of less than six bytes a rule for its start replaces all of it,
so whether a mark survives tells whether two characters are of one cluster.
Run `python tools/probe_grapheme_tables.py` after moving to another release; `--check` only compares.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from charsmap_builder import charsmap
from probed_tables import filled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROBED_VERSION = "0.23"
OUTPUT = Path(__file__).resolve().parent.parent / "runtime" / "src" / "tokenizer" / "grapheme_tables.inc"

(ATTACHES, PREPEND, CONTROL, LEADING, VOWEL, TRAILING, SYLLABLE, CONSONANT, LINKER, IN_CONJUNCT, PICTOGRAPH,
 AFTER_PICTOGRAPH) = (1 << bit for bit in range(12))  # fmt: skip
SYLLABLES = range(0xAC00, 0xD7A4)
MARK, JOINER, KA, VIRAMA, PICTURE = "\u0302", "\u200d", "\u0915", "\u094d", "\u00a9"
RULES = {"a": "b", PICTURE: "b", KA: "b", "\u1161": "b", "\u11a8": "b"}
CHUNK = 4096


def code_points() -> Iterator[int]:
    """Every code point that a Rust string can hold, but for the separator of probes."""
    yield from (cp for cp in range(0xD800) if cp != 0x0A)
    yield from range(0xE000, 0x110000)


class Probe:
    """Asks which code points make a cluster with given neighbours."""

    def __init__(self, rules: dict[str, str]) -> None:
        from tokenizers import normalizers

        self._normalizer = normalizers.Precompiled(charsmap(rules))

    def ask(self, before: str, after: str, points: Iterable[int]) -> dict[int, str]:
        """What becomes of `before + character + after`; line breaks keep the probes apart."""
        result: dict[int, str] = {}
        todo = list(points)
        for start in range(0, len(todo), CHUNK):
            part = todo[start : start + CHUNK]
            lines = self._normalizer.normalize_str("\n".join(before + chr(cp) + after for cp in part)).split("\n")
            result.update(zip(part, lines, strict=True))
        return result

    def joins(self, before: str, target: str, points: Iterable[int]) -> set[int]:
        """Those after which, with `before` in front, `target` is no cluster of its own.

        `target` has a rule: alone with the mark it loses the mark, inside a longer cluster the mark survives.
        """
        return {cp for cp, line in self.ask(before, target + MARK, points).items() if line.endswith(MARK)}


def probe(points: Iterable[int] | None = None) -> dict[int, int]:
    """The properties of code points."""
    todo = list(code_points() if points is None else points)
    asked = Probe(RULES)
    attaches = {cp for cp, line in asked.ask("a", "", todo).items() if line == "b"}
    prepend = asked.joins("", "a", todo)
    control = set(todo) - Probe({"\u0301": "b"}).joins("", "\u0301", todo)
    rest = [cp for cp in todo if cp not in attaches and cp not in prepend and cp not in control]
    before_vowel, before_trailing = asked.joins("", "\u1161", rest), asked.joins("", "\u11a8", rest)
    consonant = asked.joins("", VIRAMA + KA, rest)
    linker = asked.joins(KA, KA, attaches)
    in_conjunct = asked.joins(KA + VIRAMA, KA, attaches)
    pictograph = asked.joins("", JOINER + PICTURE, rest)
    after_pictograph = asked.joins(PICTURE, JOINER + PICTURE, attaches)
    sets = {
        ATTACHES: attaches, PREPEND: prepend, CONTROL: control, LEADING: before_vowel - before_trailing,
        VOWEL: before_vowel & before_trailing, TRAILING: before_trailing - before_vowel,
        SYLLABLE: set(SYLLABLES) & (before_vowel | before_trailing), CONSONANT: consonant, LINKER: linker,
        IN_CONJUNCT: in_conjunct, PICTOGRAPH: pictograph, AFTER_PICTOGRAPH: after_pictograph,
    }  # fmt: skip
    return {cp: sum(bit for bit, members in sets.items() if cp in members) for cp in todo}


def render(found: dict[int, int]) -> str:
    """The properties as a C++ array initialiser; a line feed is a control character, which the probe cannot ask."""
    changes, previous = [], 0
    for cp in range(0x110000):
        value = CONTROL if cp == 0x0A else found.get(cp, previous)  # surrogates: as what stands before them
        if value != previous:
            changes.append(f"{{0x{cp:X},{value}}}")
            previous = value
    head = [
        f"// Made by tools/probe_grapheme_tables.py from tokenizers {PROBED_VERSION}; do not edit.",
        "// {first code point, properties} up to the next entry, see grapheme.h.",
        "constexpr Change kChanges[] = {",
    ]
    return "\n".join([*head, *filled(changes), "};", ""])


def main(argv: list[str] | None = None) -> int:
    """Write the table, or with --check compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 if the committed table differs")
    options = parser.parse_args(argv)
    import tokenizers  # here, so that --help needs numpy alone

    if not tokenizers.__version__.startswith(PROBED_VERSION + "."):
        print(f"tokenizers {tokenizers.__version__} is installed, the table is pinned to {PROBED_VERSION}.x")
        return 2
    text = render(probe())
    if options.check:
        same = OUTPUT.read_text(encoding="utf-8") == text
        print("the table is that of the installed tokenizers" if same else f"{OUTPUT} is out of date")
        return 0 if same else 1
    OUTPUT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
