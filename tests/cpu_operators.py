"""Calls one of bgert's operators for ONNX Runtime's CPU provider, or a few, on arrays."""

import numpy as np
from onnx import TensorProto, helper

from bgert.backends.onnx_cpu import KERNELS

SETS = (
    *("baseline", "avx2", "avx2vnni", "avx512", "avx512vnni", "avx512bf16", "avx512amx"),
    *("neondot", "neoni8mm", "neonbf16"),
)
TYPES = {np.int32: "INT32", np.float32: "FLOAT", np.uint8: "UINT8", np.int8: "INT8"}


def run(op_type, inputs, **attributes):
    """One operator on arrays by name."""
    return run_nodes([helper.make_node(op_type, list(inputs), ["out"], domain="bgert", **attributes)], inputs)


def run_nodes(nodes, inputs, weights=(), kind=TensorProto.FLOAT):
    """Operators whose last output is `out`; the session has two threads."""
    import onnxruntime

    types = {np.dtype(numpy): getattr(TensorProto, name) for numpy, name in TYPES.items()}
    kinds = {name: types[array.dtype] for name, array in inputs.items()}
    graph = helper.make_graph(
        nodes,
        "some",
        [helper.make_tensor_value_info(name, given, None) for name, given in kinds.items()],
        [helper.make_tensor_value_info("out", kind, None)],
        list(weights),
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("bgert", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    options.register_custom_ops_library(str(KERNELS))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def packed(rng, lengths, hidden):
    cuts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    rows = [rng.standard_normal((cuts[-1], hidden)).astype(np.float32) * spread for spread in (2, 2, 1)]
    return dict(zip(("query", "key", "value"), rows, strict=True)) | {"cu_seqlens": cuts}


def panels(matrix, group):
    """[N, K] as the kernels read it."""
    columns, depth = matrix.shape
    return matrix.reshape(columns // 32, 32, depth // group, group).transpose(0, 2, 1, 3).reshape(columns // 32, -1)
