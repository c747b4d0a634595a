"""CUDA's runtime API for tests without a GPU: what cuda-bindings declares is taken, everything else is refused.

Names and arguments come from `tensorrt_api.json`. Memory is memory of this process, and a stream is a list of work that
runs when somebody waits for it: what is read too early or overwritten too soon is seen.
"""

import ctypes
import enum
import json
import threading
import types
from pathlib import Path

API = json.loads(Path(__file__).with_name("tensorrt_api.json").read_text())
SUCCESS = 0
OUT_OF_MEMORY = 2
NO_DRIVER = 35


class Machine:
    """A GPU, and what goes wrong on it."""

    def __init__(self):
        self.lock = threading.RLock()
        self.driver = True
        self.devices = 1
        self.gpu = ("NVIDIA Fake 100", 9, 0, 132)
        self.cuda_version = 13020
        self.memory_limit = 1 << 30
        self.allocated = {}
        self.streams = {}
        self.capturing = {}
        self.events = {}
        self.graphs = {}
        self.next_handle = 1000
        self.launches = 0
        self.enqueues = 0
        self.builds = 0
        self.contexts = 0
        self.fail = set()
        """`parse`, `build`, `deserialize`, `context`, `enqueue`, `capture`, `profile`, `timing`, `copy`."""
        self.fused = 3
        self.during_build = lambda: None
        self.log = lambda severity, message: None

    def handle(self):
        self.next_handle += 1
        return self.next_handle

    def push(self, stream, work):
        assert stream in self.streams, f"{stream} is no stream"
        with self.lock:
            (self.capturing[stream] if stream in self.capturing else self.streams[stream]).append(work)

    def drain(self, stream, until=None):
        assert stream not in self.capturing, "waited for a stream that is being captured"
        with self.lock:  # a device works in order, whoever waits
            work = self.streams[stream]
            while work:
                item = work.pop(0)
                if item == until:
                    return
                if callable(item):
                    item()


def _strict(name, parameters, behaviour):
    def call(*arguments, **named):
        assert not named, f"{name} takes no keyword arguments here"
        assert len(arguments) == len(parameters), f"{name}{tuple(parameters)} was called with {arguments}"
        return behaviour(*arguments)

    return call


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

    def allocate(size, kind):
        used = sum(len(block) for block, of in machine.allocated.values() if of == kind)
        if kind == "device" and used + size > machine.memory_limit:
            return (error(OUT_OF_MEMORY), None)
        raw = (ctypes.c_byte * (size + 256))()
        address = -(-ctypes.addressof(raw) // 256) * 256
        machine.allocated[address] = (raw, kind)
        return (error(SUCCESS), address)

    def free(address, kind):
        assert machine.allocated.pop(address)[1] == kind
        return (error(SUCCESS),)

    def inside(address, size, kind):
        for start, (raw, of) in machine.allocated.items():
            if of == kind and start <= address and address + size <= start + len(raw) - 256 + 1:
                return True
        return False

    def copy(dst, src, count, kind, stream):
        assert isinstance(kind, module.cudaMemcpyKind)
        if "copy" in machine.fail:
            return (error(NO_DRIVER),)
        sides = ("device", "host") if kind.name.endswith("HostToDevice") else ("host", "device")
        assert inside(dst, count, sides[0]), "copy to memory that is not there"
        assert inside(src, count, sides[1]), "copy from memory that is not there"
        machine.push(stream, lambda: ctypes.memmove(dst, src, count))
        return (error(SUCCESS),)

    def begin(stream, mode):
        assert isinstance(mode, module.cudaStreamCaptureMode)
        assert not machine.streams[stream], "capture on a stream with work left"
        machine.capturing[stream] = []
        return (error(SUCCESS),)

    def end(stream):
        work = machine.capturing.pop(stream)
        if "capture" in machine.fail:
            return (error(NO_DRIVER), None)
        return (error(SUCCESS), ("graph", tuple(work)))

    def instantiate(graph, flags):
        handle = machine.handle()
        machine.graphs[handle] = graph[1]
        return (error(SUCCESS), handle)

    def launch(graph, stream):
        machine.launches += 1
        for work in machine.graphs[graph]:
            machine.push(stream, work)
        return (error(SUCCESS),)

    def new(table, value):
        handle = machine.handle()
        table[handle] = value
        return (error(SUCCESS), handle)

    def record(event, stream):
        machine.events[event] = stream
        machine.push(stream, ("event", event))
        return (error(SUCCESS),)

    def wait(event):
        machine.drain(machine.events[event], ("event", event))
        return (error(SUCCESS),)

    def done(value):
        del value
        return (error(SUCCESS),)

    free_bytes = lambda: machine.memory_limit - sum(len(b) for b, of in machine.allocated.values() if of == "device")  # noqa: E731
    failed = (error(NO_DRIVER), None)
    behaviours = {
        "cudaGetDeviceCount": lambda: (error(SUCCESS), machine.devices) if machine.driver else failed,
        "cudaSetDevice": done,
        "cudaGetDeviceProperties": lambda device: (error(SUCCESS), _Properties(machine)),
        "cudaDriverGetVersion": lambda: (error(SUCCESS), machine.cuda_version),
        "cudaGetErrorName": lambda code: (error(SUCCESS), code.name.encode()),
        "cudaGetErrorString": lambda code: (error(SUCCESS), b"what the driver says"),
        "cudaGetLastError": lambda: (error(SUCCESS),),
        "cudaMemGetInfo": lambda: (error(SUCCESS), free_bytes(), machine.memory_limit),
        "cudaMalloc": lambda size: allocate(size, "device"),
        "cudaFree": lambda address: free(address, "device"),
        "cudaHostAlloc": lambda size, flags: allocate(size, "host"),
        "cudaFreeHost": lambda address: free(address, "host"),
        "cudaMemcpyAsync": copy,
        "cudaStreamCreateWithFlags": lambda flags: new(machine.streams, []),
        "cudaStreamDestroy": lambda stream: done(machine.streams.pop(stream)),
        "cudaStreamSynchronize": lambda stream: done(machine.drain(stream)),
        "cudaStreamBeginCapture": begin,
        "cudaStreamEndCapture": end,
        "cudaEventCreateWithFlags": lambda flags: new(machine.events, None),
        "cudaEventDestroy": lambda event: done(machine.events.pop(event)),
        "cudaEventRecord": record,
        "cudaEventSynchronize": wait,
        "cudaGraphInstantiate": instantiate,
        "cudaGraphUpload": lambda graph, stream: done(machine.graphs[graph]),
        "cudaGraphLaunch": launch,
        "cudaGraphExecDestroy": lambda graph: done(machine.graphs.pop(graph)),
        "cudaGraphDestroy": done,
    }
    assert behaviours.keys() == api["functions"].keys()
    for name, behaviour in behaviours.items():
        setattr(module, name, _strict(name, api["functions"][name], behaviour))
    return module
