"""CPU graphs in bfloat16 and int8: near the float32 graph, the same bits in any batch, refused below the floor."""

import numpy as np
import onnx
import pytest

from bgert import Encoder, InvalidOptionError, Reranker
from bgert_export import export
from bgert_export.errors import QuantizationError, UnsupportedCheckpointError
from bgert_export.graphs.linears import quantize_columns
from bgert_export.quantize import smoothing_factors

TARGETS = ("cpu", "cpu-bf16", "cpu-int8")
TEXTS = ["a", "how to copy a folder", "今天天气很好", "the file " * 20, "", "read the data and write it " * 4]


def export_random(checkpoint, folder, **options):
    return export(checkpoint, folder, **{"pooling": "cls", "normalize": True, **options})


@pytest.fixture(scope="module")
def trained(demo_checkpoint, tmp_path_factory):
    """The demo model in three precisions."""
    folder = tmp_path_factory.mktemp("precisions") / "model"
    lines = []
    manifest = export(demo_checkpoint, folder, targets=TARGETS, verify=False, progress=lines.append)
    return folder, manifest, lines


def test_the_demo_model_in_each_precision(trained):
    folder, manifest, lines = trained
    assert [graph.precision for graph in manifest.graphs] == ["fp32", "bf16", "int8"]
    assert [graph.floor for graph in manifest.graphs] == [None, None, 0.998]
    (choice,) = [choice for choice in manifest.choices if choice.field == "int8"]
    assert choice.value == []
    assert "floor 0.998" in choice.why
    assert any("with every matrix in int8" in line for line in lines)
    vectors = {graph.precision: Encoder(folder, precision=graph.precision).encode(TEXTS) for graph in manifest.graphs}
    assert vectors["int8"].info.precision == "int8"
    assert Encoder(folder).precision == "fp32"
    for precision, least in (("bf16", 0.9999), ("int8", 0.99)):
        cosines = (vectors["fp32"] * vectors[precision]).sum(1)
        assert least < cosines.min() < 0.9999999, precision


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("mode", ["throughput", "latency"])
def test_a_vector_has_the_same_bits_in_any_batch(trained, precision, mode):
    encoder = Encoder(trained[0], precision=precision, mode=mode)
    together = encoder.encode(TEXTS)
    assert np.array_equal(together, np.stack([encoder.encode(text) for text in TEXTS]))
    assert np.array_equal(together, encoder.encode(TEXTS[::-1])[::-1])


def test_verify_keeps_int8_to_its_floor(trained, demo_checkpoint):
    from bgert_export.verify import verify_against

    reports = {report.precision: report for report in verify_against(trained[0], demo_checkpoint)}
    assert all(report.passed for report in reports.values())
    assert reports["int8"].tolerance.mean_cosine == 0.998
    assert 0.998 < reports["int8"].parity.mean_cosine < 0.9999


def test_below_the_floor_feed_forward_stays_in_fp32_and_then_nothing_is_written(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint()
    lines = []
    with pytest.raises(QuantizationError, match=r"below the floor of 0\.9999999.*--int8-floor"):
        export_random(
            checkpoint, tmp_path / "out", targets=["cpu-int8"], int8_floor=0.9999999, verify=False,
            progress=lines.append,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
    assert len([line for line in lines if "in fp32 too" in line]) == 3


def test_as_few_matrices_as_the_floor_asks_for_stay_in_fp32(make_checkpoint, tmp_path):
    """The floor is put between what every matrix in int8 reaches and what one in float32 adds."""
    checkpoint = make_checkpoint()
    lines = []
    with pytest.raises(QuantizationError):
        export_random(checkpoint, tmp_path / "a", targets=["cpu-int8"], int8_floor=0.9999999, verify=False,
               progress=lines.append)  # fmt: skip
    reached = [
        float(line.split()[3] if line.split()[3][0] == "0" else 0) for line in lines if line.startswith("int8: ")
    ]
    assert reached[0] < reached[1]
    floor = (reached[0] + reached[1]) / 2
    manifest = export_random(checkpoint, tmp_path / "b", targets=["cpu-int8"], int8_floor=floor, verify=False)
    (choice,) = [choice for choice in manifest.choices if choice.field == "int8"]
    assert len(choice.value) == 1
    model = onnx.load(tmp_path / "b" / "cpu-int8.onnx", load_external_data=False)
    floats = [node.output[0] for node in model.graph.node if node.op_type == "LinearFp32"]
    assert floats == choice.value
    assert Encoder(tmp_path / "b", precision="int8").encode(TEXTS).shape == (len(TEXTS), 64)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_an_encoder_of_random_weights(make_checkpoint, tmp_path, pooling):
    export_random(make_checkpoint(), tmp_path / "out", pooling=pooling, targets=TARGETS, int8_floor=0.9)
    fp32, bf16, int8 = (Encoder(tmp_path / "out", precision=name).encode(TEXTS) for name in ("fp32", "bf16", "int8"))
    assert ((fp32 * bf16).sum(1) > 0.999).all()
    assert ((fp32 * int8).sum(1) > 0.98).all()


def test_a_reranker(make_checkpoint, make_config, tmp_path):
    changes = {"architectures": ["BertForSequenceClassification"], "num_labels": 1}
    export(make_checkpoint(config=make_config(**changes)), tmp_path / "out", targets=TARGETS, int8_floor=0.9)
    pairs = [("copy a folder", text) for text in TEXTS]
    fp32, bf16, int8 = (Reranker(tmp_path / "out", precision=name).score(pairs) for name in ("fp32", "bf16", "int8"))
    spread = np.ptp(fp32)
    assert np.abs(fp32 - bf16).max() < 0.05 * max(spread, 1)
    assert np.abs(fp32 - int8).max() < 0.3 * max(spread, 1)


def test_the_same_checkpoint_gives_the_same_bytes(make_checkpoint, tmp_path):
    contents = []
    for name in ("a", "b"):
        checkpoint = make_checkpoint(name=f"checkpoint-{name}", seed=2)
        export_random(checkpoint, tmp_path / name, targets=["cpu-int8"], verify=False, int8_floor=0.9)
        contents.append([(tmp_path / name / file).read_bytes() for file in ("cpu-int8.onnx", "cpu-int8.onnx.data")])
        assert sorted(path.suffix for path in (tmp_path / name).glob("cpu*")) == [".data", ".onnx"]
    assert contents[0] == contents[1]


def test_widths_that_fit_no_panel(make_checkpoint, make_config, tmp_path):
    checkpoint = make_checkpoint(config=make_config(hidden_size=48, num_attention_heads=4, intermediate_size=100))
    export_random(checkpoint, tmp_path / "out")
    for target in TARGETS[1:]:
        with pytest.raises(UnsupportedCheckpointError, match=r"hidden_size is 48.*multiple of 32"):
            export_random(checkpoint, tmp_path / target, targets=[target], verify=False)


@pytest.mark.parametrize("floor", [0, 1, -0.5, 2, float("nan")])
def test_floors_that_make_no_sense(make_checkpoint, tmp_path, floor):
    with pytest.raises(InvalidOptionError, match="between 0 and 1"):
        export_random(make_checkpoint(), tmp_path / "out", targets=["cpu-int8"], int8_floor=floor)


def test_columns_are_quantised_to_within_half_a_step():
    print("seed", 0)
    weights = np.random.default_rng(0).standard_normal((6, 50)).astype(np.float32)
    weights[2] = 0
    weights[3] *= 1000
    quantized, scales = quantize_columns(weights)
    assert (np.abs(quantized).max(1) == [127, 127, 0, 127, 127, 127]).all()
    assert (np.abs(quantized * scales[:, None] - weights) <= 0.5001 * scales[:, None]).all()


def test_smoothing_evens_out_channels_and_is_exact(make_network):
    network = make_network()
    name = "encoder.layer.0.attention.output.LayerNorm"
    largest = np.full(64, 2, np.float32)
    largest[7] = 500
    factors = smoothing_factors(network, {name: largest})[name]
    assert factors[7] < factors[6]
    assert np.array_equal(np.exp2(np.rint(np.log2(factors))), factors)
    weights = network.read("encoder.layer.0.intermediate.dense.weight")
    x = np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)
    assert np.array_equal((x * factors).astype(np.float64) @ (weights / factors).T, x.astype(np.float64) @ weights.T)
