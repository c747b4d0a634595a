"""Parts of a long text: they fit, cover every token, and cut none."""

import itertools

import pytest

from bgert.errors import InvalidOptionError, InvalidTextError
from bgert.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def bert(demo_checkpoint):
    return Tokenizer(demo_checkpoint)


@pytest.fixture(scope="module")
def xlmr(unigram, charsmap, tmp_path_factory):
    vocab = unigram.vocabulary()
    body = unigram.tokenizer_json(vocab, charsmap)
    return Tokenizer(unigram.write(tmp_path_factory.mktemp("chunks") / "model", body, unigram.config()))


@pytest.fixture(params=["bert", "xlmr"])
def ours(request):
    return request.getfixturevalue(request.param)


def check(ours, text, max_tokens, overlap):
    """The parts of a text, after a look at what must hold for all."""
    chunks = ours.chunk(text, max_tokens, overlap)
    sizes = ours.count([text[chunk.start : chunk.stop] for chunk in chunks]).tolist()
    assert sizes == [chunk.tokens for chunk in chunks]
    assert all(size <= max_tokens for size in sizes)
    for before, after in itertools.pairwise(chunks):
        assert before.start < after.start
        assert before.stop < after.stop
    # Not those of `tokens`: HF's are too small behind control characters that a charsmap deletes.
    _, offsets = ours._model.encode_spans(text, split_special_tokens=False, as_hf=False)
    for start, stop in offsets.tolist():
        assert any(chunk.start <= start and stop <= chunk.stop for chunk in chunks)
        assert not any(start < place < stop for chunk in chunks for place in chunk[:2])
    return chunks


def test_random_text(ours, compare, rng):
    found = refused = 0
    for text in compare.Generator(rng.randrange(2**32)).texts(1500):
        max_tokens = ours.special_tokens + rng.randrange(1, 20)
        overlap = rng.randrange(max_tokens - ours.special_tokens)
        try:
            found += len(check(ours, text, max_tokens, overlap))
        except InvalidTextError as error:
            assert "cannot be cut and has" in str(error)  # noqa: PT017 - most texts have parts
            refused += 1
    assert found > 1500
    assert refused < 300


def test_words_stay_whole(bert):
    text = "the quick brown fox jumps over the lazy dog and tokenizers tokenize unbelievably " * 30
    for max_tokens, overlap in ((12, 0), (12, 4), (40, 7), (512, 100), (2000, 0)):
        chunks = check(bert, text, max_tokens, overlap)
        for chunk in chunks:
            part = text[chunk.start : chunk.stop]
            assert part == part.strip()
            assert text[chunk.start - 1 : chunk.start].strip() == "" == text[chunk.stop : chunk.stop + 1].strip()
        shared = [b.start < a.stop for a, b in itertools.pairwise(chunks)]
        assert all(shared) if overlap > 3 else not any(shared)
        if overlap == 0:
            assert " ".join(text[c.start : c.stop] for c in chunks) == text.strip()
    assert min(chunk.tokens for chunk in bert.chunk(text, 40)[:-1]) > 30


def test_text_without_spaces(bert):
    text = "今天天气很好我们去公园散步吧" * 40
    chunks = check(bert, text, 32, 0)
    assert "".join(text[c.start : c.stop] for c in chunks) == text
    assert all(chunk.tokens == 32 for chunk in chunks[:-1])


def test_a_word_that_is_too_long(bert):
    word = "unbelievablytokenizers" * 4  # all of it has at most 100 characters, so it is no unknown word
    chunks = check(bert, f"a {word} b", 9, 0)
    assert "".join(f"a {word} b"[c.start : c.stop] for c in chunks).replace(" ", "") == f"a{word}b"
    unknown = "x" * 5000  # one [UNK]
    assert [c.tokens for c in check(bert, f"a {unknown} b", 4, 0)] == [4, 3]


def test_what_no_token_has(bert):
    text = "cafe\u0301 cafe\u0301 \u200b cafe\u0301"
    assert [text[c.start : c.stop] for c in check(bert, text, 3, 0)] == ["cafe\u0301"] * 3


def test_deleted_characters_at_the_beginning_move_nothing(xlmr):
    text = "\x01\x02\x03the quick brown fox"
    assert [text[c.start : c.stop] for c in xlmr.chunk(text, 4)] == ["the", "quick", "brown fox"]
    assert xlmr.tokens(text)[1].start == 0  # as HF has it


def test_defaults(bert):
    text = "word " * 1200
    chunks = bert.chunk(text)
    assert [chunk.tokens for chunk in chunks] == [512, 512, 182]
    assert chunks == bert.chunk(text, bert.max_length, 0)
    assert bert.chunk("") == bert.chunk(" \n\u200b") == []
    start, stop, tokens = bert.chunk("  hello world ")[0]
    assert (start, stop, tokens) == (2, 13, 4)


def test_a_character_of_many_tokens(xlmr):
    with pytest.raises(InvalidTextError, match=r"text\[4:5\] cannot be cut and has \d+ tokens.* allows 4: raise"):
        xlmr.chunk("the \u2605", 4)
    check(xlmr, "the \u2605 the", 64, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 2}, "max_tokens is 2: use None or a whole number from 3"),
        ({"max_tokens": 2.5}, "max_tokens is 2.5"),
        ({"max_tokens": True}, "max_tokens is True"),
        ({"max_tokens": 10, "overlap": 8}, "overlap is 8: use a whole number below 8"),
        ({"max_tokens": 10, "overlap": -1}, "overlap is -1"),
        ({"max_tokens": 10, "overlap": None}, "overlap is None"),
    ],
)
def test_options_that_are_refused(bert, options, message):
    with pytest.raises(InvalidOptionError, match=message):
        bert.chunk("a b", **options)


def test_no_limit_of_its_own(bert, demo_checkpoint):
    from bgert.tokenizer.checkpoint import read_checkpoint

    spec = read_checkpoint(demo_checkpoint)
    object.__setattr__(spec, "max_length", None)
    with pytest.raises(InvalidOptionError, match="no max_length of its own: pass max_tokens"):
        Tokenizer(spec).chunk("a")


def test_texts_that_are_refused(bert):
    with pytest.raises(InvalidTextError, match="text is list, not str"):
        bert.chunk(["a"])
