"""The writer of graphs."""

import numpy as np
import onnx
import pytest

from bgert_export.graphs.builder import FLOAT, GraphBuilder


def small_graph(folder, blocks=1):
    matrix = np.arange(64 * 80, dtype=np.float32).reshape(64, 80) / 1000
    with GraphBuilder(folder, "small") as builder:
        rows = builder.input("rows", FLOAT, ["n", 80])
        weight = builder.weight("weight", (64, 80), np.split(matrix, blocks))
        bias = builder.weight("bias", (64,), [matrix[:, 0]])
        other = builder.weight("other", (64, 80), [2 * matrix])
        product = builder.node("Gemm", [rows, weight, bias], "product", attributes={"transB": 1})
        builder.node("Gemm", [rows, other, product], "sum", attributes={"transB": 1})
        builder.output("sum", FLOAT, ["n", 64])
        assert builder.input_names == ["rows"]
        files = builder.finish(name="small", producer_version="1", opset={"ai.onnx": 17}, ir_version=8)
    assert files == ["small.onnx", "small.onnx.data"]
    return matrix


def test_it_computes(tmp_path, open_session):
    matrix = small_graph(tmp_path)
    rows = np.random.default_rng(0).standard_normal((3, 80)).astype(np.float32)
    (found,) = open_session(tmp_path, "small.onnx").run(None, {"rows": rows})
    np.testing.assert_allclose(found, 3 * rows @ matrix.T + matrix[:, 0], rtol=1e-4, atol=1e-3)


def test_header_and_external_data(tmp_path):
    matrix = small_graph(tmp_path)
    model = onnx.load(tmp_path / "small.onnx", load_external_data=False)
    assert (model.ir_version, model.producer_name) == (8, "bgert")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    places = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data} for tensor in model.graph.initializer
    }
    assert places["bias"] == {}  # small tensors stay in the graph
    data = (tmp_path / "small.onnx.data").read_bytes()
    for name, factor in (("weight", 1), ("other", 2)):
        assert places[name]["location"] == "small.onnx.data"
        offset, length = int(places[name]["offset"]), int(places[name]["length"])
        assert offset % 4096 == 0
        np.testing.assert_array_equal(
            np.frombuffer(data[offset : offset + length], np.float32), factor * matrix.ravel()
        )


def test_the_same_input_gives_the_same_bytes(tmp_path):
    contents = []
    for name, blocks in (("a", 1), ("b", 8)):
        (tmp_path / name).mkdir()
        small_graph(tmp_path / name, blocks)
        contents.append([(tmp_path / name / file).read_bytes() for file in ("small.onnx", "small.onnx.data")])
    assert contents[0] == contents[1]


def test_mistakes_of_a_writer_are_caught(tmp_path):
    with GraphBuilder(tmp_path, "wrong") as builder:
        builder.input("x", FLOAT, [1])
        with pytest.raises(AssertionError, match="two values named x"):
            builder.node("Relu", ["x"], "x")
        with pytest.raises(AssertionError, match="bytes for shape"):
            builder.weight("w", (64, 64), [np.zeros((63, 64), np.float32)])
