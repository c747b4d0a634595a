"""Which path is served by what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bgert.serve.dialects import cohere, hugging_face, openai, rerank, tei
from bgert.serve.messages import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

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


ENCODER, RERANKER = "encoder", "reranker"


def routes(health: Health) -> dict[str, Route]:
    """All routes by path."""
    ready, live = {"GET": health.ready}, {"GET": health.live}
    listed = [
        Route("/v1/embeddings", openai.failure, {"POST": openai.embeddings}, (ENCODER,)),
        Route("/embeddings", openai.failure, {"POST": openai.embeddings}, (ENCODER,)),
        Route("/v1/models", openai.failure, {"GET": openai.models}),
        Route("/models", openai.failure, {"GET": openai.models}),
        Route("/v1/models/*", openai.failure, {"GET": openai.one_model}),
        Route("/models/*", openai.failure, {"GET": openai.one_model}),
        Route("/embed", tei.failure, {"POST": tei.embed}, (ENCODER,)),
        Route("/similarity", tei.failure, {"POST": tei.similarity}, (ENCODER,)),
        Route("/predict", tei.failure, {"POST": tei.predict}, (RERANKER,)),
        Route("/embed_all", tei.failure, {"POST": tei.not_served}, (ENCODER,)),
        Route("/embed_sparse", tei.failure, {"POST": tei.not_served}, (ENCODER,)),
        Route("/info", tei.failure, {"GET": tei.info}),
        Route("/", tei.failure, ready | {"POST": hugging_face.root}, (ENCODER, RERANKER), open=True),
        Route("/invocations", tei.failure, {"POST": hugging_face.root}, (ENCODER, RERANKER)),
        Route("/vertex", tei.failure, {"POST": hugging_face.vertex}, (ENCODER, RERANKER)),
        Route("/rerank", rerank.failure, {"POST": rerank.rerank}, (RERANKER,)),
        Route("/v1/rerank", rerank.failure, {"POST": rerank.rerank}, (RERANKER,)),
        Route("/v2/rerank", rerank.failure, {"POST": rerank.rerank}, (RERANKER,)),
        Route("/v1/embed", cohere.failure, {"POST": cohere.embed_v1}, (ENCODER,)),
        Route("/v2/embed", cohere.failure, {"POST": cohere.embed_v2}, (ENCODER,)),
        Route("/health", openai.failure, ready, open=True),
        Route("/health/ready", openai.failure, ready, open=True),
        Route("/ready", openai.failure, ready, open=True),
        Route("/ping", openai.failure, ready, open=True),
        Route("/health/live", openai.failure, live, open=True),
        Route("/metrics", openai.failure, {"GET": metrics}, open=True),
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
