"""TensorRT for RTX for tests without it: what differs from `tensorrt_fake`, under the same rules.

Layer names, memory lines and return values are those that version 1.7.1 was seen to give.
"""

import json

__all__ = ["HEADER", "rtx_behaviours"]

HEADER = 64


def rtx_behaviours(library, plain, host_memory):
    """The behaviours of `tensorrt_fake`, changed; `host_memory` is what stands for IHostMemory."""
    machine = library.machine
    targets_of = library.enums["ComputeCapability"]

    def say(severity, message):
        machine.log(getattr(library.module.ILogger, severity), message)

    def set_target(config, capability, index):
        if not 0 <= index < (config.__dict__.get("_num_compute_capabilities") or 0):
            say("ERROR", "Index of compute capability is not in a valid range")
            return False
        config._targets[index] = capability
        return True

    def build(builder, network, config):
        assert config.max_aux_streams == 0
        assert {"TF32"}.isdisjoint(config._flags)
        assert "REQUIRE_USER_ALLOCATION" in config._flags
        targets = sorted(capability.name for capability in config._targets.values())
        assert len(targets) == (config.__dict__.get("_num_compute_capabilities") or 0)
        machine.builds += 1
        assert config.progress_monitor.step_complete("Building engine", 0)
        if "build" in machine.fail:
            say("ERROR", "Could not find any implementation")
            say("ERROR", "catchCudaError: cudaError 35")
            return None
        lines = []
        for number, _ in enumerate(config._profiles):
            lines += [f"__myl_AddCast_myl{number}_1", f"encoder.layer.0 [profile {number}]_U20+x_myl{number}_2"]
            lines += [f"_gemm_mha_v2_myl{number}_{layer}" for layer in range(3, 3 + machine.fused)]
            say("INFO", f"Total Activation Memory: {1000 + number} bytes")
        say("INFO", "Total Weights Memory: 4242 bytes")
        if "list" not in machine.fail:
            rows = [f"Name: {name}, LayerType: kgen, Inputs: []" for name in lines]
            say("VERBOSE", "\n".join(["Layers:", *rows]))
        plan = {"profiles": config._profiles, "version": library.module.__version__, "targets": targets}
        return host_memory(b"ftrt".ljust(HEADER, b".") + json.dumps(plan | network._graph).encode())

    def validity(runtime, buffer):
        valid = library.enums["EngineValidity"]
        good = len(buffer) == HEADER and bytes(buffer).startswith(b"ftrt")
        reasons = machine.invalid if good else 32
        return (valid.INVALID if reasons else valid.VALID, reasons)

    def context_of(engine, config):
        assert config.dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
        assert config.cuda_graph_strategy.name == "DISABLED"
        assert config._cache is not None
        strategies = library.enums["ExecutionContextAllocationStrategy"]
        assert config._strategy is strategies.USER_MANAGED
        config._cache._content = bytes(config._cache._content) + b"k"
        machine.compiled += 1
        return plain["ICudaEngine"]["create_execution_context"](engine, config._strategy)

    def set_cache(config, cache=None):
        config._cache = cache
        return True

    def load_cache(cache, blob):
        if not bytes(blob).startswith(b"cache"):
            return False
        cache._content = bytes(blob)
        return True

    def execute(context, stream):
        assert stream not in machine.capturing or "capturable" not in machine.fail
        return plain["IExecutionContext"]["execute_async_v3"](context, stream)

    machine.compiled = 0
    machine.invalid = 0
    assert targets_of.SM120.value == 120
    return plain | {
        "Builder": plain["Builder"]
        | {
            "build_serialized_network": build,
            "create_builder_config": lambda instance: library.make(
                "IBuilderConfig", _profiles=[], _flags={"TF32"}, _targets={}
            ),
        },
        "IBuilderConfig": {
            name: behaviour for name, behaviour in plain["IBuilderConfig"].items() if "timing" not in name
        }
        | {"set_compute_capability": set_target},
        "Runtime": {
            "__init__": plain["Runtime"]["__init__"],
            "get_engine_validity": validity,
            "engine_header_size": lambda runtime: HEADER,
            "deserialize_cuda_engine": lambda runtime, plan: plain["Runtime"]["deserialize_cuda_engine"](
                runtime, bytes(plan)[HEADER:]
            ),
        },
        "ICudaEngine": plain["ICudaEngine"]
        | {
            "create_execution_context": context_of,
            "create_runtime_config": lambda engine: library.make("IRuntimeConfig", _cache=None, _strategy=None),
        },
        "IRuntimeConfig": {
            "set_execution_context_allocation_strategy": lambda config, strategy: config.__dict__.update(
                _strategy=strategy
            ),
            "create_runtime_cache": lambda config: library.make("IRuntimeCache", _content=b"cache"),
            "set_runtime_cache": set_cache,
        },
        "IRuntimeCache": {"serialize": lambda cache: host_memory(cache._content), "deserialize": load_cache},
        "IExecutionContext": plain["IExecutionContext"]
        | {
            "is_stream_capturable": lambda context, stream: "capturable" not in machine.fail,
            "execute_async_v3": execute,
        },
    }
