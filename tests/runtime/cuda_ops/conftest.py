"""bgert's CUDA kernels on a CPU: their sources compiled with tools/fake_cuda/emulator.h in place of device.h."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
# Without ONNX Runtime nothing is captured.
STUB = """extern "C" {
void fake_cuda_submit(void (*run)(void*), void* data) { run(data); }
int fake_cuda_capturing() { return 0; }
}"""


class Emulator:
    """`emulator(kernel, grid, threads, shared, *arguments)`: arrays by address, int and float as they are."""

    def __init__(self, library):
        self._library = ctypes.CDLL(str(library))

    def __call__(self, kernel, grid, threads, shared, *arguments):
        kept = []
        for argument in arguments:
            if argument is None:
                kept.append(ctypes.c_void_p())
            elif isinstance(argument, np.ndarray):
                assert argument.flags.c_contiguous
                kept.append(ctypes.c_void_p(argument.ctypes.data))
            elif isinstance(argument, ctypes._SimpleCData):
                kept.append(argument)
            else:
                kept.append((ctypes.c_float if isinstance(argument, float) else ctypes.c_int)(argument))
        pointers = (ctypes.c_void_p * len(kept))(*(ctypes.addressof(value) for value in kept))
        assert self._library.bgert_emulate(kernel.encode(), *grid, threads, shared, pointers) == 0


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.mktemp("emulator")
    (folder / "stub.cpp").write_text(STUB)
    fake, kernels = ROOT / "tools" / "fake_cuda", ROOT / "runtime" / "src" / "cuda_ops" / "kernels"
    command = ["c++", "-std=c++20", "-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-DFAKE_SM=90"]
    command += [f"-I{fake}", f"-I{kernels}", fake / "driver.cpp", folder / "stub.cpp", "-o", folder / "emulator.so"]
    subprocess.run(command, check=True)
    return Emulator(folder / "emulator.so")


@pytest.fixture
def draw():
    seed = int(np.random.default_rng().integers(1 << 32))
    print(f"seed {seed}")
    return np.random.default_rng(seed)
