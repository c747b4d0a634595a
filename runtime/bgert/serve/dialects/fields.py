"""Fields that a route does not know: what would change the result is refused, the rest is left aside and told."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec

from bgert.serve.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bgert.serve.record import Record

__all__ = ["CHANGING", "only_known"]

# Fields that change results, of this server's other routes and of other servers, with the values that change nothing.
CHANGING: dict[str, tuple[Any, ...]] = {
    "activation": (True,),
    "add_special_tokens": (True,),
    "dimensions": (),
    "documents": (),
    "embed_dtype": ("float32",),
    "embedding_type": ("float",),
    "embedding_types": (["float"],),
    "function_to_apply": (),
    "image": (),
    "images": (),
    "input": (),
    "input_type": (),
    "inputs": (),
    "instruction": ("",),
    "late_chunking": (False,),
    "max_chunks_per_doc": (1,),
    "max_length": (),
    "max_tokens": (),
    "max_tokens_per_doc": (),
    "messages": (),
    "normalize": (),
    "normalize_embeddings": (),
    "normalized": (),
    "output_dimension": (),
    "output_dtype": ("float",),
    "parameters": (),
    "pooling": (),
    "prompt": ("",),
    "prompt_name": (),
    "query": (),
    "rank_fields": (),
    "raw_scores": (False,),
    "relevant_spans": (False,),
    "return_all_scores": (),
    "return_documents": (False,),
    "return_multivector": (False,),
    "return_sparse": (False,),
    "return_text": (False,),
    "softmax": (),
    "task": (),
    "texts": (),
    "top_k": (),
    "top_n": (),
    "truncate": (),
    "truncate_dim": (),
    "truncate_prompt_tokens": (),
    "truncation": (),
    "truncation_direction": ("right", "Right"),
    "truncation_side": ("right",),
    "use_activation": (True,),
}
_NAME = re.compile(r"[\w.-]{1,40}", re.ASCII)
_raw = msgspec.json.Decoder(dict[str, msgspec.Raw])


def only_known(body: bytes, known: tuple[str, ...], record: Record | None) -> bytes:
    """The body with the known fields alone.

    Args:
        body: a JSON object.
        known: names of the route's fields.
        record: where the names of those left aside are noted; None to refuse them all.

    Raises:
        Refusal: `validation` for a field that would change the result.
        msgspec.DecodeError: the body is no JSON object.
    """
    fields = _raw.decode(body)
    for name in fields.keys() - set(known):
        if record is None or (name in CHANGING and not _neutral(fields[name], CHANGING[name])):
            shown = name if _NAME.fullmatch(name) else "a field of another name"
            raise Refusal("validation", f"{shown} is not served here: leave it out", param=shown)
        if record is not None and len(record.ignored) < 20 and _NAME.fullmatch(name):
            record.ignored += (name,)
    return msgspec.json.encode({name: fields[name] for name in fields if name in known})


def _neutral(raw: msgspec.Raw, values: tuple[Any, ...]) -> bool:
    """Whether a value changes nothing: null, nothing at all, or one that is served anyway."""
    value = json.loads(bytes(raw))
    return (
        value is None or value == [] or value == {} or any(value == one and type(value) is type(one) for one in values)
    )


def merged(body: bytes, known: Mapping[str, Any] | tuple[str, ...]) -> bytes:
    """A body whose `parameters` are raised to its own fields, for routes that have the same ones there.

    Raises:
        Refusal: `validation` for a parameter that is none of `known`, or that is given twice.
    """
    fields = _raw.decode(body)
    raw = bytes(fields.pop("parameters", msgspec.Raw(b"null")))
    try:
        given = msgspec.json.decode(raw, type=dict[str, msgspec.Raw] | None) or {}
    except msgspec.ValidationError:
        raise Refusal("validation", "parameters is no object: leave it out", param="parameters") from None
    for name, value in given.items():
        if bytes(value).strip() == b"null":
            continue
        if name not in known or name in fields:
            shown = name if _NAME.fullmatch(name) else "one of them"
            raise Refusal("validation", f"parameters.{shown} is not served: leave it out", param="parameters")
        fields[name] = value
    return msgspec.json.encode(fields)
