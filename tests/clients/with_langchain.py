"""LangChain's packages for Cohere and Hugging Face."""

import asyncio

from asking import QUERY, STRICT, TEXTS, URL, Busy, call, check_scores, check_vectors, main
from huggingface_hub import AsyncInferenceClient, InferenceClient
from langchain_cohere import CohereEmbeddings, CohereRerank
from langchain_core.documents import Document
from langchain_huggingface import HuggingFaceEndpointEmbeddings

GIVEN = {"cohere_api_key": "none", "base_url": URL}


@call("CohereEmbeddings.embed_documents, embed_query", of="langchain-cohere")
def embed():
    embeddings = CohereEmbeddings(model="minilm", **GIVEN)
    check_vectors(embeddings.embed_documents(TEXTS))
    check_vectors([embeddings.embed_query(TEXTS[0])], TEXTS[:1])
    check_vectors(asyncio.run(embeddings.aembed_documents(TEXTS)))


@call("CohereRerank.rerank, compress_documents", of="langchain-cohere")
def rerank():
    reranker = CohereRerank(model="reranker", top_n=2, **GIVEN)
    ranks = reranker.rerank(TEXTS, QUERY)
    check_scores([(rank["index"], rank["relevance_score"]) for rank in ranks], top=2)
    found = reranker.compress_documents([Document(text) for text in TEXTS], QUERY)
    check_scores([(TEXTS.index(each.page_content), each.metadata["relevance_score"]) for each in found], top=2)


@call("429 retried after Retry-After", of="langchain-cohere")
def retried():
    embeddings = CohereEmbeddings(model="minilm", **GIVEN | {"base_url": STRICT})
    with Busy() as busy:
        check_vectors(embeddings.embed_documents(TEXTS))
        busy.check_retried()


@call("HuggingFaceEndpointEmbeddings with .client set after construction", of="langchain-huggingface")
def endpoint():
    embeddings = HuggingFaceEndpointEmbeddings(model="sentence-transformers/all-MiniLM-L6-v2")
    embeddings.client = InferenceClient(base_url=URL)
    embeddings.async_client = AsyncInferenceClient(base_url=URL)
    check_vectors(embeddings.embed_documents(TEXTS))
    check_vectors([embeddings.embed_query(TEXTS[0])], TEXTS[:1])
    check_vectors(asyncio.run(embeddings.aembed_documents(TEXTS)))


main("langchain-cohere")
