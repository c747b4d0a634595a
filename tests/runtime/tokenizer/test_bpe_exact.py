"""Byte-level BPE against `tokenizers` and `transformers`: ids, offsets, decoding, truncation."""

import itertools

import pytest
import transformers
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Reference

from bgert.errors import InvalidTextError
from bgert.tokenizer import Tokenizer
from bgert.tokenizer.split_patterns import PATTERNS

NASTY = [
    "",
    " ",
    "  ",
    "\n",
    " \n",
    "\n ",
    " \n \n a",
    "a \n\r\n  b  ",
    "\0",
    "a\0",
    "a\0b\0",
    "\0\0 \0",
    "\ufffd\ufffe\uffff",
    "\x85a\x85 \u2028b",
    "\u3000a\u00a0b \u2003 c",
    "don't DON'T 'S 's' ''s can'ts '\u017f 'LL 'lL \u2019s 're've",
    "12 123 1234 12345678 ١٢٣٤ ½½ Ⅷ ²",
    "a1b2 _c_ d-e f/g\n/\n !!\n\n ??\r\n",
    "HTTPServer parseXML CamelCase ABCd aBC ǅa ʰA ªB 漢A字b",
    "e\u0301 \u0301e e\u0302\u0301 a\u0301\u0302 \u0344 \u212b \u2126 \u1e9b\u0323",
    "\u1112\u1161\u11ab 가\u11a8 \u1100가 각\u11a8",
    "\u2000\u2001 \u0958 \ufb1d \U0002f800 q\u0323\u0307 \u0307\u0323",
    "👩\u200d👩 🇩🇪🇫 🏳️\u200d🌈",
    "<s>a</s> <mask>  <mask> b<mask> <pad>",
    " a [MASK]  [MASK] [CLS][SEP]b   [UNK]    ",
    "<|begin_of_text|> <|mask|>x",
    "word " * 300,
    "x" * 33 + " " + "y" * 32 + " " + "ab" * 40,
    " " * 100 + "a" + "\n" * 50 + "b" + "\t" * 9,
    "日本語" * 50,
    "\U0010ffff\ue000\ud7ff\u0378",
    "Ġ Ċa Ā",
]
KINDS = ["roberta", "roberta with prefix", "modernbert", "llama3", "qwen2", "gpt4o", "gpt2 behind NFC and prefix"]


def made(bpe, name):
    return {
        "roberta": bpe.roberta,
        "roberta with prefix": lambda: bpe.roberta(prefix=True),
        "modernbert": bpe.modernbert,
        "llama3": bpe.llama3,
        "qwen2": lambda: bpe.llama3("qwen2", nfc=True),
        "gpt4o": lambda: bpe.llama3("gpt4o"),
        "gpt2 behind NFC and prefix": lambda: bpe.modernbert(prefix=True),
    }[name]()


@pytest.fixture(scope="module", params=KINDS)
def both(request, bpe, tmp_path_factory):
    """(ours, theirs)"""
    theirs = made(bpe, request.param)
    folder = bpe.write(tmp_path_factory.mktemp("bpe"), theirs)
    return Tokenizer(folder), theirs


def assert_same(ours, theirs, texts):
    rows = ours.encode_batch(texts, truncation="do_not_truncate").tolist()
    for text, want, got in zip(texts, theirs.encode_batch(texts), rows, strict=True):
        assert got == want.ids, ascii(text)
        tokens = ours.tokens(text)
        assert [token.id for token in tokens] == want.ids, ascii(text)
        places = [(0, 0) if token.special else (token.start, token.stop) for token in tokens]
        assert places == want.offsets, ascii(text)
        for skip in (False, True):
            assert ours.decode(got, skip) == theirs.decode(got, skip_special_tokens=skip), ascii(text)


def test_nasty_strings(both):
    assert_same(*both, NASTY)


def test_generated_text_of_all_planes(both, compare, rng):
    ours, theirs = both
    texts = list(compare.Generator(rng.randrange(2**32)).texts(600))
    assert list(compare.differences(ours, theirs, texts, ours.pair_special_tokens + 12)) == []


@pytest.mark.parametrize("both", ["roberta", "modernbert", "qwen2", "gpt4o"], indirect=True)
def test_every_code_point_alone_and_inside_a_word(both):
    ours, theirs = both
    points = [chr(cp) for cp in range(0x110000) if not 0xD800 <= cp < 0xE000]
    texts = [" ".join(points[i : i + 3000]) for i in range(0, len(points), 3000)]
    texts += ["".join(f"a{c}B1{c}" for c in points[i : i + 3000]) for i in range(0, 0x3400, 3000)]
    expected = [encoding.ids for encoding in theirs.encode_batch(texts)]
    assert ours.encode_batch(texts, truncation="do_not_truncate").tolist() == expected


def test_short_strings_of_what_the_expressions_tell_apart(both):
    ours, theirs = both
    alphabet = ["a", "B", " ", "\n", "1", "'", "s", "!", "/", "é", "\u0301", "\u3000", "\u5b57", "\0"]
    texts = ["".join(letters) for length in (1, 2, 3) for letters in itertools.product(alphabet, repeat=length)]
    expected = [encoding.ids for encoding in theirs.encode_batch(texts)]
    assert ours.encode_batch(texts, truncation="do_not_truncate").tolist() == expected


def test_random_ids_are_decoded_as_bytes(both, rng):
    ours, theirs = both
    size = theirs.get_vocab_size()
    rows = [[rng.randrange(size) for _ in range(rng.randrange(12))] for _ in range(1000)]
    rows += [[rng.randrange(270) for _ in range(rng.randrange(8))] for _ in range(2000)]  # bytes that are no UTF-8
    for row in rows:
        for skip in (False, True):
            assert ours.decode(row, skip) == theirs.decode(row, skip_special_tokens=skip), row


def test_pairs_truncation_count_and_limits(both, compare, rng):
    ours, theirs = both
    texts = [*NASTY, *compare.Generator(rng.randrange(2**32)).texts(200)]
    lengths = [len(encoding.ids) for encoding in theirs.encode_batch(texts)]
    assert ours.count(texts).tolist() == lengths
    # `tokenizers` keeps what it cuts off a pair: every part of one text with every part of the other.
    texts = [text for text, length in zip(texts, lengths, strict=True) if length < compare.MOST_CUT_TOKENS]
    others = texts[::-1]
    for limit in (7, 16, 33):
        theirs.enable_truncation(limit)
        single, pair = (theirs.encode_batch(rows) for rows in (texts, list(zip(texts, others, strict=True))))
        theirs.no_truncation()
        batch = ours.encode_batch(texts, max_length=limit)
        assert batch.tolist() == [encoding.ids for encoding in single]
        assert batch.truncated.tolist() == [bool(encoding.overflowing) for encoding in single]
        assert ours.encode_batch(texts, others, max_length=limit).tolist() == [encoding.ids for encoding in pair]


def assert_same_by_file(folder, theirs, texts):
    folder.mkdir()
    (folder / "tokenizer.json").write_text(theirs.to_str(), encoding="utf-8")
    ours = Tokenizer(folder)
    for text, want in zip(texts, theirs.encode_batch(texts), strict=True):
        assert ours.encode(text).tolist() == want.ids, (ascii(text), theirs.to_str())
        assert [(token.start, token.stop) for token in ours.tokens(text)] == want.offsets, ascii(text)
    theirs.encode_special_tokens = True
    for text, want in zip(texts, theirs.encode_batch(texts), strict=True):
        assert ours.encode(text, split_special_tokens=True).tolist() == want.ids, ascii(text)


def test_random_vocabularies_merges_and_added_tokens(rng, tmp_path):
    """Merges in any order, of tokens that come about in several ways; rules of added tokens in any mixture."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    for number in range(12):
        tokens, merges = [*alphabet], {}
        few = [rng.choice("abĠ'1ÃĊ") for _ in range(4)]
        while len(merges) < 60:
            left, right = (rng.choice([*few, *tokens[256:]]) for _ in range(2))
            if len(left + right) < 12 and (left, right) not in merges:
                merges[left, right] = None
                tokens += [] if left + right in tokens else [left + right]
        listed = list(merges)
        rng.shuffle(listed)
        whole, nfc, prefix = (rng.random() < 0.4 for _ in range(3))
        theirs = Reference(models.BPE({t: i for i, t in enumerate(tokens)}, listed, ignore_merges=whole))
        theirs.normalizer = normalizers.NFC() if nfc else None
        expression = rng.choice(list(PATTERNS))
        split = pre_tokenizers.Split(Regex(expression), "isolated")
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        theirs.pre_tokenizer = pre_tokenizers.Sequence([split, level])
        if PATTERNS[expression] == "gpt2":
            theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        flags = ("special", "lstrip", "rstrip", "single_word", "normalized")
        for content in ("ab", "<x>", "e\u0301", "\u00c9", "a b", "字"):
            theirs.add_tokens([AddedToken(content, **{name: rng.random() < 0.4 for name in flags})])
        texts = ["".join(rng.choice(["a", "b", " ", "'", "1", "\n", "<x>", "e\u0301", "É", "字", "  "])
                         for _ in range(rng.randrange(40))) for _ in range(150)]  # fmt: skip
        assert_same_by_file(tmp_path / str(number), theirs, texts)


def test_words_of_any_length(both, rng):
    """Around the length at which the merges of a word are found in another way, and far beyond."""
    ours, theirs = both
    texts = ["".join(rng.choice("abctheingHé字") for _ in range(size)) for size in [*range(28, 40), 100, 5000]]
    expected = [encoding.ids for encoding in theirs.encode_batch(texts)]
    assert ours.encode_batch(texts, truncation="do_not_truncate").tolist() == expected


def test_one_word_of_megabytes_takes_no_square_of_time(bpe, tmp_path):
    """Quadratic time would be hours; each of these is less than a second."""
    ours = Tokenizer(bpe.write(tmp_path / "model", bpe.roberta()))
    for unit in ("a", "ing", "é", "'s", "!", " ", "\n", "\0", "1"):
        size = 1_000_000 // len(unit)
        ids = ours.encode(unit * size)
        assert ours.decode(ids, skip_special_tokens=True) == unit * size


def test_parts_of_a_long_text(both):
    ours, _ = both
    text = "The quick  brown fox\n\n jumps\u3000over 12345 the lazy dog. " * 20 + " " * 300 + "naïve\u00a0日本語"
    chunks = ours.chunk(text, 20, 4)
    assert all(chunk.tokens == len(ours.encode(text[chunk.start : chunk.stop])) <= 20 for chunk in chunks)
    covered = {place for chunk in chunks for place in range(chunk.start, chunk.stop)}
    assert {place for place, letter in enumerate(text) if not letter.isspace()} <= covered
    assert all(not text[chunk.start].isspace() and not text[chunk.stop - 1].isspace() for chunk in chunks)
    assert ours.chunk("  \n\t ", 20) == []


def test_tokens_that_are_no_text(both):
    ours, theirs = both
    assert ours.id_to_token(theirs.token_to_id("Ġthe")) == "Ġthe"
    with pytest.raises(InvalidTextError, match="lone surrogate"):
        ours.encode("a\ud800")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("legacy", [False, True], ids=["tokenizer.json", "vocab.json and merges.txt"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"add_prefix_space": True},
        {"trim_offsets": False},
        {"mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "special": True}},
        {"additional_special_tokens": ["<new>", "the"]},
        {"sep_token": "<mask>", "unk_token": "<new unknown>"},
    ],
    ids=str,
)
def test_roberta_is_read_as_auto_tokenizer_reads_it(bpe, compare, rng, tmp_path, legacy, settings):
    folder = bpe.write(
        tmp_path / "model", bpe.roberta(), model_type="roberta", legacy=legacy, model_max_length=512, **settings
    )
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), Tokenizer.from_folder(folder)
    assert type(theirs).__name__ == "RobertaTokenizer"
    texts = [*NASTY[:-2], "<new> the<new>", *compare.Generator(rng.randrange(2**32)).texts(200)]
    texts = [text for text in texts if ours.count([text])[0] < 400]
    assert ours.max_length == 512
    assert ours.encode_batch(texts).tolist() == theirs(texts)["input_ids"]
    assert (
        ours.encode_batch(texts, texts[::-1], max_length=64).tolist()
        == (theirs(texts, texts[::-1], truncation=True, max_length=64)["input_ids"])
    )
    theirs.backend_tokenizer.no_truncation()
    assert_same(ours, theirs.backend_tokenizer, texts[:60])


@pytest.mark.filterwarnings("default")
def test_modernbert_is_read_as_auto_tokenizer_reads_it(bpe, compare, rng, tmp_path):
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "mask", "unk")}
    folder = bpe.write(
        tmp_path / "model",
        bpe.modernbert(),
        model_type="modernbert",
        tokenizer_class="PreTrainedTokenizerFast",
        model_input_names=["input_ids", "attention_mask"],
        **names,
    )
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), Tokenizer.from_folder(folder)
    texts = [*NASTY, *compare.Generator(rng.randrange(2**32)).texts(300)]
    assert ours.encode_batch(texts).tolist() == theirs(texts)["input_ids"]
    assert not ours.notes
