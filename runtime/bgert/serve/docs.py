"""`/openapi.json` and `/docs`: made from the routes themselves, and without anything from a network."""

from __future__ import annotations

import html
import inspect
from typing import TYPE_CHECKING, Any

import msgspec

from bgert import __version__
from bgert.serve.messages import Response
from bgert.serve.refusal import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bgert.serve.messages import Request
    from bgert.serve.routes import Handler, Route
    from bgert.serve.service import Service

__all__ = ["fixed", "openapi", "page"]

EXAMPLES = {
    "EmbeddingsBody": {"model": "m", "input": ["A first text.", "Another."], "encoding_format": "float"},
    "cohere.EmbedBody": {"model": "m", "texts": ["A first text."], "input_type": "search_document"},
    "tei.EmbedBody": {"inputs": ["A first text.", "Another."]},
    "RerankBody": {"model": "m", "query": "What is a panda?", "documents": ["A bear.", "A car."], "top_n": 2},
    "SparseBody": {"inputs": ["A first text.", "Another."]},
    "PredictBody": {"inputs": ["What is a panda?", "A bear."]},
    "SimilarityBody": {"inputs": {"source_sentence": "A bear.", "sentences": ["A panda.", "A car."]}},
    "TokenizeBody": {"inputs": "A first text."},
    "DecodeBody": {"ids": [1, 2, 3]},
    "VertexBody": {"instances": [{"inputs": "A first text."}]},
}


def fixed(content: bytes, content_type: str) -> Handler:
    """A handler that always gives the same."""

    async def handler(service: Service, request: Request) -> Response:  # noqa: ARG001 - as every handler
        return Response(200, content, content_type, headers=(("content-security-policy", POLICY),))

    return handler


def _name(body: type) -> str:
    """The name of a body among the schemas; several dialects have an `EmbedBody`."""
    return body.__name__ if body.__name__ != "EmbedBody" else f"{body.__module__.rpartition('.')[2]}.EmbedBody"


def openapi(routes: Iterable[Route]) -> bytes:
    """The OpenAPI 3.1 description of the routes."""
    listed = list(routes)
    bodies = list(dict.fromkeys(route.body for route in listed if route.body is not None))
    schemas: dict[str, Any] = {}
    for body in bodies:  # one by one, for two have the same name
        (schema,), components = msgspec.json.schema_components([body], ref_template="#/components/schemas/{name}")
        own = schema["$ref"].rpartition("/")[2]
        schemas[_name(body)] = components.pop(own) | {"title": _name(body)}
        schemas[_name(body)].pop("additionalProperties", None)  # some are left aside, see `dialects.fields`
        schemas |= components
    paths: dict[str, Any] = {}
    for route in listed:
        path = route.path.replace("*", "{name}")
        for method, handler in route.handlers.items():
            lines = inspect.getdoc(handler) or ""
            operation: dict[str, Any] = {
                "summary": lines.split("\n")[0].rstrip("."),
                "responses": {"200": {"description": "served"}}
                | {str(status): {"description": "refused"} for status in sorted({*KINDS.values()} - {404, 405})},
            }
            if "*" in route.path:
                operation["parameters"] = [
                    {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
                ]
            if method == "POST" and route.body is not None:
                name = _name(route.body)
                content = {"schema": {"$ref": f"#/components/schemas/{name}"}, "example": EXAMPLES[name]}
                operation["requestBody"] = {"required": True, "content": {"application/json": content}}
            if method == "GET" and route.open:
                operation["security"] = []
            paths.setdefault(path, {})[method.lower()] = operation
    keys = {"key": {"type": "http", "scheme": "bearer"}}
    description = {
        "openapi": "3.1.0",
        "info": {"title": "bgert serve", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": keys},
        "security": [{}, {"key": []}],
    }
    return msgspec.json.encode(description)


POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>bgert serve</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
summary { cursor: pointer; padding: .3rem 0 } code, textarea, pre { font: 14px/1.4 ui-monospace, monospace }
textarea { width: 100%; height: 7rem } pre { overflow: auto; background: #8881; padding: .5rem; max-height: 24rem }
b { display: inline-block; width: 3.5rem }
</style>
<h1>bgert serve VERSION</h1>
<p>Every route that this server has; <a href="openapi.json">openapi.json</a> has the fields. Key, if one is needed:
<input id="key" type="password" autocomplete="off"></p>
ROUTES
<script>
for (const form of document.querySelectorAll("form")) form.addEventListener("submit", async event => {
  event.preventDefault();
  const out = form.querySelector("pre"), body = form.querySelector("textarea"), headers = {};
  const key = document.getElementById("key").value;
  if (key) headers.authorization = "Bearer " + key;
  if (body) headers["content-type"] = "application/json";
  const reply = await fetch(form.dataset.path, {method: form.dataset.method, headers, body: body && body.value});
  out.textContent = reply.status + "\\n" + (await reply.text()).slice(0, 20000);
});
</script></html>
"""


def page(routes: Iterable[Route]) -> bytes:
    """A page that lists the routes and can try them."""
    found = []
    for route in routes:
        for method, handler in route.handlers.items():
            text = html.escape((inspect.getdoc(handler) or "").split("\n")[0])
            box = ""
            if method == "POST" and route.body is not None:
                example = html.escape(msgspec.json.encode(EXAMPLES[_name(route.body)]).decode())
                box = f"<textarea>{example}</textarea>"
            found.append(
                f"<details><summary><b>{method}</b> <code>{html.escape(route.path)}</code> {text}</summary>"
                f'<form data-method="{method}" data-path="{html.escape(route.path)}">{box}'
                "<button>Send</button><pre></pre></form></details>"
            )
    return PAGE.replace("VERSION", __version__).replace("ROUTES", "\n".join(found)).encode()
