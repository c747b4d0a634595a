"""The TensorRT backend on a fake device: numbers, shapes, order of work, and everything that may fail."""

import gc
import os
import warnings

import numpy as np
import pytest

import tensorrt_fake
from bgert import Encoder, Reranker
from bgert.backends.tensorrt import backend as tensorrt
from bgert.backends.tensorrt.engine_cache import EngineCache
from bgert.batching import Bucket, bucket_rows, plan_buckets
from bgert.commands import main as cli
from bgert.errors import (
    DeviceUnavailableError,
    EngineError,
    EngineNotBuiltError,
    EngineNotInstalledError,
    IntegrityError,
    InvalidOptionError,
)
from bgert_export import export
from bgert_export.tensorrt.engine import BuildOptions, build_engine

TEXTS = ["the file", "a folder", "copy", "read the text and write a list of strings to the file in the folder", ""] * 7
OPTIONS = BuildOptions(buckets=[16, 32, 64], tokens_per_batch=128)


@pytest.fixture(scope="module")
def folder(write_model, sentence_transformers_files, tmp_path_factory):
    root = tmp_path_factory.mktemp("backend")
    checkpoint = write_model(root / "checkpoint", files=sentence_transformers_files("mean"))
    export(checkpoint, root / "model", targets=["cpu", "tensorrt"], verify=False)
    return root / "model"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setenv("BGERT_CACHE", str(tmp_path / "cache"))
    return tensorrt_fake.Machine()


@pytest.fixture
def library(machine, monkeypatch):
    return tensorrt_fake.install(monkeypatch, machine)


@pytest.fixture
def built(folder, library):
    build_engine(folder, OPTIONS, lambda line: None)
    return folder


@pytest.mark.parametrize("mode", ["throughput", "latency"])
@pytest.mark.parametrize("label", ["tensorrt 10.16", "tensorrt 11.4"])
def test_vectors_are_those_of_the_cpu(folder, machine, monkeypatch, label, mode):
    tensorrt_fake.install(monkeypatch, machine, label)
    build_engine(folder, OPTIONS, lambda line: None)
    encoder = Encoder(folder, device="tensorrt", mode=mode)
    expected = Encoder(folder, device="cpu").encode(TEXTS)
    for _ in range(2):  # the second time from CUDA graphs
        found = encoder.encode(TEXTS)
        assert np.abs(found - expected).max() < 5e-3
    assert (encoder.device, encoder.precision) == ("tensorrt", "fp16")
    assert encoder.engine.startswith("tensorrt 1")
    assert machine.launches > 0
    np.testing.assert_allclose(encoder.encode(TEXTS[3]), expected[3], atol=5e-3)


def test_rerankers(make_reranker_checkpoint, tmp_path, machine, library):
    export(make_reranker_checkpoint(2), tmp_path / "model", targets=["cpu", "tensorrt"], verify=False)
    build_engine(tmp_path / "model", OPTIONS, lambda line: None)
    pairs = [(text, "read the text") for text in TEXTS]
    found = Reranker(tmp_path / "model", device="tensorrt").score(pairs)
    np.testing.assert_allclose(found, Reranker(tmp_path / "model", device="cpu").score(pairs), atol=1e-2)
    assert found.info.padding > 0


def test_padding_is_counted(built):
    encoder = Encoder(built, device="tensorrt")
    result = encoder.encode(["copy", "file", "text"])  # 3 tokens each: rows rounded up to 4, of 16
    assert (result.info.tokens, result.info.padding) == (9, 4 * 16 - 9)
    assert next(encoder.stream(["copy"])).info.padding == 16 - 3
    assert Encoder(built, device="cpu").encode(["copy"]).info.padding == 0


def test_lanes_are_shared_and_few(built, machine):
    encoder = Encoder(built, device="tensorrt")
    for count in range(1, 36):
        encoder.encode(TEXTS[:count])
    lanes = encoder._runner.backend._lanes
    assert len(lanes) == len(machine.graphs)
    assert {rows for _, rows in lanes} <= {1, 2, 4, 8}
    used = machine.contexts
    encoder.encode(TEXTS)
    assert machine.contexts == used


def test_everything_is_released(built, machine):
    encoder = Encoder(built, device="tensorrt")
    encoder.encode(TEXTS)
    assert machine.allocated
    assert machine.graphs
    del encoder
    gc.collect()
    assert (machine.allocated, machine.graphs, machine.streams, machine.events) == ({}, {}, {}, {})


def test_a_failed_start_releases_what_it_had(built, machine):
    machine.memory_limit = 100_000  # the scratch of 131,072 bytes is too much
    with pytest.raises(EngineError, match=r"no device memory for the engine's activations: .* --tokens-per-batch"):
        Encoder(built, device="tensorrt")
    gc.collect()
    assert (machine.allocated, machine.streams) == ({}, {})


def test_without_an_engine(folder, library):
    with pytest.raises(EngineNotBuiltError, match="`bgert build`"):
        Encoder(folder, device="tensorrt")


def test_the_device_is_asked_first(folder, machine, monkeypatch, capsys):
    tensorrt_fake.install(monkeypatch, machine, None)
    with pytest.raises(EngineNotInstalledError, match="the extra `tensorrt`"):
        Encoder(folder, device="tensorrt")
    machine.driver = False
    with pytest.raises(DeviceUnavailableError, match="driver"):
        Encoder(folder, device="tensorrt")
    with pytest.raises(DeviceUnavailableError, match="no graph for device 'tensorrt' with precision 'bf16'"):
        Encoder(folder, device="tensorrt", precision="bf16")
    arguments = ["encode", str(folder), "--device", "tensorrt", "--input", "-", "--output", "x.npy"]
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpu": ("NVIDIA Other", 9, 0, 132)}, "built for gpu NVIDIA Fake 100, here is NVIDIA Other"),
        ({"cuda_version": 13030}, "built for driver 13020, here is 13030"),
    ],
)
def test_an_engine_of_another_machine_is_refused(built, machine, change, message):
    for name, value in change.items():
        setattr(machine, name, value)
    with pytest.raises(EngineNotBuiltError, match=message):
        Encoder(built, device="tensorrt")


def test_an_engine_of_another_version_is_refused(built, machine, monkeypatch):
    tensorrt_fake.install(monkeypatch, machine, "tensorrt 10.16")
    with pytest.raises(EngineNotBuiltError, match=r"built with TensorRT 11\.4\.0\.106, here is 10\.16\.1\.11"):
        Encoder(built, device="tensorrt")


def test_lean_runtime(folder, machine, monkeypatch):
    tensorrt_fake.install(monkeypatch, machine, "tensorrt 11.4")
    build_engine(folder, OPTIONS, lambda line: None)
    lean = BuildOptions(buckets=[64], tokens_per_batch=128, lean=True)
    tensorrt_fake.install(monkeypatch, machine, "tensorrt_lean 11.4")
    with pytest.raises(EngineNotBuiltError, match="built for library tensorrt, here is tensorrt_lean"):
        Encoder(folder, device="tensorrt")
    tensorrt_fake.install(monkeypatch, machine, "tensorrt 11.4")
    build_engine(folder, lean, lambda line: None)
    found = tensorrt_fake.install(monkeypatch, machine, "tensorrt_lean 11.4")
    found.module.__version__ = "11.5.0"  # a later one of the same major version
    encoder = Encoder(folder, device="tensorrt")
    assert encoder.engine == "tensorrt_lean 11.5.0"
    np.testing.assert_allclose(encoder.encode("copy"), Encoder(folder, device="cpu").encode("copy"), atol=5e-3)
    for version in ("11.3.0", "10.16.0"):
        found.module.__version__ = version
        with pytest.raises(EngineNotBuiltError, match="built with TensorRT"):
            Encoder(folder, device="tensorrt")


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing", "writable", "link"])
def test_a_damaged_plan_is_never_loaded(built, machine, damage, tmp_path):
    (plan,) = EngineCache().root.rglob("*.plan")
    content = plan.read_bytes()
    if damage == "truncated":
        plan.write_bytes(content[:-1])
    elif damage == "changed":
        plan.write_bytes(content[:-1] + b"?")
    elif damage == "missing":
        plan.unlink()
    elif damage == "writable":
        plan.chmod(0o666)
    else:
        plan.rename(tmp_path / "elsewhere")
        plan.symlink_to(tmp_path / "elsewhere")
    machine.fail = {"deserialize"}  # would raise EngineError if it came to that
    with pytest.raises(IntegrityError, match="bgert build"):
        Encoder(built, device="tensorrt")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("deserialize", "refuses the engine .*--force.*: The engine plan file is not compatible"),
    ],
)
def test_a_plan_that_tensorrt_refuses(built, machine, fault, message):
    machine.fail = {fault}
    with pytest.raises(EngineError, match=message):
        Encoder(built, device="tensorrt")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("context", "execution context: out of memory"),
        ("profile", "has no profile 0: invalid profile 0"),
        ("enqueue", "could not queue a batch: enqueue says no"),
        ("copy", "cudaMemcpyAsync failed: cudaErrorInsufficientDriver"),
    ],
)
def test_failures_while_running_are_errors_and_the_next_batch_works(built, machine, fault, message):
    encoder = Encoder(built, device="tensorrt")
    machine.fail = {fault}
    for _ in range(3):  # no buffer set is lost
        with pytest.raises(EngineError, match=message):
            encoder.encode("copy")
    machine.fail = set()
    np.testing.assert_allclose(encoder.encode("copy"), Encoder(built, device="cpu").encode("copy"), atol=5e-3)


@pytest.mark.parametrize("fault", ["capture", "capture enqueue"])
def test_without_cuda_graphs(built, machine, fault):
    encoder = Encoder(built, device="tensorrt")
    machine.fail = {fault}
    with pytest.warns(RuntimeWarning, match="no CUDA graph"):
        first = encoder.encode("copy")
    machine.fail = set()
    np.testing.assert_array_equal(encoder.encode("copy"), first)
    assert machine.launches == 0


def test_texts_beyond_the_longest_profile(folder, library):
    build_engine(folder, BuildOptions(buckets=[16], tokens_per_batch=64), lambda line: None)
    encoder = Encoder(folder, device="tensorrt")
    with pytest.raises(InvalidOptionError, match="20 tokens and the engine was built for 16: pass max_length=16"):
        encoder.encode(" ".join(["file"] * 18))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert encoder.encode(" ".join(["file"] * 18), max_length=16).shape == (64,)


def test_batches_past_the_plan(built):
    """As verification puts them: any number of texts of any lengths at once."""
    encoder = Encoder(built, device="tensorrt")
    backend = encoder._runner.backend
    encoded = encoder.tokenizer.encode_batch(TEXTS)
    from bgert.batching import PackedBatch

    found = backend.run(PackedBatch(encoded.ids, encoded.cu_seqlens, encoded.type_ids))
    np.testing.assert_allclose(found, Encoder(built, device="cpu").encode(TEXTS), atol=5e-3)
    long = PackedBatch(np.zeros(65, np.int32), np.array([0, 65], np.int32), np.zeros(65, np.int32))
    with pytest.raises(EngineError, match="no profile beyond 64"):
        backend.run(long)


def test_a_forked_process_is_told(built, monkeypatch):
    encoder = Encoder(built, device="tensorrt")
    monkeypatch.setattr(tensorrt.os, "getpid", lambda: -1)
    with pytest.raises(EngineError, match="fork"):
        encoder.encode("copy")


def test_a_forked_child_destroys_nothing(built, machine):
    encoder = Encoder(built, device="tensorrt")
    before = dict(machine.allocated)
    finalizer = encoder._runner.backend._finalizer
    child = os.fork()
    if child == 0:
        try:
            del encoder
            gc.collect()
            finalizer()  # what the end of the interpreter would call
            os._exit(0 if before and machine.allocated == before else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    encoder.encode("copy")


def test_many_threads(built):
    """Two buffer sets and one stream for eight threads that all want them."""
    from concurrent.futures import ThreadPoolExecutor

    encoder = Encoder(built, device="tensorrt")
    expected = {text: encoder.encode(text) for text in set(TEXTS)}
    with ThreadPoolExecutor(8) as pool:
        for text, found in zip(TEXTS * 4, pool.map(encoder.encode, TEXTS * 4), strict=True):
            np.testing.assert_array_equal(found, expected[text])


def test_the_fake_refuses_what_the_bindings_do_not_have(library, machine):
    trt = library.module
    with pytest.raises(AttributeError):
        trt.Builder.platform_has_fast_fp16  # noqa: B018
    with pytest.raises(AttributeError):
        trt.BuilderFlag.FP16  # noqa: B018
    with pytest.raises(TypeError):
        trt.Runtime()
    with pytest.raises(TypeError):
        trt.Runtime("logger")
    with pytest.raises(TypeError):
        trt.ICudaEngine()
    with pytest.raises(AssertionError):
        tensorrt_fake.cuda_runtime(machine).cudaMalloc(1, 2)


@pytest.mark.parametrize(("texts", "most", "rows"), [(1, 8, 1), (3, 8, 4), (5, 8, 8), (5, 6, 6), (8, 8, 8)])
def test_bucket_rows(texts, most, rows):
    assert bucket_rows(texts, most) == rows


def test_bucket_plans_hold_every_text_once_and_in_its_bucket():
    draw = np.random.default_rng(7)
    print("seed 7")
    buckets = (Bucket(16, 8), Bucket(32, 4), Bucket(64, 3))
    for _ in range(50):
        lengths = draw.integers(1, 65, draw.integers(1, 60)).astype(np.int32)
        plan = plan_buckets(lengths, buckets)
        assert sorted(plan.order) == list(range(len(lengths)))
        slots = 0
        for first, last in zip(plan.cuts, plan.cuts[1:], strict=False):
            longest = lengths[plan.order[first:last]].max()
            bucket = next(bucket for bucket in buckets if longest <= bucket.length)
            assert 1 <= last - first <= bucket.texts
            slots += bucket_rows(last - first, bucket.texts) * bucket.length
        assert plan.padding == slots - lengths.sum()
    assert plan_buckets(np.empty(0, np.int32), buckets).padding == 0


def test_empty_rows_are_filled_from_the_next_bucket():
    plan = plan_buckets(np.array([60, 60, 60, 10, 10, 10], np.int32), (Bucket(16, 8), Bucket(64, 8)))
    assert plan.cuts == [0, 4, 6]
