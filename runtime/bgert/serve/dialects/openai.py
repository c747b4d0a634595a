"""OpenAI's embeddings and models, with the fields that Jina's clients add on the same route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec
import numpy as np

from bgert.results import convert, shorten
from bgert.serve.dialects.body import base64_texts, check_dimensions, decode, float_texts, json_text, unit, whole_texts
from bgert.serve.messages import Response
from bgert.serve.refusal import Refusal
from bgert.serve.service import NUMBERS_ON_LOOP

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bgert.serve.messages import Request
    from bgert.serve.models import Served
    from bgert.serve.service import Service

__all__ = ["EmbeddingsBody", "embeddings", "failure", "models", "one_model"]

STATUS = {"validation": 400, "wrong_model": 400}
# Jina's tasks, with the prompt of each; those of none take the prompt of their own name where the model has one.
TASKS = {"retrieval.query": "query", "retrieval.passage": "document"}
OTHER_TASKS = ("text-matching", "classification", "clustering", "separation")
TYPES = {
    "unauthorized": "authentication_error",
    "overloaded": "rate_limit_error",
    "backend": "server_error",
    "unavailable": "server_error",
    "timeout": "server_error",
}
CODES = {"unauthorized": "invalid_api_key", "overloaded": "rate_limit_exceeded"}
CREATED = 1_767_225_600  # 2026-01-01; a folder has no date of its own


class TextItem(msgspec.Struct, forbid_unknown_fields=True):
    """A text as Jina's clients may write it."""

    text: str


class EmbeddingsBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/embeddings`."""

    input: str | list[str | int | list[int] | TextItem]
    model: str | None = None
    encoding_format: str | None = None
    dimensions: int | None = None
    user: str | None = None
    task: str | None = None
    """Jina: chooses the model's prompt."""
    normalized: bool | None = None
    embedding_type: str | None = None
    late_chunking: bool | None = None
    truncate: bool | None = None
    prompt_name: str | None = None


def failure(refusal: Refusal) -> Response:
    """The error object that OpenAI's clients read."""
    error = {
        "message": refusal.message,
        "type": TYPES.get(refusal.kind, "invalid_request_error"),
        "param": refusal.param,
        "code": CODES.get(refusal.kind, refusal.kind),
    }
    return Response(STATUS.get(refusal.kind, 0), json_text({"error": error}))


async def embeddings(service: Service, request: Request) -> Response:
    """`POST /v1/embeddings`."""
    body = decode(request.body, EmbeddingsBody, request.record)
    served = service.pick(request, "encoder", body.model)
    render = _encoding(body)
    dimensions = check_dimensions(served, body.dimensions)
    if body.late_chunking:
        raise Refusal("validation", "late chunking is not served here", param="late_chunking")
    given = [body.input] if isinstance(body.input, str) else body.input
    items = [item.text if isinstance(item, TextItem) else item for item in given]
    prefix = task_prefix(served, body)
    rows = await service.embed_any(request, served, items, prefix=prefix, truncate=body.truncate)
    normalize = served.manifest.normalize or bool(body.normalized)
    finish = unit(rows) if normalize and not served.manifest.normalize else rows
    short = shorten(finish, dimensions, normalize)
    texts_out = await service.offload(short.size > NUMBERS_ON_LOOP, render, short)
    data = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, text) for index, text in enumerate(texts_out)
    )
    tokens = request.record.tokens
    content = b'{"object":"list","data":[%b],"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}}'
    # A graph that normalises cannot be told not to; refusing would shut out clients whose default that is.
    told = (("x-bgert-normalized", "1"),) if body.normalized is False and served.manifest.normalize else ()
    return Response(200, content % (data, json_text(served.name), tokens, tokens), headers=told)


def task_prefix(served: Served, body: EmbeddingsBody) -> str:
    """The prompt that Jina's `task` or our `prompt_name` chooses; else the model's default."""
    if body.task is None:
        return served.prefix(body.prompt_name)
    if body.prompt_name is not None:
        raise Refusal("validation", "task and prompt_name both choose a prompt: leave one out", param="task")
    if body.task in TASKS:
        return served.prefix(TASKS[body.task])
    if body.task not in OTHER_TASKS:
        names = ", ".join((*TASKS, *OTHER_TASKS))
        raise Refusal("validation", f"task is {body.task!r}: use one of {names}", param="task")
    return served.prefix(body.task if body.task in served.manifest.prompts else None)


def _encoding(body: EmbeddingsBody) -> Callable[[NDArray[np.float32]], list[bytes]]:
    """How vectors are written."""
    name = body.encoding_format if body.embedding_type is None else body.embedding_type
    writers: dict[str | None, Callable[[NDArray[np.float32]], list[bytes]]] = {
        None: float_texts,
        "float": float_texts,
        "base64": base64_texts,
        "ubinary": lambda rows: whole_texts(convert(rows, "ubinary")),
        "binary": lambda rows: whole_texts((convert(rows, "ubinary") ^ 0x80).view(np.int8)),
    }
    if name not in writers:
        param = "encoding_format" if body.embedding_type is None else "embedding_type"
        raise Refusal("validation", f"{param} is {name!r}: use float or base64", param=param)
    return writers[name]


def _model(served: Served) -> dict[str, Any]:
    return {"id": served.name, "object": "model", "created": CREATED, "owned_by": "bgert"}


async def models(service: Service, request: Request) -> Response:  # noqa: ARG001 - as every handler
    """`GET /v1/models`."""
    return Response(200, json_text({"object": "list", "data": [_model(served) for served in service.models]}))


async def one_model(service: Service, request: Request) -> Response:
    """`GET /v1/models/NAME`; a name may hold a slash."""
    name = unquote(request.path.split("models/", 1)[1])
    for served in service.models:
        if name == served.name or name in served.aliases:
            return Response(200, json_text(_model(served)))
    names = ", ".join(served.name for served in service.models)
    raise Refusal("model_not_found", f"there is no model {name!r} here: use one of {names}", param="model")
