"""The texts every export is verified on."""

import pytest

from bgert.tokenizer import Tokenizer
from bgert_export.verification import texts as verification_texts
from bgert_export.verification.groups import Group, built_in_groups, corpus_of
from bgert_export.verification.torch_reference import Tokens


@pytest.mark.parametrize("most", [3, 10, 24, 25, 26, 64, 256, 512, 513, 1024, 8192])
def test_ladder(most):
    lengths = verification_texts.ladder_lengths(most)
    assert lengths == sorted(set(lengths))
    assert lengths[:2] == [2, 3]
    assert lengths[-1] == most
    assert set(range(2, min(24, most) + 1)) <= set(lengths)
    assert len(lengths) < 70


@pytest.mark.parametrize("kind", ["encoder", "reranker"])
def test_lengths_that_have_to_be_asked_for_are_compared_too(kind):
    def longest(*limits):
        return [group.max_length for group in built_in_groups(kind, *limits)][-4:]

    assert longest(64, 72)[-3:] == [64, 65, 72]
    assert longest(128, 514) == [129, 130, 258, 514]
    assert longest(64, 65)[-2:] == [64, 65]
    assert longest(64, 64) == longest(64)
    assert longest(64)[-1] == 64


@pytest.mark.parametrize("kind", ["encoder", "reranker"])
@pytest.mark.parametrize("limits", [(8192, 8192), (512, 8192), (128, 512)])
def test_an_input_is_as_long_as_its_name_says(kind, limits, write_model, tmp_path):
    folder = write_model(tmp_path / "model", weights={})
    (folder / "vocab.txt").write_text(
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"
    )  # a word is one token, the least it can be
    tokenizer = Tokenizer.from_folder(folder)
    ladder = [group for group in built_in_groups(kind, *limits) if group.name.startswith("length")]
    assert [len(group.encode(tokenizer, "").ids) for group in ladder] == [int(g.name.split()[1]) for g in ladder]
    assert len(ladder[-1].encode(tokenizer, "").ids) == limits[1]


@pytest.mark.parametrize("limits", [(8192, 8192), (512, 8192), (2048, 8192)])
def test_long_texts_are_few(limits):
    ladder = [group for group in built_in_groups("encoder", *limits) if group.name.startswith("length")]
    long = [group.max_length for group in ladder if group.max_length > 512]
    assert long[-1] == 8192
    assert 1.5 < sum(long) / 8192 < 2.5


def test_the_report_says_which_lengths_were_compared():
    def group(*lengths):
        inputs = [Tokens((0,) * n, (0,) * n) for n in lengths]
        return Group("length 9999", [""] * len(lengths), 9999, inputs=inputs)  # what it was to be is nothing to go by

    words = corpus_of([group(3, 2, 512), group(4100), group(1025, 3)], None)
    assert words.startswith("6 built-in texts of 2 to 4100 tokens, 5 lengths (1025, 4100 among them): ")
    assert corpus_of([group(2, 64)], None).startswith("2 built-in texts of 2 to 64 tokens, 2 lengths: ")


def test_the_same_on_every_run():
    assert verification_texts.mixed() == verification_texts.mixed()
    assert verification_texts.long_text(100) == verification_texts.long_text(100)


def test_what_is_in_them():
    texts = verification_texts.mixed()
    assert "" in texts
    assert any(text and not text.strip() for text in texts)
    assert any("\0" in text for text in texts)
    assert any("\N{GRINNING FACE}" in text for text in texts)
    assert sum(any("\u4e00" <= c < "\u9fff" for c in text) for text in texts) >= 10
    assert sum(text.isascii() and len(text) > 200 for text in texts) >= 20
    assert max(map(len, texts)) > 1000
    for batch in verification_texts.adversarial()[:3]:
        lengths = sorted(map(len, batch))
        assert lengths[-1] > 15 * max(lengths[len(lengths) // 2], 1)


def test_pairs():
    pairs = verification_texts.pairs()
    assert all(len(documents) >= 8 for _, documents in pairs)
    assert "" in [query for query, _ in pairs]
