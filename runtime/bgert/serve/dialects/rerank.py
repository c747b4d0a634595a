"""Reranking for all dialects.

They share paths, so the fields of a body say whose it is: `texts` is TEI's, `documents` is Cohere's and Jina's. The
reply to those two is one object in which each finds its own fields.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from bgert.reranker import logistic
from bgert.serve.dialects import tei
from bgert.serve.dialects.body import decode, json_text, number_texts
from bgert.serve.messages import Response
from bgert.serve.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bgert.serve.messages import Request
    from bgert.serve.models import Served
    from bgert.serve.service import Service

__all__ = ["RerankBody", "best_first", "failure", "only_score", "rerank", "rerank_texts"]

STATUS = {"validation": 422, "wrong_model": 400}


class RerankBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /rerank`, `/v1/rerank` and `/v2/rerank`."""

    query: str
    documents: list[str | dict[str, Any]] | None = None
    texts: list[str] | None = None
    """TEI's name of the documents."""
    model: str | None = None
    top_n: int | None = None
    return_documents: bool | None = None
    rank_fields: list[str] | None = None
    max_tokens_per_doc: int | None = None
    priority: int | None = None
    """Cohere: 0 is the most urgent; what is not waits behind what is."""
    truncate: bool | None = None
    truncation_direction: str | None = None
    raw_scores: bool | None = None
    return_text: bool | None = None


def failure(refusal: Refusal) -> Response:
    """An error that Cohere's, Jina's and TEI's clients find in the field where each looks."""
    content = {
        "message": refusal.message,
        "detail": refusal.message,
        "error": refusal.message,
        "error_type": tei.ERROR_TYPES.get(refusal.kind, "Validation"),
    }
    return Response(STATUS.get(refusal.kind, 0), json_text(content))


async def rerank(service: Service, request: Request) -> Response:
    """`POST /rerank`, `/v1/rerank` and `/v2/rerank`."""
    body = decode(request.body, RerankBody, request.record)
    if body.texts is not None:
        return await rerank_texts(service, request, body)
    if body.documents is None:
        raise Refusal("validation", "the body has neither documents nor texts", param="documents")
    served = service.pick(request, "reranker", body.model)
    only_score(served)
    check_query(body)
    request.record.bulk = bool(body.priority)
    texts = [document_text(document, body.rank_fields, index) for index, document in enumerate(body.documents)]
    limit, truncation = await _document_limit(service, served, body)
    logits = await service.score(
        request,
        served,
        [body.query] * len(texts),
        texts,
        max_length=limit,
        truncation=truncation,
        truncate=body.truncate,
        side=tei.side_of(body.truncation_direction),
    )
    order = best_first(logits[:, 0], body.top_n)
    scores = logits[order, 0] if body.raw_scores else logistic(logits[order, 0])
    results = []
    for index, score in zip(order, number_texts(scores), strict=True):
        document = b""
        if body.return_documents or body.return_text:
            given = body.documents[index]
            document = b',"document":' + json_text({"text": given} if isinstance(given, str) else given)
        results.append(b'{"index":%d,"relevance_score":%b%b}' % (index, score, document))
    tokens = request.record.tokens
    meta: dict[str, Any] = {
        "api_version": {"version": "2" if request.path.startswith("/v2") else "1"},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": tokens},
    }
    if request.record.truncated:
        meta["warnings"] = [f"{len(request.record.truncated)} documents were longer than the model takes and were cut"]
    content = b'{"id":"%b","object":"list","model":%b,"results":[%b],"meta":%b,"usage":%b}'
    usage = json_text({"prompt_tokens": tokens, "total_tokens": tokens})
    name = secrets.token_hex(16).encode()
    return Response(200, content % (name, json_text(served.name), b",".join(results), json_text(meta), usage))


async def rerank_texts(service: Service, request: Request, body: RerankBody) -> Response:
    """TEI's reranking: a list of ranks, best first."""
    texts = body.texts or []
    for name in ("documents", "rank_fields", "max_tokens_per_doc"):
        if getattr(body, name) is not None:
            raise Refusal("validation", f"{name} and texts do not go together: leave one out", param=name)
    request.record.bulk = bool(body.priority)
    served = service.pick(request, "reranker", tei.model_of(request) or body.model)
    only_score(served)
    check_query(body)
    logits = await service.score(
        request,
        served,
        [body.query] * len(texts),
        texts,
        truncate=body.truncate,
        side=tei.side_of(body.truncation_direction),
        param="texts",
    )
    order = best_first(logits[:, 0], body.top_n)
    scores = logits[order, 0] if body.raw_scores else logistic(logits[order, 0])
    ranks = []
    for index, score in zip(order, number_texts(scores), strict=True):
        text = b',"text":' + json_text(texts[index]) if body.return_text or body.return_documents else b""
        ranks.append(b'{"index":%d,"score":%b%b}' % (index, score, text))
    return Response(200, b"[%b]" % b",".join(ranks), headers=tei.headers(request, served))


def only_score(served: Served) -> None:
    """Refuse to rank by a model that gives several scores."""
    if served.engine.columns != 1:
        raise Refusal(
            "wrong_model",
            f"{served.name} gives {served.engine.columns} scores: /predict serves it",
            param="model",
        )


def check_query(body: RerankBody) -> None:
    """Refuse an empty query and a `top_n` that asks for nothing."""
    if not body.query:
        raise Refusal("empty", "query is empty", param="query")
    if body.top_n is not None and body.top_n < 1:
        raise Refusal("validation", f"top_n is {body.top_n}: use a whole number from 1", param="top_n")


def best_first(scores: NDArray[np.float32], top_n: int | None) -> list[int]:
    """Indices by score; equal scores stay in the order of the documents, as `Reranker.rank` has them."""
    order: list[int] = np.argsort(-scores, kind="stable")[:top_n].tolist()
    return order


def document_text(document: str | dict[str, Any], fields: Sequence[str] | None, index: int) -> str:
    """The text of a document: itself, its field `text`, or the `rank_fields` with their names."""
    if isinstance(document, str):
        return document
    names = fields or ["text"]
    if missing := [name for name in names if not isinstance(document.get(name), str) and fields is None]:
        raise Refusal("validation", f"documents {index} has no text in {missing[0]!r}", param="documents")
    found = [(name, str(document[name])) for name in names if document.get(name) is not None]
    if names == ["text"]:
        return found[0][1] if found else ""
    return "\n".join(f"{name}: {text}" for name, text in found)


async def _document_limit(service: Service, served: Served, body: RerankBody) -> tuple[int | None, str]:
    """What cuts a document at `max_tokens_per_doc`: a length of the pair, and which side loses."""
    limit = body.max_tokens_per_doc
    if limit is None:
        return None, "longest_first"
    if limit < 1:
        raise Refusal("validation", f"max_tokens_per_doc is {limit}: use a whole number from 1")
    if limit >= served.model.max_length:
        return None, "longest_first"
    tokenizer = served.model.tokenizer
    query = await service.offload(True, served.count, served.prefix(None) + body.query)
    pair = query + tokenizer.pair_special_tokens + limit
    return (pair, "only_second") if pair <= served.model.max_length else (None, "longest_first")
