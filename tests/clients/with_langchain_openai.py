"""LangChain's OpenAIEmbeddings."""

import asyncio

import openai
import tiktoken.registry
from asking import DIMENSIONS, STRICT, TEXTS, URL, Busy, call, check_refused, check_vectors, main
from langchain_openai import OpenAIEmbeddings

GIVEN = {"model": "minilm", "api_key": "none", "base_url": f"{URL}/v1"}
embeddings = OpenAIEmbeddings(check_embedding_ctx_length=False, **GIVEN)


@call("embed_documents, embed_query with check_embedding_ctx_length=False")
def strings():
    check_vectors(embeddings.embed_documents(TEXTS))
    check_vectors([embeddings.embed_query(TEXTS[0])], TEXTS[:1])


@call("embed_documents: 2,500 texts, which it sends 1,000 at a time")
def many():
    texts = [TEXTS[index % 3] for index in range(2500)]
    check_vectors(embeddings.embed_documents(texts), texts)


@call("embed_documents: dimensions")
def dimensions():
    short = OpenAIEmbeddings(check_embedding_ctx_length=False, dimensions=DIMENSIONS, **GIVEN)
    check_vectors(short.embed_documents(TEXTS), kind="float32 short", length=DIMENSIONS)


@call("aembed_documents, aembed_query")
def asynchronous():
    async def ask():
        return await asyncio.gather(embeddings.aembed_documents(TEXTS), embeddings.aembed_query(TEXTS[1]))

    several, one = asyncio.run(ask())
    check_vectors(several)
    check_vectors([one], TEXTS[1:2])


@call("embed_documents as it comes: token ids are refused with the setting to change")
def token_ids():
    # The vocabulary that it would download; bytes do as well.
    name = "cl100k_base"
    ranks = {bytes([byte]): byte for byte in range(256)}
    tiktoken.registry.ENCODINGS[name] = tiktoken.Encoding(
        name, pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={}
    )
    as_it_comes = OpenAIEmbeddings(**GIVEN)
    for ask in (lambda: as_it_comes.embed_documents(TEXTS), lambda: as_it_comes.embed_query("x" * 30_000)):
        check_refused(ask, "token ids", "check_embedding_ctx_length=False", kind=openai.BadRequestError)


@call("429: retried after Retry-After")
def retried():
    strict = OpenAIEmbeddings(check_embedding_ctx_length=False, **GIVEN | {"base_url": f"{STRICT}/v1"})
    with Busy() as busy:
        check_vectors(strict.embed_documents(TEXTS))
        busy.check_retried()


main("langchain-openai")
