"""Cohere's embeddings, version 1 and 2."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from bgert.results import convert, shorten
from bgert.serve.dialects.body import base64_texts, check_dimensions, decode, float_texts, json_text, whole_texts
from bgert.serve.messages import Response
from bgert.serve.refusal import Refusal
from bgert.serve.service import NUMBERS_ON_LOOP

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bgert.serve.messages import Request
    from bgert.serve.service import Service

__all__ = ["EmbedBody", "embed_v1", "embed_v2", "failure"]

STATUS = {"validation": 400, "wrong_model": 400}
ROLES = {"search_query": "query", "search_document": "document"}
INPUT_TYPES = (*ROLES, "classification", "clustering")
TRUNCATIONS = {"NONE": (False, "right"), "END": (True, "right"), "START": (True, "left")}
WRITERS: dict[str, Callable[[NDArray[np.float32]], list[bytes]]] = {
    "float": float_texts,
    "int8": lambda rows: whole_texts(convert(rows, "int8")),
    "uint8": lambda rows: whole_texts(convert(rows, "int8").astype(np.int16) + 128),
    "ubinary": lambda rows: whole_texts(convert(rows, "ubinary")),
    "binary": lambda rows: whole_texts((convert(rows, "ubinary") ^ 0x80).view(np.int8)),
    "base64": base64_texts,
}


class Content(msgspec.Struct, forbid_unknown_fields=True):
    """A piece of an input."""

    type: str
    text: str | None = None
    image_url: Any = None


class Input(msgspec.Struct, forbid_unknown_fields=True):
    """An input of version 2."""

    content: list[Content]


class EmbedBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/embed` and `/v2/embed`."""

    texts: list[str] | None = None
    inputs: list[Input] | None = None
    model: str | None = None
    input_type: str | None = None
    embedding_types: list[str] | None = None
    truncate: str | None = None
    output_dimension: int | None = None
    max_tokens: int | None = None
    priority: int | None = None


def failure(refusal: Refusal) -> Response:
    """The error that Cohere's clients show."""
    return Response(STATUS.get(refusal.kind, 0), json_text({"message": refusal.message}))


async def embed_v1(service: Service, request: Request) -> Response:
    """`POST /v1/embed`."""
    body = decode(request.body, EmbedBody, request.record)
    return await _embed(service, request, body, "1", body.embedding_types)


async def embed_v2(service: Service, request: Request) -> Response:
    """`POST /v2/embed`: embeddings by type, floats unless others are asked for."""
    body = decode(request.body, EmbedBody, request.record)
    return await _embed(service, request, body, "2", body.embedding_types or ["float"])


async def _embed(
    service: Service, request: Request, body: EmbedBody, version: str, types: list[str] | None
) -> Response:
    served = service.pick(request, "encoder", body.model)
    dimensions = check_dimensions(served, body.output_dimension, "output_dimension")
    for name in types or ():
        _known("embedding_types", name, WRITERS)
        if name in ("binary", "ubinary") and (dimensions or served.engine.columns) % 8:
            raise Refusal("validation", f"{name} packs 8 dimensions a byte: ask for a multiple of 8 dimensions")
    if body.input_type is not None:
        _known("input_type", body.input_type, INPUT_TYPES)
    truncate, side = TRUNCATIONS[_known("truncate", (body.truncate or "END").upper(), TRUNCATIONS)]
    request.record.bulk = bool(body.priority)
    texts = _texts(body)
    rows = await service.embed(
        request,
        served,
        texts,
        prefix=served.prefix(ROLES.get(body.input_type or "")),
        truncate=None if body.truncate is None else truncate,
        side=side,
        max_length=_limit(served.model.max_length, served.model.tokenizer.special_tokens, body.max_tokens),
        param="texts",
    )
    short = shorten(rows, dimensions, served.manifest.normalize)
    long = short.size > NUMBERS_ON_LOOP
    if types is None:
        kind = b"embeddings_floats"
        embeddings = _array(await service.offload(long, float_texts, short))
    else:
        kind = b"embeddings_by_type"
        written = {name: _array(await service.offload(long, WRITERS[name], short)) for name in dict.fromkeys(types)}
        embeddings = b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), text) for name, text in written.items())
    meta: dict[str, Any] = {
        "api_version": {"version": version},
        "billed_units": {"input_tokens": request.record.tokens},
    }
    if request.record.truncated:
        meta["warnings"] = [f"{len(request.record.truncated)} texts were longer than the model takes and were cut"]
    content = b'{"id":"%b","response_type":"%b","embeddings":%b,"texts":%b,"meta":%b}'
    reply_id = secrets.token_hex(16).encode()
    return Response(200, content % (reply_id, kind, embeddings, json_text(texts), json_text(meta)))


def _array(rows: list[bytes]) -> bytes:
    return b"[%b]" % b",".join(rows)


def _known(param: str, value: str, values: Any) -> str:
    if value not in values:
        raise Refusal("validation", f"{param} is {value!r}: use one of {', '.join(values)}", param=param)
    return value


def _texts(body: EmbedBody) -> list[str]:
    if body.inputs is None:
        if body.texts is None:
            raise Refusal("validation", "the body has neither texts nor inputs", param="texts")
        return body.texts
    if body.texts:
        raise Refusal("validation", "the body has both texts and inputs: send one of them", param="inputs")
    texts = []
    for index, given in enumerate(body.inputs):
        for piece in given.content:
            if piece.type != "text" or piece.text is None:
                raise Refusal("validation", f"inputs {index} holds {piece.type!r}: only text is served", param="inputs")
        texts.append("\n".join(piece.text or "" for piece in given.content))
    return texts


def _limit(most: int, special: int, given: int | None) -> int | None:
    if given is None or given >= most:
        return None
    if given <= special:
        raise Refusal("validation", f"max_tokens is {given}: use a whole number from {special + 1}", param="max_tokens")
    return given
