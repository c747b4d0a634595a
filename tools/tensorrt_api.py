"""The part of TensorRT's and CUDA's Python interfaces that bgert uses, read from the real bindings.

    python tools/tensorrt_api.py write tests/tensorrt_api.json
    python tools/tensorrt_api.py check tests/tensorrt_api.json

The bindings are small wheels on PyPI; TensorRT's own libraries are not there, and are not needed to read names and
signatures. Libraries of nine functions that return null take their place, so this runs without TensorRT, driver or
GPU. `tests/tensorrt_fake.py` is made from the file and refuses whatever is not in it; `check` compares the file with
the bindings again. Together they prove that what bgert calls exists, with these arguments. They prove nothing of what
TensorRT does when it is called.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# Distribution, version, module; the oldest that bgert takes, the newest of 10 and 11, the lean runtime, and RTX.
BINDINGS = {
    "tensorrt 10.3": ("tensorrt-cu12-bindings", "10.3.0", "tensorrt_bindings"),
    "tensorrt 10.16": ("tensorrt-cu13-bindings", "10.16.1.11", "tensorrt_bindings"),
    "tensorrt 11.4": ("tensorrt-cu13-bindings", "11.4.0.106", "tensorrt_bindings"),
    "tensorrt_lean 11.4": ("tensorrt-lean-cu13-bindings", "11.4.0.106", "tensorrt_lean_bindings"),
    "tensorrt_rtx 1.7": ("tensorrt-rtx-cu13-bindings", "1.7.1.116", "tensorrt_rtx_bindings"),
}
CUDA = ("13.5.0", "12.9.1")
PATHFINDER = ("cuda-pathfinder", "1.9.0")

# Whatever else is called, the fake refuses.
RUNTIME = {
    "": ["int32", "float32"],
    "ILogger": ["__init__", "log", "INTERNAL_ERROR", "ERROR", "WARNING"],
    "Runtime": ["__init__", "deserialize_cuda_engine"],
    "ICudaEngine": [
        "num_io_tensors",
        "num_optimization_profiles",
        "get_tensor_name",
        "get_tensor_mode",
        "get_tensor_dtype",
        "get_tensor_profile_shape",
        "get_device_memory_size_for_profile_v2",
        "create_execution_context",
    ],
    "IExecutionContext": [
        "nvtx_verbosity",
        "set_optimization_profile_async",
        "set_device_memory",
        "set_input_shape",
        "infer_shapes",
        "get_tensor_shape",
        "set_tensor_address",
        "execute_async_v3",
    ],
    "ExecutionContextAllocationStrategy": ["USER_MANAGED"],
    "ProfilingVerbosity": ["NONE", "DETAILED"],
    "TensorIOMode": ["INPUT", "OUTPUT"],
    "DataType": ["INT32", "FLOAT"],
}
BUILDER = {
    "Builder": [
        "__init__",
        "create_network",
        "create_builder_config",
        "create_optimization_profile",
        "build_serialized_network",
    ],
    "INetworkDefinition": [],
    "NetworkDefinitionCreationFlag": ["STRONGLY_TYPED"],
    "OnnxParser": ["__init__", "parse_from_file", "num_errors", "get_error"],
    "ParserError": ["desc", "node_name", "node_operator"],
    "IBuilderConfig": [
        "builder_optimization_level",
        "max_aux_streams",
        "profiling_verbosity",
        "progress_monitor",
        "set_flag",
        "clear_flag",
        "set_memory_pool_limit",
        "add_optimization_profile",
        "create_timing_cache",
        "set_timing_cache",
        "get_timing_cache",
    ],
    "BuilderFlag": ["TF32", "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"],
    "MemoryPoolType": ["WORKSPACE"],
    "IOptimizationProfile": ["set_shape"],
    "ITimingCache": ["serialize"],
    "IHostMemory": [],
    "IProgressMonitor": ["__init__", "phase_start", "step_complete", "phase_finish"],
    "ICudaEngine": [*RUNTIME["ICudaEngine"], "create_engine_inspector"],
    "EngineInspector": ["execution_context", "get_engine_information"],
    "LayerInformationFormat": ["JSON"],
}
# What TensorRT for RTX has besides: targets and no timing cache, contexts made by a configuration.
RTX = {
    "ILogger": [*RUNTIME["ILogger"], "INFO", "VERBOSE"],
    "Runtime": [*RUNTIME["Runtime"], "get_engine_validity", "engine_header_size"],
    "EngineValidity": ["VALID", "SUBOPTIMAL", "INVALID"],
    "EngineInvalidityDiagnostics": [
        "VERSION_MISMATCH",
        "UNSUPPORTED_CC",
        "OLD_CUDA_DRIVER",
        "OLD_CUDA_RUNTIME",
        "INSUFFICIENT_GPU_MEMORY",
        "MALFORMED_ENGINE",
        "CUDA_ERROR",
    ],
    "ICudaEngine": [*RUNTIME["ICudaEngine"], "create_runtime_config"],
    "IRuntimeConfig": [
        "set_execution_context_allocation_strategy",
        "dynamic_shapes_kernel_specialization_strategy",
        "cuda_graph_strategy",
        "create_runtime_cache",
        "set_runtime_cache",
    ],
    "IRuntimeCache": ["serialize", "deserialize"],
    "DynamicShapesKernelSpecializationStrategy": ["EAGER"],
    "CudaGraphStrategy": ["DISABLED"],
    "IExecutionContext": [*RUNTIME["IExecutionContext"], "is_stream_capturable"],
    "IBuilderConfig": [
        *(name for name in BUILDER["IBuilderConfig"] if not name.endswith(("timing_cache", "level", "limit"))),
        "num_compute_capabilities",
        "set_compute_capability",
    ],
    "BuilderFlag": ["TF32", "REQUIRE_USER_ALLOCATION"],
    "ComputeCapability": ["SM75", "SM80", "SM86", "SM89", "SM120", "SM121"],
}
_NOT_OF_RTX = ("ITimingCache", "EngineInspector", "LayerInformationFormat", "MemoryPoolType")
CUDA_FUNCTIONS = """
cudaGetDeviceCount cudaGetDevice cudaSetDevice cudaGetDeviceProperties cudaDriverGetVersion cudaRuntimeGetVersion
cudaGetErrorName cudaGetErrorString cudaGetLastError cudaMemGetInfo cudaMalloc cudaFree cudaHostAlloc cudaFreeHost
cudaMemcpyAsync
cudaStreamCreateWithFlags cudaStreamDestroy cudaStreamSynchronize cudaStreamWaitEvent cudaStreamBeginCapture
cudaStreamEndCapture cudaEventCreateWithFlags cudaEventDestroy cudaEventRecord cudaEventSynchronize cudaEventElapsedTime
cudaGraphInstantiate cudaGraphUpload cudaGraphLaunch cudaGraphExecDestroy cudaGraphDestroy
"""
CUDA_VALUES = ["cudaHostAllocDefault", "cudaStreamNonBlocking", "cudaEventDisableTiming", "cudaEventBlockingSync"]
CUDA_ENUMS = {
    "cudaMemcpyKind": ["cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"],
    "cudaStreamCaptureMode": ["cudaStreamCaptureModeThreadLocal"],
    "cudaError_t": [
        "cudaSuccess",
        "cudaErrorInvalidValue",
        "cudaErrorMemoryAllocation",
        "cudaErrorInitializationError",
        "cudaErrorInsufficientDriver",
        "cudaErrorNoDevice",
        "cudaErrorInvalidDevice",
        "cudaErrorIllegalAddress",
        "cudaErrorLaunchFailure",
        "cudaErrorStreamCaptureUnsupported",
        "cudaErrorStreamCaptureInvalidated",
    ],
}
CUDA_DEVICE = ["name", "major", "minor", "multiProcessorCount"]

STUBS = {
    "libnvinfer": "createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL "
    "getBuilderPluginRegistry getPluginRegistry",
    "libnvinfer_lean": "createInferRefitter_INTERNAL createInferRuntime_INTERNAL getPluginRegistry "
    "getBuilderPluginRegistry createInferBuilder_INTERNAL",
    "libnvinfer_plugin": "initLibNvInferPlugins",
    "libnvonnxparser": "createNvOnnxParser_INTERNAL createNvOnnxParserRefitter_INTERNAL getNvOnnxParserVersion",
    "libtensorrt_rtx": "createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL "
    "getBuilderPluginRegistry getPluginRegistry",
    "libtensorrt_onnxparser_rtx": "createNvOnnxParser_INTERNAL createNvOnnxParserRefitter_INTERNAL "
    "getNvOnnxParserVersion",
}
_LIBRARIES = {
    "tensorrt": ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser"),
    "tensorrt_lean": ("libnvinfer_lean",),
    "tensorrt_rtx": ("libtensorrt_rtx", "libtensorrt_onnxparser_rtx"),
}

# Runs in a process of its own, where the bindings and their stand-in libraries are loaded.
READ = r"""
import ctypes, importlib, json, re, sys
folder, name, used, stubs = json.loads(sys.stdin.read())
for stub in stubs:
    ctypes.CDLL(stub, ctypes.RTLD_GLOBAL)
sys.path.insert(0, folder)
module = importlib.import_module(name)

def short(text):
    text = re.sub(r"\b(?:[a-z_0-9]+(?:\.|::))+(?=[A-Za-z])", "", text)
    return re.sub(r"<([A-Za-z]+\.[A-Za-z_0-9]+): -?\d+>", r"\1", " ".join(text.split()))

def signatures(function, name):
    lines = (function.__doc__ or "").splitlines()
    found = [re.sub(r"^\d+\. ", "", line) for line in lines if re.match(rf"(\d+\. )?{re.escape(name)}\(", line)]
    return [short(line) for line in found if "*args" not in line]

result = {}
for owner, members in used.items():
    target = getattr(module, owner) if owner else module
    entry = {}
    for member in members:
        value = vars(target).get(member)
        if value is None:
            value = getattr(target, member)
        if isinstance(value, property):
            returns = re.search(r"-> (.*)", value.fget.__doc__ or "")
            entry[member] = {"property": short(returns.group(1)) if returns else "", "writable": value.fset is not None}
        elif callable(value) or isinstance(value, (staticmethod, classmethod)):
            function = getattr(target, member)
            entry[member] = {"method": signatures(function, member)}
        else:
            entry[member] = {"value": type(value).__name__, "number": int(value)}
    result[owner] = entry
print(json.dumps(result))
"""
READ_CUDA = r"""
import inspect, json, sys
folder, functions, values, enums, device = json.loads(sys.stdin.read())
sys.path.insert(0, folder)
from cuda.bindings import runtime
result = {"functions": {}, "values": {}, "enums": {}, "device": []}
for name in functions:
    result["functions"][name] = list(inspect.signature(getattr(runtime, name)).parameters)
for name in values:
    result["values"][name] = int(getattr(runtime, name))
for name, members in enums.items():
    result["enums"][name] = {member: int(getattr(getattr(runtime, name), member)) for member in members}
properties = runtime.cudaDeviceProp()
result["device"] = [name for name in device if hasattr(properties, name)]
print(json.dumps(result))
"""


def used_by(label: str) -> dict[str, list[str]]:
    """What bgert uses of one library."""
    if label.startswith("tensorrt_lean"):
        return RUNTIME
    if label.startswith("tensorrt_rtx"):
        return {name: used for name, used in (RUNTIME | BUILDER | RTX).items() if name not in _NOT_OF_RTX}
    return RUNTIME | BUILDER


def fetch(folder: Path, *wanted: tuple[str, str]) -> None:
    """Put wheels, (name, version) each, without what they depend on, into a folder.

    Raises:
        OSError: it cannot be had.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--target", str(folder), *(f"{name}=={version}" for name, version in wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{wanted} cannot be installed: {done.stderr.strip().splitlines()[-1:]}")


def make_stubs(folder: Path, major: str, product: str) -> list[str]:
    """Compile the stand-ins for the libraries of `tensorrt`, `tensorrt_lean` or `tensorrt_rtx`.

    Raises:
        OSError: there is no C compiler.
    """
    made = []
    for library in _LIBRARIES[product]:
        source = folder / f"{library}.c"
        source.write_text("".join(f"void* {name}(void) {{ return 0; }}\n" for name in STUBS[library].split()))
        path = folder / f"{library}.so.{major}"
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{path.name}", "-o", str(path), str(source)]
        subprocess.run(command, capture_output=True, text=True, check=True)
        made.append(str(path))
    return made


def read_bindings(label: str, folder: Path) -> dict[str, Any]:
    """The used part of one library's bindings."""
    distribution, version, module = BINDINGS[label]
    target = folder / label.replace(" ", "-")
    target.mkdir()
    fetch(target, (distribution, version))
    stubs = make_stubs(target, version.split(".")[0], label.split()[0])
    request = json.dumps([str(target), module, used_by(label), stubs])
    done = subprocess.run([sys.executable, "-c", READ], input=request, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{distribution} {version}: {done.stderr.strip()}")
    result: dict[str, Any] = {"version": version, "classes": json.loads(done.stdout)}
    return result


def read_cuda(version: str, folder: Path) -> dict[str, Any]:
    """The used part of one version of cuda-bindings."""
    target = folder / "cuda"
    fetch(target, ("cuda-bindings", version), PATHFINDER)
    request = json.dumps([str(target), CUDA_FUNCTIONS.split(), CUDA_VALUES, CUDA_ENUMS, CUDA_DEVICE])
    done = subprocess.run([sys.executable, "-c", READ_CUDA], input=request, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"cuda-bindings {version}: {done.stderr.strip()}")
    result: dict[str, Any] = {"version": version, **json.loads(done.stdout)}
    return result


def read_all() -> dict[str, Any]:
    """Everything, from the real bindings."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        libraries = {label: read_bindings(label, folder) for label in BINDINGS}
        return {"libraries": libraries, "cuda": read_cuda(CUDA[0], folder)}


def main() -> int:
    """Write the file, or compare it with the bindings; 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("action", choices=("write", "check"))
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    text = json.dumps(read_all(), indent=1, sort_keys=True) + "\n"
    if arguments.action == "write":
        arguments.file.write_text(text)
        return 0
    same = arguments.file.read_text() == text
    print("the same" if same else f"{arguments.file} is not what the bindings say")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
