"""`POST /`, which Hugging Face's clients use for every task, and Vertex AI's form of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bgert.serve.dialects import tei
from bgert.serve.dialects.body import decode
from bgert.serve.dialects.rerank import RerankBody, rerank_texts
from bgert.serve.messages import Response
from bgert.serve.refusal import Refusal

if TYPE_CHECKING:
    from bgert.serve.messages import Request
    from bgert.serve.service import Service

__all__ = ["VertexBody", "root", "vertex"]


class VertexBody(msgspec.Struct):
    """The body of `POST /vertex`."""

    instances: list[msgspec.Raw]


async def root(service: Service, request: Request) -> Response:
    """`POST /`: what the fields and the model say it is."""
    fields = decode(request.body, dict[str, msgspec.Raw])
    if "query" in fields:
        body = decode(request.body, RerankBody)
        return await rerank_texts(service, request, body)
    kinds = {served.kind for served in service.models}
    if bytes(fields.get("inputs", b"")).lstrip().startswith(b"{"):
        return await tei.similarity(service, request)
    # Classification comes with `parameters`; embedding has its own at the top level.
    classify = "reranker" in kinds and ("encoder" not in kinds or fields.keys() & {"parameters", "raw_scores"})
    if not classify:
        return await tei.embed(service, request)
    refuse_parameters(fields)
    reply = await tei.predict(service, request)
    # Clients that send `parameters` read what the pipelines of transformers give: a list of labels for each text.
    one = isinstance(decode(bytes(fields.get("inputs", b"null")), object), str)
    return reply._replace(body=b"[%b]" % reply.body) if one and "parameters" in fields else reply


def refuse_parameters(fields: dict[str, msgspec.Raw]) -> None:
    """Refuse what would change the scores and is not served."""
    raw = bytes(fields.get("parameters", b"null"))
    parameters = {} if raw.strip() == b"null" else decode(raw, dict[str, object])
    if given := [name for name, value in parameters.items() if value is not None]:
        raise Refusal("validation", f"parameters.{given[0]} is not served: leave it out", param="parameters")


async def vertex(service: Service, request: Request) -> Response:
    """`POST /vertex`: several bodies of `POST /` in one."""
    instances = decode(request.body, VertexBody).instances
    service.check_count(len(instances), "instances")
    predictions = []
    for instance in instances:
        request.body = bytes(instance)
        predictions.append((await root(service, request)).body)
    return Response(200, b'{"predictions":[%b]}' % b",".join(predictions))
