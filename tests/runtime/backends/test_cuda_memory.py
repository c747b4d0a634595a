"""ctypes on the CUDA runtime, with a stand-in for the library; and its absence, for real."""

import numpy as np
import pytest

from bgert import _native
from bgert.backends.cuda_memory import CudaError, CudaRuntime, load_library
from bgert.errors import (
    DeviceLostError,
    DeviceMemoryError,
    DeviceUnavailableError,
    EngineError,
    EngineNotInstalledError,
)
from fake_cuda import FakeCudart


@pytest.fixture
def library():
    return FakeCudart()


@pytest.fixture
def cuda(library):
    return CudaRuntime(library=library)


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


def test_everything_is_given_back(cuda, library):
    parts = [cuda.allocate(64), cuda.allocate_pinned(64), cuda.stream(), cuda.event()]
    assert library.live
    for part in parts:
        part.close()
    assert (library.live, library.streams, library.events) == ({}, {}, {})


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


def test_out_of_memory(cuda, library):
    with pytest.raises(DeviceMemoryError, match=r"cudaMalloc failed: cudaErrorMemoryAllocation \(2\): out of memory"):
        cuda.allocate(library.memory + 1)
    free, total = cuda.memory_info()
    assert free == total == library.memory


@pytest.mark.parametrize(("code", "kind"), [(700, DeviceLostError), (719, DeviceLostError), (1, CudaError)])
def test_failures_have_the_runtimes_words(cuda, library, code, kind):
    stream = cuda.stream()
    library.faults["cudaStreamSynchronize"] = [code]
    with pytest.raises(kind, match=rf"cudaStreamSynchronize failed: \w+ \({code}\): what went wrong") as caught:
        stream.synchronize()
    assert isinstance(caught.value, EngineError)
    assert caught.value.code == code
    assert ("start it again" in str(caught.value)) == (kind is DeviceLostError)
    assert ("cudaGetLastError") in [name for name, _ in library.calls]


def test_every_call_is_checked(cuda, library):
    host, device, stream, event = cuda.allocate_pinned(8), cuda.allocate(8), cuda.stream(), cuda.event()
    calls = {
        "cudaMalloc": lambda: cuda.allocate(8),
        "cudaHostAlloc": lambda: cuda.allocate_pinned(8),
        "cudaStreamCreateWithFlags": cuda.stream,
        "cudaEventCreateWithFlags": cuda.event,
        "cudaMemcpyAsync": lambda: cuda.upload(device, host, 8, stream),
        "cudaEventRecord": lambda: event.record(stream),
        "cudaStreamWaitEvent": lambda: stream.wait(event),
        "cudaEventSynchronize": event.synchronize,
        "cudaEventElapsedTime": lambda: event.milliseconds_since(event),
        "cudaSetDevice": lambda: cuda.set_device(0),
        "cudaMemGetInfo": cuda.memory_info,
        "cudaFree": device.close,
        "cudaFreeHost": host.close,
        "cudaStreamDestroy": stream.close,
        "cudaEventDestroy": event.close,
    }
    used = {name for name in dir(library) if name.startswith("cuda")}
    others = {"cudaGetLastError", "cudaGetErrorName", "cudaGetErrorString", "cudaStreamSynchronize"}
    assert used - others == calls.keys() | {"cudaGetDeviceCount", "cudaDriverGetVersion", "cudaRuntimeGetVersion"}
    for name, call in calls.items():
        library.faults[name] = [1]
        with pytest.raises(CudaError, match=f"{name} failed"):
            call()


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
    library = FakeCudart(devices=0, driver=driver)
    library.faults["cudaGetDeviceCount"] = [code]
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(DeviceUnavailableError) as caught:
        CudaRuntime(library=library).device_count()
    assert words in str(caught.value)


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
