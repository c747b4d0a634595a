"""Which engine serves a device by name, and what is said where a GPU is not used."""

import sys
import warnings
from types import SimpleNamespace

import pytest

from bgert import Encoder
from bgert.backends import choose
from bgert.backends.choose import parse_devices
from bgert.backends.cuda import backend as cuda_backend
from bgert.backends.cuda import check
from bgert.backends.cuda.check import cuda_major, import_onnxruntime, parse_cuda_devices, require_libraries
from bgert.errors import DeviceUnavailableError, DeviceWarning, EngineNotInstalledError, InvalidOptionError
from bgert_export import export
from cuda_fake import Machine, cuda_runtime


@pytest.fixture(scope="module")
def folders(write_model, sentence_transformers_files, tmp_path_factory):
    """Model folders with a graph for the CPU, for CUDA, and for both."""
    root = tmp_path_factory.mktemp("choose")
    checkpoint = write_model(root / "checkpoint", files=sentence_transformers_files("cls"))
    for targets in (["cpu"], ["cuda"], ["cpu", "cuda"]):
        export(checkpoint, root / "-".join(targets), targets=targets, verify=False)
    return root


@pytest.fixture(autouse=True)
def nothing_said():
    choose._said.clear()


@pytest.fixture
def gpu_present(monkeypatch):
    monkeypatch.setattr(check, "nvidia_device_present", lambda: True)


@pytest.fixture
def gpu_absent(monkeypatch):
    monkeypatch.setattr(check, "nvidia_device_present", lambda: False)


@pytest.fixture
def broken_cuda(monkeypatch):
    def count_devices():
        raise EngineNotInstalledError("libcublas.so.13 is missing")

    monkeypatch.setattr(check, "count_devices", count_devices)


@pytest.fixture
def working_cuda(monkeypatch):
    monkeypatch.setattr(check, "count_devices", lambda: 3)
    opened = []

    def backend(folder, graph, **options):
        opened.append(options)
        return SimpleNamespace(
            info=SimpleNamespace(
                device=f"cuda:{options['device']}", precision="fp16", engine="x", workers=2, token_budget=9
            )
        )

    monkeypatch.setattr(cuda_backend, "OnnxCudaBackend", backend)
    return opened


def silently(folder, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Encoder(folder, **options)


def test_auto_without_a_gpu_is_the_cpu_and_no_news(folders, monkeypatch):
    monkeypatch.setattr(check, "nvidia_device_present", lambda: False)
    for name in ("cpu", "cpu-cuda"):
        assert silently(folders / name).device == "cpu"
    with pytest.raises((EngineNotInstalledError, DeviceUnavailableError)):
        Encoder(folders / "cuda")


def test_auto_takes_the_gpu(folders, gpu_present, working_cuda):
    encoder = silently(folders / "cpu-cuda")
    assert (encoder.device, encoder.precision) == ("cuda:0", "fp16")
    assert working_cuda == [{"device": 0, "pad_token_id": 0, "max_tokens": 72, "memory_limit": None}]
    assert silently(folders / "cpu-cuda", precision="fp32").device == "cpu"


def test_auto_says_once_why_a_gpu_is_not_used(folders, gpu_present, broken_cuda):
    with pytest.warns(DeviceWarning, match=r"GPU here, and the CPU is used: libcublas.so.13 is missing") as caught:
        assert Encoder(folders / "cpu-cuda").device == "cpu"
    assert caught[0].filename == __file__
    assert silently(folders / "cpu-cuda").device == "cpu"
    choose._said.clear()
    assert silently(folders / "cpu-cuda", device="cpu").device == "cpu"
    with pytest.raises(EngineNotInstalledError, match="libcublas"):
        Encoder(folders / "cuda")


def test_auto_on_a_folder_made_for_the_cpu(folders, gpu_present, broken_cuda, monkeypatch):
    """News only to who installed onnxruntime-gpu."""
    monkeypatch.setattr(check, "installed", lambda name: None)
    assert silently(folders / "cpu").device == "cpu"
    monkeypatch.setattr(check, "installed", lambda name: "1.31.1")
    with pytest.warns(DeviceWarning, match="has no cuda graph: export it with"):
        assert Encoder(folders / "cpu").device == "cpu"
    assert silently(folders / "cpu", precision="fp32").device == "cpu"


def test_devices_by_name(folders, working_cuda):
    assert silently(folders / "cuda", device="cuda").device == "cuda:0"
    assert silently(folders / "cuda", device="cuda:2", gpu_memory_limit=10**9).device == "cuda:2"
    assert working_cuda[-1]["memory_limit"] == 10**9
    assert silently(folders / "cuda", device="cuda:all").device == "cuda:0,cuda:1,cuda:2"
    assert silently(folders / "cuda", device=["cuda:2", "cuda:0"]).device == "cuda:2,cuda:0"
    with pytest.raises(DeviceUnavailableError, match=r"no device cuda:3: CUDA shows cuda:0 to cuda:2"):
        Encoder(folders / "cuda", device="cuda:3")


@pytest.mark.parametrize(
    "device", ["gpu", "cuda:", "cuda:-1", "CUDA", "", [], ["cpu", "cuda:0"], ["cuda", "cuda:1"], [3]]
)
def test_names_that_are_no_device(device):
    with pytest.raises(InvalidOptionError, match="device"):
        parse_devices(device)


def test_a_device_named_twice():
    with pytest.raises(InvalidOptionError, match="twice"):
        parse_devices(["cuda:0", "cuda:0"])
    with pytest.raises(DeviceUnavailableError, match=r"CUDA shows cuda:0$"):
        parse_cuda_devices("cuda:1", 1)


def test_a_folder_without_the_graph(folders):
    with pytest.raises(DeviceUnavailableError, match=r"no graph for device 'cuda' .*\(it has: cpu fp32\)"):
        Encoder(folders / "cpu", device="cuda")
    with pytest.raises(DeviceUnavailableError, match="no graph for device 'cpu'"):
        Encoder(folders / "cuda", device="cpu")


def test_a_precision_of_other_devices_says_what_there_is_instead(folders, gpu_absent):
    for device in ("auto", "cpu"):
        with pytest.raises(DeviceUnavailableError, match=r"fp16 is for cuda and tensorrt, cpu takes fp32 \(`bgert exp"):
            Encoder(folders / "cpu-cuda", device=device, precision="fp16")
        with pytest.raises(
            DeviceUnavailableError, match=r"has: cpu fp32, cuda fp16\): `bgert export --target cpu-bf16`"
        ):
            Encoder(folders / "cpu-cuda", device=device, precision="bf16")
    with pytest.raises(DeviceUnavailableError, match="fp32 is for cpu, cuda takes fp16"):
        Encoder(folders / "cpu-cuda", device="cuda", precision="fp32")
    with pytest.raises(
        InvalidOptionError, match="unknown precision 'float16': use auto, fp32, fp16, bf16, int8 or fp8"
    ):
        Encoder(folders / "cpu-cuda", precision="float16")


def test_every_target_of_export_is_known_to_these_messages():
    from bgert_export.targets import TARGETS

    for_others = {"portable", "cuda-fused", "cuda-fused-erf"}  # of other programs, or asked for by name alone
    assert set(choose.EXPORTED.values()) | for_others == set(TARGETS)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "1"])
def test_a_memory_limit_that_is_none(folders, limit):
    with pytest.raises(InvalidOptionError, match="gpu_memory_limit"):
        Encoder(folders / "cuda", device="cuda", gpu_memory_limit=limit)


def test_a_memory_limit_on_the_cpu(folders):
    with pytest.raises(InvalidOptionError, match="for a GPU"):
        Encoder(folders / "cpu", device="cpu", gpu_memory_limit=10**9)


def module(version="1.31.1", providers=("CUDAExecutionProvider", "CPUExecutionProvider")):
    return SimpleNamespace(__version__=version, get_available_providers=lambda: list(providers))


@pytest.mark.parametrize(
    ("ort", "packages", "words"),
    [
        (None, {}, r"cannot be imported .*the extra `gpu`"),
        (module(providers=["CPUExecutionProvider"]), {"onnxruntime": "1.32.0"}, "built without CUDA: pip uninstall"),
        (
            module(providers=["CPUExecutionProvider"]),
            {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"},
            "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are both installed",
        ),
        (module("1.30.9"), {"onnxruntime-gpu": "1.30.9"}, "older than 1.31"),
    ],
)
def test_onnxruntime_without_cuda(monkeypatch, ort, packages, words):
    monkeypatch.setitem(sys.modules, "onnxruntime", ort)
    monkeypatch.setattr(check, "installed", packages.get)
    with pytest.raises(EngineNotInstalledError, match=words):
        import_onnxruntime()


def test_onnxruntime_with_cuda(monkeypatch):
    for version in ("1.31.0", "1.32.1", "2.0.0"):
        monkeypatch.setitem(sys.modules, "onnxruntime", module(version))
        assert import_onnxruntime().__version__ == version


def test_the_version_of_cuda(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime.capi.build_and_package_info", SimpleNamespace(cuda_version="13.0"))
    assert cuda_major(module()) == 13
    monkeypatch.setitem(sys.modules, "onnxruntime.capi.build_and_package_info", SimpleNamespace(cuda_version="19.1"))
    with pytest.raises(EngineNotInstalledError, match=r"built for CUDA 19\.1"):
        cuda_major(module())


def test_missing_libraries_are_all_named(monkeypatch):
    def load(name, package):
        if name in missing:
            raise EngineNotInstalledError(f"{name} cannot be loaded (no such file): x")

    monkeypatch.setattr(check, "load_library", load)
    missing = {"libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10"}
    with pytest.raises(EngineNotInstalledError) as caught:
        require_libraries(13)
    assert "needs libcublasLt.so.13, libcublas.so.13, libcurand.so.10, not found" in str(caught.value)
    assert str(caught.value).endswith("or pip install 'nvidia-cublas>=13,<14' 'nvidia-curand>=10,<11'")
    missing = {"libcuda.so.1"}
    with pytest.raises(DeviceUnavailableError, match=r"no NVIDIA driver here \(no such file\)"):
        require_libraries(13)
    missing = set()
    require_libraries(12)


def test_counting_devices(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", module())
    monkeypatch.setattr(check, "cuda_major", lambda ort: 13)
    monkeypatch.setattr(check, "load_library", lambda name, package: None)
    real = check.CudaRuntime
    monkeypatch.setattr(check, "CudaRuntime", lambda: real(module=cuda_runtime(Machine(devices=2))))
    assert check.count_devices() == 2
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(DeviceUnavailableError, match="needs Linux"):
        check.count_devices()
