"""An XLM-RoBERTa cross-encoder from checkpoint to scores: Unigram ids, positions, head and truncation together."""

import json

import numpy as np
import pytest

import bgert

QUERY = "the quick brown fox"
DOCUMENTS = ["hello world", "中国人民", "", "naïve café <mask> ｶﾞ", "a <pad> inside", "lazy dog " * 60]


@pytest.fixture(scope="module")
def checkpoint(unigram, charsmap, make_config, write_weights, tmp_path_factory):
    vocab = unigram.vocabulary()
    settings = unigram.config(model_max_length=64)
    folder = unigram.write(tmp_path_factory.mktemp("xlm") / "model", unigram.tokenizer_json(vocab, charsmap), settings)
    config = make_config(
        architectures=["XLMRobertaForSequenceClassification"],
        model_type="xlm-roberta",
        vocab_size=len(vocab),
        max_position_embeddings=66,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        id2label={"0": "LABEL_0"},
    )
    (folder / "config.json").write_text(json.dumps(config))
    write_weights(folder, config)
    return folder


@pytest.fixture(scope="module")
def reranker(checkpoint, tmp_path_factory):
    from bgert_export import export

    folder = tmp_path_factory.mktemp("xlm") / "exported"
    manifest = export(checkpoint, folder)  # verified against AutoModelForSequenceClassification
    assert manifest.graphs[0].parity.max_abs_error < 2e-5
    assert manifest.graphs[0].parity.rank_agreement == 1.0
    return bgert.Reranker(folder)


def logits(checkpoint, rows):
    """Logits of transformers for lists of token ids, one at a time."""
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        return [float(model(input_ids=torch.tensor([row])).logits[0, 0]) for row in rows]


def test_longest_first_as_transformers(reranker, checkpoint):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    rows = tokenizer([QUERY] * len(DOCUMENTS), DOCUMENTS, truncation="longest_first", max_length=64)["input_ids"]
    with pytest.warns(bgert.TruncationWarning):
        scores = reranker.score([(QUERY, document) for document in DOCUMENTS])
    np.testing.assert_allclose(scores, logits(checkpoint, rows), atol=2e-5, rtol=0)
    assert scores.info.truncated.tolist() == [False] * 5 + [True]


def test_flag_embedding_gives_the_query_three_quarters(reranker, checkpoint):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    query, document = "quick brown " * 80, "lazy dog " * 80
    first = tokenizer(query, add_special_tokens=False)["input_ids"][: 64 * 3 // 4]
    second = tokenizer(document, add_special_tokens=False)["input_ids"][: 64 - len(first) - 4]
    row = [0, *first, 2, 2, *second, 2]
    assert len(row) == 64
    with pytest.warns(bgert.TruncationWarning):
        scores = reranker.score([(query, document)], truncation="flag_embedding")
    assert scores.info.truncation == "flag_embedding"
    np.testing.assert_allclose(scores, logits(checkpoint, [row]), atol=2e-5, rtol=0)
    with pytest.warns(bgert.TruncationWarning):
        assert abs(float(reranker.score((query, document))) - float(scores[0])) > 1e-6
