"""Graphs whose shapes do not fit each other: each operator must refuse them before a kernel reads what is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FLOAT16, INT32 = np.float16, np.int32


def half(*shape: int) -> NDArray[np.float16]:
    """Zeros."""
    return np.zeros(shape, FLOAT16)


def ints(*shape: int) -> NDArray[np.int32]:
    """Zeros."""
    return np.zeros(shape, INT32)


CUTS = np.array([0, 3, 7], INT32)  # two texts, seven tokens
NORM = {"epsilon": 1e-5}
# Operator, inputs, attributes; which input is replaced by what, or which attribute, so that it does not fit.
FITTING: dict[str, tuple[list[NDArray[Any]], dict[str, Any]]] = {
    "EmbeddingLayerNormFp16": ([ints(1, 7), ints(1, 7), half(9, 64), half(5, 64), half(64), half(64)], NORM),
    "TypedEmbeddingLayerNormFp16": (
        [ints(1, 7), ints(1, 7), half(9, 64), half(6, 64), half(64), half(64), ints(1, 7)],
        NORM | {"rows_a_type": 3},
    ),
    "AddLayerNormFp16": ([half(7, 64), half(7, 64), half(64), half(64)], NORM),
    "LinearFp16": ([half(7, 64), half(32, 64), half(32)], {}),
    "LinearGeluFp16": ([half(7, 64), half(32, 64), half(32)], {}),
    "LinearGeluTanhFp16": ([half(7, 64), half(32, 64), half(32)], {}),
    "AttentionTiles": ([CUTS, ints(1, 7)], {}),
    "PackedSelfAttentionFp16": (
        [half(7, 192), CUTS, np.array([[0, 0], [1, 0]], INT32)],
        {"num_heads": 2},
    ),
    "FirstTokenAttentionFp16": ([half(2, 64), half(7, 128), CUTS], {"num_heads": 2}),
    "FirstRowsFp16": ([half(7, 64), CUTS], {}),
    "PoolFp16": ([half(7, 64), CUTS], {"mean": 1, "normalize": 1}),
}
MISFITS: list[tuple[str, dict[int, NDArray[Any]], dict[str, Any]]] = [
    ("EmbeddingLayerNormFp16", {1: ints(1, 6)}, {}),
    ("EmbeddingLayerNormFp16", {3: half(5, 32)}, {}),
    ("EmbeddingLayerNormFp16", {4: half(63)}, {}),
    ("EmbeddingLayerNormFp16", {2: half(0, 64)}, {}),
    ("EmbeddingLayerNormFp16", {}, {"epsilon": -1.0}),
    ("TypedEmbeddingLayerNormFp16", {6: ints(1, 6)}, {}),
    ("AddLayerNormFp16", {1: half(6, 64)}, {}),
    ("AddLayerNormFp16", {3: half(65)}, {}),
    ("AddLayerNormFp16", {0: half(7, 60), 1: half(7, 60), 2: half(60), 3: half(60)}, {}),
    ("LinearFp16", {1: half(32, 56)}, {}),
    ("LinearFp16", {2: half(31)}, {}),
    ("LinearGeluFp16", {2: half(32, 1)}, {}),
    ("LinearGeluTanhFp16", {0: half(7, 63), 1: half(32, 63)}, {}),
    ("AttentionTiles", {0: ints(0)}, {}),
    ("PackedSelfAttentionFp16", {0: half(7, 191)}, {}),
    ("PackedSelfAttentionFp16", {2: ints(1, 2)}, {}),
    ("PackedSelfAttentionFp16", {}, {"num_heads": 3}),
    ("PackedSelfAttentionFp16", {}, {"num_heads": 0}),
    ("FirstTokenAttentionFp16", {0: half(3, 64)}, {}),
    ("FirstTokenAttentionFp16", {1: half(7, 64)}, {}),
    ("FirstRowsFp16", {0: half(0, 64)}, {}),
    ("FirstRowsFp16", {0: half(7, 60)}, {}),
    ("PoolFp16", {0: half(7, 60)}, {}),
    ("PoolFp16", {0: half(7, 64)}, {"mean": 0}),
]


def write(path: Path, operator: str, inputs: list[NDArray[Any]], attributes: dict[str, Any]) -> None:
    """A graph of one node whose inputs are constants, and an output of any shape."""
    names = [f"input{n}" for n in range(len(inputs))]
    node = helper.make_node(operator, names, ["output"], domain="bgert", **attributes)
    kind = {"PoolFp16": onnx.TensorProto.FLOAT, "AttentionTiles": onnx.TensorProto.INT32}
    output = helper.make_tensor_value_info("output", kind.get(operator, onnx.TensorProto.FLOAT16), ["rows", "columns"])
    weights = [onnx.numpy_helper.from_array(value, name) for name, value in zip(names, inputs, strict=True)]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("bgert", 1)]
    graph = helper.make_graph([node], "misfit", [], [output], weights)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def write_all(folder: Path) -> list[dict[str, Any]]:
    """Every operator once as it should be, then everything that does not fit."""
    found = []
    for number, (operator, changes, options) in enumerate([*((name, {}, {}) for name in FITTING), *MISFITS]):
        inputs, attributes = FITTING[operator]
        inputs = [changes.get(place, value) for place, value in enumerate(inputs)]
        path = folder / f"misfit{number}.onnx"
        write(path, operator, inputs, attributes | options)
        found.append({"path": str(path), "name": f"{operator} {[*changes]} {options}", "fits": number < len(FITTING)})
    return found
