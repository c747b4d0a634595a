"""What a matrix costs, beside graphs that have it in int8."""

from functools import partial

import numpy as np
import pytest

from bgert.backends.onnx_cpu import feeds_of, open_session
from bgert.tokenizer import Tokenizer
from bgert_export.graphs import cpu
from bgert_export.graphs.linears import Fp32Linears, Int8Linears
from bgert_export.graphs.quality import held_out_texts, mixed_batches, quality_of
from bgert_export.graphs.quantize import Int8Product, quantize_rows, rounded_weights
from bgert_export.graphs.sensitivity import losses

MATRICES = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
TOGETHER = [
    (f"encoder.layer.{layer}.{name}",) for layer in range(3) for name in (*MATRICES, "output.dense")
]  # fmt: skip


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_losses_are_those_of_graphs_with_one_matrix_in_int8(
    make_checkpoint, make_network, tmp_path, pooling, monkeypatch
):
    monkeypatch.setenv("BGERT_KERNELS", "baseline")  # attention in float32: bfloat16's part is no matrix's
    checkpoint = make_checkpoint(name="same")
    network = make_network(name="same too")
    batches = list(mixed_batches(Tokenizer.from_folder(checkpoint), held_out_texts()[::6], "encoder", 32))

    def written(stem, linears):
        options = {"pooling": pooling, "normalize": True, "version": "0"}
        return tmp_path / cpu.write_encoder(network, tmp_path, stem, linears, **options).files[0]

    def vectors(graph):
        session = open_session(graph)
        inputs = [entry.name for entry in session.get_inputs()]
        return np.concatenate([session.run(None, feeds_of(inputs, batch))[0] for batch in batches]).astype(np.float64)

    fp32 = written("fp32", Fp32Linears)
    weights = rounded_weights(network, Tokenizer.from_folder(checkpoint), fp32, 64)
    assert len(weights.smoothing) == 6
    found = losses(network, fp32, batches, Int8Product(weights), TOGETHER)
    every = [name for names in TOGETHER for name in names]
    every += [f"encoder.layer.{layer}.intermediate.dense" for layer in range(3)]
    expected = vectors(fp32)
    assert len(found) == len(TOGETHER)
    for names, loss in found.items():
        if names[0].endswith(".output.dense") and "attention" not in names[0]:
            continue  # no graph has it in int8 with the matrix before it in float32
        in_fp32 = [name for name in every if name not in names]
        graph = written(
            "int8", partial(Int8Linears, smoothing=weights.smoothing, in_fp32=in_fp32, quantized=weights.quantized)
        )
        true = 1 - quality_of("encoder", expected, vectors(graph)).mean
        assert loss == pytest.approx(true, rel=0.02, abs=1e-8), names


def test_rows_are_within_half_a_step():
    print("seed", 0)
    rows = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32) * [[1], [100], [1e-3], [1], [0]]
    rows[3] = np.abs(rows[3]) + 1  # zero is among the steps all the same
    rows = rows.astype(np.float32)
    low, high = np.minimum(rows.min(1), 0), np.maximum(rows.max(1), 0)
    quantized = quantize_rows(rows)
    assert (np.abs(quantized - rows) <= 0.501 * (high - low)[:, None] / 255).all()
    assert np.abs(quantized - rows)[:4].max(1).min() > 0
