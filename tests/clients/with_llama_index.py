"""LlamaIndex's packages for OpenAI, text-embeddings-inference, Cohere, Hugging Face and Jina."""

import asyncio

from asking import QUERY, STRICT, TEXTS, URL, Busy, call, check_scores, check_vectors, main
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.embeddings.cohere import CohereEmbedding
from llama_index.embeddings.huggingface_api import HuggingFaceInferenceAPIEmbedding
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

GIVEN = {"model_name": "minilm", "api_key": "none", "api_base": f"{URL}/v1"}


def check_embedding(embedding):
    check_vectors(embedding.get_text_embedding_batch(TEXTS))
    check_vectors([embedding.get_query_embedding(TEXTS[0])], TEXTS[:1])
    check_vectors(asyncio.run(embedding.aget_text_embedding_batch(TEXTS)))


def check_reranker(reranker):
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    found = reranker.postprocess_nodes(nodes, query_bundle=QueryBundle(QUERY))
    check_scores([(TEXTS.index(each.node.get_content()), each.score) for each in found], top=2)


@call("texts, query, async", of="llama-index-embeddings-openai")
def openai():
    check_embedding(OpenAIEmbedding(**GIVEN))


@call("429 retried after Retry-After", of="llama-index-embeddings-openai")
def retried():
    embedding = OpenAIEmbedding(**GIVEN | {"api_base": f"{STRICT}/v1"})
    with Busy() as busy:
        check_vectors(embedding.get_text_embedding_batch(TEXTS))
        busy.check_retried()


@call("texts, query, async", of="llama-index-embeddings-openai-like")
def openai_like():
    check_embedding(OpenAILikeEmbedding(**GIVEN))


@call("texts, query, async", of="llama-index-embeddings-text-embeddings-inference")
def tei():
    check_embedding(TextEmbeddingsInference(model_name="minilm", base_url=URL))


@call("texts, query, async", of="llama-index-embeddings-cohere")
def cohere():
    check_embedding(CohereEmbedding(api_key="none", model_name="embed-english-v3.0", base_url=URL))


@call("texts, query, async", of="llama-index-embeddings-huggingface-api")
def huggingface():
    # It opens an event loop a call and keeps its connections: a second call on one object finds the loop closed.
    def fresh():
        return HuggingFaceInferenceAPIEmbedding(model_name=URL)

    check_vectors(fresh().get_text_embedding_batch(TEXTS))
    check_vectors([fresh().get_query_embedding(TEXTS[0])], TEXTS[:1])
    check_vectors(asyncio.run(fresh().aget_text_embedding_batch(TEXTS)))


@call("postprocess_nodes", of="llama-index-postprocessor-tei-rerank")
def tei_rerank():
    check_reranker(TextEmbeddingInference(base_url=URL, top_n=2))


@call("postprocess_nodes", of="llama-index-postprocessor-cohere-rerank")
def cohere_rerank():
    check_reranker(CohereRerank(model="reranker", api_key="none", base_url=URL, top_n=2))


@call("postprocess_nodes", of="llama-index-postprocessor-jinaai-rerank")
def jina_rerank():
    check_reranker(JinaRerank(model="reranker", api_key="none", base_url=URL, top_n=2))


main("llama-index-embeddings-openai")
