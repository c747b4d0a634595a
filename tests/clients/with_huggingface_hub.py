"""Hugging Face's InferenceClient, which sends everything to `POST /`."""

import asyncio

from asking import LONG, QUERY, STRICT, TEXTS, URL, Busy, call, check_refused, check_vectors, float32, main, truth
from huggingface_hub import AsyncInferenceClient, InferenceClient

client = InferenceClient(base_url=URL)
by_model = InferenceClient(model=URL)
strict = InferenceClient(base_url=STRICT)


@call("feature_extraction: one text, by base_url and by model")
def one():
    for each in (client, by_model):
        result = each.feature_extraction(TEXTS[0])
        assert str(result.dtype) == "float32"
        check_vectors(result.tolist(), TEXTS[:1])


@call("feature_extraction: a list")
def several():
    check_vectors(client.feature_extraction(TEXTS, normalize=True).tolist())


@call("feature_extraction: truncation from the right, from the left, and refused")
def truncation():
    check_vectors(client.feature_extraction(LONG, truncate=True).tolist(), [LONG])
    left = client.feature_extraction(LONG, truncate=True, truncation_direction="Left")
    check_vectors(left.tolist(), [truth("left")])
    check_refused(lambda: client.feature_extraction(LONG, truncate=False), "422")


@call("sentence_similarity")
def similarity():
    cosines = client.sentence_similarity(QUERY, other_sentences=TEXTS)
    query = truth("vectors", "float32", QUERY)
    for text, cosine in zip(TEXTS, cosines, strict=True):
        expected = sum(a * b for a, b in zip(query, truth("vectors", "float32", text), strict=True))
        assert abs(cosine - expected) < 1e-6, (cosine, expected)


@call("text_classification: the reranker's score of one text")
def classification():
    result = client.text_classification(TEXTS[0])
    assert len(result) == 1
    assert result[0].label == "LABEL_0"
    assert float32([result[0].score]) == float32([truth("scores", "alone")]), result


@call("AsyncInferenceClient: 8 requests at once")
def asynchronous():
    async def ask():
        several = AsyncInferenceClient(base_url=URL)
        return await asyncio.gather(*(several.feature_extraction(TEXTS) for _ in range(8)))

    for result in asyncio.run(ask()):
        check_vectors(result.tolist())


@call("errors: several models and none named, too many texts")
def errors():
    check_refused(lambda: strict.feature_extraction("x"), "name one of minilm, twin")
    named = InferenceClient(base_url=f"{STRICT}/?model=twin")
    check_vectors(named.feature_extraction(TEXTS).tolist())
    check_refused(lambda: named.feature_extraction(["x"] * 9), "takes 8")


@call("429: shown, as it does not retry")
def overloaded():
    with Busy():
        check_refused(lambda: strict.feature_extraction("x"), "429", "come again")


main("huggingface_hub")
