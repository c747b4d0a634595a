"""Which path is served by what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bgert.serve.dialects import cohere, hugging_face, openai, rerank, tei, tei_tokens
from bgert.serve.docs import fixed, openapi, page
from bgert.serve.messages import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from bgert.serve.health import Health
    from bgert.serve.messages import Request
    from bgert.serve.refusal import Refusal
    from bgert.serve.service import Service

    Handler = Callable[[Service, Request], Awaitable[Response]]
    Failure = Callable[[Refusal], Response]

__all__ = ["Route", "find", "routes"]


@dataclass(frozen=True)
class Route:
    """A path."""

    path: str
    failure: Failure
    """How this route's clients are told that something is wrong."""
    handlers: Mapping[str, Handler] = field(default_factory=dict)
    """By method; HEAD is GET."""
    kinds: tuple[str, ...] = ()
    """The kinds of model that its POST may need; none for routes that answer without one."""
    open: bool = False
    """Whether its GET needs no key."""
    body: type | None = None
    """What its POST takes."""


ENCODER, RERANKER = "encoder", "reranker"


def _work(failure: Failure, handler: Handler, body: type, kinds: tuple[str, ...], *paths: str) -> Iterator[Route]:
    """The same POST under several paths."""
    for path in paths:
        yield Route(path, failure, {"POST": handler}, kinds, body=body)


def routes(health: Health) -> dict[str, Route]:
    """All routes by path."""
    ready, live = {"GET": health.ready}, {"GET": health.live}
    listed = [
        *_work(openai.failure, openai.embeddings, openai.EmbeddingsBody, (ENCODER,), "/v1/embeddings", "/embeddings"),
        Route("/v1/models", openai.failure, {"GET": openai.models}),
        Route("/models", openai.failure, {"GET": openai.models}),
        Route("/v1/models/*", openai.failure, {"GET": openai.one_model}),
        Route("/models/*", openai.failure, {"GET": openai.one_model}),
        *_work(cohere.failure, cohere.embed_v1, cohere.EmbedBody, (ENCODER,), "/v1/embed"),
        *_work(cohere.failure, cohere.embed_v2, cohere.EmbedBody, (ENCODER,), "/v2/embed"),
        *_work(rerank.failure, rerank.rerank, rerank.RerankBody, (RERANKER,), "/rerank", "/v1/rerank", "/v2/rerank"),
        *_work(tei.failure, tei.embed, tei.EmbedBody, (ENCODER,), "/embed"),
        *_work(tei.failure, tei.similarity, tei.SimilarityBody, (ENCODER,), "/similarity"),
        *_work(tei.failure, tei.predict, tei.PredictBody, (RERANKER,), "/predict"),
        *_work(tei.failure, tei.embed_sparse, tei.SparseBody, (ENCODER,), "/embed_sparse"),
        *_work(tei.failure, tei.not_served, tei.EmbedBody, (ENCODER,), "/embed_all"),
        *_work(tei.failure, tei_tokens.tokenize, tei_tokens.TokenizeBody, (ENCODER, RERANKER), "/tokenize"),
        *_work(tei.failure, tei_tokens.from_ids, tei_tokens.DecodeBody, (ENCODER, RERANKER), "/decode"),
        *_work(tei.failure, hugging_face.root, tei.EmbedBody, (ENCODER, RERANKER), "/invocations"),
        *_work(tei.failure, hugging_face.vertex, hugging_face.VertexBody, (ENCODER, RERANKER), "/vertex"),
        Route("/info", tei.failure, {"GET": tei_tokens.info}),
        Route(
            "/", tei.failure, ready | {"POST": hugging_face.root}, (ENCODER, RERANKER), open=True, body=tei.EmbedBody
        ),
        *(Route(path, tei.failure, ready, open=True) for path in ("/health", "/health/ready", "/ready", "/ping")),
        Route("/health/live", tei.failure, live, open=True),
        Route("/metrics", tei.failure, {"GET": metrics}, open=True),
    ]
    listed += [
        Route("/openapi.json", tei.failure, {"GET": fixed(openapi(listed), "application/json")}, open=True),
        Route("/docs", tei.failure, {"GET": fixed(page(listed), "text/html; charset=utf-8")}, open=True),
    ]
    return {route.path: route for route in listed}


async def metrics(service: Service, request: Request) -> Response:  # noqa: ARG001 - as every handler
    """`GET /metrics`."""
    return Response(200, service.metrics.render(), "text/plain; version=0.0.4; charset=utf-8")


def find(table: dict[str, Route], path: str) -> Route | None:
    """The route of a path; a doubled or a trailing slash, which base addresses often leave, does not matter."""
    if (route := table.get(path)) is not None:
        return route
    plain = "/" + "/".join(part for part in path.split("/") if part)
    if (route := table.get(plain)) is not None:
        return route
    return next((table[f"{prefix}*"] for prefix in ("/v1/models/", "/models/") if plain.startswith(prefix)), None)
