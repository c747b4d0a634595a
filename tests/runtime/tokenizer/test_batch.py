"""Truncation and pairs against `tokenizers`, early stop, and the shapes of what comes back."""

import itertools
import json
import time

import numpy as np
import pytest
from tokenizers import Tokenizer as Reference

from bgert.errors import InvalidOptionError, InvalidTextError, ModelNotFoundError
from bgert.model_folder import MANIFEST_NAME
from bgert.tokenizer import TRUNCATIONS, TokenBatch, Tokenizer
from bgert.tokenizer.checkpoint import read_checkpoint

WORDS = ["the", "quick", "brown", "[MASK]", "tokenizer", "日本", "é", "unbelievably", "!", "[SEP]", "42"]


@pytest.fixture(scope="module")
def ours(demo_checkpoint):
    return Tokenizer.from_folder(demo_checkpoint)


@pytest.fixture(scope="module")
def theirs(demo_checkpoint):
    reference = Reference.from_file(str(demo_checkpoint / "tokenizer.json"))
    reference.no_padding()
    reference.no_truncation()
    return reference


def sentence(rng, longest=30):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(longest)))


def reference_pair(theirs, first, second, max_length, strategy, add_special_tokens, side="right"):
    """(ids, types) or None where `tokenizers` raises."""
    theirs.enable_truncation(max_length, strategy=strategy, direction=side)
    try:
        encoding = theirs.encode(first, second, add_special_tokens=add_special_tokens)
    except Exception as error:  # the bindings raise plain Exception
        if "too short" not in str(error):
            raise
        return None
    finally:
        theirs.no_truncation()
    return encoding.ids, encoding.type_ids


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("strategy", TRUNCATIONS[:3])
@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_pairs_of_every_length(ours, theirs, rng, strategy, add_special_tokens, side):
    pairs = [(sentence(rng), sentence(rng)) for _ in range(60)] + [("", ""), ("a", ""), ("", "a")]
    pairs += [("a " * n, "b " * m) for n, m in itertools.product((6, 7, 20, 21), repeat=2)]
    for max_length in (3, 4, 5, 6, 7, 8, 9, 16, 17, 31, 64):
        for first, second in pairs:
            expected = reference_pair(theirs, first, second, max_length, strategy, add_special_tokens, side)
            options = {"max_length": max_length, "truncation": strategy, "add_special_tokens": add_special_tokens}
            options["truncation_side"] = side
            if expected is None:
                with pytest.raises(InvalidTextError, match=r"texts\[0\]"):
                    ours.encode_batch([first], [second], **options)
                continue
            batch = ours.encode_batch([first], [second], **options)
            assert (batch.ids.tolist(), batch.type_ids.tolist()) == expected, (first, second, max_length)
            whole = theirs.encode(first, second, add_special_tokens=add_special_tokens).ids
            assert batch.truncated.tolist() == [len(whole) > max_length]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_length", [514, 513, 300, 101])
def test_long_pairs_that_both_stop_early(ours, theirs, max_length, side):
    texts = ["word " * n + "end" for n in (99, 508, 509, 510, 1499, 1500)]
    for first, second in itertools.product(texts, repeat=2):
        expected = reference_pair(theirs, first, second, max_length, "longest_first", True, side)
        batch = ours.encode_batch([first], [second], max_length=max_length, truncation_side=side)
        assert (batch.ids.tolist(), batch.type_ids.tolist()) == expected


@pytest.mark.parametrize("side", ["right", "left"])
def test_single_texts(ours, theirs, rng, side):
    texts = [sentence(rng) for _ in range(100)]
    full = ours.encode_batch(texts).tolist()
    for max_length in (2, 3, 4, 9, 16):
        theirs.enable_truncation(max_length, direction=side)
        expected = [encoding.ids for encoding in theirs.encode_batch(texts)]
        theirs.no_truncation()
        for truncation in ("longest_first", "only_first"):
            batch = ours.encode_batch(texts, max_length=max_length, truncation=truncation, truncation_side=side)
            assert batch.tolist() == expected
            assert batch.truncated.tolist() == [len(row) > max_length for row in full]
    assert ours.encode_batch(texts, max_length=1, truncation="do_not_truncate").tolist() == full


def test_ids_under_a_limit_are_a_prefix_of_the_whole(ours, rng):
    texts = [sentence(rng, 400) for _ in range(50)]
    full = ours.encode_batch(texts, truncation="do_not_truncate", add_special_tokens=False).tolist()
    for limit in (0, 1, 2, 255, 256, 257, 300, 511, 512):
        batch = ours.encode_batch(texts, max_length=limit, add_special_tokens=False)
        assert batch.tolist() == [row[:limit] for row in full]
        assert batch.truncated.tolist() == [len(row) > limit for row in full]


def test_own_limit_is_the_default(ours, demo_checkpoint):
    config = json.loads((demo_checkpoint / "tokenizer_config.json").read_text())
    assert ours.max_length == config["model_max_length"] == 512
    batch = ours.encode_batch(["word " * 600, "word"])
    assert [len(row) for row in batch.tolist()] == [512, 3]
    assert batch.truncated.tolist() == [True, False]
    assert len(ours.encode_batch(["word " * 600], max_length=601).ids) == 601
    assert len(ours.encode_batch(["word " * 600], truncation="do_not_truncate").ids) == 602


@pytest.mark.parametrize("text", ["word " * 2_000_000, "日本" * 1_700_000, "x" * 10_000_000, "[MASK]" * 1_700_000])
def test_ten_megabytes_stop_early(ours, text):
    ours.encode_batch([text])  # the string's UTF-8 form is made once
    start = time.process_time()
    batch = ours.encode_batch([text] * 10, max_length=512)
    assert time.process_time() - start < 2.0
    assert len(batch) == 10
    assert len(ours.encode_batch([text], truncation="do_not_truncate").ids) in (2_000_002, 3_400_002, 3, 1_700_002)


def test_shapes_and_dtypes(ours):
    batch = ours.encode_batch(["a b", "", "c"], ["d", "e", ""])
    assert isinstance(batch, TokenBatch)
    assert (batch.ids.dtype, batch.cu_seqlens.dtype, batch.type_ids.dtype) == (np.int32,) * 3
    assert batch.truncated.dtype == np.bool_
    assert batch.cu_seqlens.tolist() == [0, 6, 10, 14]
    assert batch.type_ids.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 1]
    assert len(batch) == 3
    assert batch.row(1).tolist() == batch.row(-2).tolist() == batch.tolist()[1]
    with pytest.raises(IndexError):
        batch.row(3)
    batch.ids[0] = 7  # the arrays own their memory
    assert ours.special_tokens == 2
    assert ours.pair_special_tokens == 3
    assert ours.vocab_size == 30522


def test_one_text(ours):
    long = "word " * 700
    assert ours.encode("hello world").tolist() == [101, 7592, 2088, 102]
    assert ours.encode("hello", "world").tolist() == [101, 7592, 102, 2088, 102]
    assert ours.encode("hello", add_special_tokens=False).dtype == np.int32
    assert len(ours.encode(long)) == 702  # nothing is cut
    assert ours.encode("[SEP]", split_special_tokens=True).tolist()[1:-1] == ours.encode("[ sep ]").tolist()[1:-1]
    with pytest.raises(InvalidTextError, match=r"texts\[0\] is int"):
        ours.encode(3)


def test_counts(ours, rng):
    texts, pairs = [sentence(rng, 900) for _ in range(40)], [sentence(rng) for _ in range(40)]
    rows = ours.encode_batch(texts, truncation="do_not_truncate")
    counts = ours.count(texts)
    assert counts.dtype == np.int32
    assert counts.tolist() == [len(row) for row in rows.tolist()]
    assert ours.count(texts, add_special_tokens=False).tolist() == (counts - 2).tolist()
    assert ours.count(texts, pairs).tolist() == (counts + ours.count(pairs, threads=1) - 1).tolist()
    assert ours.count([]).tolist() == []
    with pytest.raises(InvalidTextError, match=r"texts is str: pass \[text\]"):
        ours.count("hello")


def test_a_path_is_enough(ours, demo_checkpoint, demo_folder):
    for path in (demo_checkpoint, str(demo_folder)):
        assert Tokenizer(path).encode("hello é").tolist() == ours.encode("hello é").tolist()
    with pytest.raises(ModelNotFoundError, match="no such folder: nowhere"):
        Tokenizer("nowhere")
    with pytest.raises(InvalidOptionError, match="source is int: pass the path of a folder"):
        Tokenizer(3)


def test_arrays_outlive_the_tokenizer(demo_checkpoint):
    row = Tokenizer.from_folder(demo_checkpoint).encode_batch(["hello world"] * 1000).row(999)
    assert row.tolist() == [101, 7592, 2088, 102]


@pytest.mark.parametrize("pairs", [None, []])
def test_empty_batch(ours, pairs):
    batch = ours.encode_batch([], pairs)
    assert (len(batch), batch.tolist(), batch.cu_seqlens.tolist()) == (0, [], [0])


def test_shared_queries_give_what_single_ones_give(ours, rng):
    query, other = sentence(rng, 40), sentence(rng, 40)
    firsts = [query] * 20 + [other, query] * 10 + ["".join(query)] * 5 + [f"{query} {i}" for i in range(20)]
    seconds = [sentence(rng, 200) for _ in firsts]
    batch = ours.encode_batch(firsts, seconds, max_length=64, threads=3)
    alone = [ours.encode_batch([a], [b], max_length=64).tolist()[0] for a, b in zip(firsts, seconds, strict=True)]
    assert batch.tolist() == alone


def test_a_shared_query_is_tokenized_once(ours):
    query = "word " * 2_000_000
    ours.encode_batch([query])
    start = time.process_time()
    ours.encode_batch([query] * 200, ["a"] * 200, max_length=None, truncation="only_first")
    shared = time.process_time() - start
    start = time.process_time()
    for _ in range(20):
        ours.encode_batch([query], truncation="do_not_truncate")
    assert shared < 1.0 + (time.process_time() - start)


def test_special_tokens_in_the_text(ours):
    assert ours.encode_batch(["[SEP]"], add_special_tokens=False).tolist() == [[102]]
    split = ours.encode_batch(["[SEP]"], add_special_tokens=False, split_special_tokens=True).tolist()
    assert split == ours.encode_batch(["[ sep ]"], add_special_tokens=False).tolist()


def test_model_folder_gives_the_same_ids(demo_checkpoint, demo_folder):
    assert (demo_folder / MANIFEST_NAME).exists()
    texts = ["Hello [MASK] world", "日本 é"]
    expected = Tokenizer.from_folder(demo_checkpoint).encode_batch(texts).tolist()
    assert Tokenizer.from_folder(demo_folder).encode_batch(texts).tolist() == expected


def test_loading_is_fast(demo_checkpoint):
    ours, theirs = [], []
    for _ in range(5):  # side by side: a busy machine slows both
        start = time.process_time()
        Tokenizer(read_checkpoint(demo_checkpoint))
        middle = time.process_time()
        Reference.from_file(str(demo_checkpoint / "tokenizer.json"))
        ours.append(middle - start)
        theirs.append(time.process_time() - middle)
    assert min(ours) < 6 * min(theirs)  # 2 x


@pytest.mark.parametrize(
    ("texts", "pairs", "message"),
    [
        ("hello", None, r"texts is str: pass \[text\]"),
        (None, None, "texts is NoneType"),
        (b"hello", None, "texts is bytes"),
        (iter(["a"]), None, "texts is list_iterator"),
        ({"a": 1}, None, "texts is dict"),
        (["a", 3], None, r"texts\[1\] is int, not str"),
        (["a", None], None, r"texts\[1\] is NoneType"),
        ([b"a"], None, r"texts\[0\] is bytes"),
        ([["a", "b"]], None, r"texts\[0\] is list"),
        ([("a", "b")], None, r"texts\[0\] is tuple"),
        (["a"], "b", r"pairs is str: pass \[pair\]"),
        (["a"], [1], r"pairs\[0\] is int"),
        (["a"], [], "pairs has 0 items, texts has 1"),
        (["a", "b"], ["c"], "pairs has 1 items, texts has 2"),
        (["a", "bc\ud800"], None, r"texts\[1\] has a lone surrogate at position 2"),
        (["a"], ["\udfff"], r"pairs\[0\] has a lone surrogate at position 0"),
    ],
)
def test_texts_that_are_refused(ours, texts, pairs, message):
    with pytest.raises(InvalidTextError, match=message) as raised:
        ours.encode_batch(texts, pairs)
    assert isinstance(raised.value, (TypeError, ValueError))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation": "middle"}, "unknown truncation 'middle': use one of longest_first, only_first, only_second"),
        ({"truncation": None}, "unknown truncation"),
        ({"truncation": ["longest_first"]}, "unknown truncation"),
        ({"truncation": "only_second"}, "needs pairs"),
        ({"query_max_length": 9}, "query_max_length is for truncation 'flag_embedding', and this is 'longest_first'"),
        ({"truncation_side": "Left"}, "unknown truncation_side 'Left': use one of right, left"),
        ({"truncation_side": None}, "unknown truncation_side"),
        ({"max_length": 0}, "max_length is 0, but the special tokens alone are 2"),
        ({"max_length": 1}, "special tokens alone are 2"),
        ({"max_length": -1}, "max_length is -1"),
        ({"max_length": 2.5}, "max_length is 2.5"),
        ({"max_length": True}, "max_length is True"),
        ({"max_length": 2**40}, "max_length"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": "2"}, "threads is '2'"),
        ({"add_special_tokens": 1}, "add_special_tokens is 1"),
        ({"split_special_tokens": None}, "split_special_tokens is None"),
    ],
)
def test_options_that_are_refused(ours, options, message):
    with pytest.raises(InvalidOptionError, match=message):
        ours.encode_batch(["a"], **options)


def test_room_for_the_special_tokens_of_a_pair(ours):
    with pytest.raises(InvalidOptionError, match="special tokens alone are 3"):
        ours.encode_batch(["a"], ["b"], max_length=2)
    assert ours.encode_batch(["a"], ["b"], max_length=3).tolist() == [[101, 102, 102]]
    assert ours.encode_batch(["a"], max_length=np.int64(2)).tolist() == [[101, 102]]


def test_texts_that_are_accepted(ours):
    class Text(str):
        __slots__ = ()

    assert ours.encode_batch((Text("hello"), "")).tolist() == [[101, 7592, 102], [101, 102]]
    assert ours.encode_batch(["a\0b"]).tolist() == ours.encode_batch(["ab"]).tolist()


def test_a_pair_that_cannot_be_cut_is_named(ours):
    with pytest.raises(InvalidTextError, match=r"texts\[2\]: its text alone has 5 tokens or more"):
        ours.encode_batch(["a"] * 2 + ["a " * 9], ["b"] * 3, max_length=8, truncation="only_second")
