"""The routes of text-embeddings-inference."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import msgspec
import numpy as np

from bgert.reranker import logistic, softmax_of
from bgert.results import shorten
from bgert.serve.dialects.body import check_dimensions, decode, float_texts, json_text, number_texts, unit
from bgert.serve.messages import Response
from bgert.serve.refusal import Refusal
from bgert.serve.service import NUMBERS_ON_LOOP

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bgert.serve.messages import Request
    from bgert.serve.models import Served
    from bgert.serve.service import Service

__all__ = ["embed", "embed_sparse", "failure", "headers", "model_of", "not_served", "predict", "side_of", "similarity"]

ERROR_TYPES = {
    "empty": "Empty",
    "wrong_model": "Backend",
    "backend": "Backend",
    "overloaded": "Overloaded",
    "unavailable": "Unhealthy",
    "timeout": "Unhealthy",
}
STATUS = {"backend": 424}


class EmbedBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /embed`."""

    inputs: str | list[str | int | list[int]]
    truncate: bool | None = None
    truncation_direction: str | None = None
    prompt_name: str | None = None
    normalize: bool | None = None
    dimensions: int | None = None
    model: str | None = None


class SparseBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /embed_sparse`."""

    inputs: str | list[str | int | list[int]]
    truncate: bool | None = None
    truncation_direction: str | None = None
    prompt_name: str | None = None
    model: str | None = None


class PredictBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /predict`."""

    inputs: str | list[str | list[str]]
    truncate: bool | None = None
    truncation_direction: str | None = None
    raw_scores: bool | None = None
    model: str | None = None


class Sentences(msgspec.Struct, forbid_unknown_fields=True):
    """What is compared."""

    source_sentence: str
    sentences: list[str]


class SimilarityParameters(msgspec.Struct, forbid_unknown_fields=True):
    """How."""

    truncate: bool | None = None
    truncation_direction: str | None = None
    prompt_name: str | None = None


class SimilarityBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /similarity`."""

    inputs: Sentences
    parameters: SimilarityParameters | None = None
    model: str | None = None


def failure(refusal: Refusal) -> Response:
    """TEI's error."""
    content = {"error": refusal.message, "error_type": ERROR_TYPES.get(refusal.kind, "Validation")}
    return Response(STATUS.get(refusal.kind, 0), json_text(content))


def model_of(request: Request) -> str | None:
    """The model that `?model=` names."""
    return parse_qs(request.query).get("model", [None])[-1]


def side_of(direction: str | None) -> str:
    """Which end of a long text is cut."""
    side = (direction or "right").lower()
    if side not in ("left", "right"):
        raise Refusal("validation", f"truncation_direction is {direction!r}: use Left or Right")
    return side


def headers(request: Request, served: Served, *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """What TEI tells in headers, times in whole milliseconds; means over the texts."""
    record = request.record
    total = record.tokenize_seconds + record.queue_seconds + record.run_seconds
    values = {
        "x-compute-type": f"{served.model.device}+{served.model.precision}",
        "x-compute-time": round(total * 1e3),
        "x-compute-characters": record.characters,
        "x-compute-tokens": record.tokens,
        "x-total-time": round(total * 1e3),
        "x-tokenization-time": round(record.tokenize_seconds * 1e3),
        "x-queue-time": round(record.queue_seconds * 1e3),
        "x-inference-time": round(record.run_seconds * 1e3),
    }
    return (*((name, str(value)) for name, value in values.items()), *more)


async def embed(service: Service, request: Request) -> Response:
    """`POST /embed`."""
    body = decode(request.body, EmbedBody, request.record)
    served = service.pick(request, "encoder", model_of(request) or body.model)
    dimensions = check_dimensions(served, body.dimensions)
    items = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    side = side_of(body.truncation_direction)
    rows = await service.embed_any(
        request,
        served,
        items,
        prefix=served.prefix(body.prompt_name),
        truncate=body.truncate,
        side=side,
        param="inputs",
    )
    wanted = body.normalize is not False
    if wanted and not served.manifest.normalize:
        rows = unit(rows)
    rows = shorten(rows, dimensions, wanted or served.manifest.normalize)
    texts = await service.offload(rows.size > NUMBERS_ON_LOOP, float_texts, rows)
    # A graph that normalises cannot be told not to; refusing would shut out clients whose default that is.
    told = [("x-bgert-normalized", "1")] if served.manifest.normalize and not wanted else []
    return Response(200, b"[%b]" % b",".join(texts), headers=headers(request, served, *told))


async def embed_sparse(service: Service, request: Request) -> Response:
    """`POST /embed_sparse`: what is above 0 of the vectors of a SPLADE model."""
    body = decode(request.body, SparseBody, request.record)
    served = service.pick(request, "encoder", model_of(request) or body.model)
    if not (served.manifest.pooling or "").startswith("splade"):
        raise Refusal("wrong_model", f"{served.name} is no SPLADE model: /embed gives its dense vectors")
    rows = await service.embed_any(
        request,
        served,
        [body.inputs] if isinstance(body.inputs, str) else body.inputs,
        prefix=served.prefix(body.prompt_name),
        truncate=body.truncate,
        side=side_of(body.truncation_direction),
        param="inputs",
    )
    texts = await service.offload(rows.size > NUMBERS_ON_LOOP, _sparse_texts, rows)
    return Response(200, b"[%b]" % b",".join(texts), headers=headers(request, served))


def _sparse_texts(rows: NDArray[np.float32]) -> list[bytes]:
    """Each row as TEI's list of index and value."""
    texts = []
    for row in rows:
        indices = np.flatnonzero(row)
        values = number_texts(row[indices])
        items = [b'{"index":%d,"value":%b}' % pair for pair in zip(indices.tolist(), values, strict=True)]
        texts.append(b"[%b]" % b",".join(items))
    return texts


async def similarity(service: Service, request: Request) -> Response:
    """`POST /similarity`: cosines of sentences with one sentence."""
    body = decode(request.body, SimilarityBody, request.record)
    served = service.pick(request, "encoder", model_of(request) or body.model)
    given = body.parameters or SimilarityParameters()
    service.check_count(len(body.inputs.sentences), "inputs.sentences")
    rows = await service.embed(
        request,
        served,
        [body.inputs.source_sentence, *body.inputs.sentences],
        prefix=served.prefix(given.prompt_name),
        truncate=given.truncate,
        side=side_of(given.truncation_direction),
        param="inputs",
    )
    rows = unit(rows)
    cosines = (rows[1:] * rows[0]).sum(axis=1)
    return Response(200, b"[%b]" % b",".join(number_texts(cosines)), headers=headers(request, served))


async def predict(service: Service, request: Request) -> Response:
    """`POST /predict`: every label of texts or pairs, the likeliest first."""
    body = decode(request.body, PredictBody, request.record)
    served = service.pick(request, "reranker", model_of(request) or body.model)
    sequences, many = _sequences(body.inputs)
    pairs = {len(sequence) for sequence in sequences}
    if pairs - {1, 2} or len(pairs) > 1:
        raise Refusal("validation", "inputs are texts, or pairs of two texts each, and all alike", param="inputs")
    logits = await service.score(
        request,
        served,
        [sequence[0] for sequence in sequences],
        [sequence[1] for sequence in sequences] if pairs == {2} else None,
        truncate=body.truncate,
        side=side_of(body.truncation_direction),
        param="inputs",
    )
    scores = logits if body.raw_scores else probabilities(logits)
    lists = []
    for row in scores:
        order = np.argsort(-row, kind="stable").tolist()
        texts = number_texts(row)
        lists.append(b"[%b]" % b",".join(b'{"score":%b,"label":"LABEL_%d"}' % (texts[i], i) for i in order))
    return Response(200, b"[%b]" % b",".join(lists) if many else lists[0], headers=headers(request, served))


def _sequences(inputs: str | list[str | list[str]]) -> tuple[list[list[str]], bool]:
    """Texts as lists of one, pairs as lists of two, and whether the reply is a list of lists."""
    if isinstance(inputs, str):
        return [[inputs]], False
    flat = [item for item in inputs if isinstance(item, str)]
    if len(flat) == len(inputs) <= 2 and flat:
        return [flat], False
    if flat:
        raise Refusal("validation", "a batch is a list of lists: [[a], [b]] or [[a, b], [c, d]]", param="inputs")
    return [item for item in inputs if isinstance(item, list)], True


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over the labels, or the logistic function where there is one; each row by itself."""
    return logistic(logits) if logits.shape[1] == 1 else softmax_of(logits)


async def not_served(service: Service, request: Request) -> Response:  # noqa: ARG001 - as every handler
    """Routes that need another kind of output."""
    raise Refusal("wrong_model", f"{request.path} is not served: it would be a vector a token")
