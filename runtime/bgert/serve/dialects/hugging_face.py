"""`POST /`, which Hugging Face's clients use for every task, and Vertex AI's form of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bgert.serve.dialects import tei
from bgert.serve.dialects.body import decode
from bgert.serve.dialects.fields import merged
from bgert.serve.dialects.rerank import rerank
from bgert.serve.messages import Response

if TYPE_CHECKING:
    from bgert.serve.messages import Request
    from bgert.serve.service import Service

__all__ = ["VertexBody", "root", "vertex"]

# What some clients send in `parameters` and text-embeddings-inference takes beside `inputs`.
EMBEDDED = ("truncate", "truncation_direction", "prompt_name", "normalize", "dimensions")
SCORED = ("truncate", "truncation_direction", "raw_scores")


class VertexBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /vertex`."""

    instances: list[msgspec.Raw]


async def root(service: Service, request: Request) -> Response:
    """`POST /`: what the fields and the model say it is."""
    fields = decode(request.body, dict[str, msgspec.Raw])
    if "query" in fields:
        return await rerank(service, request)
    kinds = {served.kind for served in service.models}
    if bytes(fields.get("inputs", b"")).lstrip().startswith(b"{"):
        return await tei.similarity(service, request)
    # Classification comes with `parameters`; embedding has its own at the top level.
    scored = "parameters" in fields or bytes(fields.get("raw_scores", b"null")).strip() != b"null"
    classify = "reranker" in kinds and ("encoder" not in kinds or scored)
    request.body = merged(request.body, SCORED if classify else EMBEDDED)
    if not classify:
        return await tei.embed(service, request)
    reply = await tei.predict(service, request)
    # Clients that send `parameters` read what the pipelines of transformers give: a list of labels for each text.
    one = isinstance(decode(bytes(fields.get("inputs", b"null")), object), str)
    return reply._replace(body=b"[%b]" % reply.body) if one and "parameters" in fields else reply


async def vertex(service: Service, request: Request) -> Response:
    """`POST /vertex`: several bodies of `POST /` in one."""
    instances = decode(request.body, VertexBody, request.record).instances
    service.check_count(len(instances), "instances")
    predictions = []
    for instance in instances:
        request.body = bytes(instance)
        predictions.append((await root(service, request)).body)
    return Response(200, b'{"predictions":[%b]}' % b",".join(predictions))
