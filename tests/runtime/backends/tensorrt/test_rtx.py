"""`device="tensorrt-rtx"` on a fake device: numbers, which engines run where, compiled kernels, capture."""

import gc

import numpy as np
import pytest

import tensorrt_fake
from bgert import Encoder, Reranker
from bgert.backends.tensorrt.engine_cache import EngineCache
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
OPTIONS = BuildOptions(buckets=[16, 64], tokens_per_batch=128, targets=["any"])


@pytest.fixture(scope="module")
def folder(write_model, sentence_transformers_files, tmp_path_factory):
    root = tmp_path_factory.mktemp("rtx")
    checkpoint = write_model(root / "checkpoint", files=sentence_transformers_files("mean"))
    export(checkpoint, root / "model", targets=["cpu", "tensorrt"], verify=False)
    return root / "model"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setenv("BGERT_CACHE", str(tmp_path / "cache"))
    machine = tensorrt_fake.Machine()
    machine.gpu = ("NVIDIA GeForce RTX 4090", 8, 9, 128)
    return machine


@pytest.fixture
def library(machine, monkeypatch):
    return tensorrt_fake.install(monkeypatch, machine, "tensorrt_rtx 1.7")


@pytest.fixture
def built(folder, library):
    build_engine(folder, OPTIONS, lambda line: None)
    return folder


@pytest.mark.parametrize("mode", ["throughput", "latency"])
def test_vectors_are_those_of_the_cpu(built, machine, mode):
    encoder = Encoder(built, device="tensorrt-rtx", mode=mode)
    expected = Encoder(built, device="cpu").encode(TEXTS)
    for _ in range(2):  # the second time from CUDA graphs
        assert np.abs(encoder.encode(TEXTS) - expected).max() < 5e-3
    assert (encoder.device, encoder.engine) == ("tensorrt-rtx", "tensorrt_rtx 1.7.1.116")
    assert machine.launches > 0
    assert machine.compiled == machine.contexts


def test_rerankers(make_reranker_checkpoint, tmp_path, library):
    export(make_reranker_checkpoint(2), tmp_path / "model", targets=["cpu", "tensorrt"], verify=False)
    build_engine(tmp_path / "model", OPTIONS, lambda line: None)
    pairs = [(text, "read the text") for text in TEXTS]
    found = Reranker(tmp_path / "model", device="tensorrt-rtx").score(pairs)
    np.testing.assert_allclose(found, Reranker(tmp_path / "model", device="cpu").score(pairs), atol=1e-2)


def test_it_is_never_taken_by_itself(built, library):
    assert Encoder(built, device="auto").device == "cpu"
    with pytest.raises(InvalidOptionError, match="tensorrt-rtx"):
        Encoder(built, device="tensorrt-rtx:1")
    with pytest.raises(InvalidOptionError, match="do not go together"):
        Encoder(built, device=["tensorrt-rtx", "cuda:0"])


def test_the_two_products_do_not_take_each_others_engines(built, machine, monkeypatch):
    tensorrt_fake.install(monkeypatch, machine, "tensorrt 11.4")
    with pytest.raises(EngineNotBuiltError, match="built for library tensorrt_rtx, here is tensorrt"):
        Encoder(built, device="tensorrt")
    with pytest.raises(EngineNotInstalledError, match="the extra `tensorrt-rtx`"):
        Encoder(built, device="tensorrt-rtx")


@pytest.mark.parametrize("capability", [(7, 0), (8, 7), (9, 0), (10, 0), (11, 0)])
def test_gpus_it_is_not_made_for(built, machine, capability):
    machine.gpu = ("NVIDIA Other", *capability, 132)
    with pytest.raises(DeviceUnavailableError, match=r"NVIDIA Other has .*made for 7\.5, .* use device='cuda'"):
        Encoder(built, device="tensorrt-rtx")


@pytest.mark.parametrize(
    ("targets", "runs", "refused"),
    [
        (["any"], [(8, 0), (8, 6), (8, 9), (12, 0), (12, 1), (13, 0)], [(7, 5)]),
        (["sm86", "sm89"], [(8, 6), (8, 9)], [(8, 0), (12, 0), (7, 5)]),
        (["sm75"], [(7, 5)], [(8, 0)]),
    ],
)
def test_engines_run_on_their_targets(folder, machine, library, targets, runs, refused):
    build_engine(folder, BuildOptions(buckets=[16], tokens_per_batch=64, targets=targets), lambda line: None)
    for major, minor in runs:
        machine.gpu = ("NVIDIA Any", major, minor, 20)
        Encoder(folder, device="tensorrt-rtx")
    for major, minor in refused:
        machine.gpu = ("NVIDIA Any", major, minor, 20)
        with pytest.raises(EngineNotBuiltError, match=f"built for {','.join(targets)}, this GPU is {major}.{minor}"):
            Encoder(folder, device="tensorrt-rtx")


def test_another_version_is_refused(built, library):
    library.module.__version__ = "1.6.1.120"
    with pytest.raises(EngineNotBuiltError, match=r"TensorRT for RTX 1\.7\.1\.116, here is 1\.6\.1\.120"):
        Encoder(built, device="tensorrt-rtx")
    for version in ("1.5.0.114", "2.0.0"):
        library.module.__version__ = version
        with pytest.raises(EngineNotInstalledError, match=r"bgert knows 1\.6 to 1\.x"):
            Encoder(built, device="tensorrt-rtx")


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (1, "another version"),
        (2, "compute capability"),
        (4, "driver is too old"),
        (48, "little memory; it is dam"),
    ],
)
def test_why_the_runtime_refuses(built, machine, bits, words):
    machine.invalid = bits
    with pytest.raises(EngineError, match=f"{words}.*--force"):
        Encoder(built, device="tensorrt-rtx")


def kernels():
    return sorted(EngineCache().root.rglob("*.kernels"))


def test_compiled_kernels_are_kept_for_the_next_process(built, machine):
    encoder = Encoder(built, device="tensorrt-rtx")
    encoder.encode("copy")
    assert kernels() == []
    del encoder
    gc.collect()
    (path,) = kernels()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == b"cachek"
    encoder = Encoder(built, device="tensorrt-rtx")
    encoder.encode("copy")
    del encoder
    gc.collect()
    assert path.read_bytes() == b"cachekk"  # what was read, and more
    machine.gpu = ("NVIDIA RTX 2000", 8, 9, 22)  # another GPU, other kernels
    encoder = Encoder(built, device="tensorrt-rtx")
    encoder.encode("copy")
    del encoder
    gc.collect()
    assert len(kernels()) == 2
    build_engine(built, BuildOptions(**{**vars(OPTIONS), "force": True}), lambda line: None)
    assert len(kernels()) == 2  # the same engine again
    assert (machine.allocated, machine.graphs, machine.streams, machine.events) == ({}, {}, {}, {})


def test_damaged_kernels_are_compiled_again(built, machine):
    encoder = Encoder(built, device="tensorrt-rtx")
    encoder.encode("copy")
    del encoder
    gc.collect()
    (path,) = kernels()
    path.write_bytes(b"garbage")
    encoder = Encoder(built, device="tensorrt-rtx")
    encoder.encode("copy")
    del encoder
    gc.collect()
    assert path.read_bytes() == b"cachek"


def test_kernels_that_others_could_have_written_are_refused(built, machine):
    encoder = Encoder(built, device="tensorrt-rtx")
    encoder.encode("copy")
    del encoder
    gc.collect()
    (path,) = kernels()
    path.chmod(0o666)
    with pytest.raises(IntegrityError, match="others can write"):
        Encoder(built, device="tensorrt-rtx")


def test_kernels_that_cannot_be_kept(built, machine, monkeypatch):
    from bgert.backends.tensorrt import engine_cache

    def full(path, content):
        raise OSError(28, "No space left on device")

    encoder = Encoder(built, device="tensorrt-rtx")
    encoder.encode("copy")
    monkeypatch.setattr(engine_cache, "_write_atomically", full)
    backend = encoder._runner.backend
    with pytest.warns(RuntimeWarning, match=r"not kept: .*No space left"):
        backend._finalizer()


def test_a_context_that_allows_no_capture(built, machine):
    machine.fail = {"capturable"}
    encoder = Encoder(built, device="tensorrt-rtx")
    with pytest.warns(RuntimeWarning, match="no CUDA graph"):
        first = encoder.encode("copy")
    np.testing.assert_array_equal(encoder.encode("copy"), first)
    assert machine.launches == 0
    assert machine.graphs == {}
