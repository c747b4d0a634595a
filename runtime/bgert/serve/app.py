"""What happens to a request between its headers and its reply: route, key, admission, handler, log."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from typing import TYPE_CHECKING

from bgert.serve.dialects import openai
from bgert.serve.messages import Response
from bgert.serve.record import Record
from bgert.serve.refusal import KINDS, Refusal
from bgert.serve.routes import Route, find, routes

if TYPE_CHECKING:
    from bgert.serve.connection import Connection
    from bgert.serve.health import Health
    from bgert.serve.log import AccessLog
    from bgert.serve.messages import Request
    from bgert.serve.service import Service

__all__ = ["App"]

logger = logging.getLogger("bgert.serve")


class App:
    """The server as its connections see it."""

    def __init__(self, service: Service, health: Health, log: AccessLog) -> None:
        self.service = service
        self.settings = service.settings
        self.admission = service.admission
        self.health = health
        self.log = log
        self.connections: set[Connection] = set()
        self.table = routes(health)

    @property
    def draining(self) -> bool:
        """Whether connections close after their reply."""
        return self.health.draining

    def admit(self, request: Request) -> Response | None:
        """Let a request in by its headers; else the reply that refuses it."""
        request.record = Record.of(request.headers)
        request.route = route = find(self.table, request.path)
        try:
            if route is None:
                raise Refusal("not_found", f"there is no route {request.path[:200]!r}: /docs lists them")
            request.handler = route.handlers.get("GET" if request.method == "HEAD" else request.method)
            if request.method == "OPTIONS":
                return self._finish(request, self._preflight(request, route))
            if request.handler is None:
                methods = ", ".join(sorted(route.handlers))
                raise Refusal("method", f"{request.path} takes {methods}", headers=(("allow", methods),))
            if request.method == "POST" or not route.open:
                self._check_key(request)
            if request.method == "POST" and route.kinds:
                self._check_state(request, route)
        except Refusal as refusal:
            return self._refuse(request, refusal)
        self.admission.requests += 1
        request.admitted = True
        return None

    def _check_key(self, request: Request) -> None:
        if not self.settings.keys:
            return
        words = request.headers.get("authorization", "").split()
        # Some clients send the key bare, some say Bearer twice.
        while words and words[0].lower() == "bearer":
            words.pop(0)
        given = (" ".join(words) or request.headers.get("x-api-key", "")).encode("latin-1", "replace")
        if not any(hmac.compare_digest(given, key) for key in self.settings.keys):
            raise Refusal(
                "unauthorized",
                "this server wants a key: Authorization: Bearer KEY",
                headers=(("www-authenticate", "Bearer"),),
            )

    def _check_state(self, request: Request, route: Route) -> None:
        self.health.check_serving()
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding not in ("identity", ""):
            raise Refusal("encoding", f"the body is in {encoding}: send it plain")
        engines = [served.engine for served in self.service.models if served.kind in route.kinds]
        self.admission.before_body(request.body_length, engines)

    def _preflight(self, request: Request, route: Route) -> Response:
        allowed = ", ".join(sorted({*route.handlers, "OPTIONS"}))
        headers = [("allow", allowed)]
        if self._cors(request):
            headers += [
                ("access-control-allow-methods", allowed),
                # Clients send headers of their own, as x-stainless-os; the star alone does not let authorization in.
                ("access-control-allow-headers", "*, authorization, content-type, x-api-key, x-request-id"),
                ("access-control-max-age", "600"),
            ]
        return Response(204, headers=tuple(headers))

    def _cors(self, request: Request) -> list[tuple[str, str]]:
        origin, allowed = request.headers.get("origin"), self.settings.cors_origin
        if origin is None or not ("*" in allowed or origin in allowed):
            return []
        value = "*" if "*" in allowed else origin
        return [("access-control-allow-origin", value), ("access-control-expose-headers", "*"), ("vary", "origin")]

    async def handle(self, request: Request) -> Response:
        """Serve a request whose body is there. Raises nothing but CancelledError."""
        assert request.handler is not None  # noqa: S101 - admitted
        try:
            return self._finish(request, await request.handler(self.service, request))
        except Refusal as refusal:
            return self._refuse(request, refusal)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            logger.exception("request %s failed", request.record.request_id)
            request.record.detail = f"{type(error).__name__}: {error}"
            return self._refuse(request, Refusal("backend", "the server failed on this request"))

    def check_body(self, request: Request, received: int) -> Response | None:
        """The reply to a body that has grown over a limit, its own or that of all bodies; None while it has not."""
        try:
            self.admission.while_body(received)
        except Refusal as refusal:
            return self._refuse(request, refusal)
        return None

    def too_slow(self, request: Request) -> Response:
        """The reply to a body that does not come."""
        return self._refuse(request, Refusal("too_slow", "the body did not come in time"), close=True)

    def _refuse(self, request: Request, refusal: Refusal, *, close: bool = False) -> Response:
        request.record.failure = refusal.kind
        reply = (request.route.failure if request.route else openai.failure)(refusal)
        headers = [*reply.headers, *refusal.headers]
        if refusal.retry_after is not None:
            headers.append(("retry-after", str(refusal.retry_after)))
        status = reply.status or KINDS[refusal.kind]
        return self._finish(request, reply._replace(status=status, headers=tuple(headers), close=close))

    def _finish(self, request: Request, reply: Response) -> Response:
        headers = (*reply.headers, *request.record.headers(), *self._cors(request))
        return reply._replace(headers=headers)

    def ended(self, request: Request, reply: Response | None) -> None:
        """A request has its reply, or its client left before; called once for each."""
        if request.admitted:
            self.admission.requests -= 1
            request.admitted = False
        seconds = time.perf_counter() - request.begun
        self.service.metrics.request(request, reply, seconds)
        if self.settings.access_log:
            self.log.request(request, reply, seconds)

    def refused_connection(self) -> None:
        """What came was no request."""
        self.service.metrics.refused_connection()
