"""JSON by strangers: decoding that fails with one kind of error, and the part of JSON Schema that bgert's schema uses.

The committed `manifest.schema.json` is what decides; a keyword that is not implemented here is an error, never skipped.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from typing import TYPE_CHECKING, Any

from bgert.checked_file import decode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["SchemaError", "check", "decode"]

_LARGEST_WHOLE = 2**53


class SchemaError(ValueError):
    """A document is not what its schema asks for."""


def decode(content: bytes) -> Any:
    """A JSON document in UTF-8. A whole number is an int however it is written: 512.0 and 5.12e2 are 512.

    Raises:
        ValueError: it is none: not UTF-8, no JSON, nested too deeply, NaN, a number that is out of range, or a lone
            surrogate in a string.
    """
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    document = decode_json(content, parse_int=_whole, parse_float=_number, parse_constant=_refuse)
    if b"\\u" in content:  # nothing else makes a lone surrogate
        try:
            json.dumps(document, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a string holds a lone surrogate") from None
    return document


def _whole(text: str) -> int:
    number = int(text) if len(text) < 21 else 2**64
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"the number {text[:40]} is out of range")
    return number


def _number(text: str) -> int | float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is out of range")
    return int(number) if number.is_integer() and abs(number) < _LARGEST_WHOLE else number


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def check(document: Any, schema: Mapping[str, Any]) -> None:
    """Compare a decoded document with a schema (draft 2020-12).

    Raises:
        SchemaError: it does not fit; the message names the place.
        NotImplementedError: the schema has a keyword that is unknown here.
    """
    _check(document, schema, "", schema)


def _check(value: Any, schema: Mapping[str, Any] | bool, place: str, root: Mapping[str, Any]) -> None:
    if isinstance(schema, bool):
        if not schema:
            raise SchemaError(f"{place} is not allowed")
        return
    for keyword, wanted in schema.items():
        if keyword in _ANNOTATIONS:
            continue
        if keyword in _VALUES:
            if not _VALUES[keyword](value, wanted):
                raise SchemaError(f"{_name(place)} is {reprlib.repr(value)}, not {_shown(keyword, wanted)}")
        elif keyword == "$ref":
            _check(value, root["$defs"][wanted.removeprefix("#/$defs/")], place, root)
        elif keyword == "anyOf":
            _check_any(value, wanted, place, root)
        elif keyword == "items":
            for index, item in enumerate(value if isinstance(value, list) else ()):
                _check(item, wanted, f"{place}[{index}]", root)
        elif keyword == "required":
            if isinstance(value, dict) and (missing := [name for name in wanted if name not in value]):
                raise SchemaError(f"{_name(place)} has no field {missing[0]!r}")
        elif keyword == "properties":
            for name, below in wanted.items() if isinstance(value, dict) else ():
                if name in value:
                    _check(value[name], below, _join(place, name), root)
        elif keyword == "additionalProperties":
            for name in value.keys() - schema.get("properties", {}).keys() if isinstance(value, dict) else ():
                if wanted is False:
                    raise SchemaError(f"{_name(place)} has an unknown field {reprlib.repr(name)}")
                _check(value[name], wanted, _join(place, reprlib.repr(name)), root)
        else:
            raise NotImplementedError(f"JSON Schema's {keyword}")


def _check_any(value: Any, schemas: list[Any], place: str, root: Mapping[str, Any]) -> None:
    failures = [_failure(value, schema, place, root) for schema in schemas]
    if None not in failures:
        raise SchemaError(", or ".join(map(str, failures)))


def _failure(value: Any, schema: Any, place: str, root: Mapping[str, Any]) -> str | None:
    try:
        _check(value, schema, place, root)
    except SchemaError as error:
        return str(error)
    return None


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or value is None:
        return kind == {True: "boolean", False: "boolean", None: "null"}[value]
    if isinstance(value, float):
        return kind == "number" or (kind == "integer" and value.is_integer())
    return kind in {int: ("integer", "number"), str: ("string",), list: ("array",), dict: ("object",)}[type(value)]


def _same(value: Any, other: Any) -> bool:
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_ANNOTATIONS = ("$schema", "$defs", "title", "description")
_VALUES: dict[str, Callable[[Any, Any], bool]] = {
    "type": lambda value, kinds: any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)),
    "enum": lambda value, allowed: any(_same(value, one) for one in allowed),
    "const": _same,
    "minimum": lambda value, least: not _is_number(value) or value >= least,
    "maximum": lambda value, most: not _is_number(value) or value <= most,
    "minLength": lambda value, least: not isinstance(value, str) or len(value) >= least,
    "pattern": lambda value, pattern: not isinstance(value, str) or re.search(pattern, value) is not None,
    "minItems": lambda value, least: not isinstance(value, list) or len(value) >= least,
    "maxItems": lambda value, most: not isinstance(value, list) or len(value) <= most,
}


def _shown(keyword: str, wanted: Any) -> str:
    listed = " or ".join(str(one) for one in wanted) if isinstance(wanted, list) else str(wanted)
    return listed if keyword in ("type", "enum", "const") else f"of {keyword} {listed}"


def _name(place: str) -> str:
    return place or "the document"


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
