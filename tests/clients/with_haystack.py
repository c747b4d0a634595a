"""Haystack and its integrations of Hugging Face, Cohere and Jina."""

from asking import DIMENSIONS, QUERY, TEXTS, URL, call, check_scores, check_vectors, main
from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret
from haystack_integrations.components.embedders.cohere import CohereDocumentEmbedder, CohereTextEmbedder
from haystack_integrations.components.embedders.huggingface_api import (
    HuggingFaceAPIDocumentEmbedder,
    HuggingFaceAPITextEmbedder,
)
from haystack_integrations.components.embedders.jina import JinaDocumentEmbedder, JinaTextEmbedder
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker
from haystack_integrations.components.rankers.jina import JinaRanker

KEY = Secret.from_token("none")
DOCUMENTS = [Document(content=text) for text in TEXTS]


def check_embedders(for_texts, for_documents):
    check_vectors([for_texts.run(text=TEXTS[0])["embedding"]], TEXTS[:1])
    check_vectors([document.embedding for document in for_documents.run(documents=DOCUMENTS)["documents"]])


def check_ranker(ranker, top):
    found = ranker.run(query=QUERY, documents=DOCUMENTS)["documents"]
    check_scores([(TEXTS.index(document.content), document.score) for document in found], top=top)


@call("OpenAITextEmbedder, OpenAIDocumentEmbedder", of="haystack-ai")
def openai():
    given = {"api_key": KEY, "model": "minilm", "api_base_url": f"{URL}/v1"}
    check_embedders(OpenAITextEmbedder(**given), OpenAIDocumentEmbedder(progress_bar=False, **given))
    short = OpenAITextEmbedder(dimensions=DIMENSIONS, **given).run(text=TEXTS[0])
    check_vectors([short["embedding"]], TEXTS[:1], kind="float32 short", length=DIMENSIONS)


@call("HuggingFaceAPITextEmbedder, HuggingFaceAPIDocumentEmbedder", of="huggingface-api-haystack")
def huggingface():
    given = {"api_type": "text_embeddings_inference", "api_params": {"url": URL}, "token": KEY}
    check_embedders(HuggingFaceAPITextEmbedder(**given), HuggingFaceAPIDocumentEmbedder(progress_bar=False, **given))


@call("HuggingFaceTEIRanker", of="huggingface-api-haystack")
def tei():
    check_ranker(HuggingFaceTEIRanker(url=URL, top_k=2, token=KEY), top=2)


@call("CohereTextEmbedder, CohereDocumentEmbedder", of="cohere-haystack")
def cohere():
    given = {"api_key": KEY, "model": "minilm", "api_base_url": URL}
    check_embedders(CohereTextEmbedder(**given), CohereDocumentEmbedder(progress_bar=False, **given))


@call("CohereRanker", of="cohere-haystack")
def cohere_ranker():
    check_ranker(CohereRanker(model="reranker", api_key=KEY, api_base_url=URL, top_k=2), top=2)


@call("JinaTextEmbedder, JinaDocumentEmbedder", of="jina-haystack")
def jina():
    given = {"api_key": KEY, "model": "minilm", "base_url": f"{URL}/v1/embeddings"}
    check_embedders(JinaTextEmbedder(**given), JinaDocumentEmbedder(progress_bar=False, **given))


@call("JinaRanker", of="jina-haystack")
def jina_ranker():
    check_ranker(JinaRanker(model="reranker", api_key=KEY, base_url=f"{URL}/v1/rerank"), top=None)


main("haystack-ai")
