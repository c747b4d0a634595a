"""Proof, on the written file, that a graph keeps the rules by which TensorRT reads and fuses it.

Each rule is here because breaking it costs something that no error reports: an unfused attention is several times
slower, a mask of minus infinity gives NaN on padded rows, an int64 input doubles the copy to the device, a type that
does not match is rewritten. The file is read back from disk; nothing of the writer is trusted.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto

from bgert_export.errors import GraphRuleError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["check"]

LATEST_OPSET = 20
LATEST_IR = 9
# fmt: off
OPERATORS = frozenset([
    "Add", "Cast", "Concat", "Div", "Erf", "Gather", "Gelu", "Identity", "LayerNormalization", "MatMul", "Max", "Mul",
    "ReduceL2", "ReduceMax", "ReduceSum", "Relu", "Reshape", "Sigmoid", "Softmax", "Split", "Sqrt", "Sub", "Tanh",
    "Transpose", "Unsqueeze",
])
# fmt: on
# The only places of int64: constants that say a shape, an axis or an index.
_INT64_INPUTS = {"Reshape": 1, "Split": 1, "Unsqueeze": 1, "ReduceSum": 1, "ReduceL2": 1, "ReduceMax": 1}
# fmt: off
_FLOAT32_OPERATORS = {
    "Div", "Erf", "LayerNormalization", "Max", "ReduceL2", "ReduceMax", "ReduceSum", "Relu", "Sqrt", "Tanh",
}
# fmt: on
_MOST_MASKED, _LEAST_MASKED = -100.0, -30_000.0
_BLOCK = 1 << 22


def check(path: Path, *, layers: int, half: int) -> None:
    """Check a written graph.

    Args:
        path: the .onnx file, its weights beside it.
        layers: transformer layers, each with one attention.
        half: `TensorProto.FLOAT16` or `BFLOAT16`, the type of the matrix products.

    Raises:
        GraphRuleError: a rule is broken; the message names it and the node.
    """
    rules = _Rules(path, half)
    rules.header()
    rules.operators()
    rules.types()
    rules.attention(layers)
    rules.mask()
    rules.weights()


class _Rules:
    def __init__(self, path: Path, half: int) -> None:
        self._path = path
        self._half = half
        model = onnx.load(str(path), load_external_data=False)
        try:
            inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        except Exception as error:  # of several classes
            raise GraphRuleError(f"{path}: types and shapes do not fit together: {error}") from error
        self._model = inferred
        graph = inferred.graph
        self._nodes = list(graph.node)
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {name: node for node in self._nodes for name in node.output}
        self._types: dict[str, int] = {name: tensor.data_type for name, tensor in self._initializers.items()}
        self._ranks: dict[str, int] = {name: len(tensor.dims) for name, tensor in self._initializers.items()}
        for value in [*graph.input, *graph.output, *graph.value_info]:
            self._types[value.name] = value.type.tensor_type.elem_type
            self._ranks[value.name] = len(value.type.tensor_type.shape.dim)
        self._uses = Counter(name for node in self._nodes for name in node.input)

    def _require(self, condition: bool, rule: str) -> None:
        if not condition:
            raise GraphRuleError(f"{self._path} breaks a rule of TensorRT: {rule}")

    def header(self) -> None:
        opsets = {entry.domain: entry.version for entry in self._model.opset_import}
        self._require(set(opsets) == {""}, f"only standard operators, not those of {sorted(opsets)}")
        self._require(opsets[""] <= LATEST_OPSET, f"opset {opsets['']}: TensorRT 10.0 reads up to {LATEST_OPSET}")
        self._require(self._model.ir_version <= LATEST_IR, f"IR version {self._model.ir_version} is above {LATEST_IR}")
        for value in self._model.graph.input:
            tensor = value.type.tensor_type
            self._require(tensor.elem_type == TensorProto.INT32, f"the input {value.name} is not int32")
            free = [dim.dim_param for dim in tensor.shape.dim]
            self._require(free == ["texts", "length"], f"the input {value.name} is not [texts, length]")
        for value in self._model.graph.output:
            self._require(value.type.tensor_type.elem_type == TensorProto.FLOAT, f"the output {value.name} is not fp32")

    def operators(self) -> None:
        for node in self._nodes:
            self._require(node.op_type in OPERATORS, f"{node.name} is a {node.op_type}, which is not in the list")
            for place, name in enumerate(node.input):
                if self._types.get(name) == TensorProto.INT64:
                    constant = name in self._initializers and _INT64_INPUTS.get(node.op_type) == place
                    self._require(constant, f"{node.name} reads int64 from {name}, which is no constant shape or axis")

    def types(self) -> None:
        """Arithmetic has one type; norms, pooling and the head are float32; products are 16-bit or float32."""
        wide = (TensorProto.FLOAT,)
        for node in self._nodes:
            types = {self._types[name] for name in node.input if self._types[name] != TensorProto.INT64}
            if node.op_type in ("Add", "Mul", "Sub", "Div", "Max", "MatMul", "LayerNormalization"):
                self._require(len(types) == 1, f"{node.name} ({node.op_type}) mixes types")
            if node.op_type in _FLOAT32_OPERATORS:
                self._require(types == set(wide), f"{node.name} ({node.op_type}) is not float32")
            if node.op_type in ("MatMul", "Softmax", "Gelu", "Sigmoid", "Concat"):
                self._require(types <= {self._half, *wide}, f"{node.name} ({node.op_type}) has another type")

    def attention(self, layers: int) -> None:
        """MatMul, Add of the shared mask, Softmax, MatMul in 16 bits, with nothing between them."""
        softmaxes = [node for node in self._nodes if node.op_type == "Softmax"]
        self._require(len(softmaxes) == layers, f"{len(softmaxes)} attentions for {layers} layers")
        masks = set()
        for node in softmaxes:
            axis = [entry.i for entry in node.attribute if entry.name == "axis"]
            self._require(axis in ([-1], [3]), f"{node.name} is not over the last axis")
            masked = self._producer(node.input[0], "Add")
            scores = self._producer(masked.input[0], "MatMul")
            consumers = [other for other in self._nodes if node.output[0] in other.input]
            self._require(
                len(consumers) == 1 and consumers[0].op_type == "MatMul" and consumers[0].input[0] == node.output[0],
                f"{node.name} does not go straight into one MatMul",
            )
            masks.add(masked.input[1])
            for side in (scores.input[0], scores.input[1], consumers[0].input[1]):
                self._by_head(side)
            for value in (*scores.input, scores.output[0], *masked.input, masked.output[0], node.output[0]):
                self._require(self._types[value] == self._half, f"{value}, inside attention, is not 16-bit")
                self._require(self._ranks[value] == 4, f"{value}, inside attention, is not [B, N, S, D]")
            for value in (scores.output[0], masked.output[0], node.output[0]):
                self._require(self._uses[value] == 1, f"{value}, inside attention, has a second reader")
        self._require(len(masks) == 1, f"{len(masks)} masks, not one for all layers")
        self._mask = masks.pop()

    def _by_head(self, name: str) -> None:
        """Made by a Transpose, or a part of one."""
        node = self._producers.get(name)
        if node is not None and node.op_type == "Split":
            name = node.input[0]
        self._producer(name, "Transpose")

    def _producer(self, name: str, operator: str) -> Any:
        node = self._producers.get(name)
        self._require(node is not None and node.op_type == operator, f"{name} is not made by {operator}")
        return node

    def mask(self) -> None:
        """Evaluated: 0 on tokens; on padding far below any score, and so far from the edge that sums stay finite."""
        nodes: list[Any] = []
        wanted = [self._mask]
        while wanted:
            name = wanted.pop()
            if (node := self._producers.get(name)) is not None and node not in nodes:
                nodes.insert(0, node)
                wanted += node.input
        inputs = {name for node in nodes for name in node.input if name not in self._producers}
        inputs -= self._initializers.keys()
        self._require(inputs == {"attention_mask"}, f"the mask is made from {sorted(inputs)}")
        values = {name: _values(tensor) for name, tensor in self._initializers.items() if _is_small(tensor)}
        found = _evaluate(nodes, values | {"attention_mask": np.array([[1, 0]], np.int32)})[self._mask].ravel()
        self._require(found[0] == 0, f"the mask adds {found[0]} to a token")
        self._require(
            _LEAST_MASKED <= found[1] <= _MOST_MASKED,
            f"the mask adds {found[1]} to padding: use {_LEAST_MASKED:g} to {_MOST_MASKED:g}",
        )

    def weights(self) -> None:
        """Every stored number is finite."""
        for tensor in self._initializers.values():
            for block in _blocks(tensor, self._path):
                self._require(bool(np.isfinite(block).all()), f"the weight {tensor.name} is not finite")


def _is_small(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location != TensorProto.EXTERNAL)


def _evaluate(nodes: list[Any], values: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The few operators of a mask, in float32."""
    operations: dict[str, Callable[..., NDArray[Any]]] = {
        "Cast": lambda value: value.astype(np.float32),
        "Sub": np.subtract,
        "Mul": np.multiply,
        "Add": np.add,
        "Unsqueeze": lambda value, axes: np.expand_dims(value, tuple(int(axis) for axis in axes)),
    }
    for node in nodes:
        if node.op_type not in operations:
            raise GraphRuleError(f"{node.name} is a {node.op_type}, which a mask is not made of")
        with np.errstate(invalid="ignore"):  # the caller refuses what is not finite
            values[node.output[0]] = operations[node.op_type](*(values[name] for name in node.input))
    return values


def _values(tensor: onnx.TensorProto) -> NDArray[Any]:
    if tensor.data_type == TensorProto.BFLOAT16:
        return _widen(np.frombuffer(tensor.raw_data, "<u2")).reshape(tuple(tensor.dims))
    value: NDArray[Any] = onnx.numpy_helper.to_array(tensor)
    return value.astype(np.float32) if value.dtype == np.float16 else value


def _widen(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _blocks(tensor: onnx.TensorProto, path: Path) -> Iterator[NDArray[Any]]:
    """A weight's numbers, a few megabytes at a time."""
    if _is_small(tensor):
        yield _values(tensor)
        return
    place = {entry.key: entry.value for entry in tensor.external_data}
    stored = {TensorProto.FLOAT: "<f4", TensorProto.FLOAT16: "<f2", TensorProto.BFLOAT16: "<u2"}[tensor.data_type]
    left = int(place["length"]) // np.dtype(stored).itemsize
    with (path.parent / place["location"]).open("rb") as file:
        file.seek(int(place["offset"]))
        while left:
            block = np.fromfile(file, stored, min(left, _BLOCK))
            if not len(block):
                raise GraphRuleError(f"{path} ends before the weight {tensor.name}")
            left -= len(block)
            yield _widen(block) if tensor.data_type == TensorProto.BFLOAT16 else block
