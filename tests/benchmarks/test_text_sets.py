"""Text sets: deterministic, as long as they should be, counted as cut."""

import pytest

import text_sets


@pytest.fixture(scope="module")
def tokenizer(demo_checkpoint):
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(str(demo_checkpoint / "tokenizer.json"))
    found.no_padding()
    found.enable_truncation(256)
    return found


@pytest.mark.parametrize("name", ["short", "passages", "mixed", "long"])
def test_a_set_is_the_same_each_time(tokenizer, name):
    made = [text_sets.make(name, tokenizer, tokens=4000, kind="encoder", corpora=None) for _ in range(2)]
    assert made[0] == made[1]
    assert sum(made[0].lengths) >= 4000
    assert made[0].lengths == text_sets.lengths_of(tokenizer, made[0].texts)
    assert len(made[0].texts) >= (8 if name == "long" else 64)


def test_lengths_of_the_sets(tokenizer):
    median = {
        name: text_sets.make(name, tokenizer, tokens=4000, kind="encoder", corpora=None).facts()["median_tokens"]
        for name in ("short", "passages", "long")
    }
    assert median["short"] < 25
    assert 80 < median["passages"] < 256
    assert median["long"] == 256


def test_pairs_for_rerankers(tokenizer):
    made = text_sets.make("passages", tokenizer, tokens=2000, kind="reranker", corpora=None)
    assert all(len(pair) == 2 and all(pair) for pair in made.texts)


@pytest.mark.parametrize("kind", ["encoder", "reranker"])
@pytest.mark.parametrize("length", [16, 64, 256])
def test_single_texts_come_near_their_length(tokenizer, kind, length):
    text = text_sets.latency_text(tokenizer, length, kind)
    assert length - 4 <= text_sets.lengths_of(tokenizer, [text])[0] <= length


def test_corpora_that_are_not_there(tmp_path):
    assert "--corpora" in text_sets.lacking("chinese", None)
    assert "zh" in text_sets.lacking("chinese", tmp_path)
    assert text_sets.lacking("mixed", None) is None
    (tmp_path / "zh").mkdir()
    assert text_sets.lacking("chinese", tmp_path) is None
