"""Unigram ids and offsets against `transformers` and `tokenizers`."""

import itertools
import json

import pytest
import transformers
from tokenizers import Tokenizer as Reference

from bgert.errors import InvalidTextError
from bgert.tokenizer import Tokenizer
from bgert.tokenizer.checkpoint import read_checkpoint

NASTY = [
    "",
    " ",
    "\0",
    "a\0b",
    "\ufffd",
    "\x85",
    "a\x85b",
    "\x0b",
    "a\x0bb",
    "\r\n",
    "a\r\nb",
    "\r\n\u0301",
    "\u2581",
    "a\u2581b",
    "\u2581\u2581",
    "  the   quick  ",
    "thequick",
    "aaaaaaaaaaa",
    "abababab" * 9,
    "the" * 3000,
    "e\u0302\u0301",
    "a\u0301\u0302",
    "e\u0301" * 2000,
    "\u0301",
    " \u0301",
    "\u0301\u0301",
    "½\u0301",
    "か\u3099",
    "ｶﾞ",
    "ﾊ\u0651",
    "\u1112\u1161\u11ab",
    "가\u0301",
    "\u1100가\u0301",
    "가\u11a8",
    "\u0600e\u0301",
    "\u0601e\u0301",
    "\u0601",
    "\u0600\u0301",
    "\u0600\u0301x",
    "क्क\u0301",
    "\u0915\u094d\u200d\u0915\u0302",
    "©\u200d©\u0301",
    "👩\u200d👩",
    "🇩🇪🇫",
    "<mask>",
    "a <mask> b",
    "a<mask>b",
    "  <mask>",
    "<mask><mask>",
    "＜mask＞",
    "a＜mask＞b",
    "＜s＞",
    "<s>a</s>",
    "☺",
    "a☺b",
    "☹",
    "x☹☺",
    "☃",
    "a☃b",
    "\u2604\u2605\u2606",
    "<mask",
    "mask>",
    "<<mask>>",
    "<mask>\u0301",
    "<\u0301mask>",
    "´",
    "a´b",
    "\ue000\ue001\ue002",
    "a\ue000b",
    "<unk>\ue000<pad>",
    "＜unk＞\ue000＜unk＞",
    "\U0010ffff",
    "the\u3000quick\u2003brown\u00a0fox",
    "ﬁ ① ㎏ ﷺ",
    "日本語" * 700,
    "中华人民共和国" * 900 + " the",
    "<mask>" * 1500,
    "a" * 5000 + "<mask>",
    "a" * 4095 + "<mask>" + "b" * 5000,
    "\u0301" * 5000,
    "hello world " * 500,
]


@pytest.fixture(scope="module", params=["xlmr", "raw-mask", "no-charsmap", "plain", "spaced-token"])
def both(request, unigram, charsmap, tmp_path_factory):
    """(ours, theirs) for one vocabulary in several settings."""
    vocab = unigram.vocabulary()
    folder = tmp_path_factory.mktemp(request.param)
    extra = []
    if request.param in ("plain", "spaced-token"):
        contents = ["\u2581zz", "Token", "q", "été"] + (["foo bar", "ｘ ｙ"] if request.param == "spaced-token" else [])
        flags = {"special": False, "lstrip": False, "rstrip": True, "normalized": True}
        extra = [flags | {"id": len(vocab) + i, "content": c, "single_word": i == 1} for i, c in enumerate(contents)]
    blob = b"" if request.param == "no-charsmap" else charsmap
    body = unigram.tokenizer_json(vocab, blob, mask_normalized=request.param != "raw-mask", extra=extra)
    settings = {
        "raw-mask": unigram.config(mask_token=unigram.mask_token(normalized=False)),
        "plain": None,
        "spaced-token": None,
    }.get(request.param, unigram.config())
    unigram.write(folder, body, settings)
    if settings is None:
        (folder / "config.json").unlink()
        theirs = Reference.from_file(str(folder / "tokenizer.json"))
    else:
        theirs = transformers.AutoTokenizer.from_pretrained(str(folder)).backend_tokenizer
    return Tokenizer.from_folder(folder), theirs


def assert_same(ours, theirs, texts):
    expected = theirs.encode_batch(texts)
    actual = ours.encode_batch(texts, truncation="do_not_truncate").tolist()
    for text, want, got in zip(texts, expected, actual, strict=True):
        assert got == want.ids, ascii(text[:200])
        tokens = ours.tokens(text)
        assert [token.id for token in tokens] == want.ids, ascii(text[:200])
        assert [token.special for token in tokens] == [bool(bit) for bit in want.special_tokens_mask]
        offsets = [(0, 0) if token.special else (token.start, token.stop) for token in tokens]
        assert offsets == want.offsets, ascii(text[:200])


def test_nasty_strings(both):
    assert_same(*both, NASTY)
    assert_same(*both, [a + b for a, b in itertools.product(NASTY[:40], NASTY[36:70])])


def test_random_unicode(both, rng, compare):
    generator = compare.Generator(rng.randrange(2**32))
    assert_same(*both, list(generator.texts(3000)))


def test_random_pieces(both, unigram, rng):
    pieces = [piece.replace("\u2581", " ") for piece, _ in unigram.vocabulary()]
    glue = ["", "", "", "\ue000", "\u0301", " ", "zz ", "foo", " bar", "Token"]
    texts = ["".join(rng.choice(pieces) + rng.choice(glue) for _ in range(rng.randrange(40))) for _ in range(2000)]
    assert_same(*both, texts)


def test_special_tokens_as_text(both, compare, rng):
    ours, theirs = both
    texts = NASTY + list(compare.Generator(rng.randrange(2**32)).texts(500))
    theirs.encode_special_tokens = True
    try:
        expected = [encoding.ids for encoding in theirs.encode_batch(texts)]
    finally:
        theirs.encode_special_tokens = False
    actual = ours.encode_batch(texts, truncation="do_not_truncate", split_special_tokens=True).tolist()
    assert actual == expected
    assert [[token.id for token in ours.tokens(text, split_special_tokens=True)] for text in texts] == expected


def test_a_limit_gives_a_prefix(both, compare, rng):
    ours, _ = both
    texts = NASTY + list(compare.Generator(rng.randrange(2**32)).texts(200))
    full = ours.encode_batch(texts, truncation="do_not_truncate", add_special_tokens=False).tolist()
    for limit in (0, 1, 2, 3, 7, 30, 511, 700):
        batch = ours.encode_batch(texts, max_length=limit, add_special_tokens=False)
        assert batch.tolist() == [row[:limit] for row in full]
        assert batch.truncated.tolist() == [len(row) > limit for row in full]


def test_pairs(both, rng, compare):
    ours, theirs = both
    texts = [text for text in compare.Generator(rng.randrange(2**32)).texts(400) if len(text) < 200]
    pairs = list(itertools.pairwise(texts))
    firsts, seconds = [a for a, _ in pairs], [b for _, b in pairs]
    for max_length, side in itertools.product((4, 5, 9, 16, 33), ("right", "left")):
        for strategy in ("longest_first", "only_second"):
            theirs.enable_truncation(max_length, strategy=strategy, direction=side)
            for first, second in zip(firsts[:80], seconds[:80], strict=True):
                try:
                    expected = theirs.encode(first, second)
                except Exception as error:  # the bindings raise plain Exception
                    if "too short" not in str(error):
                        raise
                    continue
                options = {"max_length": max_length, "truncation": strategy, "truncation_side": side}
                batch = ours.encode_batch([first], [second], **options)
                assert (batch.ids.tolist(), batch.type_ids.tolist()) == (expected.ids, expected.type_ids)
    theirs.no_truncation()
    assert ours.encode_batch(firsts, seconds, truncation="do_not_truncate").tolist() == [
        encoding.ids for encoding in theirs.encode_batch(pairs)
    ]


def flag_embedding(theirs, first, second, max_length, side="right", query_max_length=None):
    """FlagEmbedding's reranker: each text alone, then prepare_for_model; None where the second is too short to cut."""

    def cut(ids, length):
        return ids[:length] if side == "right" else ids[max(len(ids) - length, 0) :]

    query = cut(theirs.encode(first, add_special_tokens=False).ids, query_max_length or max_length * 3 // 4)
    passage = cut(theirs.encode(second, add_special_tokens=False).ids, max_length)
    surplus = len(query) + len(passage) + theirs.num_special_tokens_to_add(True) - max_length
    if surplus > 0:
        if len(passage) <= surplus:
            return None
        passage = cut(passage, len(passage) - surplus)
    whole = theirs.encode("a", "a").ids
    single = theirs.encode("a").ids
    alone = theirs.encode("a", add_special_tokens=False).ids
    head, middle, tail = single[:1], whole[1 + len(alone) : -1 - len(alone)], single[-1:]
    return head + query + middle + passage + tail


def test_flag_embedding(both, demo_checkpoint, rng):
    bert = Reference.from_file(str(demo_checkpoint / "tokenizer.json"))
    bert.no_truncation()
    bert.no_padding()
    words = ["the", "quick", "hello", "日本", "é", "unbelievable", "!", "42", "aaaa"]
    for ours, theirs in (both, (Tokenizer.from_folder(demo_checkpoint), bert)):
        cut = 0
        for _ in range(700):
            first, second = (" ".join(rng.choice(words) for _ in range(rng.randrange(n))) for n in (60, 120))
            max_length = rng.choice([8, 9, 15, 16, 17, 18, 32, 50, 64, 100])
            side = rng.choice(["right", "left"])
            query = rng.choice([None, 1, 3, 7, 20, 200])
            expected = flag_embedding(theirs, first, second, max_length, side, query)
            options = {"max_length": max_length, "truncation": "flag_embedding", "truncation_side": side}
            options["query_max_length"] = query
            if expected is None:
                with pytest.raises(InvalidTextError, match=r"texts\[0\]"):
                    ours.encode_batch([first], [second], **options)
                continue
            assert ours.encode_batch([first], [second], **options).tolist() == [expected]
            cut += len(expected) == max_length
        assert cut > 50
        rows = ours.encode_batch(["the quick"] * 9, [w * 9 for w in words], max_length=64, truncation="flag_embedding")
        assert rows.tolist() == [flag_embedding(theirs, "the quick", w * 9, 64) for w in words]


def test_golden_ids(shared_data):
    rows = (shared_data / "tokenizers" / "golden" / "xlm-roberta-base.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(row) for row in rows]
    ours = Tokenizer.from_folder(shared_data / "tokenizers" / "xlm-roberta-base")
    texts = [row["t"] for row in rows]
    actual = ours.encode_batch(texts, truncation="do_not_truncate").tolist()
    theirs = transformers.AutoTokenizer.from_pretrained(str(shared_data / "tokenizers" / "xlm-roberta-base"))
    theirs.backend_tokenizer.no_truncation()
    assert_same(ours, theirs.backend_tokenizer, texts)
    assert [ascii(row["t"]) for row, got in zip(rows, actual, strict=True) if row["ids"] != got] == []


@pytest.fixture(scope="module")
def published(shared_data):
    """(ours from a model folder, what AutoTokenizer builds) of the real vocabulary."""
    folder = shared_data / "tokenizers" / "xlm-roberta-base"
    theirs = transformers.AutoTokenizer.from_pretrained(str(folder)).backend_tokenizer
    theirs.no_truncation()
    return Tokenizer(read_checkpoint(folder)), theirs


def test_published_vocabulary(published, compare, rng, shared_data):
    assert_same(*published, list(compare.Generator(rng.randrange(2**32)).texts(4000)) + NASTY)
    lines = (shared_data / "corpora" / "udhr" / "udhr_0.jsonl").read_text(encoding="utf-8").splitlines()
    assert_same(*published, rng.sample(lines, min(60, len(lines))))
    assert published[0].encode_batch(["RUnnn"]).tolist() == [[0, 46845, 19, 10713, 2]]  # a tie of exact scores
