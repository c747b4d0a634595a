"""An ONNX file by a stranger, checked before any engine sees it: which files its weights come from, and nothing odd.

A graph may name any file as its external data, and engines differ in what they refuse: ONNX Runtime up to 1.23 reads
`/etc/passwd` and returns it as an embedding, and some locations mean an address in memory. So the file is walked here,
without the onnx package. What bgert's exporter never writes (subgraphs, functions, sparse tensors, metadata, fields
that are unknown here) is refused rather than understood.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bgert.cache_folder import remake
from bgert.errors import ModelFolderError
from bgert.model_folder import read_entry, verify_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bgert.model_folder import FileEntry, GraphEntry

__all__ = ["ExternalTensor", "external_tensors", "verify_graph"]

LARGEST_GRAPH = 1 << 24
"""Bytes of a graph without its weights; the largest that bgert writes for itself have less than one megabyte."""
DOMAINS = ("", "ai.onnx", "com.microsoft", "bgert")
"""Of operators."""
MOST_DIMENSIONS = 8
PAGE = 4096
"""Tensors start at a multiple of it, so a weight file may have less than that beside them."""
ITEM_SIZES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
"""ONNX data type to bytes an element, for types that external data may have."""


@dataclass(frozen=True)
class ExternalTensor:
    """Where a tensor lies that is not in the graph file."""

    location: str
    """File name, beside the graph."""
    offset: int
    length: int
    """Bytes, as many as its shape and type take."""


def verify_graph(folder: Path, graph: GraphEntry, largest: int = LARGEST_GRAPH) -> Path:
    """Check the files of a graph as `verify_files` does, and that its weights come from these files and from no other.

    Args:
        folder: the model folder.
        graph: an entry of its manifest.
        largest: most bytes of the graph's own file.

    Returns:
        The path of the graph, for an engine.

    Raises:
        IntegrityError: a file is missing, damaged, or not in the folder.
        ModelFolderError: the graph is not one that bgert writes.
    """
    first, *beside = graph.files
    path = folder / first.name
    content = read_entry(folder, first, largest)
    try:
        tensors = external_tensors(content)
        _check_places(tensors, first, beside)
    except ValueError as error:
        raise ModelFolderError(f"{path}: {error}: refused; {remake(path)}, or upgrade bgert") from None
    verify_files(folder, beside)
    return path


def _check_places(tensors: list[ExternalTensor], graph: FileEntry, beside: list[FileEntry]) -> None:
    """Raise ValueError unless tensors lie one after the other in listed files and fill them."""
    prefix = graph.name[: graph.name.rfind("/") + 1]
    sizes = {entry.name: entry.size for entry in beside}
    ends = dict.fromkeys(sizes, 0)
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        name = prefix + tensor.location
        if name not in sizes:
            raise ValueError(f"its weights are in {tensor.location[:200]!r}, which the manifest does not list for it")
        if tensor.offset < ends[name]:
            raise ValueError(f"two of its weights overlap in {name}")
        ends[name] = tensor.offset + tensor.length
        if ends[name] > sizes[name]:
            raise ValueError(f"a weight ends at byte {ends[name]:,} of {name}, which has {sizes[name]:,}")
    for name, end in ends.items():
        if sizes[name] - end >= PAGE:
            raise ValueError(f"{name} has {sizes[name]:,} bytes, and the graph uses {end:,}")


def external_tensors(content: bytes) -> list[ExternalTensor]:
    """The tensors of an ONNX file that lie outside it.

    Raises:
        ValueError: the file is no ONNX model, or holds what bgert never writes.
    """
    if content[4:8] == b"ORTM":  # ONNX Runtime would read the file as one of its own format, which has other rules
        raise ValueError("it is no ONNX file")
    model = _fields(memoryview(content), "model")
    if not model["graph"]:
        raise ValueError("it is no ONNX file")
    domains = [_decoded(opset["domain"]) for opset in _below(model["opset_import"], "opset")]
    tensors: list[int | memoryview] = []
    for graph in _below(model["graph"], "graph"):
        tensors += graph["initializer"]
        for node in _below(graph["node"], "node"):
            domains.append(_decoded(node["domain"]))
            for attribute in _below(node["attribute"], "attribute"):
                tensors += attribute["t"] + attribute["tensors"]
    if unknown := sorted(set(domains) - set(DOMAINS)):
        raise ValueError(f"it has operators of the domain {unknown[0][:200]!r}, which is not one of bgert's")
    return [found for tensor in _below(tensors, "tensor") if (found := _place(tensor)) is not None]


def _place(fields: dict[str, list[int | memoryview]]) -> ExternalTensor | None:
    """Where a tensor lies; None if that is the graph file itself."""
    entries = list(_below(fields["external_data"], "entry"))
    where = _last_number(fields["data_location"], 0)
    if where == 0 and not entries:
        return None
    if where != 1 or fields["raw_data"]:
        raise ValueError("a tensor is both inside and outside the file")
    place = {_decoded(entry["key"]): _decoded(entry["value"]) for entry in entries}
    if len(place) != len(entries) or place.keys() != {"location", "offset", "length"}:
        raise ValueError("a tensor outside the file does not lie at one location, offset and length")
    if not all(re.fullmatch("[0-9]{1,18}", place[name], re.ASCII) for name in ("offset", "length")):
        raise ValueError("a tensor's offset or length is no number")
    dims, item = _numbers(fields["dims"]), ITEM_SIZES.get(_last_number(fields["data_type"], 0))
    size = item * math.prod(dims) if item is not None and len(dims) <= MOST_DIMENSIONS else None
    found = ExternalTensor(place["location"], int(place["offset"]), int(place["length"]))
    if size != found.length:
        raise ValueError(f"a tensor's {found.length:,} bytes are not those of its shape and type")
    return found


class _Field(NamedTuple):
    name: str
    wires: tuple[int, ...]
    """Ways in which protobuf may write it."""
    repeated: bool = False


_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def _one(name: str, wire: int = _BYTES) -> _Field:
    return _Field(name, (wire,))


def _many(name: str, *wires: int) -> _Field:
    return _Field(name, wires or (_BYTES,), repeated=True)


# Field numbers are those of onnx.proto.
_MESSAGES: dict[str, dict[int, _Field]] = {
    "model": {
        1: _one("ir_version", _VARINT),
        2: _one("producer_name"),
        3: _one("producer_version"),
        4: _one("domain"),
        5: _one("model_version", _VARINT),
        6: _one("doc_string"),
        7: _one("graph"),
        8: _many("opset_import"),
    },
    "opset": {1: _one("domain"), 2: _one("version", _VARINT)},
    "graph": {
        1: _many("node"),
        2: _one("name"),
        5: _many("initializer"),
        10: _one("doc_string"),
        11: _many("input"),
        12: _many("output"),
        13: _many("value_info"),
    },
    "node": {
        1: _many("input"),
        2: _many("output"),
        3: _one("name"),
        4: _one("op_type"),
        5: _many("attribute"),
        6: _one("doc_string"),
        7: _one("domain"),
    },
    "attribute": {
        1: _one("name"),
        2: _one("f", _FIXED32),
        3: _one("i", _VARINT),
        4: _one("s"),
        5: _one("t"),
        7: _many("floats", _FIXED32, _BYTES),
        8: _many("ints", _VARINT, _BYTES),
        9: _many("strings"),
        10: _many("tensors"),
        13: _one("doc_string"),
        20: _one("type", _VARINT),
    },
    "tensor": {
        1: _many("dims", _VARINT, _BYTES),
        2: _one("data_type", _VARINT),
        4: _many("float_data", _FIXED32, _BYTES),
        5: _many("int32_data", _VARINT, _BYTES),
        6: _many("string_data"),
        7: _many("int64_data", _VARINT, _BYTES),
        8: _one("name"),
        9: _one("raw_data"),
        10: _many("double_data", _FIXED64, _BYTES),
        11: _many("uint64_data", _VARINT, _BYTES),
        12: _one("doc_string"),
        13: _many("external_data"),
        14: _one("data_location", _VARINT),
    },
    "entry": {1: _one("key"), 2: _one("value")},
}
# For messages that say what was refused.
_REFUSED = {
    ("model", 14): "metadata",
    ("model", 20): "training information",
    ("model", 25): "functions",
    ("graph", 14): "quantization annotations",
    ("graph", 15): "a sparse tensor",
    ("attribute", 6): "a subgraph",
    ("attribute", 11): "a subgraph",
    ("attribute", 22): "a sparse tensor",
    ("attribute", 23): "a sparse tensor",
    ("tensor", 3): "a tensor in segments",
}


def _below(values: list[int | memoryview], message: str) -> Iterator[dict[str, list[int | memoryview]]]:
    """The fields of each message of a field."""
    return (_fields(value, message) for value in values if isinstance(value, memoryview))


def _fields(data: memoryview, message: str) -> dict[str, list[int | memoryview]]:
    """The fields of a message by name, numbers that are not varints left out."""
    known = _MESSAGES[message]
    found: dict[str, list[int | memoryview]] = {field.name: [] for field in known.values()}
    for number, wire, value in _walk(data):
        field = known.get(number)
        if field is None:
            what = _REFUSED.get((message, number), f"field {number} of a {message}")
            raise ValueError(f"it has {what}, which bgert never writes")
        if wire not in field.wires or (found[field.name] and not field.repeated):
            raise ValueError(f"it is no ONNX file: {field.name} of a {message}")
        found[field.name].append(value)
    return found


def _walk(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Field number, wire type and value of everything in a protobuf message."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, wire, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if wire == _BYTES:
            size, at = _varint(data, at)
        if size is None or size > end - at:
            raise ValueError("it is no ONNX file, or a damaged one")
        yield number, wire, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise ValueError("it is no ONNX file, or a damaged one")


def _numbers(values: list[int | memoryview]) -> list[int]:
    """Repeated whole numbers, packed or not."""
    found = []
    for value in values:
        if isinstance(value, int):
            found.append(value)
            continue
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            found.append(number)
    return found


def _last_number(values: list[int | memoryview], default: int) -> int:
    return next((value for value in reversed(values) if isinstance(value, int)), default)


def _decoded(values: list[int | memoryview]) -> str:
    """A string field, empty if it is absent."""
    text = next((value for value in values if isinstance(value, memoryview)), memoryview(b""))
    return str(text, "utf-8")  # UnicodeDecodeError is a ValueError
