"""ONNX Runtime's real CUDA provider on a machine without a GPU: its host code runs, its kernels do not, bgert's do.

    pip install onnxruntime-gpu 'nvidia-cuda-runtime>=13,<14' 'nvidia-cuda-crt>=13,<14'   # the last two for headers
    python tools/rehearse_cuda.py kernels tests/export/graphs/cuda_kernels.json    # facts for a test
    python tools/rehearse_cuda.py run python benchmarks/gpu.py ... --rehearse --device cuda

Compiles stand-ins for NVIDIA's libraries, with cc and c++, and runs a command with them and with a stand-in for
cuda-bindings. So graph partitioning, kernel choice, memory and streams are ONNX Runtime's own. Its kernels do not run:
every number that comes from them is garbage. bgert's own do, on this processor, so a graph of its operators alone gives
true numbers.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "fake_cuda"
DRIVER = "libcuda.so.1"
COMPUTE_CAPABILITY = int(os.environ.get("FAKE_CUDA_CAPABILITY", "90"))
OPERATORS = {
    *(
        "Add",
        "BiasGelu",
        "Cast",
        "Div",
        "EmbedLayerNormalization",
        "Erf",
        "Gather",
        "Gelu",
        "Gemm",
        "Identity",
        "MatMul",
        "Max",
        "Mul",
    ),
    *("PackedMultiHeadAttention", "QuickGelu", "RotaryEmbedding"),
    *("Relu", "Reshape", "SkipLayerNormalization", "Sqrt", "Squeeze", "Tanh", "Unsqueeze"),
}


def package(name: str) -> Path:
    """Folder of an installed package."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{name} is not installed: see --help")
    return Path(next(iter(spec.submodule_search_locations)))


def output(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def needed(library: Path) -> tuple[list[str], list[str]]:
    """Sonames that a library needs and symbols that it does not define."""
    names = re.findall(r"NEEDED.*\[(.+?)\]", output("readelf", "-d", str(library)))
    return names, [line.split()[-1].split("@")[0] for line in output("nm", "-D", "-u", str(library)).splitlines()]


def compile_library(soname: str, *arguments: str, source: str | None = None) -> None:
    """A shared library from a file or from text."""
    command = ["cc", "-w", "-O1", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", str(FOLDER / soname), *arguments]
    command += [] if source is None else ["-x", "c", "-"]
    subprocess.run(command, input=source, text=True, check=True)


def compile_cxx(soname: str, source: str, *arguments: str) -> None:
    """One of the stand-ins in C++, which run bgert's kernels."""
    kernels = ROOT / "runtime" / "src" / "cuda_ops" / "kernels"
    fake = ROOT / "tools" / "fake_cuda"
    command = [
        "c++",
        "-std=c++20",
        "-O2",
        "-w",
        "-shared",
        "-fPIC",
        f"-Wl,-soname,{soname}",
        f"-I{fake}",
        f"-I{kernels}",
    ]
    # Sums of products in any order, so that they are vectors; nothing else of -ffast-math.
    command += ["-O3", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math"] if "blas" in source else []
    command += ["-o", str(FOLDER / soname), str(fake / source), f"-DFAKE_SM={COMPUTE_CAPABILITY}", *arguments]
    subprocess.run(command, check=True)


def build() -> None:
    """Compile what the CUDA and TensorRT providers need."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    capi = package("onnxruntime") / "capi"
    include = package("nvidia") / "cu13" / "include"
    names: set[str] = set()
    symbols: set[str] = set()
    for provider in ("cuda", "tensorrt"):
        wanted, undefined = needed(capi / f"libonnxruntime_providers_{provider}.so")
        names |= set(wanted)
        symbols |= set(undefined)
    runtime = str(ROOT / "tools" / "fake_cuda" / "cudart.c")
    compile_library("libcudart.so.13", f"-DFAKE_SM={COMPUTE_CAPABILITY}", f"-I{include}", runtime)
    system = re.compile(r"lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s|cudart)\.so.*|ld-.*")
    # Handles are made, strings are given, all else succeeds and does nothing.
    body = "#include <stdlib.h>\n"
    for name in sorted(symbols):
        if re.match(r"cublas(Lt)?Create|cudnnCreate$", name):
            body += f"int {name}(void **h) {{ *h = malloc(64); return 0; }}\n"
        elif re.match(r"cublasGetStatus", name):
            body += f'const char *{name}(int s) {{ return "fake"; }}\n'
        elif name == "cublasGetMathMode":
            body += f"int {name}(void *h, int *m) {{ *m = 0; return 0; }}\n"
        elif re.match(r"cublas|cuTensor|cudnn|curand|create\w+_INTERNAL|getInferLibVersion|getPluginRegistry", name):
            body += f"void *{name}(void) {{ return 0; }}\n"
    compile_cxx(DRIVER, "driver.cpp", f"-L{FOLDER}", "-l:libcudart.so.13")
    others = sorted(name for name in names - {DRIVER} if not system.fullmatch(name))
    for name in others:
        compile_library(name, source=body if name.startswith("libcublas.") else "int unused;\n")
    # One library holds all of them; the others bring it along.
    for name in others:
        if name.startswith("libcublasLt."):
            compile_cxx(name, "cublaslt.cpp", f"-L{FOLDER}", "-l:libcublas.so.13", "-l:libcudart.so.13")
        elif not name.startswith("libcublas."):
            compile_library(name, f"-L{FOLDER}", "-Wl,--no-as-needed", "-l:libcublas.so.13", source="int unused;\n")


def kernels() -> str:
    """The CUDA provider's registered kernels of the operators that bgert's graphs use, newest versions alone."""
    from bgert.backends.onnxruntime_import import import_onnxruntime

    onnxruntime = import_onnxruntime()
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_opkernel_def

    found = []
    for entry in get_all_opkernel_def():
        if entry.provider != "CUDAExecutionProvider" or entry.op_name not in OPERATORS:
            continue
        first, last = entry.version_range
        if entry.domain in ("", "com.microsoft") and last >= 13:
            types = {
                name: sorted(kind.removeprefix("tensor(").removesuffix(")") for kind in kinds)
                for name, kinds in entry.type_constraints.items()
            }
            domain = entry.domain or "ai.onnx"
            found.append({"domain": domain, "op": entry.op_name, "first": first, "last": last, "types": types})
    lines = ",\n  ".join(sorted(json.dumps(entry) for entry in found))
    source = f"onnxruntime-gpu {onnxruntime.__version__}: get_all_opkernel_def(), by tools/rehearse_cuda.py"
    return f'{{\n "source": {json.dumps(source)},\n "kernels": [\n  {lines}\n ]\n}}\n'


def main() -> int:
    """Build, then do what was asked in a process that finds the stand-ins."""
    if len(sys.argv) < 3 or sys.argv[1] not in ("kernels", "run"):
        print(__doc__)
        return 2
    if sys.argv[1] == "kernels" and os.environ.get("LD_LIBRARY_PATH") == str(FOLDER):
        Path(sys.argv[2]).write_text(kernels())
        return 0
    build()
    command = [sys.executable, *sys.argv] if sys.argv[1] == "kernels" else sys.argv[2:]
    paths = os.pathsep.join(filter(None, [str(ROOT / "tools" / "fake_cuda"), os.environ.get("PYTHONPATH")]))
    variables = {"LD_LIBRARY_PATH": str(FOLDER), "PYTHONPATH": paths}
    return subprocess.run(command, env=os.environ | variables, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
