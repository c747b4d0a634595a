"""Bodies to structs. In all of them null means absent; of fields that a route does not know, see `fields`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from bgert._native import base64_rows, json_rows
from bgert.serve.dialects.fields import only_known
from bgert.serve.refusal import Refusal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bgert.serve.models import Served
    from bgert.serve.record import Record

__all__ = [
    "base64_texts",
    "check_dimensions",
    "decode",
    "float_texts",
    "json_text",
    "number_texts",
    "unit",
    "whole_texts",
]

T = TypeVar("T")
_UNKNOWN = re.compile(r"Object contains unknown field `[^`]*`", re.DOTALL)  # of the body itself, not within
json_text = msgspec.json.encode
"""Any value as JSON, in UTF-8."""


_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """The decoder of a kind, made once."""
    return _decoders.get(kind) or _decoders.setdefault(kind, msgspec.json.Decoder(kind))


def decode(body: bytes, kind: type[T], record: Record | None = None) -> T:
    """Read a JSON body.

    Args:
        body: as it came.
        kind: a struct, or another type that msgspec knows.
        record: where fields are noted that the struct does not have; without it they are refused.

    Raises:
        Refusal: `malformed` if it is no JSON, `validation` if it is not of the kind.
    """
    try:
        try:
            value: T = decoder(kind).decode(body)
        except msgspec.ValidationError as error:
            if not _UNKNOWN.fullmatch(str(error)):
                raise
            known: tuple[str, ...] = kind.__struct_fields__  # type: ignore[attr-defined]
            value = decoder(kind).decode(only_known(body, known, record))
    except msgspec.ValidationError as error:
        text = str(error)
        _, _, place = text.rpartition(" - at `$")
        param = place.rstrip("`").lstrip(".").split("[")[0].split(".")[0] or None
        raise Refusal("validation", f"the body is not what this route takes: {text}", param=param) from None
    except UnicodeDecodeError:
        raise Refusal("malformed", "the body is not UTF-8") from None
    except RecursionError:
        raise Refusal("malformed", "the body is nested too deeply") from None
    except msgspec.MsgspecError as error:
        if not body.strip():
            raise Refusal("malformed", "the body is empty: send a JSON object") from None
        raise Refusal("malformed", f"the body is not JSON: {error}") from None
    return value


def float_texts(rows: NDArray[np.float32]) -> list[bytes]:
    """Each row as a JSON array; the numbers read back as the same float32."""
    return json_rows(np.ascontiguousarray(rows, np.float32))


def base64_texts(rows: NDArray[np.float32]) -> list[bytes]:
    """Each row as little-endian float32 in base64, with quotation marks."""
    plain = np.ascontiguousarray(rows, np.dtype("<f4"))
    return [b'"%b"' % text for text in base64_rows(plain.view(np.uint8))]


def number_texts(values: NDArray[np.float32]) -> list[bytes]:
    """Each number of a vector by itself, as in `float_texts`."""
    return [text[1:-1] for text in float_texts(values.reshape(-1, 1))]


def whole_texts(rows: NDArray[Any]) -> list[bytes]:
    """Each row of whole numbers as a JSON array."""
    return [json_text(row) for row in rows.tolist()]


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows at length one, for a model whose graph does not see to that."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True).astype(np.float32)
    result: NDArray[np.float32] = rows / np.maximum(lengths, np.float32(1e-12))
    return result


def check_dimensions(served: Served, dimensions: int | None, param: str = "dimensions") -> int | None:
    """Refuse more dimensions than the model has, and none."""
    most = served.engine.columns
    if dimensions is not None and not 1 <= dimensions <= most:
        raise Refusal("validation", f"{param} is {dimensions}: {served.name} has 1 to {most}", param=param)
    return dimensions
