"""The committed table of grapheme clusters is what the installed `tokenizers` does."""

import random

import pytest
import tokenizers
from tokenizers import normalizers

from bgert import _native
from bgert.tokenizer.unigram_file import pack

CLASSES = [0x61, 0xA9, 0x20, 0x0D, 0x0A, 0x300, 0x301, 0x483, 0x600, 0x6DD, 0x915, 0x937, 0x94D, 0x93C, 0x903, 0x9CD,
           0x995, 0x200D, 0x1100, 0x1161, 0x11A8, 0xAC00, 0xAC01, 0x16D63, 0x1F1E6, 0x1F468, 0x1F3FD, 0xFE0F, 0x110BD,
           0xE0020, 0xD4E, 0x200B, 0x302E, 0xFF9E, 0xF71, 0x1039, 0x1000, 0xAA, 0x10FFFF]  # fmt: skip


@pytest.fixture(scope="module")
def probe(tool):
    module = tool("probe_grapheme_tables")
    if not tokenizers.__version__.startswith(module.PROBED_VERSION + "."):
        pytest.skip(f"the table is pinned to tokenizers {module.PROBED_VERSION}, this is {tokenizers.__version__}")
    return module


def table(text):
    """The committed properties by code point."""
    cells = text[text.index("= {") + 3 : text.rindex("};")].replace("\n", "").strip(",").strip("{}").split("},{")
    changes = [(int(first, 16), int(value)) for first, value in (cell.split(",") for cell in cells)]
    found = {}
    for (first, value), (stop, _) in zip(changes, [*changes[1:], (0x110000, 0)], strict=True):
        found.update(dict.fromkeys(range(first, stop), value))
    return found


def test_a_sample_is_what_the_probe_finds(probe, rng):
    committed = table(probe.OUTPUT.read_text(encoding="utf-8"))
    points = [cp for cp in rng.sample(range(0x110000), 20_000) if not 0xD800 <= cp < 0xE000]
    points = sorted({*points, *(cp for cp in range(0x3200) if cp != 0x0A), *CLASSES} - {0x0A})
    found = probe.probe(points)
    assert {hex(cp): (v, committed[cp]) for cp, v in found.items() if v != committed[cp]} == {}
    assert probe.OUTPUT.stat().st_size < 40_000


def test_clusters_of_random_text(tool, rng):
    """Rules for every character make it visible which characters are of one short cluster."""
    builder = tool("charsmap_builder")
    points = [chr(cp) for cp in CLASSES if cp not in (0x20, 0x0A, 0x0D)]
    blob = builder.charsmap({c: f"{i:x}." for i, c in enumerate(points)})
    theirs = normalizers.Precompiled(blob)
    vocab = ["<unk>", "\u2581", *"0123456789abcdef."]
    ours = _native.UnigramModel(pack(vocab, [-1.0] * len(vocab), 0, blob), added_tokens=[])
    nothing = _native.Template(
        prefix=[], middle=[], suffix=[], prefix_type=0, first_type=0, middle_type=0, second_type=0, suffix_type=0
    )
    encoder = _native.BatchEncoder(ours, nothing, nothing)
    draw = random.Random(rng.randrange(2**32))
    texts = ["".join(chr(draw.choice(CLASSES)) for _ in range(draw.randint(1, 12))) for _ in range(20_000)]
    ids, cuts, _, _ = encoder.encode(
        texts, None, max_length=None, truncation="do_not_truncate", query_max_length=None, add_special_tokens=False,
        split_special_tokens=False, threads=1, truncation_side="right",
    )  # fmt: skip
    for i, text in enumerate(texts):
        words = theirs.normalize_str(text).split()
        expected = [vocab.index(c) for word in words for c in "\u2581" + word]
        assert ids[cuts[i] : cuts[i + 1]].tolist() == expected, ascii(text)
