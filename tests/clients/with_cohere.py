"""Cohere's own client, versions 1 and 2 of its interface."""

import asyncio

import cohere
from asking import (
    DIMENSIONS,
    LONG,
    QUERY,
    STRICT,
    TEXTS,
    URL,
    Busy,
    call,
    check_refused,
    check_scores,
    check_vectors,
    main,
    tokens,
    truth,
)

first = cohere.Client(api_key="none", base_url=URL)
second = cohere.ClientV2(api_key="none", base_url=URL)
strict = cohere.ClientV2(api_key="none", base_url=STRICT)
DOCUMENT = {"model": "minilm", "input_type": "search_document"}


def ranks(reply):
    return [(result.index, result.relevance_score) for result in reply.results]


@call("Client.embed: floats")
def embed():
    reply = first.embed(texts=TEXTS, **DOCUMENT)
    check_vectors(reply.embeddings)
    assert reply.texts == TEXTS
    assert reply.meta.billed_units.input_tokens == tokens()


@call("Client.embed: 200 texts, which it sends 96 at a time")
def batches():
    texts = [TEXTS[index % 3] for index in range(200)]
    check_vectors(first.embed(texts=texts, **DOCUMENT).embeddings, texts)


@call("Client.embed: float, int8 and ubinary together")
def types():
    reply = first.embed(texts=TEXTS, embedding_types=["float", "int8", "ubinary"], **DOCUMENT)
    check_types(reply.embeddings)


def check_types(embeddings):
    check_vectors(embeddings.float_)
    check_vectors(embeddings.int8, kind="int8")
    check_vectors(embeddings.ubinary, kind="ubinary", length=48)


@call("ClientV2.embed: float, int8 and ubinary together")
def types_v2():
    check_types(second.embed(texts=TEXTS, embedding_types=["float", "int8", "ubinary"], **DOCUMENT).embeddings)


@call("ClientV2.embed: inputs, output_dimension")
def dimension():
    inputs = [{"content": [{"type": "text", "text": text}]} for text in TEXTS]
    reply = second.embed(inputs=inputs, embedding_types=["float"], output_dimension=DIMENSIONS, **DOCUMENT)
    check_vectors(reply.embeddings.float_, kind="float32 short", length=DIMENSIONS)


@call("ClientV2.embed: truncate END, START and NONE")
def truncate():
    def ask(side):
        return second.embed(texts=[LONG], embedding_types=["float"], truncate=side, **DOCUMENT)

    reply = ask("END")
    check_vectors(reply.embeddings.float_, [LONG])
    assert "were cut" in reply.meta.warnings[0]
    check_vectors(ask("START").embeddings.float_, [truth("left")])
    check_refused(lambda: ask("NONE"), "longer than the 256 tokens", kind=cohere.BadRequestError)


@call("Client.rerank: top_n, return_documents")
def rerank():
    reply = first.rerank(model="reranker", query=QUERY, documents=TEXTS, top_n=2, return_documents=True)
    check_scores(ranks(reply), top=2)
    assert [result.document.text for result in reply.results] == [TEXTS[index] for index, _ in ranks(reply)]


@call("Client.rerank: documents with fields")
def fields():
    documents = [{"text": text, "title": "t"} for text in TEXTS]
    check_scores(ranks(first.rerank(model="reranker", query=QUERY, documents=documents)))


@call("ClientV2.rerank: all, top_n")
def rerank_v2():
    check_scores(ranks(second.rerank(model="reranker", query=QUERY, documents=TEXTS)))
    reply = second.rerank(model="reranker", query=QUERY, documents=TEXTS, top_n=1, max_tokens_per_doc=512)
    check_scores(ranks(reply), top=1)


@call("AsyncClientV2: embed and rerank at once")
def asynchronous():
    async def ask():
        client = cohere.AsyncClientV2(api_key="none", base_url=URL)
        return await asyncio.gather(
            client.embed(texts=TEXTS, embedding_types=["float"], **DOCUMENT),
            client.rerank(model="reranker", query=QUERY, documents=TEXTS),
        )

    embedded, ranked = asyncio.run(ask())
    check_vectors(embedded.embeddings.float_)
    check_scores(ranks(ranked))


@call("errors: an unknown model, an encoder, too many texts")
def errors():
    def embed(model, texts):
        return lambda: strict.embed(texts=texts, model=model, input_type="search_query", embedding_types=["float"])

    check_refused(embed("nobody", TEXTS), "'nobody'", "twin", kind=cohere.NotFoundError)
    check_refused(embed("minilm", ["x"] * 9), "takes 8", kind=cohere.BadRequestError)
    check_refused(
        lambda: strict.rerank(model="minilm", query=QUERY, documents=TEXTS),
        "no model for reranking",
        kind=cohere.BadRequestError,
    )


@call("429: retried after Retry-After")
def retried():
    with Busy() as busy:
        check_scores(ranks(strict.rerank(model="reranker", query=QUERY, documents=TEXTS)))
        busy.check_retried()


main("cohere")
