"""Which matrices stay in fp16, what the manifest says of it, and what is refused."""

import re

import numpy as np
import onnx
import pytest

from bgert import Encoder
from bgert.errors import DeviceUnavailableError, EngineNotInstalledError, InvalidOptionError
from bgert.model_folder import Manifest
from bgert_export import export
from bgert_export.errors import QuantizationError
from bgert_export.fp8.arithmetic import decode, quantize_rows
from bgert_export.fp8.weights import quantize_weights


@pytest.fixture
def checkpoint(make_checkpoint, make_config):
    return make_checkpoint(config=make_config(num_attention_heads=2))


def exported(checkpoint, folder, floor, lines=None, **options):
    options = {"pooling": "mean", "normalize": True, "verify": False, **options}
    progress = None if lines is None else lines.append
    manifest = export(checkpoint, folder, targets=["cuda-fp8"], fp8_floor=floor, progress=progress, **options)
    (choice,) = [choice for choice in manifest.choices if choice.field == "fp8"]
    return manifest, choice


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_what_the_floor_needs_stays_in_fp16(checkpoint, tmp_path, pooling):
    _, choice = exported(checkpoint, tmp_path / "all", 0.5, pooling=pooling)
    assert choice.value == []
    reached = min(float(number) for number in re.findall(r"(0\.\d+) \(", choice.why))
    lines = []
    _, choice = exported(checkpoint, tmp_path / "some", reached + 2e-5, lines, pooling=pooling)
    assert choice.value
    assert any(re.match(r"fp8: \d\S+ lost by ", line) for line in lines)
    model = onnx.load(tmp_path / "some" / "cuda-fp8.onnx", load_external_data=False)
    eighth = {node.output[0] for node in model.graph.node if node.op_type == "LinearFp8"}
    qkv = {re.sub(r"attention\.self\.query$", "qkv", name) for name in choice.value}
    assert not eighth & (set(choice.value) | qkv)
    assert eighth


@pytest.mark.slow
def test_below_the_floor_nothing_is_written(checkpoint, tmp_path):
    with pytest.raises(QuantizationError, match=r"below the floor of .*a third of the arithmetic.*--fp8-floor"):
        exported(checkpoint, tmp_path / "out", 0.9999999)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_parity_is_stated_where_no_gpu_is(checkpoint, tmp_path):
    """And it is the number that the search had, on the same texts."""
    manifest, choice = exported(checkpoint, tmp_path / "out", 0.9, verify=True)
    (graph,) = Manifest.read(tmp_path / "out").graphs
    assert (graph.target, graph.precision, graph.floor) == ("cuda", "fp8", 0.9)
    assert "numpy" in graph.parity.engine
    mean, inputs = re.search(r"and (0\.\d+) \(.* at worst of (\d+)\) on verification", choice.why).groups()
    assert graph.parity.mean_cosine == pytest.approx(float(mean), abs=1e-4)
    assert graph.parity.count == int(inputs)
    assert manifest.graphs[0].parity.mean_cosine == graph.parity.mean_cosine


def test_verification_holds_it_to_its_floor(checkpoint, tmp_path):
    from dataclasses import replace

    from bgert_export.verification.verify import verify_against

    folder = tmp_path / "out"
    manifest, _ = exported(checkpoint, folder, 0.5)
    assert [report.passed for report in verify_against(folder, checkpoint)] == [True]
    replace(manifest, graphs=[replace(manifest.graphs[0], floor=0.99999)]).write(folder)
    (report,) = verify_against(folder, checkpoint)
    assert not report.passed
    assert "mean cosine" in report.failures[0]


def test_nothing_else_runs_in_its_place(checkpoint, tmp_path):
    exported(checkpoint, tmp_path / "out", 0.5)
    with pytest.raises((DeviceUnavailableError, EngineNotInstalledError)):
        Encoder(tmp_path / "out", device="cuda", precision="fp8")
    with pytest.raises(DeviceUnavailableError, match="fp8 is for cuda, cpu takes"):
        Encoder(tmp_path / "out", device="cpu", precision="fp8")
    with pytest.raises(DeviceUnavailableError, match="--target cuda"):
        Encoder(tmp_path / "out", device="cuda", precision="fp16")


@pytest.mark.parametrize("floor", [0, 1, -1, 2])
def test_floors_that_are_none(checkpoint, tmp_path, floor):
    with pytest.raises(InvalidOptionError, match="fp8_floor"):
        exported(checkpoint, tmp_path / "out", floor)


def test_errors_of_weights_cancel_where_inputs_go_together():
    print("seed 2")
    draw = np.random.default_rng(2)
    mixing = draw.standard_normal((12, 96))
    rows = (draw.standard_normal((4000, 12)) @ mixing + 0.3 * draw.standard_normal((4000, 96))).astype(np.float32)
    weights = draw.standard_normal((48, 96)).astype(np.float32)
    weights[5] = 0
    numbers, scales = quantize_weights(weights, rows.T @ rows)
    codes = decode(np.arange(256, dtype=np.uint8))
    assert np.isin(numbers, codes).all()
    nearest, same_scales = quantize_rows(weights)
    np.testing.assert_array_equal(scales, same_scales)
    fresh = (draw.standard_normal((4000, 12)) @ mixing + 0.3 * draw.standard_normal((4000, 96))).astype(np.float32)
    ours, theirs = (np.linalg.norm(fresh @ (found * scales[:, None] - weights).T) for found in (numbers, nearest))
    assert ours < 0.7 * theirs
    assert not numbers[5].any()


def test_inputs_that_say_nothing_leave_what_is_nearest():
    print("seed 3")
    weights = np.random.default_rng(3).standard_normal((16, 32)).astype(np.float32)
    for products in (np.zeros((32, 32), np.float32), np.eye(32, dtype=np.float32)):
        numbers, scales = quantize_weights(weights, products)
        nearest, _ = quantize_rows(weights)
        apart = np.abs(numbers - nearest) * scales[:, None]
        assert (apart > 1e-6).mean() < 0.01  # but for middles
