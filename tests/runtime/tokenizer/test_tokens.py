"""The fields of `Tokenizer.tokens`; the offsets are compared in test_exact.py and test_unigram_exact.py."""

import pytest

from bgert.errors import InvalidOptionError, InvalidTextError
from bgert.tokenizer import Token, Tokenizer


@pytest.fixture(scope="module")
def ours(demo_checkpoint):
    return Tokenizer(demo_checkpoint)


def test_fields(ours):
    assert ours.tokens("Café [MASK]\u3000unbelievably 中") == [
        Token(101, "[CLS]", True, None, None),
        Token(7668, "Café", False, 0, 4),
        Token(103, "[MASK]", False, 5, 11),  # in the text, not of the template
        Token(4895, "un", False, 12, 14),
        Token(8671, "bel", False, 14, 17),
        Token(2666, "ie", False, 17, 19),
        Token(3567, "va", False, 19, 21),
        Token(6321, "bly", False, 21, 24),
        Token(1746, "中", False, 25, 26),
        Token(102, "[SEP]", True, None, None),
    ]
    assert ours.tokens("", add_special_tokens=False) == []
    assert [token.text for token in ours.tokens("")] == ["[CLS]", "[SEP]"]


def test_split_special_tokens(ours):
    tokens = ours.tokens("[MASK]", add_special_tokens=False, split_special_tokens=True)
    assert [(token.text, token.start, token.stop) for token in tokens] == [("[", 0, 1), ("MASK", 1, 5), ("]", 5, 6)]


def test_long_text(ours):
    text = "word é😀 " * 100_000
    tokens = ours.tokens(text)
    assert (tokens[-2].text, tokens[-2].stop) == ("é😀", len(text) - 1)
    assert [token.id for token in tokens] == ours.encode(text).tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [(3, "text is int, not str"), (None, "text is NoneType"), ("ab\ud800", "text has a lone surrogate at position 2")],
)
def test_texts_that_are_refused(ours, text, message):
    with pytest.raises(InvalidTextError, match=message):
        ours.tokens(text)


@pytest.mark.parametrize("option", ["add_special_tokens", "split_special_tokens"])
def test_options_that_are_refused(ours, option):
    with pytest.raises(InvalidOptionError, match=f"{option} is 1: use True or False"):
        ours.tokens("a", **{option: 1})
