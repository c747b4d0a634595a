"""The CUDA layer on a stand-in for cuda-bindings; and their absence, for real."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from bgert import _native
from bgert.backends.cuda.check import load_library
from bgert.backends.cuda_runtime import CudaError, CudaRuntime, Gpu
from bgert.errors import (
    DeviceLostError,
    DeviceMemoryError,
    DeviceUnavailableError,
    EngineError,
    EngineNotInstalledError,
)
from cuda_fake import API, Machine, cuda_runtime


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def module(machine):
    return cuda_runtime(machine)


@pytest.fixture
def cuda(module):
    return CudaRuntime(module=module)


def test_a_copy_is_done_when_its_event_is(cuda):
    host, device, back = cuda.allocate_pinned(1000), cuda.allocate(1000), cuda.allocate_pinned(1000)
    stream, other = cuda.stream(), cuda.stream()
    uploaded, done = cuda.event(), cuda.event(spin=True)
    host.array()[:] = np.arange(1000) % 251
    cuda.upload(device, host, 900, stream)
    uploaded.record(stream)
    other.wait(uploaded)
    cuda.download(back, device, 900, other)
    done.record(other)
    assert (back.array() == 0xEE).all()
    done.synchronize()
    np.testing.assert_array_equal(back.array()[:900], host.array()[:900])
    assert (back.array()[900:] == 0xEE).all()
    assert done.milliseconds_since(uploaded) == 1.5
    for part in (host, device, back, stream, other, uploaded, done):
        part.close()
        part.close()


def test_everything_is_given_back(cuda, machine):
    parts = [cuda.allocate(64), cuda.allocate_pinned(64), cuda.stream(), cuda.event()]
    assert machine.allocated
    for part in parts:
        part.close()
    assert (machine.allocated, machine.streams, machine.events, machine.graphs) == ({}, {}, {}, {})


def test_device_memory_is_aligned(cuda):
    assert all(cuda.allocate(n).pointer % 256 == 0 for n in (1, 255, 4097))


def test_a_copy_beyond_either_end_is_refused(cuda):
    host, device, stream = cuda.allocate_pinned(10), cuda.allocate(20), cuda.stream()
    for size in (11, -1):
        with pytest.raises(ValueError, match="a copy of"):
            cuda.upload(device, host, size, stream)
    host.close()
    with pytest.raises(ValueError, match="closed"):
        host.array()


def test_out_of_memory(cuda, machine):
    with pytest.raises(DeviceMemoryError, match=r"cudaMalloc failed: cudaErrorMemoryAllocation \(2\): out of memory"):
        cuda.allocate(machine.memory_limit + 1)
    free, total = cuda.memory_info()
    assert free == total == machine.memory_limit


@pytest.mark.parametrize(("code", "kind"), [(700, DeviceLostError), (719, DeviceLostError), (1, CudaError)])
def test_failures_have_the_runtimes_words(cuda, machine, code, kind):
    stream = cuda.stream()
    machine.faults["cudaStreamSynchronize"] = [code]
    with pytest.raises(kind, match=rf"cudaStreamSynchronize failed: \w+ \({code}\): what went wrong") as caught:
        stream.synchronize()
    assert isinstance(caught.value, EngineError)
    assert caught.value.code == code
    assert ("start it again" in str(caught.value)) == (kind is DeviceLostError)
    assert ("cudaGetLastError") in [name for name, _ in machine.calls]


def test_every_call_is_checked(cuda, machine):
    host, device, stream, event = cuda.allocate_pinned(8), cuda.allocate(8), cuda.stream(), cuda.event()
    graph = cuda.capture(stream, lambda: None)
    calls = {
        "cudaMalloc": lambda: cuda.allocate(8),
        "cudaHostAlloc": lambda: cuda.allocate_pinned(8),
        "cudaStreamCreateWithFlags": cuda.stream,
        "cudaEventCreateWithFlags": cuda.event,
        "cudaMemcpyAsync": lambda: cuda.upload(device, host, 8, stream),
        "cudaEventRecord": lambda: event.record(stream),
        "cudaStreamWaitEvent": lambda: stream.wait(event),
        "cudaStreamSynchronize": stream.synchronize,
        "cudaEventSynchronize": event.synchronize,
        "cudaEventElapsedTime": lambda: event.milliseconds_since(event),
        "cudaGetDevice": lambda: cuda.on(0).__enter__(),
        "cudaSetDevice": lambda: cuda.set_device(0),
        "cudaGetDeviceProperties": cuda.gpu,
        "cudaDriverGetVersion": cuda.versions,
        "cudaRuntimeGetVersion": cuda.versions,
        "cudaMemGetInfo": cuda.memory_info,
        "cudaStreamBeginCapture": lambda: cuda.capture(stream, lambda: None),
        "cudaStreamEndCapture": lambda: cuda.capture(stream, lambda: None),
        "cudaGraphInstantiate": lambda: cuda.capture(stream, lambda: None),
        "cudaGraphUpload": lambda: cuda.capture(stream, lambda: None),
        "cudaGraphDestroy": lambda: cuda.capture(stream, lambda: None),
        "cudaGraphLaunch": lambda: graph.launch(stream),
        "cudaGraphExecDestroy": graph.close,
        "cudaFree": device.close,
        "cudaFreeHost": host.close,
        "cudaStreamDestroy": stream.close,
        "cudaEventDestroy": event.close,
    }
    others = {"cudaGetDeviceCount", "cudaGetLastError", "cudaGetErrorName", "cudaGetErrorString"}
    assert calls.keys() | others == API["cuda"]["functions"].keys()
    for name, call in calls.items():
        machine.faults[name] = [1]
        with pytest.raises(CudaError, match=rf"{name} failed: cudaErrorInvalidValue \(1\): what went wrong"):
            call()
        assert not machine.capturing


def test_a_graph_does_the_work_again_with_what_is_there_then(cuda, machine):
    host, device, back = cuda.allocate_pinned(4), cuda.allocate(4), cuda.allocate_pinned(4)
    stream = cuda.stream()

    def work():
        cuda.upload(device, host, 4, stream)
        cuda.download(back, device, 4, stream)

    graph = cuda.capture(stream, work)
    stream.synchronize()
    assert (back.array() == 0xEE).all()
    for value in (3, 7):
        host.array()[:] = value
        graph.launch(stream)
        stream.synchronize()
        assert (back.array() == value).all()
    graph.close()
    graph.close()
    assert machine.graphs == {}


def test_work_that_fails_in_a_capture_ends_it(cuda, machine):
    stream = cuda.stream()
    with pytest.raises(ZeroDivisionError):
        cuda.capture(stream, lambda: 1 / 0)
    assert not machine.capturing
    with pytest.raises(CudaError, match="cudaErrorStreamCaptureUnsupported"):
        cuda.capture(stream, lambda: cuda.allocate(8))
    cuda.capture(stream, lambda: None).close()


def test_a_thread_keeps_its_device():
    machine = Machine(devices=3)
    cuda = CudaRuntime(module=cuda_runtime(machine))
    cuda.set_device(2)
    with cuda.on(1):
        assert machine.device() == 1
        with cuda.on(1):
            assert machine.device() == 1
        assert machine.device() == 1
    assert machine.device() == 2
    with pytest.raises(CudaError, match="cudaSetDevice failed: cudaErrorInvalidDevice"), cuda.on(3):
        pass


def test_what_a_gpu_is(cuda):
    assert cuda.gpu() == Gpu("NVIDIA Fake 100", "9.0", 132, 13020)


def test_bindings_that_are_missing_or_hold_up_every_thread(monkeypatch):
    """Before 12.9.1 a call that waits for the device did not let other threads of Python run."""
    bindings = ModuleType("cuda.bindings")
    bindings.runtime = cuda_runtime(Machine())
    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(bindings=bindings))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", bindings.runtime)
    for version, old in (("12.8.0", True), ("12.9.0", True), ("12.9.1", False), ("13.5.0", False)):
        bindings.__version__ = version
        if old:
            with pytest.raises(EngineNotInstalledError, match=rf"cuda-bindings {version} is older than 12\.9\.1"):
                CudaRuntime()
        else:
            assert CudaRuntime().device_count() == 1
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(EngineNotInstalledError, match=r"cuda-bindings cannot be imported .* extra `tensorrt`"):
        CudaRuntime("tensorrt")


@pytest.mark.parametrize(
    ("code", "driver", "visible", "words"),
    [
        (100, 13000, "", "CUDA_VISIBLE_DEVICES is '', which leaves no device"),
        (100, 13000, "7", "CUDA_VISIBLE_DEVICES is '7'"),
        (100, 13000, None, "--gpus all"),
        (35, 12040, None, "serves CUDA up to 12.4, this needs 13.0: install a newer driver"),
        (35, 0, None, "no NVIDIA driver"),
        (3, 13000, None, "forked after CUDA was started"),
        (0, 13000, "", "leaves no device"),
    ],
)
def test_no_device_and_why(monkeypatch, code, driver, visible, words):
    machine = Machine(devices=0)
    machine.cuda_version = driver
    machine.faults["cudaGetDeviceCount"] = [code]
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(DeviceUnavailableError) as caught:
        CudaRuntime(module=cuda_runtime(machine)).device_count()
    assert words in str(caught.value)


def test_a_driver_too_old_for_the_engine(cuda, machine):
    """The bindings' own CUDA may be older than the one that ONNX Runtime was built for."""
    machine.cuda_version, machine.runtime_version = 12040, 12090
    assert cuda.device_count(cuda=12) == 1
    with pytest.raises(DeviceUnavailableError, match=r"serves CUDA up to 12\.4, this needs 13\.0"):
        cuda.device_count(cuda=13)


def test_a_missing_library_names_the_package():
    with pytest.raises(EngineNotInstalledError, match=r"libnothing\.so\.1 cannot .*extra `gpu`.*some-package"):
        load_library("libnothing.so.1", "some-package")


def test_libraries_of_pip_packages_are_found(tmp_path, monkeypatch):
    """A package named nvidia on the path, as pip leaves it, with a real library under another name."""
    folder = tmp_path / "nvidia" / "cu99" / "lib"
    folder.mkdir(parents=True)
    (folder / "libbgert_test.so.99").symlink_to(_native.__file__)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_library("libbgert_test.so.99", "x") is not None
