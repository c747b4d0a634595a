"""CPU graphs in bfloat16 and int8: near the float32 graph, the same bits in any batch, refused below the floor."""

import re

import numpy as np
import onnx
import pytest

from bgert import Encoder, InvalidOptionError, Reranker
from bgert_export import export
from bgert_export.errors import QuantizationError, UnsupportedCheckpointError
from bgert_export.graphs.linears import quantize_columns
from bgert_export.graphs.quality import calibration_texts, held_out_texts
from bgert_export.graphs.quantize import smoothing_factors

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
    assert "floor of 0.998" in choice.why
    reached = re.search(r"mean cosine (0\.\d+) \(0\.\d+ at worst of \d+\) on held-out and (0\.\d+) \(", choice.why)
    assert all(float(mean) > 0.999 for mean in reached.groups())  # each weight rounded to the nearest: 0.9993, 0.9987
    assert any("with no matrices in fp32" in line for line in lines)
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
    from bgert_export.verification.verify import verify_against

    reports = {report.precision: report for report in verify_against(trained[0], demo_checkpoint)}
    assert all(report.passed for report in reports.values())
    assert reports["int8"].tolerance.mean_cosine == 0.998
    assert 0.998 < reports["int8"].parity.mean_cosine < 0.9999


def export_int8(checkpoint, folder, lines=None, **options):
    """The choice of matrices, and the manifest."""
    progress = None if lines is None else lines.append
    options = {"targets": ["cpu-int8"], "verify": False, "progress": progress, **options}
    manifest = export_random(checkpoint, folder, **options)
    (choice,) = [choice for choice in manifest.choices if choice.field == "int8"]
    return choice, manifest


def test_below_the_floor_nothing_is_written(make_checkpoint, tmp_path):
    lines = []
    with pytest.raises(QuantizationError, match=r"below the floor of .*a third of the arithmetic.*--int8-floor"):
        export_int8(make_checkpoint(), tmp_path / "out", lines, int8_floor=0.9999999)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
    layers = 3
    assert len([line for line in lines if re.search(r"int8: \S+ lost by ", line)]) == 3 * layers
    # Graphs are written for what is tried, not for what is measured.
    assert len([line for line in lines if "matrices in fp32" in line]) <= 3


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_what_loses_most_for_its_arithmetic_goes_to_fp32_first(make_checkpoint, tmp_path, pooling):
    """The floor is just above what every matrix in int8 reaches."""
    checkpoint = make_checkpoint()
    choice, _ = export_int8(checkpoint, tmp_path / "a", pooling=pooling, int8_floor=0.5)
    assert choice.value == []
    reached = min(float(number) for number in re.findall(r"(0\.\d+) \(", choice.why))
    lines = []
    choice, _ = export_int8(checkpoint, tmp_path / "b", lines, pooling=pooling, int8_floor=reached + 2e-5)
    assert choice.value
    losses = {}
    for line in lines:
        if found := re.match(r"int8: (\S+) lost by (.*)$", line):
            names = tuple(found[2].split(" and "))
            cost = 2 if names[0].endswith("output.dense") and "attention" not in names[0] else len(names)
            last = names[0].startswith("encoder.layer.2.") and not names[0].endswith("query")
            losses[names] = float(found[1]) / (cost / 64 if pooling == "cls" and last else cost)
    first = max(losses, key=losses.__getitem__)
    assert tuple(choice.value[: len(first)]) == first
    model = onnx.load(tmp_path / "b" / "cpu-int8.onnx", load_external_data=False)
    floats = {node.output[0] for node in model.graph.node if node.op_type == "LinearFp32"}
    assert floats == set(choice.value)
    assert Encoder(tmp_path / "b", precision="int8").encode(TEXTS).shape == (len(TEXTS), 64)


def test_what_reaches_the_floor_passes_verification(make_checkpoint, tmp_path):
    """The gate and verification judge the same texts, so the one never accepts what the other refuses."""
    checkpoint = make_checkpoint()
    choice, manifest = export_int8(checkpoint, tmp_path / "out", int8_floor=0.5, verify=True)
    mean, inputs = re.search(r"and (0\.\d+) \(.* at worst of (\d+)\) on verification", choice.why).groups()
    parity = manifest.graphs[0].parity
    assert parity.mean_cosine == pytest.approx(float(mean), abs=1.1e-5)
    assert parity.count == int(inputs)


def test_held_out_texts_are_held_out():
    assert not set(calibration_texts()) & set(held_out_texts())
    for texts in (calibration_texts(), held_out_texts()):
        assert sum(text.isascii() for text in texts) > 20
        assert sum("\u4e00" <= character <= "\u9fff" for text in texts for character in text) > 100
    english = "\n".join(calibration_texts())
    assert not [text for text in held_out_texts() if len(text) > 200 and text in english]


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
    weights = make_network().read("encoder.layer.0.intermediate.dense.weight")
    largest = np.full(64, 2, np.float32)
    largest[7] = 500
    factors = smoothing_factors(largest, np.abs(weights).max(0))
    assert factors[7] < factors[6]
    assert np.array_equal(np.exp2(np.rint(np.log2(factors))), factors)
    x = np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)
    assert np.array_equal((x * factors).astype(np.float64) @ (weights / factors).T, x.astype(np.float64) @ weights.T)
