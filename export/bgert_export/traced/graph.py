"""A graph that another exporter wrote, made into one of a model folder: padded rows, pooling and norm as nodes.

The file is taken apart and written again by `GraphBuilder`, so that what a model folder promises of a graph holds for
it too: one weight file that the graph uses up, no functions, no subgraphs, standard operators alone.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import onnx
from onnx import helper, numpy_helper

from bgert_export.errors import UnsupportedCheckpointError
from bgert_export.graphs.builder import INT64, GraphBuilder
from bgert_export.graphs.head import projected
from bgert_export.graphs.padded_head import normalized
from bgert_export.graphs.padded_pooling import PaddedPooling
from bgert_export.pooling import modes_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bgert_export.graphs.builder import Written
    from bgert_export.projections import Projection

    Array = NDArray[np.float32]

__all__ = ["INPUTS", "MINIMUM_ENGINE", "rewrite"]

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
MINIMUM_ENGINE = "onnxruntime 1.20"
_OUTPUTS = ("last_hidden_state", "logits")
_OWN = "traced."  # before every name of the other exporter, so that none meets one of ours


def rewrite(
    source: Path,
    folder: Path,
    stem: str,
    *,
    columns: int,
    pooling: str | None,
    projections: Sequence[Projection] = (),
    normalize: bool,
    version: str,
) -> tuple[Written, dict[str, int], int]:
    """Write `{stem}.onnx` and `{stem}.onnx.data` from a graph of `last_hidden_state` or `logits`.

    Args:
        source: the other exporter's file, its weights beside it.
        folder: existing folder to write into.
        stem: name of the files.
        columns: numbers that the graph gives for an input.
        pooling: how `last_hidden_state` becomes `embeddings`; None for rerankers, whose `logits` stay.
        projections: dense layers behind pooling.
        normalize: L2-normalise the pooled rows.
        version: bgert's version, for the graph's header.

    Returns:
        What was written, the opset, and the IR version.

    Raises:
        UnsupportedCheckpointError: the graph has what a model folder does not: other inputs, operators of other
            domains, control flow.
    """
    model = onnx.load(str(source))
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    graph = model.graph
    opset = _opset(model)
    names = [entry.name for entry in graph.input if entry.name not in {tensor.name for tensor in graph.initializer}]
    if unknown := [name for name in names if name not in INPUTS]:
        raise UnsupportedCheckpointError(f"the exported graph has an input {unknown[0]}, which bgert has nothing for")
    wanted = _OUTPUTS[pooling is None]
    if wanted not in [entry.name for entry in graph.output]:
        found = ", ".join(entry.name for entry in graph.output)
        raise UnsupportedCheckpointError(f"the exported graph has no output {wanted}, it has {found}")
    with GraphBuilder(folder, stem) as builder:
        renamed = {"": ""}
        for name in (*names, *({"attention_mask"} - set(names) if pooling is not None else ())):
            renamed[name] = builder.input(name, INT64, ["texts", "length"])
        for tensor in graph.initializer:
            renamed[tensor.name] = builder.tensor(_OWN + tensor.name, tensor)
        for node in graph.node:
            _copy(builder, node, renamed)
        rows = renamed[wanted]
        if pooling is None:
            output = builder.node("Identity", [rows], "logits")
        else:
            vectors = PaddedPooling(builder, "attention_mask", counts=True).pooled(lambda: rows, modes_of(pooling))
            vectors = projected(builder, vectors, projections, partial(_linear, builder))
            output = normalized(builder, vectors) if normalize else builder.node("Identity", [vectors], "embeddings")
        kind = "reranker" if pooling is None else "encoder"
        written = builder.finish_model(
            output, columns, name=kind, version=version, opset=opset, ir_version=model.ir_version
        )
    return written, opset, model.ir_version


def _linear(builder: GraphBuilder, rows: str, name: str, weight: Array, bias: Array) -> str:
    """`rows @ weight.T + bias`, float32."""
    both = (("weight", weight), ("bias", bias))
    stored = [builder.weight(f"{name}.{part}", value.shape, [value]) for part, value in both]
    return builder.node("Gemm", [rows, *stored], name, attributes={"transB": 1})


def _opset(model: onnx.ModelProto) -> dict[str, int]:
    used = {node.domain for node in model.graph.node}
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if others := sorted(used - {"", "ai.onnx"}):
        raise UnsupportedCheckpointError(f"the exported graph has operators of the domain {others[0]}")
    return {"ai.onnx": versions.get("", versions.get("ai.onnx", 0))}


def _copy(builder: GraphBuilder, node: onnx.NodeProto, renamed: dict[str, str]) -> None:
    """A node with its values renamed; a constant becomes a weight."""
    if any(attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for attribute in node.attribute):
        raise UnsupportedCheckpointError(
            f"the exported graph decides while it runs ({node.op_type}), which the graphs of a model folder do not: "
            "try the other of --via torch and --via optimum"
        )
    if node.op_type == "Constant":
        value = node.attribute[0]
        tensor = value.t if value.type == onnx.AttributeProto.TENSOR else numpy_helper.from_array(_constant(value))
        renamed[node.output[0]] = builder.tensor(_OWN + node.output[0], tensor)
        return
    copied = onnx.NodeProto(op_type=node.op_type, attribute=node.attribute)
    for attribute in copied.attribute:
        attribute.doc_string = ""
        attribute.ClearField("ref_attr_name")
    copied.input.extend(renamed[name] for name in node.input)
    for name in node.output:
        renamed[name] = _OWN + name if name else ""
    copied.output.extend(renamed[name] for name in node.output)
    renamed[""] = ""
    builder.add(copied)


def _constant(attribute: onnx.AttributeProto) -> object:
    import numpy as np

    value = helper.get_attribute_value(attribute)
    kinds = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    if attribute.name not in kinds:
        raise UnsupportedCheckpointError(f"the exported graph has a constant of the form {attribute.name}")
    return np.asarray(value, kinds[attribute.name])
