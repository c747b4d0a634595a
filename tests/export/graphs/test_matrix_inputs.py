"""What matrices read, beside the values of the graph itself; nothing is left to the nearest number by oversight."""

import numpy as np
import onnx
import pytest

from bgert.backends.onnx_cpu import feeds_of
from bgert.tokenizer import Tokenizer
from bgert_export import export
from bgert_export.graphs import cpu, linears, matrix_inputs
from bgert_export.graphs.quality import calibration_texts, mixed_batches
from bgert_export.graphs.sensitivity import session_with_outputs


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_products_of_every_matrix(make_checkpoint, make_network, tmp_path, pooling, monkeypatch):
    checkpoint, network = make_checkpoint(name="same"), make_network(name="same too")
    tokenizer = Tokenizer.from_folder(checkpoint)
    graph = tmp_path / cpu.write_encoder(network, tmp_path, pooling=pooling, normalize=True, version="0").files[0]
    found = list(matrix_inputs.matrix_inputs(network, graph, tokenizer, 64))
    assert sorted(name for inputs in found for name in inputs.readers) == sorted(matrix_inputs.matrices_of(network))
    norms = [inputs.value for inputs in found if inputs.layer_norm]
    assert len(norms) == 2 * network.architecture.num_hidden_layers
    batches = list(mixed_batches(tokenizer, calibration_texts(), "encoder", 64))
    for inputs in found[:4]:
        session = session_with_outputs(graph, [inputs.value])
        names = [entry.name for entry in session.get_inputs()]
        rows = np.concatenate([session.run(None, feeds_of(names, batch))[0] for batch in batches])
        np.testing.assert_allclose(inputs.products, rows.T @ rows, rtol=1e-4, atol=1e-3 * len(rows) / 100)
        assert np.array_equal(inputs.largest, np.abs(rows).max(0))
    monkeypatch.setattr(matrix_inputs, "_BYTES_AT_ONCE", 1)  # a pass for each
    for one, other in zip(found, matrix_inputs.matrix_inputs(network, graph, tokenizer, 64), strict=True):
        assert one.readers == other.readers
        assert np.array_equal(one.products, other.products)


@pytest.mark.parametrize("gated", [False, True])
def test_no_matrix_is_rounded_by_itself(make_checkpoint, make_native, tmp_path, monkeypatch, gated):
    checkpoint = make_native("nomic_bert") if gated else make_checkpoint()
    alone = []
    monkeypatch.setattr(linears, "quantize_columns", alone.append)
    export(
        checkpoint, tmp_path / "out", pooling="cls", normalize=True, targets=["cpu-int8"], int8_floor=0.5, verify=False
    )
    model = onnx.load(tmp_path / "out" / "cpu-int8.onnx", load_external_data=False)
    assert [node.op_type for node in model.graph.node if node.op_type.endswith("Int8")]
    assert not alone
