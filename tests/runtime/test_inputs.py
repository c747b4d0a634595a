"""What may be handed over as texts and pairs, and how an error names an item."""

import numpy as np
import pytest

import bgert
import bgert_export
from bgert.model import WINDOW

WORDS = ["one text", "another", "a third one"]


class Column:
    """As a column of pandas: an array by another name, whose own order of iteration is of no interest."""

    def __init__(self, values):
        self.values = np.array(values, object)
        self.shape = self.values.shape

    def __iter__(self):
        raise AssertionError("a table gives the names of its columns")

    def to_numpy(self):
        return self.values


@pytest.fixture(scope="module")
def reranker(make_reranker_checkpoint, tmp_path_factory):
    from bgert_export import export

    folder = tmp_path_factory.mktemp("inputs") / "model"
    export(make_reranker_checkpoint(num_labels=1), folder, verify=False)
    return bgert.Reranker(folder)


@pytest.mark.parametrize(
    "form",
    [
        tuple,
        iter,
        np.array,
        Column,
        lambda v: (t for t in v),
        lambda v: dict.fromkeys(v).keys(),
        lambda v: np.array(v, object),
    ],
)
def test_any_iterable_with_an_order(encoder, reranker, form):
    expected = encoder.encode(WORDS)
    np.testing.assert_array_equal(encoder.encode(form(WORDS)), expected)
    np.testing.assert_array_equal(encoder.encode_queries(form(WORDS)), expected)
    np.testing.assert_array_equal(np.concatenate(list(encoder.stream(form(WORDS)))), expected)
    assert reranker.rank("a query", form(WORDS)) == reranker.rank("a query", WORDS)


@pytest.mark.parametrize(
    "form",
    [
        iter,
        np.array,
        Column,
        lambda _: zip(["a query"] * 3, WORDS, strict=True),
        lambda pairs: [list(pair) for pair in pairs],
    ],
)
def test_any_iterable_of_pairs(reranker, form):
    pairs = [("a query", word) for word in WORDS]
    np.testing.assert_array_equal(reranker.score(form(pairs)), reranker.score(pairs))


def test_pandas(encoder, reranker):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"query": ["a query"] * 3, "text": WORDS}, index=[7, 3, 5])
    np.testing.assert_array_equal(encoder.encode(table["text"]), encoder.encode(WORDS))
    assert reranker.rank("a query", table["text"]) == reranker.rank("a query", WORDS)
    np.testing.assert_array_equal(reranker.score(table), reranker.score([("a query", word) for word in WORDS]))
    with pytest.raises(bgert.InvalidTextError, match=r"DataFrame of shape \(3, 2\)"):
        encoder.encode(table)
    table.loc[3, "text"] = float("nan")
    with pytest.raises(bgert.InvalidTextError, match=r"texts\[1\] is float"):
        encoder.encode(table["text"])


@pytest.mark.parametrize("texts", [{"a", "b"}, frozenset("a"), {"a": 1}, np.array([["a"]]), np.array(3), b"x", list])
def test_what_has_no_order_or_is_no_list(encoder, reranker, texts):
    for call in (
        lambda: encoder.encode(texts),
        lambda: encoder.stream(texts),
        lambda: reranker.rank("q", texts),
        lambda: reranker.score(texts),
    ):
        with pytest.raises(bgert.InvalidTextError, match="pass"):
            call()


def test_two_strings_are_one_pair_only_as_a_tuple(reranker):
    assert reranker.score(("q", "d")).shape == ()
    for form in (list, iter, np.array):
        with pytest.raises(bgert.InvalidTextError, match=r"pair 0 is a str: .* one pair alone is a tuple"):
            reranker.score(form(["q", "d"]))


@pytest.mark.parametrize(
    ("position", "bad", "words"),
    [
        (0, None, "is NoneType"),
        (WINDOW - 1, "\ud800", "has a lone surrogate"),
        (WINDOW, None, "is NoneType"),
        (WINDOW + 516, "\ud800", "has a lone surrogate"),
    ],
)
def test_errors_name_the_callers_item(encoder, reranker, position, bad, words):
    texts = ["a"] * position + [bad, "b"]
    with pytest.raises(bgert.InvalidTextError, match=rf"^texts\[{position}\] {words}"):
        encoder.encode(texts)
    with pytest.raises(bgert.InvalidTextError, match=rf"^texts\[{position}\] {words}"):
        list(encoder.stream(texts))
    with pytest.raises(bgert.InvalidTextError, match=rf"^documents\[{position}\] {words}"):
        reranker.rank("q", texts)
    with pytest.raises(bgert.InvalidTextError, match=rf"^pairs\[{position}\]: the document {words}"):
        reranker.score([("q", text) for text in texts])
    with pytest.raises(bgert.InvalidTextError, match=rf"^pairs\[{position}\]: the query {words}"):
        reranker.score([(text, "d") for text in texts])
    with pytest.raises(bgert.InvalidTextError, match=rf"^pair {position} is a str"):
        reranker.score([("q", "d")] * position + ["q"])


def test_errors_of_a_whole_pair_and_of_the_query(reranker):
    long = "word " * 100
    with pytest.raises(bgert.InvalidTextError, match=r"^pairs\[1\]: its text alone has"):
        reranker.score([("q", "d"), (long, "d")], truncation="only_second")
    with pytest.raises(bgert.InvalidTextError, match=r"^documents\[1\]: its pair alone has"):
        reranker.rank("q", ["d", long], truncation="only_first")
    with pytest.raises(bgert.InvalidTextError, match=r"^query has a lone surrogate"):
        reranker.rank("\udc80", ["d"])


def test_positions_are_those_of_the_callers_text(make_checkpoint, sentence_transformers_files):
    """The prompt before a text is not the caller's."""
    files = sentence_transformers_files(prompts={"query": "which: "}, default="query")
    checkpoint = make_checkpoint(files=files)
    bgert_export.export(checkpoint, checkpoint.parent / "prompted", verify=False)
    encoder = bgert.Encoder(checkpoint.parent / "prompted")
    for call in (
        encoder.encode,
        encoder.encode_queries,
        encoder.encode_corpus,
        lambda texts: list(encoder.stream(texts)),
    ):
        with pytest.raises(bgert.InvalidTextError, match=r"texts\[1\] .* position 2,"):
            call(["fine", "ab\ud800c"])


def test_options_of_no_sense_are_errors_of_bgert(encoder, demo_folder):
    for wrong in ({"block": True}, {"total": "many"}, {"total": -1}):
        with pytest.raises(bgert.InvalidOptionError, match=next(iter(wrong))):
            encoder.stream(["a"], **wrong)
    for prompt in (["query"], {}, 5):
        with pytest.raises(bgert.InvalidOptionError, match="unknown prompt"):
            encoder.encode("a", prompt=prompt)
    for device in (0, True, {"cpu"}):
        with pytest.raises(bgert.InvalidOptionError, match="device"):
            bgert.Encoder(demo_folder, device=device)
