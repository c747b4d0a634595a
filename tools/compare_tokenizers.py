"""Compare a tokenizer folder with Hugging Face on generated hostile text.

Compared are ids, the offsets and special tokens of `Tokenizer.tokens`, `decode` of the ids with special tokens and
without, and ids of texts and pairs that lose their beginning (`truncation_side="left"`).

    python tools/compare_tokenizers.py FOLDER --texts 200000 --seed 1

The reference is the pipeline that `transformers.AutoTokenizer` builds; with `--raw` it is `tokenizer.json` as
`tokenizers` reads it, whose Unigram scores are less exact, so that a few ties are decided otherwise.
Exits 1 if anything differs and prints the first differences, the shortest texts first.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bgert.tokenizer import Tokenizer
from bgert.tokenizer.checkpoint import read_checkpoint
from bgert.tokenizer.spec import TokenizerSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tokenizers import Tokenizer as Reference

CHUNK = 4000
MOST_CUT_TOKENS = 60  # of a text that is cut: `tokenizers` keeps every part that it cuts off a pair, with every other
SPECIALS = ["<s>", "</s>", "<pad>", "<unk>", "<mask>", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"]
MARKS = [*range(0x300, 0x370), 0x483, 0x5B0, 0x5BC, 0x610, 0x64B, 0x651, 0x670, 0x6D6, 0x711, 0x7A6, 0x897, 0x93C,
         0x94D, 0x9BC, 0x9BE, 0xB56, 0xBBE, 0xE31, 0xF71, 0xF72, 0x1AB0, 0x1ACF, 0x1AEB, 0x1DC0, 0x20D0, 0x20E3,
         0x302A, 0x302E, 0x3099, 0x309A, 0xA66F, 0xFE0F, 0xFE20, 0xFF9E, 0xFF9F, 0x1F3FB, 0xE0020, 0xE0100]  # fmt: skip
PREPEND = [0x600, 0x601, 0x604, 0x605, 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0xD4E, 0x110BD, 0x111C2, 0x1193F]
SPACES = [*range(9, 14), 0x1C, 0x20, 0x85, 0xA0, 0xAD, 0x1680, *range(0x2000, 0x2010), 0x2028, 0x2029, 0x202F, 0x205F,
          0x2060, 0x3000, 0x180E, 0xFEFF, 0xFFFD, 0x2581]  # fmt: skip
CONJUNCTS = [0x915, 0x937, 0x958, 0x94D, 0x93C, 0x94D, 0x995, 0x9CD, 0xA15, 0xACD, 0xD15, 0xD4D, 0x1000, 0x1039]
EMOJI = [0x1F468, 0x1F469, 0x1F466, 0x2764, 0xA9, 0xAE, 0x3030, 0x303D, 0x3297, 0x200D, 0x200D, 0xFE0F, 0x1F3FD]
RANGES = [
    (0x20, 0x7F), (0xA0, 0x250), (0x370, 0x530), (0x590, 0x800), (0x900, 0xE80), (0xF00, 0x1000),
    (0x1E00, 0x2000), (0x2000, 0x2C00), (0x3000, 0x3400), (0x4E00, 0xA000), (0xA000, 0xAC00),
    (0xAC00, 0xD7A4), (0xF900, 0x10000), (0x10000, 0x20000), (0x2F800, 0x2FA20), (0xE0000, 0xE0200),
]  # fmt: skip


class Generator:
    """Text that is hard on normalisers: clusters, marks, exotic spaces, special tokens in every guise."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._parts: list[Callable[[], str]] = [
            self._word, self._word, self._base_and_marks, self._base_and_marks, self._jamo, self._emoji, self._kana,
            self._prepend, self._flag, self._line_break, self._special, self._space, self._conjunct, self._any,
            self._any, self._ideographs, self._contraction, self._run, self._cased,
        ]  # fmt: skip

    def text(self) -> str:
        """One text, from nothing to some dozens of pieces."""
        count = self._draw.choice([1, 2, 3, 4, 6, 10, 30])
        return "".join(self._draw.choice(self._parts)() for _ in range(count))

    def texts(self, count: int) -> Iterator[str]:
        """So many of them."""
        return (self.text() for _ in range(count))

    def _one(self, points: list[int]) -> str:
        return chr(self._draw.choice(points))

    def _many(self, points: list[int], most: int) -> str:
        return "".join(self._one(points) for _ in range(self._draw.randint(1, most)))

    def _char(self) -> str:
        first, stop = self._draw.choice(RANGES)
        return chr(self._draw.randrange(first, stop))

    def _any(self) -> str:
        code = self._draw.randrange(0x110000)
        return self._char() if 0xD800 <= code < 0xE000 or self._draw.random() < 0.7 else chr(code)

    def _word(self) -> str:
        letters = "aAeEiIoOuUnNcCsSzZtTlLrR" if self._draw.random() < 0.8 else "abcxyz0189.,-'/()#@"
        word = "".join(self._draw.choice(letters) for _ in range(self._draw.randint(1, 8)))
        return word + self._draw.choice(["", " ", " ", "\u0301", "  "])

    def _base_and_marks(self) -> str:
        base = self._draw.choice("aeiouAEOUncsz½'^ .") if self._draw.random() < 0.6 else self._char()
        return base + self._many(MARKS, 3)

    def _jamo(self) -> str:
        draw = self._draw
        parts = [chr(draw.randrange(*span)) for span in ((0x1100, 0x1120), (0x1160, 0x1180), (0x11A7, 0x11C3))]
        syllable = chr(draw.randrange(0xAC00, 0xD7A4)) + draw.choice(["", "\u0301", parts[1], parts[2], "\u302e"])
        return draw.choice([syllable, "".join(parts), "".join(parts[:2]), parts[0], parts[0] + syllable, parts[2]])

    def _emoji(self) -> str:
        return self._many(EMOJI, 5)

    def _kana(self) -> str:
        draw = self._draw
        marks = ["", "\uff9e", "\uff9f", "\u3099", "\u309a", "\u0651", "\u0301"]
        span = draw.choice([(0xFF66, 0xFF9E), (0x3041, 0x3097), (0x30A1, 0x30FB)])
        return "".join(chr(draw.randrange(*span)) + draw.choice(marks) for _ in range(draw.randint(1, 4)))

    def _prepend(self) -> str:
        return self._many(PREPEND, 2) + self._draw.choice(["", "e", "½", "e\u0301", "\uff76", self._char()])

    def _flag(self) -> str:
        return self._many(list(range(0x1F1E6, 0x1F200)), 4) + self._draw.choice(["", "\u0301", "a"])

    def _line_break(self) -> str:
        return self._draw.choice(["\r\n", "\n", "\r", "\r\r\n", "\n\r", "\r\n\u0301", "\r\u0301"])

    def _special(self) -> str:
        token = self._draw.choice(SPECIALS)
        return self._draw.choice([
            token, token, "".join(chr(ord(c) + 0xFEE0) for c in token), token.upper(), token[:-1],
            token[0] + "\u0301" + token[1:], token + "\u0301", "\uff1c" + token[1:], " " + token + " ",
        ])  # fmt: skip

    def _space(self) -> str:
        return self._many(SPACES, 3)

    def _conjunct(self) -> str:
        return self._many(CONJUNCTS, 5) + self._draw.choice(["", "\u0301", "\u200d", "\u200d\u0915"])

    def _ideographs(self) -> str:
        return "".join(chr(self._draw.randrange(0x4E00, 0x9FFF)) for _ in range(self._draw.randint(1, 6)))

    def _contraction(self) -> str:
        draw = self._draw
        end = draw.choice(["s", "t", "re", "ve", "m", "ll", "d", "l", "r", "v", "\u017f", "\u212a", "e", ""])
        return (
            draw.choice(["", " ", "a", "B", "1"])
            + draw.choice("''\u2019")
            + draw.choice([end, end.upper(), end.title()])
        )

    def _run(self) -> str:
        """The same or like characters, and what may end them."""
        one = self._draw.choice(["0", "\u0661", "\u00bd", " ", "\t", "\u00a0", "\n", "!", "/", "-", "a", "A", "\u0301"])
        return one * self._draw.randint(1, 9) + self._draw.choice(["", "", " ", "\n", "/\n", "a", "7", "."])

    def _cased(self) -> str:
        """Words of letters with case, without, and marks."""
        return "".join(
            self._draw.choice("aaABb\u01c5\u02b0\u00e9\u00c9\u0301\u0430\u0410\u5b57\u0928") for _ in range(9)
        )


class Difference(NamedTuple):
    """Something that is not as `tokenizers` has it."""

    what: str
    text: str
    reference: Any
    bgert: Any


def differences(ours: Tokenizer, theirs: Reference, texts: list[str], max_length: int) -> Iterator[Difference]:
    """Compares everything; `max_length` is for the texts that lose their beginning."""
    ids = ours.encode_batch(texts, truncation="do_not_truncate").tolist()
    for text, encoding, row in zip(texts, theirs.encode_batch(texts), ids, strict=True):
        if row != encoding.ids:
            yield Difference("ids", text, encoding.ids, row)
        tokens = ours.tokens(text)
        expected = list(zip(encoding.ids, encoding.offsets, map(bool, encoding.special_tokens_mask), strict=True))
        actual = [(token.id, (token.start or 0, token.stop or 0), token.special) for token in tokens]
        if actual != expected:
            yield Difference("offsets", text, expected, actual)
        for skip in (False, True):
            if (back := ours.decode(row, skip)) != (wanted := theirs.decode(row, skip_special_tokens=skip)):
                yield Difference("decode", text, wanted, back)
    texts = [text for text, row in zip(texts, ids, strict=True) if len(row) <= MOST_CUT_TOKENS]
    theirs.enable_truncation(max_length, strategy="longest_first", direction="left")
    options: dict[str, Any] = {"max_length": max_length, "truncation_side": "left"}
    others = texts[1:] + texts[:1]
    rows = [encoding.ids for encoding in theirs.encode_batch(texts)]
    pairs = [encoding.ids for encoding in theirs.encode_batch(list(zip(texts, others, strict=True)))]
    theirs.no_truncation()
    for wanted_rows, batch in (
        (rows, ours.encode_batch(texts, **options)),
        (pairs, ours.encode_batch(texts, others, **options)),
    ):
        for text, want, got in zip(texts, wanted_rows, batch.tolist(), strict=True):
            if got != want:
                yield Difference("left", text, want, got)


def through_model_folder(folder: Path) -> Tokenizer:
    """The tokenizer as an exported model folder has it."""
    spec = read_checkpoint(folder)
    with tempfile.TemporaryDirectory() as exported:
        section = spec.write(exported)
        return Tokenizer(TokenizerSpec.read(exported, section, spec.max_length))


def main(argv: list[str] | None = None) -> int:
    """Run as a command; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="checkpoint folder")
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is printed")
    parser.add_argument("--raw", action="store_true", help="compare with tokenizer.json as `tokenizers` reads it")
    parser.add_argument("--show", type=int, default=10, help="differences to print")
    args = parser.parse_args(argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import transformers  # here, so that --help needs numpy alone
    from tokenizers import Tokenizer as Reference

    seed = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
    ours = through_model_folder(args.folder)
    if args.raw:
        theirs = Reference.from_file(str(args.folder / "tokenizer.json"))
    else:
        theirs = transformers.AutoTokenizer.from_pretrained(str(args.folder)).backend_tokenizer
    theirs.no_truncation()
    theirs.no_padding()
    generator = Generator(seed)
    found: list[Difference] = []
    for number, start in enumerate(range(0, args.texts, CHUNK)):
        texts = list(generator.texts(min(CHUNK, args.texts - start)))
        found += differences(ours, theirs, texts, max_length=ours.pair_special_tokens + number % 20)
    for what, text, want, got in sorted(found, key=lambda difference: len(difference.text))[: args.show]:
        print(f"{what} of {text!a}\n  reference {want!a}\n  bgert     {got!a}")
    counts = Counter(difference.what for difference in found)
    listed = ", ".join(f"{what} {counts[what]}" for what in ("ids", "offsets", "decode", "left"))
    print(f"{args.folder.name}: {args.texts} texts, seed {seed}: these differ: {listed}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
