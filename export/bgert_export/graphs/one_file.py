"""An ONNX file with its weights inside, written without holding them in memory.

protobuf would need the whole model at once, twice. A message is its fields one after the other in any order, so the
weights are appended to the graph as bytes, each copied from the file where it was streamed to.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["write_with_weights"]

# Field numbers are those of onnx.proto.
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9
_BLOCK = 1 << 20


def write_with_weights(
    file: IO[bytes], model: onnx.ModelProto, external: Sequence[onnx.TensorProto], data: IO[bytes]
) -> None:
    """Write `model` and, as initializers of its graph, the tensors that lie in `data` where their fields say.

    Args:
        file: to write to.
        model: without those tensors; less than 2 GB together with them.
        external: tensors with `offset` and `length` in `external_data`.
        data: holds their bytes.
    """
    heads, places = [], []
    for tensor in external:
        place = {entry.key: int(entry.value) for entry in tensor.external_data if entry.key != "location"}
        inside = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        content = inside.SerializeToString(deterministic=True) + _header(_TENSOR_RAW_DATA, place["length"])
        heads.append(_header(_GRAPH_INITIALIZER, len(content) + place["length"]) + content)
        places.append(place)
    graph = model.graph.SerializeToString(deterministic=True)
    size = len(graph) + sum(map(len, heads)) + sum(place["length"] for place in places)
    around = onnx.ModelProto()
    around.CopyFrom(model)
    around.ClearField("graph")
    file.write(around.SerializeToString(deterministic=True) + _header(_MODEL_GRAPH, size) + graph)
    for head, place in zip(heads, places, strict=True):
        file.write(head)
        data.seek(place["offset"])
        left = place["length"]
        while left:
            block = data.read(min(left, _BLOCK))
            if not block:
                raise AssertionError("the weights end before they should")
            file.write(block)
            left -= len(block)


def _header(field: int, length: int) -> bytes:
    """Tag and length of a field of bytes."""
    return _varint(field << 3 | 2) + _varint(length)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
