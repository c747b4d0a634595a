"""Write runtime/src/tokenizer/unicode_tables.inc from what Hugging Face `tokenizers` does with every code point.

The crates inside `tokenizers` follow four Unicode versions at once, so no single Unicode database gives its ids.
Run `python tools/probe_hf_tables.py` after moving to another release; `--check` only compares.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probed_tables import options_of, table, write_or_check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tokenizers import Tokenizer

PROBED_VERSION = "0.23"
OUTPUT = Path(__file__).resolve().parent.parent / "runtime" / "src" / "tokenizer" / "unicode_tables.inc"

DROP, SPACE, IDEOGRAPH, MARK, PUNCTUATION, WHITESPACE, WORD = (1 << bit for bit in range(7))
HANGUL = range(0xAC00, 0xD7A4)
SEPARATOR = "\x01"  # a starter that no probed step changes
CHUNK = 2048
# One code point for every canonical combining class, in order; only the order of classes matters.
CLASS_SAMPLES = {
    1: 0x334, 7: 0x93C, 8: 0x3099, 9: 0x94D, 10: 0x5B0, 11: 0x5B1, 12: 0x5B2, 13: 0x5B3, 14: 0x5B4, 15: 0x5B5,
    16: 0x5B6, 17: 0x5B7, 18: 0x5B8, 19: 0x5B9, 20: 0x5BB, 21: 0x5BC, 22: 0x5BD, 23: 0x5BF, 24: 0x5C1, 25: 0x5C2,
    26: 0xFB1E, 27: 0x64B, 28: 0x64C, 29: 0x64D, 30: 0x64E, 31: 0x64F, 32: 0x650, 33: 0x651, 34: 0x652, 35: 0x670,
    36: 0x711, 84: 0xC55, 91: 0xC56, 103: 0xE38, 107: 0xE48, 118: 0xEB8, 122: 0xEC8, 129: 0xF71, 130: 0xF72,
    132: 0xF74, 202: 0x321, 214: 0x1DCE, 216: 0x31B, 218: 0x302A, 220: 0x316, 222: 0x59A, 224: 0x302E, 226: 0x1D16D,
    228: 0x5AE, 230: 0x301, 232: 0x315, 233: 0x35C, 234: 0x35D, 240: 0x345,
}  # fmt: skip


@dataclass(frozen=True)
class Tables:
    """What was found, each keyed by code point."""

    flags: list[int]
    decomposition: dict[int, str]
    lower: dict[int, str]
    combining_class: dict[int, int]


def code_points() -> Iterator[int]:
    """Every code point that a Rust string can hold."""
    yield from range(0xD800)
    yield from range(0xE000, 0x110000)


def apply(step: Callable[[str], str], make: Callable[[str], str] = lambda c: c) -> dict[int, str]:
    """What `step` makes of `make(character)` for every character, many characters a call."""
    result: dict[int, str] = {}
    points = [cp for cp in code_points() if cp != ord(SEPARATOR)]
    for start in range(0, len(points), CHUNK):
        part = points[start : start + CHUNK]
        pieces = step(SEPARATOR.join(make(chr(cp)) for cp in part)).split(SEPARATOR)
        if len(pieces) != len(part):
            raise RuntimeError(f"the separator did not survive near U+{part[0]:04X}")
        result.update(zip(part, pieces, strict=True))
    return result


def probe() -> Tables:
    """Ask the installed `tokenizers` about every code point."""
    from tokenizers import normalizers, pre_tokenizers

    flags = [0] * 0x110000

    def bert(**on: bool) -> Callable[[str], str]:
        settings: dict[str, Any] = dict.fromkeys(
            ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"), False
        )
        return normalizers.BertNormalizer(**(settings | on)).normalize_str

    cleaner = bert(clean_text=True)
    for cp in code_points():
        cleaned = cleaner(chr(cp))
        flags[cp] |= DROP * (cleaned == "") | SPACE * (cleaned == " " and cp != 0x20)
    for cp, text in apply(bert(handle_chinese_chars=True)).items():
        flags[cp] |= IDEOGRAPH * (text == f" {chr(cp)} ")
    decompose = normalizers.NFD().normalize_str
    decomposition = {cp: text for cp, text in apply(decompose).items() if text != chr(cp)}
    for cp, text in apply(bert(strip_accents=True)).items():
        flags[cp] |= MARK * (text == "" and cp not in decomposition)
    lower = {cp: text for cp, text in apply(bert(lowercase=True)).items() if text != chr(cp)}
    check_stripping(bert(strip_accents=True), decomposition, flags)

    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    for cp in code_points():
        words = [word for word, _ in split(f"a{chr(cp)}a")]
        flags[cp] |= WHITESPACE * (words == ["a", "a"]) | PUNCTUATION * (words == ["a", chr(cp), "a"])
    for cp in code_points():
        flags[cp] |= WORD * is_word(chr(cp))
    for cp in HANGUL:
        if decomposition.pop(cp) != hangul(cp):
            raise RuntimeError(f"U+{cp:04X} does not decompose by the Hangul rule")
    return Tables(flags, decomposition, lower, combining_classes(decompose, decomposition))


def check_stripping(strip: Callable[[str], str], decomposition: dict[int, str], flags: list[int]) -> None:
    """Stripping must be decomposition followed by dropping the marks, for every character."""
    for cp, text in apply(strip).items():
        parts = decomposition.get(cp, chr(cp))
        if text != "".join(c for c in parts if not flags[ord(c)] & MARK):
            raise RuntimeError(f"U+{cp:04X} is not stripped as decomposition plus marks says")


@functools.cache
def _single_word() -> Tokenizer:
    """A tokenizer that knows one token, which is found only where no word stands beside it."""
    from tokenizers import AddedToken, Tokenizer, models

    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.add_tokens([AddedToken("\U000f0000", single_word=True, normalized=False)])
    return tokenizer


def is_word(character: str) -> bool:
    r"""Whether the regular expression `\w` of `single_word` tokens matches the character."""
    return len(_single_word().encode(character + "\U000f0000").ids) == 1 and character != "\U000f0000"


def hangul(cp: int) -> str:
    """The decomposition of a precomposed syllable."""
    index = cp - HANGUL.start
    trailing = index % 28
    leading = chr(0x1100 + index // 588) + chr(0x1161 + index % 588 // 28)
    return leading + (chr(0x11A7 + trailing) if trailing else "")


def combining_classes(decompose: Callable[[str], str], decomposition: dict[int, str]) -> dict[int, int]:
    """Canonical combining classes, found from which neighbours change places."""
    top, bottom = chr(CLASS_SAMPLES[240]), chr(CLASS_SAMPLES[1])
    behind = apply(decompose, lambda c: "a" + top + c)
    before = apply(decompose, lambda c: "a" + c + bottom)
    classes = {}
    for cp in code_points():
        c = chr(cp)
        if cp in decomposition or cp in HANGUL or cp == ord(SEPARATOR):
            continue
        if behind[cp] == "a" + top + c and before[cp] == "a" + c + bottom:
            continue
        exact = [k for k, sample in CLASS_SAMPLES.items() if sample == cp or stays(decompose, c, chr(sample))]
        if len(exact) != 1:
            raise RuntimeError(f"U+{cp:04X} has a combining class that no sample has")
        classes[cp] = exact[0]
    return classes


def stays(decompose: Callable[[str], str], one: str, other: str) -> bool:
    """Whether two different marks keep their order either way, so are of one class."""
    if ord(one) in CLASS_SAMPLES.values():
        return False
    return decompose(f"a{one}{other}") == f"a{one}{other}" and decompose(f"a{other}{one}") == f"a{other}{one}"


def render(tables: Tables) -> str:
    """The tables as C++ array initialisers."""
    changes, previous = [], -1
    for cp, flags in enumerate(tables.flags):
        if flags != previous:
            changes.append(f"{{0x{cp:X},{flags}}}")
            previous = flags
    classes, last = [], None
    for cp, value in sorted(tables.combining_class.items()):
        if last is not None and last[1] == cp - 1 and last[2] == value:
            last[1] = cp
        else:
            classes.append(last := [cp, cp, value])
    decomposed = [
        f"0x{cp:X},{len(text)}," + ",".join(f"0x{ord(c):X}" for c in text)
        for cp, text in sorted(tables.decomposition.items())
    ]
    lowered = []
    for cp, text in sorted(tables.lower.items()):
        if len(text) == 1:
            lowered.append(f"{{0x{cp:X},0x{ord(text):X}}}")
        elif (cp, text) != (0x130, "i\u0307"):
            raise RuntimeError(f"U+{cp:04X} has a lower case of several characters, which unicode.cpp does not know")
    return "\n".join(
        [
            f"// Made by tools/probe_hf_tables.py from tokenizers {PROBED_VERSION}; do not edit.",
            "// {first code point, flags} up to the next entry: 1 dropped, 2 made a space, 4 ideograph, 8 mark,",
            "// 16 punctuation, 32 whitespace, 64 word character.",
            table("constexpr FlagChange kFlagChanges[]", changes),
            "// code point, length, canonical decomposition; Hangul syllables are computed.",
            table("constexpr char32_t kDecompositions[]", decomposed),
            "// {code point, lower case}; U+0130 is computed.",
            table("constexpr LowerCase kLowerCases[]", lowered),
            "// {first, last, canonical combining class}.",
            table("constexpr CombiningRange kCombiningRanges[]", [f"{{0x{a:X},0x{b:X},{c}}}" for a, b, c in classes]),
            "",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Write the tables, or with --check compare them."""
    options = options_of(__doc__).parse_args(argv)
    return write_or_check(PROBED_VERSION, OUTPUT, lambda: render(probe()), check=options.check)


if __name__ == "__main__":
    sys.exit(main())
