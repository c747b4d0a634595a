"""A small writer of ONNX graphs whose weights stream to one external file, or by way of it into the graph's own.

Weights are written when they are added, so a graph of any size needs memory for one block of one weight. The bytes
depend on the inputs alone: no clock, no random name, deterministic protobuf serialisation.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from bgert_export.errors import UnsupportedCheckpointError
from bgert_export.graphs.one_file import write_with_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

__all__ = [
    *("BFLOAT16", "BGERT", "FLOAT", "FLOAT16", "INT8", "INT32", "INT64", "MICROSOFT", "UINT8"),
    *("GraphBuilder", "Written"),
]

FLOAT = TensorProto.FLOAT
FLOAT16 = TensorProto.FLOAT16
BFLOAT16 = TensorProto.BFLOAT16
INT32 = TensorProto.INT32
INT64 = TensorProto.INT64
INT8 = TensorProto.INT8
UINT8 = TensorProto.UINT8
BGERT = "bgert"
MICROSOFT = "com.microsoft"

_ALIGNMENT = 4096  # one page, so that engines may map the file
_INLINE_BYTES = 4096  # smaller tensors stay in the graph
_LARGEST_PROTOBUF = 2**31 - 1 - 2**24  # with room for all that is not weights


@dataclass(frozen=True)
class Written:
    """What a writer wrote."""

    files: list[str]
    """Names in the folder, the graph first."""
    inputs: list[str]
    output: str


class GraphBuilder:
    """Collects nodes in execution order; a context manager that closes the weight file.

    Args:
        folder: existing folder to write into.
        stem: the graph becomes `{stem}.onnx`, its weights `{stem}.onnx.data`.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self._path = folder / f"{stem}.onnx"
        self._data_path = folder / f"{stem}.onnx.data"
        self._data = self._data_path.open("wb")
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._names: set[str] = set()
        self._external: list[onnx.TensorProto] = []

    def __enter__(self) -> GraphBuilder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._data.close()

    @property
    def input_names(self) -> list[str]:
        """Names of the graph's inputs so far, in order."""
        return [entry.name for entry in self._inputs]

    def input(self, name: str, dtype: int, shape: Sequence[str | int]) -> str:
        """Declare an input; names in the shape are free dimensions."""
        self._claim(name)
        self._inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def output(self, name: str, dtype: int, shape: Sequence[str | int]) -> None:
        """Declare the value `name` an output of the graph."""
        self._outputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add a small tensor that stays in the graph file."""
        self._claim(name)
        self._initializers.append(onnx.numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def weight(self, name: str, shape: Sequence[int], blocks: Iterable[NDArray[Any]], dtype: int = FLOAT) -> str:
        """Add a tensor, given as consecutive blocks of its C-order elements and stored as `dtype`.

        Blocks are float32 where that is a floating point type.

        Raises:
            UnsupportedCheckpointError: `dtype` cannot hold a value.
        """
        stored = (_stored(name, block, dtype) for block in blocks)
        size = _STORED[dtype].itemsize * int(np.prod(shape, dtype=np.int64))
        tensor = TensorProto(name=name, data_type=dtype, dims=list(shape))
        self._claim(name)
        if size < _INLINE_BYTES:
            tensor.raw_data = b"".join(np.ascontiguousarray(block).tobytes() for block in stored)
            written = len(tensor.raw_data)
        else:
            offset = self._data.tell() + -self._data.tell() % _ALIGNMENT
            self._data.write(b"\0" * (offset - self._data.tell()))
            for block in stored:
                self._data.write(np.ascontiguousarray(block).data.cast("B"))
            written = self._data.tell() - offset
            tensor.data_location = TensorProto.EXTERNAL
            self._external.append(tensor)
            for key, value in (("location", self._data_path.name), ("offset", offset), ("length", size)):
                tensor.external_data.add(key=key, value=str(value))
        if written != size:
            raise AssertionError(f"{name}: {written} bytes for shape {list(shape)}")
        self._initializers.append(tensor)
        return name

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        output: str,
        *,
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
    ) -> str:
        """Add an operator with one output and return the output's name. An empty input name leaves it out."""
        return self.nodes(operator, inputs, [output], attributes=attributes, domain=domain)[0]

    def nodes(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
    ) -> Sequence[str]:
        """Add an operator with several outputs and return their names."""
        for name in outputs:
            self._claim(name)
        node = onnx.NodeProto(op_type=operator, name=outputs[0], domain=domain, input=inputs, output=outputs)
        for key, value in sorted((attributes or {}).items()):
            node.attribute.append(helper.make_attribute(key, value))
        self._nodes.append(node)
        return outputs

    def tensor(self, name: str, tensor: onnx.TensorProto) -> str:
        """Add a tensor of another graph: as a weight if it is large, else inside this one."""
        value = onnx.numpy_helper.to_array(tensor)
        if tensor.data_type in _STORED and value.nbytes >= _INLINE_BYTES:
            return self.weight(name, value.shape, [value], tensor.data_type)
        return self.constant(name, value)

    def add(self, node: onnx.NodeProto) -> None:
        """Add a node of another graph, whose inputs and outputs have their names in this one."""
        for name in filter(None, node.output):
            self._claim(name)
        node.name = next(filter(None, node.output))
        self._nodes.append(node)

    def finish(
        self, *, name: str, producer_version: str, opset: Mapping[str, int], ir_version: int, one_file: bool = False
    ) -> list[str]:
        """Write both files, flush them to disk, check the model, and return the names of the files, graph first.

        With `one_file` the weights go into the graph's file, unless they are more than 2 GB, which ONNX does not allow.
        """
        one_file = one_file and self._data.tell() < _LARGEST_PROTOBUF
        read = {name for node in self._nodes for name in node.input}  # ONNX Runtime warns of what is not
        kept = [
            entry
            for entry in self._initializers
            if (not one_file if entry.data_location == TensorProto.EXTERNAL else entry.name in read)
        ]
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, kept)
        model = onnx.ModelProto(
            ir_version=ir_version, producer_name="bgert", producer_version=producer_version, graph=graph
        )
        for domain, version in opset.items():
            model.opset_import.add(domain="" if domain == "ai.onnx" else domain, version=version)
        self._data.flush()
        os.fsync(self._data.fileno())
        self._data.close()
        with self._path.open("wb") as file, self._data_path.open("rb") as data:
            if one_file:
                write_with_weights(file, model, self._external, data)
            else:
                file.write(model.SerializeToString(deterministic=True))
            file.flush()
            os.fsync(file.fileno())
        if one_file:
            self._data_path.unlink()
        onnx.checker.check_model(str(self._path), full_check=False)
        return [self._path.name] if one_file else [self._path.name, self._data_path.name]

    def finish_model(
        self,
        output: str,
        columns: int,
        *,
        name: str,
        version: str,
        opset: Mapping[str, int],
        ir_version: int,
        token_outputs: Mapping[str, int] | None = None,
        one_file: bool = False,
    ) -> Written:
        """`finish` for a graph whose output is float32[texts, columns].

        `token_outputs` are more of them, float32[tokens, columns], by name.
        """
        self.output(output, FLOAT, ["texts", columns])
        for more, width in (token_outputs or {}).items():
            self.output(more, FLOAT, ["tokens", width])
        files = self.finish(name=name, producer_version=version, opset=opset, ir_version=ir_version, one_file=one_file)
        return Written(files, self.input_names, output)

    def _claim(self, name: str) -> None:
        if name in self._names:
            raise AssertionError(f"the graph has two values named {name}")
        self._names.add(name)


# numpy has no bfloat16: its bits are kept as uint16.
_STORED: dict[int, np.dtype[Any]] = {
    FLOAT: np.dtype("<f4"),
    FLOAT16: np.dtype("<f2"),
    BFLOAT16: np.dtype("<u2"),
    INT8: np.dtype("i1"),
    UINT8: np.dtype("u1"),
    INT32: np.dtype("<i4"),
    INT64: np.dtype("<i8"),
}


def _stored(name: str, block: NDArray[Any], dtype: int) -> NDArray[Any]:
    if dtype == BFLOAT16:
        return _bfloat16_bits(block)
    with np.errstate(over="ignore"):
        stored = block.astype(_STORED[dtype], copy=False)
    if dtype == FLOAT16 and not np.isfinite(stored).all():
        largest = float(np.abs(block).max())
        raise UnsupportedCheckpointError(
            f"the weight {name} has values up to {largest:.3g}, which float16 cannot hold (its largest is 65504): "
            "this checkpoint has no float16 graph, leave that target out"
        )
    return stored


def _bfloat16_bits(block: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round to the nearest bfloat16, ties to even; weights are finite, so no NaN is handled."""
    bits = np.ascontiguousarray(block, "<f4").view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    return rounded.astype("<u2")
