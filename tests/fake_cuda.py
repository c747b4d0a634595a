"""A strict stand-in for the CUDA runtime library and for ONNX Runtime on it.

Nothing queued on a stream happens before somebody waits for it, so who reads results early, or writes into a buffer
that is still in use, gets wrong numbers. Every address must lie in live memory. Faults are scripted.
"""

import threading
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx

from packed_reference import PackedReference

NAMES = {
    0: b"cudaSuccess",
    2: b"cudaErrorMemoryAllocation",
    700: b"cudaErrorIllegalAddress",
    3: b"cudaErrorInitializationError",
}


class Function:
    """Takes `restype` as a ctypes function does."""

    def __init__(self, call):
        self.call = call
        self.restype = None

    def __call__(self, *arguments):
        return self.call(*arguments)


class FakeCudart:
    """The functions of libcudart that bgert calls. `faults[name]` is a list of codes for the next calls, 0 for none."""

    def __init__(self, devices=1, driver=13000, memory=1 << 30):
        self.devices, self.driver, self.memory = devices, driver, memory
        self.faults = {}
        self.calls = []
        self.live = {}  # address: (bytes, is it pinned, device)
        self.streams = {}  # handle: queue of work
        self.events = {}  # handle: [stream, ticket of the last record]
        self.current = {}  # thread: device
        self.lock = threading.RLock()
        self._next = 1 << 20
        self._done = set()  # tickets
        self._ticket = 0
        for name in dir(self):
            if name.startswith("_cuda"):
                setattr(self, name[1:], Function(self._guarded(name[1:], getattr(self, name))))

    def _guarded(self, name, call):
        def guarded(*arguments):
            with self.lock:
                self.calls.append((name, threading.get_ident()))
                if self.faults.get(name):
                    code = self.faults[name].pop(0)
                    if code:
                        return code
                return call(*arguments) or 0

        return guarded

    def device(self):
        return self.current.get(threading.get_ident(), 0)

    def _cudaGetErrorName(self, code):  # noqa: N802
        return NAMES.get(code, b"cudaErrorUnknown")

    def _cudaGetErrorString(self, code):  # noqa: N802
        return b"out of memory" if code == 2 else b"what went wrong"

    def _cudaGetLastError(self):  # noqa: N802
        return 0

    def _cudaGetDeviceCount(self, out):  # noqa: N802
        out._obj.value = self.devices

    def _cudaDriverGetVersion(self, out):  # noqa: N802
        out._obj.value = self.driver

    def _cudaRuntimeGetVersion(self, out):  # noqa: N802
        out._obj.value = 13000

    def _cudaSetDevice(self, device):  # noqa: N802
        if not 0 <= device < self.devices:
            return 101
        self.current[threading.get_ident()] = device
        return 0

    def _cudaMemGetInfo(self, free, total):  # noqa: N802
        used = sum(len(block) for block, pinned, _ in self.live.values() if not pinned)
        free._obj.value, total._obj.value = self.memory - used, self.memory

    def _allocate(self, out, size, pinned):
        free = self.memory - sum(len(block) for block, is_pinned, _ in self.live.values() if not is_pinned)
        if not pinned and size.value > free:
            return 2
        raw = np.full(size.value + 256, 0xEE, np.uint8)
        start = -raw.ctypes.data % 256
        block = raw[start : start + size.value]
        self.live[block.ctypes.data] = (block, pinned, self.device())
        out._obj.value = block.ctypes.data
        return 0

    def _cudaMalloc(self, out, size):  # noqa: N802
        return self._allocate(out, size, False)

    def _cudaHostAlloc(self, out, size, flags):  # noqa: N802
        return self._allocate(out, size, True)

    def _free(self, pointer, pinned):
        if pointer.value not in self.live or self.live[pointer.value][1] != pinned:
            return 1
        assert not any(self.streams.values()), "memory is freed while a stream is at work"
        block, _, _ = self.live.pop(pointer.value)
        block[:] = 0xDD
        return 0

    def _cudaFree(self, pointer):  # noqa: N802
        return self._free(pointer, False)

    def _cudaFreeHost(self, pointer):  # noqa: N802
        return self._free(pointer, True)

    def _handle(self):
        self._next += 16
        return self._next

    def _cudaStreamCreateWithFlags(self, out, flags):  # noqa: N802
        assert flags == 1
        out._obj.value = self._handle()
        self.streams[out._obj.value] = deque()

    def _cudaStreamDestroy(self, stream):  # noqa: N802
        assert not self.streams.pop(stream.value), "a stream is destroyed while it is at work"

    def _cudaEventCreateWithFlags(self, out, flags):  # noqa: N802
        out._obj.value = self._handle()
        self.events[out._obj.value] = None

    def _cudaEventDestroy(self, event):  # noqa: N802
        del self.events[event.value]

    def _cudaEventRecord(self, event, stream):  # noqa: N802
        self._ticket += 1
        ticket = self._ticket
        self.events[event.value] = (stream.value, ticket)
        self.streams[stream.value].append(lambda: self._done.add(ticket))

    def _reach(self, record):
        """Let a stream work until it is past a record."""
        if record is None:
            return
        stream, ticket = record
        while ticket not in self._done:
            self.streams[stream].popleft()()

    def _cudaStreamWaitEvent(self, stream, event, flags):  # noqa: N802
        record = self.events[event.value]
        self.streams[stream.value].append(lambda: self._reach(record))

    def _cudaEventSynchronize(self, event):  # noqa: N802
        self._reach(self.events[event.value])

    def _cudaEventElapsedTime(self, out, first, last):  # noqa: N802
        out._obj.value = 1.5

    def _cudaStreamSynchronize(self, stream):  # noqa: N802
        queue = self.streams[stream.value]
        while queue:
            queue.popleft()()

    def _cudaMemcpyAsync(self, target, source, size, kind, stream):  # noqa: N802
        to, at = self.view(target.value, size.value), self.view(source.value, size.value)
        pinned = [self.live[self.base(p.value)][1] for p in (target, source)]
        assert pinned == ([False, True] if kind == 1 else [True, False])
        self.streams[stream.value].append(lambda: np.copyto(to, at))

    def base(self, address):
        """The start of the live block that an address is in."""
        for start, (block, _, _) in self.live.items():
            if start <= address < start + max(1, len(block)):
                return start
        raise AssertionError(f"{address:#x} is in no live memory")

    def view(self, address, size):
        start = self.base(address)
        block = self.live[start][0]
        assert address + size <= start + len(block), "past the end of its memory"
        return block[address - start : address - start + size]


OPTIONS = {"device_id", "user_compute_stream", "enable_cuda_graph", "arena_extend_strategy", "use_tf32", "enable_cudnn",
           "gpu_mem_limit"}  # fmt: skip


class FakeOnnxRuntime:
    """The part of ONNX Runtime that bgert uses, over `FakeCudart`.

    Args:
        fit_tokens: runs of more tokens fail as ONNX Runtime does when its arena is full.
        capture_error: what capturing a CUDA graph raises.
        failures: messages that the next runs raise, None for a run that works.
        providers: what the session says it has.
    """

    __version__ = "1.31.1"
    GraphOptimizationLevel = SimpleNamespace(ORT_DISABLE_ALL=0)

    def __init__(self, cudart, *, fit_tokens=None, capture_error=None, providers=("CUDAExecutionProvider",)):
        self.cudart, self.fit_tokens, self.capture_error, self.providers = cudart, fit_tokens, capture_error, providers
        self.failures = []
        self.runs = []  # (device, tokens, graph id) of every run
        self.sessions = []
        self.before_run = lambda: None

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

    def InferenceSession(self, path, options, providers):  # noqa: N802
        session = FakeSession(self, path, options, providers)
        self.sessions.append(session)
        return session


class FakeSession:
    def __init__(self, runtime, path, options, providers):
        assert options.config["session.disable_cpu_ep_fallback"] == "1"
        ((name, given),) = providers
        assert name == "CUDAExecutionProvider"
        assert given.keys() <= OPTIONS
        assert all(isinstance(value, str) for value in given.values())
        self.runtime, self.cudart, self.given = runtime, runtime.cudart, given
        self.device = int(given["device_id"])
        assert self.cudart.device() == self.device
        self.stream = int(given["user_compute_stream"])
        assert self.stream in self.cudart.streams
        self.reference = PackedReference(path, "rounded")
        domains = {node.domain for node in self.reference.model.graph.node}
        libraries = [Path(library).name for library in options.libraries]
        assert libraries == ["_cuda_ops.so"] * ("bgert" in domains), "operators are registered where a graph has them"
        self.thread = threading.get_ident()
        self.captured = {}
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
        runtime, cudart = self.runtime, self.cudart
        assert threading.get_ident() == self.thread, "ONNX Runtime keeps CUDA graphs by thread"
        assert not self.can_fall_back
        assert options.config["disable_synchronize_execution_providers"] == "1"
        graph = int(options.config["gpu_graph_id"])
        tokens = binding.inputs["input_ids"][1][1]
        runtime.before_run()
        if runtime.failures and (failure := runtime.failures.pop(0)):
            raise RuntimeError(failure)
        if runtime.fit_tokens is not None and tokens > runtime.fit_tokens:
            raise RuntimeError(
                "Error in execution: Non-zero status code returned while running Gemm node. bfc_arena.cc:360 "
                "Available memory of 947456 is smaller than requested bytes of 1966080"
            )
        if graph >= 0:
            assert self.given["enable_cuda_graph"] == "1"
            if runtime.capture_error and graph not in self.captured:
                raise RuntimeError(runtime.capture_error)
            known = self.captured.setdefault(graph, binding.signature())
            assert known == binding.signature(), "a CUDA graph is one shape at one address"
        runtime.runs.append((self.device, tokens, graph))
        inputs, output = dict(binding.inputs), binding.output
        with cudart.lock:
            cudart.streams[self.stream].append(lambda: self._compute(inputs, output))

    def _compute(self, inputs, output):
        feeds = {}
        for name, (dtype, shape, pointer) in inputs.items():
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            feeds[name] = self.cudart.view(pointer, size).view(dtype).reshape(shape).copy()
        dtype, shape, pointer = output
        result = self.reference.run(feeds).astype(dtype)
        assert result.shape == tuple(shape)
        self.cudart.view(pointer, result.nbytes)[:] = result.reshape(-1).view(np.uint8)


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
        self.session.cudart.view(pointer, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        _, pinned, owner = self.session.cudart.live[self.session.cudart.base(pointer)]
        assert not pinned
        assert owner == number

    def bind_input(self, name, device, number, dtype, shape, pointer):
        self._check(device, number, dtype, shape, pointer)
        assert np.dtype(dtype) == self.types[name]
        self.inputs[name] = (dtype, shape, pointer)

    def bind_output(self, name, device, number, dtype, shape, pointer):
        self._check(device, number, dtype, shape, pointer)
        self.output = (dtype, shape, pointer)

    def signature(self):
        return (sorted(self.inputs.items()), self.output)
