"""Ids and offsets against Hugging Face `tokenizers`, single texts."""

import json
import pkgutil
import pydoc
import unicodedata

import pytest
import transformers
from tokenizers import AddedToken, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Reference

from bgert.tokenizer import Tokenizer
from bgert.tokenizer.spec import AddedTokenSpec, TemplateSpec, TokenizerSpec, WordPieceSettings

NASTY = [
    "",
    " ",
    "\0",
    "a\0b",
    "\ufffd",
    "\x0b\x0c\x85",
    "a\u200bb\u200d\ufeffc\u00ad",
    "tab\tnewline\nreturn\r\n",
    "non\u00a0breaking\u3000ideographic\u2028line\u2029paragraph",
    "Café café CAFÉ cafe\u0301 Cafe\u0301\u0323",
    "İstanbul ı I\u0307 ß ẞ ς Σ",
    "\u0301\u0301 \u0301a",
    "\u226e \u2260 \u1fef \u037e \u0387",
    "한국어 각 \u1112\u1161\u11ab",
    "我喜欢自然语言处理。Hello世界!豈\uf900\U0002f800",
    "\U0002b81f\U0002b820\U0002b91f\U0002b920\U0002ceaf\U0002ceb0",
    "ｈａｌｆ ｗｉｄｔｈ ﬁ ① ½ ²",
    "👩‍👩‍👧‍👦 🇩🇪 🏳️‍🌈 👍🏽",
    "שָׁלוֹם مَرْحَبًا नमस्ते สวัสดี ༀམ",
    "\u1b44\u302e\u0308 \ua953\u302e\u1b44 a\u302e\u0301\u1b44",
    "\U0001d15e\U0001d16e \U0001d160\U0001d165 \U0001d15f\U00011c3f",
    "\u08d4\u1b44\u200b\u0903\u302e",
    "don't U.S.A. e-mail@example.com https://a.b/c?d=e&f#g $3.50 50% _x_ ^ `",
    "a" * 99 + " " + "b" * 100 + " " + "c" * 101 + " " + "é" * 100 + " " + "\u0301" * 300,
    "supercalifragilisticexpialidocious antidisestablishmentarianism 1234567890123456789",
    "[CLS]a[SEP] [MASK][PAD][UNK] [cls] [MASK [MASK]] a[CLS]b",
    "##able ## # un##able",
    "word " * 2000,
    "\U0010ffff\U000e0001\ue000\ud7ff\u0378",
]
DOCSTRING_MODULES = ("argparse", "asyncio", "decimal", "difflib", "email", "heapq", "logging", "os", "random", "typing")


@pytest.fixture(scope="module", params=["uncased", "cased", "cased-stripped", "raw"])
def both(request, demo_checkpoint, cased_vocab, tokenizer_json, write_checkpoint, tmp_path_factory):
    """(ours, theirs) for one vocabulary and one normaliser."""
    if request.param == "uncased":
        folder = demo_checkpoint
    else:
        steps = {
            "cased": {"lowercase": False},
            "cased-stripped": {"lowercase": False, "strip_accents": True},
            "raw": {"lowercase": False, "clean_text": False, "handle_chinese_chars": False},
        }[request.param]
        body = tokenizer_json(cased_vocab, **steps)
        folder = write_checkpoint(tmp_path_factory.mktemp(request.param), cased_vocab, tokenizer=body)
    theirs = Reference.from_file(str(folder / "tokenizer.json"))
    theirs.no_truncation()
    theirs.no_padding()
    return Tokenizer.from_folder(folder), theirs


def assert_same(ours, theirs, texts):
    expected = theirs.encode_batch(texts)
    assert_same_ids(ours, texts, [encoding.ids for encoding in expected])
    for text, want in zip(texts, expected, strict=True):
        assert places(ours.tokens(text)) == [want.ids, want.offsets, want.special_tokens_mask], ascii(text)


def assert_same_ids(ours, texts, expected):
    actual = ours.encode_batch(texts, truncation="do_not_truncate").tolist()
    for text, want, got in zip(texts, expected, actual, strict=True):
        assert got == want, ascii(text)


def places(tokens):
    """Ids, offsets and the mask of special tokens as `tokenizers` has them."""
    return [
        [token.id for token in tokens],
        [(0, 0) if token.special else (token.start, token.stop) for token in tokens],
        [int(token.special) for token in tokens],
    ]


def character(rng):
    kind = rng.random()
    if kind < 0.3:
        return chr(rng.randrange(32, 127))
    if kind < 0.4:
        return rng.choice(" \t\n\0\u00a0\u200b\u3000")
    if kind < 0.55:
        return chr(rng.choice(MARKS))
    if kind < 0.65:
        return chr(rng.choice([rng.randrange(0x4E00, 0xA000), rng.randrange(0xAC00, 0xD7A4)]))
    code_point = rng.randrange(0x3000) if kind < 0.9 else rng.randrange(0x110000)
    return "\ufffd" if 0xD800 <= code_point < 0xE000 else chr(code_point)


MARKS = [cp for cp in range(0x1F000) if unicodedata.combining(chr(cp))]


def test_nasty_strings(both):
    assert_same(*both, NASTY)


def test_every_code_point_alone_and_inside_a_word(both):
    points = [chr(cp) for cp in range(0x110000) if not 0xD800 <= cp < 0xE000]
    step = 3000
    texts = [" ".join(points[i : i + step]) for i in range(0, len(points), step)]
    texts += ["".join(f"a{c}b" for c in points[i : i + step]) for i in range(0, 0x3400, step)]
    assert_same(*both, texts)


def test_docstrings_of_the_standard_library(both):
    names = [m.name for m in pkgutil.iter_modules() if m.name in DOCSTRING_MODULES]
    texts = [pydoc.plain(pydoc.render_doc(name)) for name in names]
    ours, theirs = both
    lines = [line for text in texts for line in text.split("\n")]
    assert_same_ids(ours, texts, [encoding.ids for encoding in theirs.encode_batch(texts)])
    assert_same(ours, theirs, lines)


def test_random_text_of_all_planes(both, rng):
    texts = ["".join(character(rng) for _ in range(rng.randrange(60))) for _ in range(3000)]
    assert_same(*both, texts)


def test_random_settings_vocabularies_and_added_tokens(rng):
    for _ in range(15):
        texts = ["".join(character(rng) for _ in range(rng.randrange(40))) for _ in range(60)]
        steps = {
            "clean_text": rng.random() < 0.8,
            "handle_chinese_chars": rng.random() < 0.8,
            "strip_accents": rng.choice([None, True, False]),
            "lowercase": rng.random() < 0.6,
        }
        normalizer = normalizers.BertNormalizer(**steps)
        normal = "".join(normalizer.normalize_str(text) for text in texts)
        cuts = [rng.randrange(len(normal)) for _ in range(300)]
        pieces = [normal[i : i + rng.randrange(1, 4)] for i in cuts]
        prefix = rng.choice(["##", "##", "", "x"])
        specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        vocab = list(dict.fromkeys(specials + pieces + [prefix + piece for piece in pieces]))
        settings = WordPieceSettings("[UNK]", prefix, rng.choice([100, 5, 1]), **steps)

        model = models.WordPiece(
            {token: i for i, token in enumerate(vocab)},
            unk_token="[UNK]",
            continuing_subword_prefix=prefix,
            max_input_chars_per_word=settings.max_input_chars_per_word,
        )
        theirs = Reference(model)
        theirs.normalizer = normalizer
        theirs.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        added = [AddedToken(token, special=True, normalized=False) for token in specials]
        patterns = set(specials)
        for _ in range(rng.randrange(6)):
            content = "".join(character(rng) for _ in range(rng.randrange(1, 4)))
            normalized = rng.random() < 0.5
            pattern = normalizer.normalize_str(content) if normalized else content
            # Of equal patterns `tokenizers` takes one at random; on overlapping stripped whitespace it panics.
            if not pattern or pattern in patterns or any(c.isspace() for c in content):
                continue
            patterns.add(pattern)
            names = ("special", "lstrip", "rstrip", "single_word")
            added.append(AddedToken(content, normalized=normalized, **{name: rng.random() < 0.4 for name in names}))
        theirs.add_tokens(added)
        names = ("content", "special", "single_word", "lstrip", "rstrip", "normalized")
        specs = [
            AddedTokenSpec(id=theirs.token_to_id(t.content), **{name: getattr(t, name) for name in names})
            for t in added
        ]
        none = TemplateSpec(prefix=[], suffix=[])
        ours = Tokenizer(TokenizerSpec("wordpiece", settings, vocab, specs, none, none))
        texts += [text + token.content + " " + token.content for text in texts[:20] for token in added]
        for split in (False, True):
            theirs.encode_special_tokens = split
            actual = ours.encode_batch(texts, split_special_tokens=split).tolist()
            for text, want, got in zip(texts, theirs.encode_batch(texts), actual, strict=True):
                assert got == want.ids, (ascii(text), settings, specs, split)
                placed = places(ours.tokens(text, split_special_tokens=split))
                assert placed == [want.ids, want.offsets, want.special_tokens_mask], (ascii(text), settings, specs)


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word", "normalized", "special"])
def test_added_token_flags(demo_checkpoint, write_checkpoint, tmp_path, flag):
    body = json.loads((demo_checkpoint / "tokenizer.json").read_text())
    size = len(body["model"]["vocab"])
    flags = dict.fromkeys(("special", "single_word", "lstrip", "rstrip", "normalized"), False) | {flag: True}
    contents = ["<Tag>", "Éa", " x", "foo", "foobar", "日本"]
    body["added_tokens"] += [{"id": size + i, "content": c} | flags for i, c in enumerate(contents)]
    body |= {"truncation": None, "padding": None}
    folder = write_checkpoint(tmp_path, [], tokenizer=body, vocab_txt=False)
    ours, theirs = Tokenizer.from_folder(folder), Reference.from_file(str(folder / "tokenizer.json"))
    texts = [f"{a}{c}{b}" for c in (*contents, "<tag>", "éa", "FOO", "fooba") for a in ("", "a", "é ", " \t", "_", "x ")
             for b in ("", "b", " b", "\u3000\n", "́", "foo", " x")]  # fmt: skip
    assert_same(ours, theirs, texts)
    theirs.encode_special_tokens = True
    expected = [encoding.ids for encoding in theirs.encode_batch(texts)]
    assert ours.encode_batch(texts, split_special_tokens=True).tolist() == expected


@pytest.mark.parametrize("name", ["bert-base-uncased", "bge-small-zh-v1.5"])
def test_golden_ids_of_published_vocabularies(shared_data, name):
    ours = Tokenizer.from_folder(shared_data / "tokenizers" / name)
    lines = (shared_data / "tokenizers" / "golden" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    actual = ours.encode_batch([row["t"] for row in rows], truncation="do_not_truncate").tolist()
    theirs = transformers.AutoTokenizer.from_pretrained(str(shared_data / "tokenizers" / name)).backend_tokenizer
    theirs.no_truncation()
    for row, got in zip(rows, actual, strict=True):
        assert got == row["ids"], ascii(row["t"])
    assert_same(ours, theirs, [row["t"] for row in rows])


def test_whitespace_tokens_that_a_neighbour_strips(demo_checkpoint, write_checkpoint, tmp_path):
    body = json.loads((demo_checkpoint / "tokenizer.json").read_text()) | {"truncation": None, "padding": None}
    flags = {"special": False, "single_word": False, "lstrip": True, "rstrip": True, "normalized": False}
    size = len(body["model"]["vocab"])
    body["added_tokens"] += [{"id": size, "content": "\r"} | flags, {"id": size + 1, "content": "<x>"} | flags]
    folder = write_checkpoint(tmp_path, [], tokenizer=body, vocab_txt=False)
    texts = ["a \r b", " \r \r(b", "\r \r", "a <x> b", "<x> <x>", " \r", "a\r\rb"]
    assert_same(Tokenizer.from_folder(folder), Reference.from_file(str(folder / "tokenizer.json")), texts)
