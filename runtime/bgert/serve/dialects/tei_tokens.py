"""TEI's view of a model: its tokens and itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from bgert import __version__
from bgert.errors import InvalidTextError
from bgert.serve.admission import queue_limit
from bgert.serve.dialects.body import decode, json_text
from bgert.serve.dialects.tei import model_of
from bgert.serve.messages import Response
from bgert.serve.queue import INTERACTIVE
from bgert.serve.refusal import Refusal
from bgert.serve.service import CHARACTERS_ON_LOOP

if TYPE_CHECKING:
    from bgert.serve.messages import Request
    from bgert.serve.models import Served
    from bgert.serve.service import Service

__all__ = ["DecodeBody", "TokenizeBody", "from_ids", "info", "tokenize"]


class TokenizeBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /tokenize`."""

    inputs: str | list[str]
    add_special_tokens: bool | None = None
    prompt_name: str | None = None
    model: str | None = None


class DecodeBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /decode`."""

    ids: list[int | list[int]]
    skip_special_tokens: bool | None = None
    model: str | None = None


def any_model(service: Service, request: Request, given: str | None = None) -> Served:
    """The model that `?model=` or the body names, else the first encoder, else the first model."""
    name = model_of(request) or given
    if name is None or (len(service.models) == 1 and name == given):
        served = next((one for one in service.models if one.kind == "encoder"), service.models[0])
        return service.pick(request, served.kind, served.name)
    kinds = [one.kind for one in service.models if name == one.name or name in one.aliases]
    if not kinds:
        names = ", ".join(one.name for one in service.models)
        raise Refusal("model_not_found", f"there is no model {name!r} here: use one of {names}", param="model")
    return service.pick(request, kinds[0], name)


async def tokenize(service: Service, request: Request) -> Response:
    """`POST /tokenize`: tokens with their places in the text, in characters."""
    body = decode(request.body, TokenizeBody, request.record)
    served = any_model(service, request, body.model)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    service.check_count(len(texts), "inputs")
    texts = [served.prefix(body.prompt_name) + text for text in texts]
    special = body.add_special_tokens is not False

    def write() -> bytes:
        tokenizer = served.model.tokenizer
        return json_text(
            [[token._asdict() for token in tokenizer.tokens(text, add_special_tokens=special)] for text in texts]
        )

    try:
        content = await service.offload(sum(map(len, texts)) > CHARACTERS_ON_LOOP, write)
    except InvalidTextError as error:
        raise Refusal("validation", str(error), param="inputs") from None
    return Response(200, content)


async def from_ids(service: Service, request: Request) -> Response:
    """`POST /decode`: the texts of token ids."""
    body = decode(request.body, DecodeBody, request.record)
    served = any_model(service, request, body.model)
    rows: list[Any] = [body.ids] if all(isinstance(number, int) for number in body.ids) else body.ids
    service.check_count(len(rows), "ids")
    if not all(isinstance(row, list) for row in rows):
        raise Refusal("validation", "ids mixes numbers and lists", param="ids")
    skip = body.skip_special_tokens is not False
    tokenizer = served.model.tokenizer

    def write() -> bytes:
        return json_text([tokenizer.decode(row, skip_special_tokens=skip) for row in rows])

    try:
        content = await service.offload(sum(map(len, rows)) > CHARACTERS_ON_LOOP, write)
    except InvalidTextError as error:
        raise Refusal("validation", str(error), param="ids") from None
    return Response(200, content)


async def info(service: Service, request: Request) -> Response:
    """`GET /info`: the model and the limits."""
    if not service.models:
        raise Refusal("unavailable", "the server is starting", retry_after=2)
    served = any_model(service, request)
    manifest, settings = served.manifest, service.settings
    pooling = {"lasttoken": "last_token"}.get(str(manifest.pooling), manifest.pooling)  # TEI's name
    kind: dict[str, Any] = {"embedding": {"pooling": pooling}}
    if served.kind == "reranker":
        labels = {str(i): f"LABEL_{i}" for i in range(served.engine.columns)}
        ids = {name: int(number) for number, name in labels.items()}
        kind = {"reranker" if len(labels) == 1 else "classifier": {"id2label": labels, "label2id": ids}}
    content = {
        "model_id": manifest.source.get("id") or served.name,
        "model_sha": manifest.source.get("revision"),
        "model_dtype": served.model.precision,
        "served_model_name": served.name,
        "model_type": kind,
        "max_concurrent_requests": settings.max_concurrent_requests,
        "max_input_length": served.model.max_length,
        "max_batch_tokens": served.engine.token_budget,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_client_batch,
        "max_queue_tokens": queue_limit(served.engine, INTERACTIVE, settings),
        "auto_truncate": not settings.no_truncate,
        "tokenization_workers": 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
        "device": served.model.device,
        "engine": served.model.engine,
    }
    return Response(200, json_text(content))
