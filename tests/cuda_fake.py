"""CUDA's runtime API for tests without a GPU: what cuda-bindings declares is taken, everything else is refused.

Names and arguments come from `tensorrt_api.json`. Memory is memory of this process, and a stream is a list of work that
runs when somebody waits for it: what is read too early or overwritten too soon is seen. Every address must lie in live
memory. Faults are scripted.
"""

import enum
import json
import threading
import types
from collections import deque
from pathlib import Path

import numpy as np

API = json.loads(Path(__file__).with_name("tensorrt_api.json").read_text())
SUCCESS = 0
INVALID_VALUE = 1
OUT_OF_MEMORY = 2
NO_DRIVER = 35
INVALID_DEVICE = 101
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED = 900, 901
FORBIDDEN_IN_CAPTURE = {
    *("cudaMalloc", "cudaFree", "cudaHostAlloc", "cudaFreeHost"),
    *("cudaStreamSynchronize", "cudaEventSynchronize"),
}


class Machine:
    """GPUs, and what goes wrong on them.

    `faults[name]` is a list of codes for the next calls of a function, 0 for none; `fail` names what always fails.
    """

    def __init__(self, devices=1, memory=1 << 30):
        self.lock = threading.RLock()
        self.driver = True
        self.devices = devices
        self.gpu = ("NVIDIA Fake 100", 9, 0, 132)
        self.cuda_version, self.runtime_version = 13020, 13000
        self.memory_limit = memory
        self.allocated = {}  # address: (block, "device" or "host", number of the device)
        self.streams = {}  # handle: work
        self.capturing = {}  # handle: (thread, work)
        self.events = {}  # handle: (stream, ticket) of the last record
        self.graphs = {}  # handle: work
        self.current = {}  # thread: device
        self.faults = {}
        self.calls = []  # (name, thread)
        self.launches = 0
        self.enqueues = 0
        self.builds = 0
        self.contexts = 0
        self.fail = set()
        """`parse`, `build`, `deserialize`, `context`, `enqueue`, `capture`, `profile`, `timing`, `copy`."""
        self.fused = 3
        self.during_build = lambda: None
        self.log = lambda severity, message: None
        self._next = 1 << 20
        self._ticket = 0
        self._done = set()
        self._invalid = set()

    def handle(self):
        self._next += 16
        return self._next

    def device(self):
        """The calling thread's."""
        return self.current.get(threading.get_ident(), 0)

    def used(self):
        """Bytes of device memory."""
        return sum(len(block) for block, kind, _ in self.allocated.values() if kind == "device")

    def push(self, stream, work):
        """Queue work on a stream, or put it into the graph that is captured from it."""
        with self.lock:
            assert stream in self.streams, f"{stream} is no stream"
            if stream in self.capturing:
                thread, captured = self.capturing[stream]
                assert thread == threading.get_ident(), "another thread got into a capture"
                captured.append(work)
            else:
                self.streams[stream].append(work)

    def reach(self, record):
        """Let a stream work until it is past a record."""
        with self.lock:  # a device works in order, whoever waits
            while record is not None and record[1] not in self._done:
                self.streams[record[0]].popleft()()

    def drain(self, stream):
        with self.lock:
            assert stream not in self.capturing, "waited for a stream that is being captured"
            while self.streams[stream]:
                self.streams[stream].popleft()()

    def record(self, event, stream):
        assert stream not in self.capturing, "an event outside of a graph is recorded in its capture"
        self._ticket += 1
        ticket = self._ticket
        self.events[event] = (stream, ticket)
        self.push(stream, lambda: self._done.add(ticket))

    def base(self, address):
        """The start of the live block that an address is in."""
        for start, (block, _, _) in self.allocated.items():
            if start <= address < start + max(1, len(block)):
                return start
        raise AssertionError(f"{address:#x} is in no live memory")

    def view(self, address, size):
        """uint8[size] at an address."""
        start = self.base(address)
        block = self.allocated[start][0]
        assert address + size <= start + len(block), "past the end of its memory"
        return block[address - start : address - start + size]

    def invalidate_capture(self):
        """As a call that a capture in this thread does not allow; whether there is one."""
        mine = [stream for stream, (thread, _) in self.capturing.items() if thread == threading.get_ident()]
        self._invalid.update(mine)
        return bool(mine)

    def valid(self, stream):
        """Whether nothing forbidden was called; forgets it."""
        valid = stream not in self._invalid
        self._invalid.discard(stream)
        return valid


class _Properties:
    def __init__(self, machine):
        name, self.major, self.minor, self.multiProcessorCount = machine.gpu
        self.name = name.encode()


def cuda_runtime(machine):
    """The module `cuda.bindings.runtime`: every function returns a tuple that starts with the error."""
    api = API["cuda"]
    module = types.ModuleType("cuda.bindings.runtime")
    for name, value in api["values"].items():
        setattr(module, name, value)
    for name, members in api["enums"].items():
        setattr(module, name, enum.IntEnum(name, members))
    error = module.cudaError_t

    def ok(*values):
        return (error(SUCCESS), *values)

    def failed(code):
        return (error(code), None)

    def allocate(size, kind):
        if kind == "device" and machine.used() + size > machine.memory_limit:
            return failed(OUT_OF_MEMORY)
        raw = np.full(size + 256, 0xEE, np.uint8)
        start = -raw.ctypes.data % 256
        block = raw[start : start + size]
        machine.allocated[block.ctypes.data] = (block, kind, machine.device())
        return ok(block.ctypes.data)

    def free(address, kind):
        if machine.allocated.get(address, (None, None))[1] != kind:
            return (error(INVALID_VALUE),)
        pending = (work for stream in machine.streams.values() for work in stream)
        assert not any(address in getattr(work, "touches", ()) for work in pending), "memory is freed before its copy"
        block, _, _ = machine.allocated.pop(address)
        block[:] = 0xDD
        return ok()

    def copy(dst, src, count, kind, stream):
        assert isinstance(kind, module.cudaMemcpyKind)
        if "copy" in machine.fail:
            return (error(NO_DRIVER),)
        target, source = machine.view(dst, count), machine.view(src, count)
        sides = ["device", "host"] if kind.name.endswith("HostToDevice") else ["host", "device"]
        assert [machine.allocated[machine.base(address)][1] for address in (dst, src)] == sides

        def work():
            np.copyto(target, source)

        work.touches = (machine.base(dst), machine.base(src))
        machine.push(stream, work)
        return ok()

    def set_device(device):
        if not 0 <= device < machine.devices:
            return (error(INVALID_DEVICE),)
        machine.current[threading.get_ident()] = device
        return ok()

    def begin(stream, mode):
        assert isinstance(mode, module.cudaStreamCaptureMode)
        assert not machine.streams[stream], "capture on a stream with work left"
        machine.capturing[stream] = (threading.get_ident(), [])
        return ok()

    def end(stream):
        _, work = machine.capturing.pop(stream)
        if not machine.valid(stream):
            return failed(CAPTURE_INVALIDATED)
        return failed(NO_DRIVER) if "capture" in machine.fail else ok(("graph", tuple(work)))

    def launch(graph, stream):
        machine.launches += 1
        for work in machine.graphs[graph]:
            machine.push(stream, work)
        return ok()

    def new(table, value):
        handle = machine.handle()
        table[handle] = value
        return ok(handle)

    def destroy_stream(stream):
        assert not machine.streams.pop(stream), "a stream is destroyed while it is at work"
        return ok()

    def waits(stream, event, flags):
        record = machine.events[event]
        machine.push(stream, lambda: machine.reach(record))
        return ok()

    def done(value=None):
        del value
        return ok()

    def text(code):
        return ok(b"out of memory" if code == OUT_OF_MEMORY else b"what went wrong")

    behaviours = {
        "cudaGetDeviceCount": lambda: ok(machine.devices) if machine.driver else failed(NO_DRIVER),
        "cudaGetDevice": lambda: ok(machine.device()),
        "cudaSetDevice": set_device,
        "cudaGetDeviceProperties": lambda device: ok(_Properties(machine)),
        "cudaDriverGetVersion": lambda: ok(machine.cuda_version if machine.driver else 0),
        "cudaRuntimeGetVersion": lambda: ok(machine.runtime_version),
        "cudaGetErrorName": lambda code: ok(code.name.encode()),
        "cudaGetErrorString": text,
        "cudaGetLastError": ok,
        "cudaMemGetInfo": lambda: ok(machine.memory_limit - machine.used(), machine.memory_limit),
        "cudaMalloc": lambda size: allocate(size, "device"),
        "cudaFree": lambda address: free(address, "device"),
        "cudaHostAlloc": lambda size, flags: allocate(size, "host"),
        "cudaFreeHost": lambda address: free(address, "host"),
        "cudaMemcpyAsync": copy,
        "cudaStreamCreateWithFlags": lambda flags: new(machine.streams, deque()),
        "cudaStreamDestroy": destroy_stream,
        "cudaStreamSynchronize": lambda stream: done(machine.drain(stream)),
        "cudaStreamWaitEvent": waits,
        "cudaStreamBeginCapture": begin,
        "cudaStreamEndCapture": end,
        "cudaEventCreateWithFlags": lambda flags: new(machine.events, None),
        "cudaEventDestroy": lambda event: done(machine.events.pop(event)),
        "cudaEventRecord": lambda event, stream: done(machine.record(event, stream)),
        "cudaEventSynchronize": lambda event: done(machine.reach(machine.events[event])),
        "cudaEventElapsedTime": lambda start, end: ok(1.5),
        "cudaGraphInstantiate": lambda graph, flags: new(machine.graphs, graph[1]),
        "cudaGraphUpload": lambda graph, stream: done(machine.graphs[graph]),
        "cudaGraphLaunch": launch,
        "cudaGraphExecDestroy": lambda graph: done(machine.graphs.pop(graph)),
        "cudaGraphDestroy": done,
    }
    assert behaviours.keys() == api["functions"].keys()

    def strict(name, parameters, behaviour):
        def call(*arguments, **named):
            assert not named, f"{name} takes no keyword arguments here"
            assert len(arguments) == len(parameters), f"{name}{tuple(parameters)} was called with {arguments}"
            with machine.lock:
                machine.calls.append((name, threading.get_ident()))
                codes = machine.faults.get(name)
                if codes and (code := codes.pop(0)):
                    if name == "cudaStreamEndCapture":
                        behaviour(*arguments)  # it ends all the same
                    return failed(code)
                if name in FORBIDDEN_IN_CAPTURE and machine.invalidate_capture():
                    return failed(CAPTURE_UNSUPPORTED)
                return behaviour(*arguments)

        return call

    for name, behaviour in behaviours.items():
        setattr(module, name, strict(name, api["functions"][name], behaviour))
    return module
