"""Ids back to text against Hugging Face `tokenizers`."""

import json

import numpy as np
import pytest
import transformers
from tokenizers import AddedToken, decoders, models
from tokenizers import Tokenizer as Reference

from bgert.errors import InvalidOptionError, InvalidTextError
from bgert.tokenizer import Tokenizer
from bgert.tokenizer.spec import AddedTokenSpec, TemplateSpec, TokenizerSpec, WordPieceSettings

# All that the cleanup of HF's WordPiece decoder looks for, at the beginning, in the middle and at the end of tokens.
CLEANED = [".", "?", "!", ",", "'", "n't", "'m", "do not", "'s", "'ve", "'re"]
NONE = TemplateSpec(prefix=[], suffix=[])


@pytest.fixture(scope="module")
def ours(demo_checkpoint):
    return Tokenizer(demo_checkpoint)


@pytest.fixture(scope="module", params=["wordpiece", "unigram"])
def both(request, demo_checkpoint, unigram, charsmap, tmp_path_factory):
    """(ours, theirs)"""
    folder = demo_checkpoint
    if request.param == "unigram":
        vocab = unigram.vocabulary()
        folder = unigram.write(
            tmp_path_factory.mktemp("unigram"), unigram.tokenizer_json(vocab, charsmap), unigram.config()
        )
    return Tokenizer(folder), transformers.AutoTokenizer.from_pretrained(str(folder)).backend_tokenizer


@pytest.mark.parametrize("skip", [True, False])
def test_random_ids(both, rng, skip):
    ours, theirs = both
    size = theirs.get_vocab_size()
    rows = [[rng.randrange(size) for _ in range(rng.randrange(30))] for _ in range(3000)]
    rows += [[rng.randrange(120) for _ in range(rng.randrange(30))] for _ in range(1000)]  # many special ones
    rows += [[index] for index in range(size)]
    for row in rows:
        assert ours.decode(row, skip) == theirs.decode(row, skip_special_tokens=skip), row


@pytest.mark.parametrize("skip", [True, False])
def test_ids_of_texts(both, compare, rng, skip):
    ours, theirs = both
    for text in compare.Generator(rng.randrange(2**32)).texts(1000):
        ids = ours.encode(text)
        assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids.tolist(), skip_special_tokens=skip)


@pytest.mark.parametrize("prefix", ["##", "", "x", "n't"])
def test_cleanup_and_added_tokens(rng, prefix):
    forms = ["{}", " {}", "{} ", "a{}", "a {}", " {} ", "{0}{0}", "{0} {0}"]
    tokens = [form.format(piece) for form in forms for piece in CLEANED] + ["a", "do", "not", " ' ' ", " do  not"]
    vocab = list(dict.fromkeys(["[UNK]", "[CLS]", *tokens, *(prefix + token for token in tokens)]))
    contents = ["[CLS]", "<new> .", "##added", "n't "]
    theirs = Reference(models.WordPiece({token: i for i, token in enumerate(vocab)}, unk_token="[UNK]"))
    theirs.decoder = decoders.WordPiece(prefix=prefix, cleanup=True)
    theirs.add_tokens([AddedToken(content, special=i < 2, normalized=False) for i, content in enumerate(contents)])
    specs = [AddedTokenSpec(content, theirs.token_to_id(content), i < 2) for i, content in enumerate(contents)]
    ours = Tokenizer(TokenizerSpec("wordpiece", WordPieceSettings("[UNK]", prefix), vocab, specs, NONE, NONE))
    size = theirs.get_vocab_size()
    for _ in range(2000):
        row = [rng.randrange(size) for _ in range(rng.randrange(1, 8))]
        for skip in (False, True):
            assert ours.decode(row, skip) == theirs.decode(row, skip_special_tokens=skip), row


def test_what_is_accepted(ours):
    assert ours.decode([]) == ours.decode(np.zeros(0, np.int32)) == ""
    ids = [101, 7592, 2088, 102]
    for form in (ids, tuple(ids), [np.int32(i) for i in ids], np.array(ids, np.uint16), np.array(ids * 2)[::2][:2]):
        assert ours.decode(form).startswith("[CLS] ")
    assert ours.decode(np.array(ids, np.uint64)) == "[CLS] hello world [SEP]"
    assert ours.decode(ids, skip_special_tokens=True) == "hello world"


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([101, 30522], r"ids\[1\] is 30522, which is the id of no token"),
        ([-1], r"ids\[0\] is -1"),
        ([2**31], r"ids\[0\] is 2147483648"),
        ([2**32 + 101], r"ids\[0\] is 4294967397"),
        (np.array([2**63 + 5], np.uint64), r"ids\[0\] is 9223372036854775807"),
        ([2**70], "pass a list of int"),
        ([1.0], r"ids is \[1.0\]: pass a list of int"),
        ([True], "pass a list of int"),
        (["101"], "pass a list of int"),
        ([[101]], "pass a list of int"),
        ([[101], [1, 2]], "pass a list of int"),
        ("abc", "pass a list of int"),
        (None, "ids is None"),
        (7, "ids is 7"),
    ],
)
def test_ids_that_are_refused(ours, ids, message):
    with pytest.raises(InvalidTextError, match=message):
        ours.decode(ids)


def test_an_option_that_is_refused(ours):
    with pytest.raises(InvalidOptionError, match="skip_special_tokens is 1"):
        ours.decode([101], skip_special_tokens=1)


def test_id_to_token(both):
    ours, theirs = both
    for index in range(theirs.get_vocab_size()):
        assert ours.id_to_token(index) == theirs.id_to_token(index)
    with pytest.raises(InvalidTextError, match="is that of no token"):
        ours.id_to_token(theirs.get_vocab_size())
    with pytest.raises(InvalidTextError, match="pass a list of int"):
        ours.id_to_token("[CLS]")


USUAL = {
    "wordpiece": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "unigram": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
}
OTHER = {
    "wordpiece": [None, {"type": "WordPiece", "prefix": "##", "cleanup": False}, {"type": "ByteLevel"}],
    "unigram": [
        None,
        USUAL["unigram"] | {"prepend_scheme": "never"},
        {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": False},
        {"type": "Metaspace", "replacement": "_", "add_prefix_space": True},
        {"type": "Fuse"},
    ],
}


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_other_decoders_and_offsets_of_plain_tokenizers_are_noted(
    kind, unigram, charsmap, tokenizer_json, cased_vocab, write_checkpoint, tmp_path
):
    def notes(decoder, name, **more):
        if kind == "wordpiece":
            body = tokenizer_json(cased_vocab) | {"decoder": decoder} | more
            config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["token_type_ids"]}
            return Tokenizer(write_checkpoint(tmp_path / name, cased_vocab, tokenizer=body, config=config)).notes
        folder = unigram.write(tmp_path / name, unigram.tokenizer_json(unigram.vocabulary(), charsmap), None)
        body = json.loads((folder / "tokenizer.json").read_text()) | {"decoder": decoder} | more
        (folder / "tokenizer.json").write_text(json.dumps(body))
        (folder / "config.json").unlink()
        return Tokenizer(folder).notes

    assert notes(USUAL[kind], "usual") == ()
    for number, decoder in enumerate(OTHER[kind]):
        (note,) = notes(decoder, str(number))
        assert "is not the usual one" in note
    roberta = {"type": "RobertaProcessing", "sep": ["", 2], "cls": ["", 0], "add_prefix_space": False}
    (note,) = notes(USUAL[kind], "roberta", post_processor=roberta | {"trim_offsets": True})
    assert "trims whitespace from the offsets" in note
    assert notes(USUAL[kind], "untrimmed", post_processor=roberta | {"trim_offsets": False}) == ()
