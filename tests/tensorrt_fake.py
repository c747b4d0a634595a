"""TensorRT for tests without it: what the bindings declare is taken, everything else is refused.

Classes, methods, arguments and enumerations come from `tensorrt_api.json`, which `tools/tensorrt_api.py` reads from the
real bindings; a call with another name, number or type of arguments fails, and so does an attribute that is not there.
Behind them an "engine" runs the ONNX graph on ONNX Runtime, on the streams and memory of `cuda_fake`: its numbers
are the model's.
"""

import ctypes
import enum
import importlib.machinery
import inspect
import json
import re
import sys
import types

import numpy as np

from cuda_fake import API, Machine, cuda_runtime
from tensorrt_rtx_fake import rtx_behaviours

__all__ = ["Library", "Machine", "cuda_runtime", "install"]


class Library:
    """One version of TensorRT as a module."""

    def __init__(self, label, machine):
        data = API["libraries"][label]
        self.machine = machine
        self.module = types.ModuleType(label.split()[0])
        # transformers asks which packages there are, and a module without one makes that an error
        self.module.__spec__ = importlib.machinery.ModuleSpec(self.module.__name__, None)
        self.module.__version__ = data["version"]
        self.data = data["classes"]
        self.enums = {}
        for name, members in self.data.items():
            if name and all("value" in member for member in members.values()) and members:
                self.enums[name] = enum.Enum(name, {key: member["number"] for key, member in members.items()})
                self.enums[name].__int__ = lambda self: self.value
                setattr(self.module, name, self.enums[name])
        severities = {key: member["number"] for key, member in self.data["ILogger"].items() if "value" in member}
        self.enums["Severity"] = enum.Enum("Severity", severities)
        behaviours = _behaviours(self)
        if label.startswith("tensorrt_rtx"):
            behaviours = rtx_behaviours(self, behaviours, _HostMemory)
        for name, members in self.data.items():
            if name and name not in self.enums:
                setattr(self.module, name, self._class(name, members, behaviours.pop(name, {})))
        self.module.int32 = self.enums["DataType"].INT32
        self.module.float32 = self.enums["DataType"].FLOAT

    def _class(self, name, members, behaviour):
        library = self
        body = {"__slots__": ("__dict__",), "_library": self}
        for member, about in members.items():
            if "property" in about:
                body[member] = self._property(member, about, behaviour.get(member))
            elif "method" in about:
                body[member] = self._method(name, member, about["method"], behaviour.get(member))
            else:
                body[member] = self.enums["Severity"][member]
        if "__init__" not in members:

            def refuse(instance, *arguments):
                raise TypeError(f"{name}: No constructor defined!")

            body["__init__"] = refuse

        def assign(instance, attribute, value):
            listed = attribute.startswith("_") or attribute in members or type(instance).__name__ != name
            assert listed, f"{name} has no attribute {attribute}"
            object.__setattr__(instance, attribute, value)

        body["__setattr__"] = assign
        del library
        return type(name, (), body)

    def _property(self, member, about, read):
        def get(instance):
            return read(instance) if read else instance.__dict__.get("_" + member)

        def put(instance, value):
            assert about["writable"], f"{member} is read-only"
            self.check(member, about["property"], value)
            instance.__dict__["_" + member] = value

        return property(get, put)

    def _method(self, owner, member, signatures, behaviour):
        parsed = [_parse(signature) for signature in signatures]
        assert parsed, f"{owner}.{member} has no signature"

        def call(instance, *arguments, **named):
            reasons = []
            for parameters in parsed:
                try:
                    bound = inspect.Signature([one for one, _ in parameters]).bind(*arguments, **named)
                    for parameter, kind in parameters:
                        if parameter.name in bound.arguments:
                            self.check(f"{owner}.{member}: {parameter.name}", kind, bound.arguments[parameter.name])
                except TypeError as error:
                    reasons.append(str(error))
                    continue
                assert behaviour is not None, f"the fake does not know what {owner}.{member} does"
                return behaviour(instance, *bound.arguments.values())
            raise TypeError(f"{owner}.{member}: incompatible function arguments: {reasons}")

        return call

    def check(self, what, kind, value):
        """As pybind11 converts: TypeError where it would."""
        if "." in kind:
            kind = kind.split(".")[-1]
        if kind in self.enums:
            good = isinstance(value, self.enums[kind])
        elif kind in ("int", "SupportsInt"):
            good = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        elif kind == "bool":
            good = isinstance(value, bool)
        elif kind == "str":
            good = isinstance(value, str)
        elif kind in ("Dims", "tuple", "list"):
            wanted = {"tuple": tuple, "list": list}.get(kind, (tuple, list))
            good = isinstance(value, wanted) and all(isinstance(item, (int, np.integer)) for item in value)
        elif kind in ("Buffer", "buffer"):
            good = isinstance(value, (bytes, bytearray, memoryview, _HostMemory))
        elif hasattr(self.module, kind):
            good = isinstance(value, getattr(self.module, kind))
        else:
            good = False
        if not good:
            raise TypeError(f"{what} takes {kind}, not {value!r}")

    def make(self, name, **state):
        """An object that only the library makes."""
        made = object.__new__(getattr(self.module, name))
        made.__dict__.update(state)
        return made


def _parse(signature):
    """[(inspect.Parameter, type)] of `name(self: A, b: C = d) -> E`, without self."""
    inner = re.fullmatch(r"\w+\((.*)\) -> .*", signature).group(1)
    parts = re.split(r", (?=\w+: )", inner)[1:]
    found = []
    for part in parts:
        name, _, kind = part.partition(": ")
        kind, _, default = kind.partition(" = ")
        given = default or inspect.Parameter.empty
        found.append((inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=given), kind))
    return found


class _HostMemory(bytes):
    """`bytes(IHostMemory)` goes through the buffer protocol."""


def _behaviours(library):
    machine = library.machine

    def complain(message):
        machine.log(library.module.ILogger.ERROR, message)

    def logger_of(instance, logger):
        instance._logger = logger
        machine.log = logger.log

    def parser(instance, network, logger):
        instance._network = network

    def parse(instance, path):
        if "parse" in machine.fail:
            complain("parser says no")
            return False
        import onnx

        graph = onnx.load(path, load_external_data=False).graph
        instance._network._graph = {"path": path, "inputs": [entry.name for entry in graph.input]}
        instance._network._graph["output"] = graph.output[0].name
        instance._network._graph["columns"] = graph.output[0].type.tensor_type.shape.dim[1].dim_value
        return True

    def error_of(instance, index):
        return library.make("ParserError")

    def add_profile(instance, profile):
        instance._profiles.append(profile._shapes)
        return len(instance._profiles) - 1

    def build(instance, network, config):
        assert network._flags == 1 << library.enums["NetworkDefinitionCreationFlag"].STRONGLY_TYPED.value
        assert "TF32" not in config._flags
        assert config.max_aux_streams == 0
        assert config._timing is not None
        for shapes in config._profiles:
            assert set(shapes) == set(network._graph["inputs"]), "a profile leaves inputs out"
        machine.builds += 1
        monitor = config.progress_monitor
        monitor.phase_start("Building engine", None, 3)
        for step in range(3):
            machine.during_build()
            if not monitor.step_complete("Building engine", step):
                complain("Build was cancelled")
                return None
        monitor.phase_finish("Building engine")
        if "build" in machine.fail:
            complain("Could not find any implementation for node {ForeignNode}")
            return None
        plan = {"profiles": config._profiles, "version": library.module.__version__, "flags": sorted(config._flags)}
        return _HostMemory(json.dumps(plan | network._graph).encode())

    def timing_of(instance, content):
        if content and not content.startswith(b"timing"):
            return None
        return library.make("ITimingCache", _content=content + b"timing")

    def set_timing(instance, cache, ignore):
        if "timing" in machine.fail and len(cache._content) > 6:
            return False
        instance._timing = cache
        return True

    def deserialize(instance, plan):
        if "deserialize" in machine.fail:
            complain("The engine plan file is not compatible with this version of TensorRT")
            return None
        return library.make("ICudaEngine", _plan=json.loads(bytes(plan)), _runtime=instance)

    def names(engine):
        return [*engine._plan["inputs"], engine._plan["output"]]

    def mode(engine, name):
        modes = library.enums["TensorIOMode"]
        return modes.OUTPUT if name == engine._plan["output"] else modes.INPUT

    def dtype(engine, name):
        types_ = library.enums["DataType"]
        return types_.FLOAT if name == engine._plan["output"] else types_.INT32

    def context_of(engine, strategy):
        assert strategy.name == "USER_MANAGED"
        if "context" in machine.fail:
            complain("out of memory")
            return None
        machine.contexts += 1
        return library.make("IExecutionContext", _engine=engine, _profile=0, _shapes={}, _addresses={}, _memory=None)

    def set_profile(context, number, stream):
        assert stream in machine.streams
        if "profile" in machine.fail or not 0 <= number < len(context._engine._plan["profiles"]):
            raise RuntimeError(f"invalid profile {number}")
        context.__dict__.update(_profile=number, _shapes={})
        return True

    def set_memory(context, address, size):
        assert address % 256 == 0
        assert size >= memory_of(context._engine, context._profile)
        context._memory = address

    def memory_of(engine, number):
        rows, length = next(iter(engine._plan["profiles"][number].values()))[2]
        return 1024 * rows * length

    def set_shape(context, name, shape):
        least, _, most = context._engine._plan["profiles"][context._profile][name]
        if not all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True)):
            complain(f"{shape} is outside the profile")
            return False
        context._shapes[name] = tuple(shape)
        return True

    def shape_of(context, name):
        if name != context._engine._plan["output"]:
            return context._shapes[name]
        return (next(iter(context._shapes.values()))[0], context._engine._plan["columns"])

    def set_address(context, name, address):
        assert address % 256 == 0
        assert machine.allocated[address][1] == "device"
        context._addresses[name] = address
        return True

    def execute(context, stream):
        if "enqueue" in machine.fail or ("capture enqueue" in machine.fail and stream in machine.capturing):
            complain("enqueue says no")
            return False
        assert context._memory in machine.allocated, "no scratch memory"
        engine = context._engine
        assert set(context._addresses) == set(names(engine))
        machine.enqueues += 1
        shapes, addresses = dict(context._shapes), dict(context._addresses)

        def work():
            feeds = {}
            for name in engine._plan["inputs"]:
                count = int(np.prod(shapes[name]))
                raw = (ctypes.c_int32 * count).from_address(addresses[name])
                feeds[name] = np.frombuffer(raw, np.int32).reshape(shapes[name]).copy()
            output = _session(engine._plan["path"]).run(None, feeds)[0]
            output = np.ascontiguousarray(output, np.float32)
            ctypes.memmove(addresses[engine._plan["output"]], output.ctypes.data, output.nbytes)

        machine.push(stream, work)
        return True

    def information(inspector, form):
        number = inspector.execution_context._profile
        names_ = [f"_gemm_mha_v2_myl{number}_{layer}" for layer in range(machine.fused)]
        return json.dumps({"Layers": [{"Name": "gemm"}, *({"Name": name} for name in names_)], "Bindings": []})

    return {
        "ILogger": {"__init__": lambda instance: None, "log": lambda instance, severity, msg: None},
        "IProgressMonitor": {
            name: (lambda *arguments: None) for name in ("__init__", "phase_start", "step_complete", "phase_finish")
        },
        "Builder": {
            "__init__": logger_of,
            "create_network": lambda instance, flags=0: library.make("INetworkDefinition", _flags=flags),
            "create_builder_config": lambda instance: library.make(
                "IBuilderConfig", _profiles=[], _flags={"TF32"}, _timing=None
            ),
            "create_optimization_profile": lambda instance: library.make("IOptimizationProfile", _shapes={}),
            "build_serialized_network": build,
        },
        "OnnxParser": {
            "__init__": parser,
            "parse_from_file": parse,
            "num_errors": lambda instance: 1,
            "get_error": error_of,
        },
        "ParserError": {
            "desc": lambda instance: "unsupported",
            "node_name": lambda instance: "mask.padding",
            "node_operator": lambda instance: "Sub",
        },
        "IOptimizationProfile": {
            "set_shape": lambda instance, name, least, best, most: instance._shapes.update({name: (least, best, most)})
        },
        "IBuilderConfig": {
            "set_flag": lambda instance, flag: instance._flags.add(flag.name),
            "clear_flag": lambda instance, flag: instance._flags.discard(flag.name),
            "set_memory_pool_limit": lambda instance, pool, size: None,
            "add_optimization_profile": add_profile,
            "create_timing_cache": timing_of,
            "set_timing_cache": set_timing,
            "get_timing_cache": lambda instance: instance._timing,
        },
        "ITimingCache": {"serialize": lambda instance: _HostMemory(instance._content)},
        "Runtime": {"__init__": logger_of, "deserialize_cuda_engine": deserialize},
        "ICudaEngine": {
            "num_io_tensors": lambda engine: len(names(engine)),
            "num_optimization_profiles": lambda engine: len(engine._plan["profiles"]),
            "get_tensor_name": lambda engine, index: names(engine)[index],
            "get_tensor_mode": mode,
            "get_tensor_dtype": dtype,
            "get_tensor_profile_shape": lambda engine, name, number: engine._plan["profiles"][number][name],
            "get_device_memory_size_for_profile_v2": memory_of,
            "create_execution_context": context_of,
            "create_engine_inspector": lambda engine: library.make("EngineInspector"),
        },
        "IExecutionContext": {
            "set_optimization_profile_async": set_profile,
            "set_device_memory": set_memory,
            "set_input_shape": set_shape,
            "infer_shapes": lambda context: [
                name for name in context._engine._plan["inputs"] if name not in context._shapes
            ],
            "get_tensor_shape": shape_of,
            "set_tensor_address": set_address,
            "execute_async_v3": execute,
        },
        "EngineInspector": {"get_engine_information": information},
    }


_sessions = {}


def _session(path):
    """ONNX Runtime on a graph, for an engine that was built from it."""
    if path not in _sessions:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        _sessions[path] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return _sessions[path]


def install(monkeypatch, machine, label="tensorrt 11.4"):
    """Put a library and CUDA where imports find them; None for no TensorRT."""
    runtime = cuda_runtime(machine)
    bindings, cuda = types.ModuleType("cuda.bindings"), types.ModuleType("cuda")
    bindings.runtime, cuda.bindings, bindings.__version__ = runtime, bindings, API["cuda"]["version"]
    for name, module in (("cuda", cuda), ("cuda.bindings", bindings), ("cuda.bindings.runtime", runtime)):
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("tensorrt", "tensorrt_lean", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    if label is None:
        return None
    library = Library(label, machine)
    monkeypatch.setitem(sys.modules, library.module.__name__, library.module)
    return library
