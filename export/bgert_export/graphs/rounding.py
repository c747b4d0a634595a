"""A 16-bit graph as float32 arithmetic that rounds where the file says, so that a CPU can show what 16 bits do.

ONNX Runtime's CPU provider runs a float16 graph by computing in float32 and may leave the roundings between two
operators out; bfloat16 it does not run at all. Here every operator computes in float32 and its 16-bit result is
rounded to 16 bits, as the graph declares; overflow becomes infinity as it would on the device. What it does not show:
the order of the device's sums, and what its kernels keep wider than the file says inside a fused operator.

With `partial_sums`, matrix products over a dimension known from the file also round their running sum every 16 terms:
the worst that a kernel with 16-bit accumulators does. Attention's second product, over tokens, is not among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["rounded_model"]

TERMS = 16  # of a matrix instruction: they are added exactly before the accumulator rounds
_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
# They move numbers and compute none, so they work on 16 bits directly.
_MOVES = frozenset(["Cast", "Concat", "Gather", "Identity", "Reshape", "Split", "Transpose", "Unsqueeze"])


def rounded_model(path: Path, *, partial_sums: bool = False) -> bytes:
    """The serialised float32 model of a graph written by `tensorrt`.

    Its external weights are still those beside `path`: a session needs
    `session.model_external_initializers_file_folder_path`.
    """
    model = onnx.load(str(path), load_external_data=False)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    types = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    shapes = {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    for value in [*inferred.input, *inferred.output, *inferred.value_info]:
        types[value.name] = value.type.tensor_type.elem_type
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    nodes: list[onnx.NodeProto] = []
    wide: dict[str, str] = {}

    def widened(name: str) -> str:
        """The float32 form of a value."""
        if types[name] not in _HALF:
            return name
        if name not in wide:
            wide[name] = f"{name}.wide"
            nodes.append(helper.make_node("Cast", [name], [wide[name]], to=TensorProto.FLOAT))
        return wide[name]

    for node in model.graph.node:
        if node.op_type in _MOVES or types[node.output[0]] not in _HALF:
            nodes.append(node)
            continue
        (result,) = node.output
        inputs = [widened(name) for name in node.input]
        if partial_sums and node.op_type == "MatMul" and shapes[node.input[0]][-1] > TERMS:
            exact = _partial_sums(nodes, inputs, result, shapes[node.input[0]][-1], types[result])
        else:
            exact = f"{result}.exact"
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.ClearField("input")
            copy.ClearField("output")
            copy.input.extend(inputs)
            copy.output.append(exact)
            nodes.append(copy)
        nodes.append(helper.make_node("Cast", [exact], [result], to=types[result]))
    graph = helper.make_graph(
        nodes, model.graph.name, model.graph.input, model.graph.output, list(model.graph.initializer)
    )
    if partial_sums:
        graph.initializer.extend(
            onnx.numpy_helper.from_array(np.array(sizes, np.int64), f"terms.{length}")
            for length, sizes in _pieces(nodes)
        )
    rounded = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    return bytes(rounded.SerializeToString())


def _partial_sums(nodes: list[onnx.NodeProto], inputs: list[str], result: str, length: int, half: int) -> str:
    """`a @ b` as a running sum of products over TERMS terms each, rounded after each."""
    pieces = len(_sizes(length))
    parts = [[f"{result}.{side}.{number}" for number in range(pieces)] for side in ("left", "right")]
    for name, outputs, axis in zip(inputs, parts, (-1, -2), strict=True):
        nodes.append(helper.make_node("Split", [name, f"terms.{length}"], outputs, axis=axis))
    total = ""
    for number, (left, right) in enumerate(zip(*parts, strict=True)):
        product = f"{result}.product.{number}"
        nodes.append(helper.make_node("MatMul", [left, right], [product]))
        if total:
            nodes.append(helper.make_node("Add", [total, product], [f"{result}.sum.{number}"]))
            product = f"{result}.sum.{number}"
        nodes.append(helper.make_node("Cast", [product], [f"{product}.half"], to=half))
        total = f"{product}.float32"
        nodes.append(helper.make_node("Cast", [f"{product}.half"], [total], to=TensorProto.FLOAT))
    return total


def _sizes(length: int) -> list[int]:
    return [min(TERMS, length - start) for start in range(0, length, TERMS)]


def _pieces(nodes: list[onnx.NodeProto]) -> list[tuple[int, list[int]]]:
    """Length and sizes of the pieces of every Split that cuts sums."""
    given = [node.input[1] for node in nodes if node.op_type == "Split" and len(node.input) > 1]
    lengths = {int(name.removeprefix("terms.")) for name in given if name.startswith("terms.")}
    return [(length, _sizes(length)) for length in sorted(lengths)]
