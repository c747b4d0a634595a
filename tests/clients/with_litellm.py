"""litellm, by each of its providers that speaks to a server of one's own."""

import asyncio
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would fetch its list of prices
import litellm
from asking import QUERY, STRICT, TEXTS, URL, Busy, call, check_refused, check_scores, check_vectors, main, tokens


def embed(model, base=URL, **more):
    reply = litellm.embedding(model=model, input=TEXTS, api_base=base, api_key="none", **more)
    check_vectors([item["embedding"] for item in reply.data])
    return reply


def rerank(model, top=None, **more):
    reply = litellm.rerank(model=model, query=QUERY, documents=TEXTS, top_n=top, api_base=URL, api_key="none", **more)
    check_scores([(item["index"], item["relevance_score"]) for item in reply.results], top=top)
    return reply


@call("embedding: openai/")
def openai():
    reply = embed("openai/minilm", f"{URL}/v1")
    assert reply.usage.prompt_tokens == tokens()


@call("embedding: hosted_vllm/, openai_like/, jina_ai/, infinity/")
def like_openai():
    embed("hosted_vllm/minilm", f"{URL}/v1")
    embed("openai_like/minilm", f"{URL}/v1")
    embed("jina_ai/minilm", f"{URL}/v1")
    embed("infinity/minilm")


@call("embedding: cohere/")
def cohere():
    embed("cohere/minilm", f"{URL}/v1/embed")


@call("aembedding: openai/")
def asynchronous():
    async def ask():
        return await litellm.aembedding(model="openai/minilm", input=TEXTS, api_base=f"{URL}/v1", api_key="none")

    check_vectors([item["embedding"] for item in asyncio.run(ask()).data])


@call("rerank: cohere/, jina_ai/, hosted_vllm/")
def rerank_cohere():
    for provider in ("cohere", "jina_ai", "hosted_vllm"):
        rerank(f"{provider}/reranker")
        reply = rerank(f"{provider}/reranker", top=2)
        assert [item["document"]["text"] for item in reply.results] == [TEXTS[i["index"]] for i in reply.results]


@call("rerank: infinity/ with return_documents=False")
def rerank_infinity():
    rerank("infinity/reranker", top=2, return_documents=False)


@call("rerank: huggingface/")
def rerank_huggingface():
    rerank("huggingface/reranker", top=2)


@call("errors: a reranker asked for embeddings")
def errors():
    check_refused(
        lambda: embed("openai/reranker", f"{STRICT}/v1"), "no model for embeddings", kind=litellm.BadRequestError
    )


@call("429: retried after Retry-After")
def retried():
    with Busy() as busy:
        embed("openai/minilm", f"{STRICT}/v1")
        busy.check_retried()


main("litellm")
