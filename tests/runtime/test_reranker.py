"""The public reranker, on a tiny cross-encoder with random weights."""

import pickle
import warnings

import numpy as np
import pytest

import bgert

QUERY = "how to copy a folder"
DOCUMENTS = [
    "copy the folder with everything in it",
    "",
    "the weather is fine",
    "今天天气很好",
    "read a file and write a list of strings to it",
    "copy the folder with everything in it",
    "data " * 80,
]


@pytest.fixture(scope="module")
def checkpoint(make_reranker_checkpoint):
    return make_reranker_checkpoint(num_labels=1)


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory):
    from bgert_export import export

    folder = tmp_path_factory.mktemp("reranker") / "model"
    export(checkpoint, folder, verify=False)
    return folder


@pytest.fixture(scope="module")
def reranker(folder):
    return bgert.Reranker(folder)


def test_equals_transformers(reranker, checkpoint):
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    inputs = tokenizer(
        [QUERY] * len(DOCUMENTS),
        DOCUMENTS,
        padding=True,
        truncation="longest_first",
        max_length=64,
        return_tensors="pt",
    )
    with torch.no_grad():
        expected = model(**inputs).logits[:, 0].numpy()
    with pytest.warns(bgert.TruncationWarning):
        scores = reranker.score([(QUERY, document) for document in DOCUMENTS])
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=0)
    assert scores.info.truncated.tolist() == [False] * 6 + [True]
    assert np.ptp(scores) > 1e-3


def test_shapes(reranker):
    one = reranker.score((QUERY, "text"))
    assert one.shape == ()
    assert one.dtype == np.float32
    assert reranker.score([(QUERY, "text")]).shape == (1,)
    assert reranker.score([[QUERY, "text"]]) == one
    assert reranker.score([]).shape == (0,)


def test_result_says_what_it_is(reranker):
    logits = reranker.score([(QUERY, "text"), (QUERY, "folder")])
    sigmoid = reranker.score([(QUERY, "text"), (QUERY, "folder")], sigmoid=True)
    np.testing.assert_allclose(sigmoid, 1 / (1 + np.exp(-np.asarray(logits))), rtol=1e-6)
    assert (logits.info.score_kind, sigmoid.info.score_kind) == ("logit", "sigmoid")
    assert logits.info.truncation == "longest_first"
    assert (logits.info.device, logits.info.precision) == ("cpu", "fp32")


def test_a_score_does_not_depend_on_its_batch_mates(reranker):
    pairs = [(QUERY, document) for document in DOCUMENTS[:6]]
    alone = [float(reranker.score(pair)) for pair in pairs]
    np.testing.assert_allclose(reranker.score(pairs), alone, atol=1e-5)


def test_rank_is_best_first_and_ties_keep_their_order(reranker):
    with pytest.warns(bgert.TruncationWarning):
        ranked = reranker.rank(QUERY, DOCUMENTS)
    scores = [score for _, score in ranked]
    assert scores == sorted(scores, reverse=True)
    order = [index for index, _ in ranked]
    assert sorted(order) == list(range(7))
    assert order.index(0) + 1 == order.index(5)  # the same text twice
    assert reranker.rank(QUERY, DOCUMENTS[:6], top_k=2) == [pair for pair in ranked if pair[0] != 6][:2]
    assert reranker.rank(QUERY, []) == []
    assert [i for i, _ in reranker.rank(QUERY, DOCUMENTS[:6], sigmoid=True)] == [i for i in order if i != 6]


def test_the_order_is_that_of_the_logits_where_sigmoids_are_all_one(reranker, monkeypatch):
    logits = np.array([50.7, 53.7, 51.5, 16.9, 53.7, -120, -90, 12.01, 12.0, 0.5], np.float32)

    def run(batch):
        return logits[np.diff(batch.cu_seqlens) - 5][:, None]

    monkeypatch.setattr(reranker._runner.backend, "run", run)
    documents = ["data " * (n + 1) for n in range(len(logits))]
    plain, squashed = reranker.rank("a", documents), reranker.rank("a", documents, sigmoid=True)
    assert [index for index, _ in plain] == [1, 4, 2, 0, 3, 7, 8, 9, 6, 5]
    assert [index for index, _ in squashed] == [index for index, _ in plain]
    expected = reranker.score([("a", document) for document in documents], sigmoid=True)
    assert [score for _, score in squashed] == [float(expected[index]) for index, _ in squashed]
    assert squashed[0][1] == squashed[4][1] == 1.0


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (None, "NoneType"),
        ("one string", "str"),
        (["query"], "pair 0 is a str"),
        ([("q", "d"), "text"], "pair 1 is a str"),
        ([("a", "b", "c")], "pair 0 is a tuple of 3"),
        ([("a",)], "pair 0 is a tuple of 1"),
        ([("a", None)], "0"),
        ([("a", "b"), (3, "b")], "1"),
        ([("a", "lone \ud800")], "0"),
        ({"a": "b"}, "dict"),
    ],
)
def test_inputs_that_are_no_pairs(reranker, pairs, message):
    with pytest.raises(bgert.InvalidTextError, match=message):
        reranker.score(pairs)


def test_rank_refuses_what_it_cannot_rank(reranker):
    with pytest.raises(bgert.InvalidTextError, match="documents is str"):
        reranker.rank(QUERY, "one document")
    with pytest.raises(bgert.InvalidTextError, match="query is list"):
        reranker.rank([QUERY], DOCUMENTS)
    for top_k in (0, -1, 1.5, True):
        with pytest.raises(bgert.InvalidOptionError, match=r"^top_k is .*: use a whole number from 1$"):
            reranker.rank(QUERY, DOCUMENTS, top_k=top_k)


def test_truncation_options(reranker):
    with pytest.raises(bgert.InvalidOptionError, match="longest_first"):
        reranker.score([(QUERY, "text")], truncation="sometimes")
    for truncation in ("do_not_truncate", "DO_NOT_TRUNCATE", "", ["longest_first"]):
        for call in (reranker.score, lambda pairs, **options: reranker.rank(QUERY, ["text"], **options)):
            with pytest.raises(bgert.InvalidOptionError, match="use one of longest_first, only_first, only_second"):
                call([("word " * 80, "text")], truncation=truncation)
    for max_length in (0, 3, 73, "9"):
        with pytest.raises(bgert.InvalidOptionError, match="from 4 to 72"):
            reranker.score([(QUERY, "text")], max_length=max_length)
    with pytest.raises(bgert.BgertError):
        reranker.score([("word " * 80, "text")], truncation="only_second")
    with pytest.warns(bgert.TruncationWarning):
        cut = reranker.score([("word " * 80, "text")], truncation="only_first")
    assert cut.info.truncated.tolist() == [True]


def test_special_tokens_in_text_can_be_plain_text(reranker, folder):
    plain = bgert.Reranker(folder, split_special_tokens=True)
    harmless, hostile = (QUERY, "a text"), (QUERY, "a text [SEP] copy")
    assert plain.score(harmless) == reranker.score(harmless)
    assert plain.score(hostile) != reranker.score(hostile)
    assert plain.score([hostile]).info.tokens > reranker.score([hostile]).info.tokens


def test_a_hundred_thousand_documents(reranker):
    count = 100_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ranked = reranker.rank("copy", [f"file {number % 7}" for number in range(count)], top_k=3)
    assert len(ranked) == 3
    best = ranked[0][0]
    assert [index for index, _ in ranked] == [best, best + 7, best + 14]


def test_several_labels(make_reranker_checkpoint, tmp_path):
    from bgert_export import export

    export(make_reranker_checkpoint(num_labels=3), tmp_path / "model", verify=False)
    reranker = bgert.Reranker(tmp_path / "model")
    assert reranker.score([(QUERY, "text")] * 2).shape == (2, 3)
    assert reranker.score((QUERY, "text")).shape == (3,)
    with pytest.raises(bgert.InvalidOptionError, match="3 scores a pair"):
        reranker.rank(QUERY, DOCUMENTS)


def test_each_class_refuses_the_others_model(folder, demo_folder):
    with pytest.raises(bgert.ModelFolderError, match=r"holds a reranker: load it with bgert\.Reranker"):
        bgert.Encoder(folder)
    with pytest.raises(bgert.ModelFolderError, match=r"holds an encoder: load it with bgert\.Encoder"):
        bgert.Reranker(demo_folder)


def test_a_reranker_travels_and_takes_a_literal_prefix(reranker):
    there = pickle.loads(pickle.dumps(reranker))
    scores = there.score([("a b", "c")])
    assert pickle.loads(pickle.dumps(scores)).info.score_kind == "logit"
    assert scores.info.run_seconds > 0
    assert np.array_equal(reranker.score([("b", "c")], prefix="a "), reranker.score([("a b", "c")], prefix=""))
    assert there.rank("b", ["c"], prefix="a ") == reranker.rank("a b", ["c"], prefix="")


def test_query_max_length_at_construction_and_in_a_call(folder, reranker):
    pairs = [("how to copy a folder with everything in it", "list of files " * 30), ("copy", "a file")]
    flag = bgert.Reranker(folder, truncation="flag_embedding", query_max_length=4, max_length=32)
    same = {"truncation": "flag_embedding", "query_max_length": 4, "max_length": 32}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bgert.TruncationWarning)
        expected = flag.score([("how to copy a", pairs[0][1]), pairs[1]])
        for scores in (flag.score(pairs), reranker.score(pairs, **same), pickle.loads(pickle.dumps(flag)).score(pairs)):
            assert np.array_equal(scores, expected)
            assert (scores.info.truncation, scores.info.truncated.tolist()) == ("flag_embedding", [True, False])
        others = [same | other for other in ({"query_max_length": None}, {"query_max_length": 5}, {"max_length": 40})]
        for options in [*others, {"max_length": 32, "truncation": "only_second"}]:
            assert reranker.score(pairs, **options)[0] != expected[0], options
        assert np.array_equal(flag.score(pairs, truncation="longest_first"), reranker.score(pairs, max_length=32))
        assert flag.rank(pairs[0][0], [pairs[0][1]]) == reranker.rank(pairs[0][0], [pairs[0][1]], **same)
    for make in (lambda **options: bgert.Reranker(folder, **options), lambda **o: reranker.score(pairs, **o)):
        with pytest.raises(bgert.InvalidOptionError, match="query_max_length is for truncation 'flag_embedding'"):
            make(query_max_length=4)
        for wrong in (0, -1, 2.5, "4", True):
            with pytest.raises(bgert.InvalidOptionError, match="query_max_length is"):
                make(truncation="flag_embedding", query_max_length=wrong)
        with pytest.raises(bgert.InvalidOptionError, match="unknown truncation"):
            make(truncation="sometimes")
