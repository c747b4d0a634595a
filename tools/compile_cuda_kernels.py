"""Compiles the CUDA kernels of `runtime/src/cuda_ops/kernels` for every architecture, without a CUDA toolkit or a GPU.

    python tools/compile_cuda_kernels.py            # writes runtime/src/cuda_ops/binaries.tar.xz
    python tools/compile_cuda_kernels.py --check    # fails unless the committed binaries are what the sources give

NVIDIA's compiler is one wheel, COMPILER, which goes into an environment of its own (`--environment`, built where it is
missing). The same compiler gives the same bytes from the same sources, which are a hash in its `built.json`.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "runtime" / "src" / "cuda_ops" / "kernels"
BINARIES = ROOT / "runtime" / "src" / "cuda_ops" / "binaries.tar.xz"
COMPILER = "nvidia-cuda-nvrtc==13.0.88"
"""Of CUDA 13.0: its machine code runs on any driver for CUDA 13, which is what ONNX Runtime's libraries need too."""
ARCHITECTURES = {
    "sm_80.cubin": "sm_80",
    "sm_86.cubin": "sm_86",
    "sm_89.cubin": "sm_89",
    "sm_90.cubin": "sm_90",
    "sm_120.cubin": "sm_120",
    "compute_80.ptx": "compute_80",
}
"""File to what it is compiled for. The last is text that a driver compiles, for GPUs that no other file fits."""
SUFFIXES = (".cu", ".h")


def sources() -> dict[str, bytes]:
    """File name to content of all that is compiled."""
    return {path.name: path.read_bytes() for path in sorted(KERNELS.iterdir()) if path.suffix in SUFFIXES}


def hash_of(files: dict[str, bytes]) -> str:
    """One SHA-256 of files and their names."""
    listed = "".join(f"{name} {hashlib.sha256(content).hexdigest()}\n" for name, content in sorted(files.items()))
    return hashlib.sha256(listed.encode()).hexdigest()


class Nvrtc:
    """NVIDIA's runtime compiler, loaded from a folder of its wheel."""

    def __init__(self, folder: Path) -> None:
        # It looks for its builtins by bare name.
        ctypes.CDLL(str(next(folder.glob("libnvrtc-builtins.so.*"))), ctypes.RTLD_GLOBAL)
        self._library = ctypes.CDLL(str(next(folder.glob("libnvrtc.so.*"))))
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def compile(self, files: dict[str, bytes], architecture: str) -> bytes:
        """Machine code, or PTX for `compute_..`, of `all.cu`.

        Raises:
            SystemExit: with the compiler's words.
        """
        program = ctypes.c_void_p()
        headers = {name: content for name, content in files.items() if name != "all.cu"}
        texts = (ctypes.c_char_p * len(headers))(*headers.values())
        names = (ctypes.c_char_p * len(headers))(*(name.encode() for name in headers))
        self._ok("nvrtcCreateProgram", ctypes.byref(program), files["all.cu"], b"all.cu", len(headers), texts, names)
        options = [b"--std=c++17", b"--gpu-architecture=" + architecture.encode()]
        code = self._library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        log = self._read("ProgramLog", program).rstrip(b"\0 \n").decode()
        if code or log:  # a warning is an error
            raise SystemExit(f"{architecture}: {log}")
        result = self._read("PTX" if architecture.startswith("compute") else "CUBIN", program)
        self._ok("nvrtcDestroyProgram", ctypes.byref(program))
        return result.rstrip(b"\0") + b"\0" if architecture.startswith("compute") else result

    def _read(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._ok(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._ok(f"nvrtcGet{what}", program, buffer)
        return buffer.raw

    def _ok(self, function: str, *arguments: object) -> None:
        code = getattr(self._library, function)(*arguments)
        if code:
            raise SystemExit(f"{function}: {self._library.nvrtcGetErrorString(code).decode()}")


def compiler_folder(environment: Path) -> Path:
    """The compiler's libraries, in an environment that is made where it is not there."""
    python = environment / "bin" / "python"
    if not python.exists():
        venv.create(environment, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", COMPILER], check=True)
    return next(environment.glob("lib/python3*/site-packages/nvidia/cu13/lib"))


def built(files: dict[str, bytes], compiler: Nvrtc) -> dict[str, bytes]:
    """File name to content of everything in `binaries`."""
    binaries = {name: compiler.compile(files, architecture) for name, architecture in ARCHITECTURES.items()}
    facts = {
        "compiler": COMPILER,
        "sources": hash_of(files),
        "binaries": {name: hashlib.sha256(content).hexdigest() for name, content in binaries.items()},
    }
    return {**binaries, "built.json": (json.dumps(facts, indent=1) + "\n").encode()}


def committed() -> dict[str, bytes]:
    """File name to content of everything in `binaries`, as it is committed."""
    with tarfile.open(BINARIES) as archive:
        found = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        return {name: file.read() for name, file in found.items() if file is not None}


def write(made: dict[str, bytes]) -> None:
    """Write the archive: of the same content the same bytes."""
    with tarfile.open(BINARIES, "w:xz") as archive:
        for name, content in sorted(made.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
            print(f"{name}: {len(content):,} bytes")


def main() -> int:
    """Compile, then write or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with what is committed")
    parser.add_argument("--environment", type=Path, default=ROOT / "build" / "nvrtc", help="of the compiler")
    options = parser.parse_args()
    made = built(sources(), Nvrtc(compiler_folder(options.environment)))
    if options.check:
        found = committed()
        stale = sorted(name for name in made.keys() | found.keys() if made.get(name) != found.get(name))
        print(f"not what the sources give: {', '.join(stale)}" if stale else "the binaries are what the sources give")
        return 1 if stale else 0
    write(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
