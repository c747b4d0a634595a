"""A strict stand-in for ONNX Runtime on the stand-in of CUDA in `cuda_fake`: it evaluates the real graph in numpy.

A run is two pieces of work: into memory that all runs of the session share, and from there into the output, as the
activations of ONNX Runtime's arena are shared. So runs that get between each other give wrong numbers.
"""

import threading
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx

from packed_reference import PackedReference

_reference = lru_cache(lambda path, written: PackedReference(path, "rounded"))
_known = {}  # results by graph and inputs: opening runs the same each time

OPTIONS = {"device_id", "user_compute_stream", "arena_extend_strategy", "use_tf32", "enable_cudnn",
           "gpu_mem_limit"}  # fmt: skip


class FakeOnnxRuntime:
    """The part of ONNX Runtime that bgert uses, over a `cuda_fake.Machine`.

    Args:
        fit_tokens: runs of more tokens fail as ONNX Runtime does when its arena is full.
        capture_error: what a run raises whose work is captured into a CUDA graph.
        in_capture: called in such a run, for what a run must not do then.
        failures: messages that the next runs raise, None for a run that works.
        providers: what the session says it has.
    """

    __version__ = "1.31.1"
    GraphOptimizationLevel = SimpleNamespace(ORT_DISABLE_ALL=0)

    def __init__(self, machine, *, fit_tokens=None, capture_error=None, in_capture=None,
                 providers=("CUDAExecutionProvider",)):  # fmt: skip
        self.in_capture = in_capture
        self.machine, self.fit_tokens, self.capture_error, self.providers = (
            machine,
            fit_tokens,
            capture_error,
            providers,
        )
        self.failures = []
        self.runs = []  # (device, tokens, whether it was captured) of every run
        self.sessions = []
        self.before_run = self.within_run = lambda: None
        self.severity = 2

    class SessionOptions:
        def __init__(self):
            self.config = {}
            self.libraries = []

        def register_custom_ops_library(self, path):
            self.libraries.append(path)

        def add_session_config_entry(self, key, value):
            self.config[key] = value

    class RunOptions:
        def __init__(self):
            self.config = {}

        def add_run_config_entry(self, key, value):
            self.config[key] = value

    def set_default_logger_severity(self, severity):
        self.severity = severity

    def InferenceSession(self, path, options, providers):  # noqa: N802
        session = FakeSession(self, path, options, providers)
        session.severity = self.severity
        self.sessions.append(session)
        return session


class FakeSession:
    def __init__(self, runtime, path, options, providers):
        assert options.config["session.disable_cpu_ep_fallback"] == "1"
        ((name, given),) = providers
        assert name == "CUDAExecutionProvider"
        assert given.keys() <= OPTIONS
        assert all(isinstance(value, str) for value in given.values())
        self.runtime, self.machine, self.given = runtime, runtime.machine, given
        self.device = int(given.get("device_id", 0))
        assert self.machine.device() == self.device
        self.stream = int(given["user_compute_stream"])
        assert self.stream in self.machine.streams
        self.reference = _reference(path, Path(path).stat().st_mtime_ns)
        domains = {node.domain for node in self.reference.model.graph.node}
        libraries = [Path(library).name for library in options.libraries]
        assert libraries == ["_cuda_ops.so"] * ("bgert" in domains), "operators are registered where a graph has them"
        self.thread = threading.get_ident()
        self.scratch = None
        self.can_fall_back = True

    def get_providers(self):
        return [*self.runtime.providers, "CPUExecutionProvider"]

    def disable_fallback(self):
        self.can_fall_back = False

    def get_outputs(self):
        (output,) = self.reference.model.graph.output
        columns = output.type.tensor_type.shape.dim[1].dim_value
        return [SimpleNamespace(name=output.name, shape=["texts", columns])]

    def io_binding(self):
        return FakeBinding(self)

    def run_with_iobinding(self, binding, options):
        runtime, machine = self.runtime, self.machine
        assert threading.get_ident() == self.thread, "ONNX Runtime keeps CUDA graphs by thread"
        assert not self.can_fall_back
        assert options.config["disable_synchronize_execution_providers"] == "1"
        captured = self.stream in machine.capturing
        tokens = binding.inputs["input_ids"][1][1]
        runtime.before_run()
        if runtime.failures and (failure := runtime.failures.pop(0)):
            raise RuntimeError(failure)
        if runtime.fit_tokens is not None and tokens > runtime.fit_tokens:
            raise RuntimeError(
                "Error in execution: Non-zero status code returned while running Gemm node. bfc_arena.cc:360 "
                "Available memory of 947456 is smaller than requested bytes of 1966080"
            )
        if captured:
            if runtime.capture_error:
                raise RuntimeError(runtime.capture_error)
            if runtime.in_capture:
                runtime.in_capture()
        runtime.runs.append((self.device, tokens, captured))
        inputs, output = dict(binding.inputs), binding.output
        machine.push(self.stream, lambda: self._compute(inputs))
        runtime.within_run()
        machine.push(self.stream, lambda: self._store(output))

    def _compute(self, inputs):
        feeds = {}
        for name, (dtype, shape, pointer) in inputs.items():
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            feeds[name] = self.machine.view(pointer, size).view(dtype).reshape(shape).copy()
        key = (self.reference, *(value.tobytes() for value in feeds.values()))
        if key not in _known:
            _known[key] = self.reference.run(feeds)
        self.scratch = _known[key].copy()

    def _store(self, output):
        dtype, shape, pointer = output
        result = self.scratch.astype(dtype)
        assert result.shape == tuple(shape)
        self.machine.view(pointer, result.nbytes)[:] = result.reshape(-1).view(np.uint8)


class FakeBinding:
    def __init__(self, session):
        self.session = session
        self.inputs, self.output = {}, None
        self.types = {
            entry.name: onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
            for entry in session.reference.model.graph.input
        }

    def _check(self, device, number, dtype, shape, pointer):
        assert (device, number) == ("cuda", self.session.device)
        assert pointer % 256 == 0
        self.session.machine.view(pointer, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        _, kind, owner = self.session.machine.allocated[self.session.machine.base(pointer)]
        assert kind == "device"
        assert owner == number

    def bind_input(self, name, device, number, dtype, shape, pointer):
        self._check(device, number, dtype, shape, pointer)
        assert np.dtype(dtype) == self.types[name]
        self.inputs[name] = (dtype, shape, pointer)

    def bind_output(self, name, device, number, dtype, shape, pointer):
        self._check(device, number, dtype, shape, pointer)
        self.output = (dtype, shape, pointer)
