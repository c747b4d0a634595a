"""What TensorRT for RTX does otherwise than TensorRT.

Its engines hold no machine code: kernels are compiled for the GPU when an execution context is made. A runtime cache
keeps them for the next process; it is native code and lies in the engine cache, under the same rules. Contexts compile
at once (EAGER): in a captured CUDA graph the fallback kernels of LAZY would stay for ever. Facts from NVIDIA's
documentation of TensorRT for RTX 1.0 to 1.7; no GPU has run this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bgert.errors import DeviceUnavailableError, EngineError, IntegrityError, warn_caller

if TYPE_CHECKING:
    from bgert.backends.cuda_runtime import Gpu
    from bgert.backends.tensorrt.engine_cache import EngineCache
    from bgert.backends.tensorrt.recipe import EngineRecord, Environment

__all__ = ["RtxContexts", "check_gpu"]

_MADE_FOR = ("7.5", "8.0", "8.6", "8.9")  # and 12.0 and later: its enumeration of compute capabilities
_WHY_NOT = {
    1: "it was built by another version of TensorRT for RTX",
    2: "it was not built for this GPU's compute capability",
    4: "the driver is too old",
    8: "the CUDA runtime is too old",
    16: "this GPU has too little memory",
    32: "it is damaged",
    64: "CUDA does not work here",
}


def check_gpu(gpu: Gpu) -> None:
    """Refuse a GPU that TensorRT for RTX is not made for.

    Raises:
        DeviceUnavailableError: names the device that is.
    """
    if gpu.compute_capability in _MADE_FOR or int(gpu.compute_capability.split(".")[0]) >= 12:
        return
    raise DeviceUnavailableError(
        f"{gpu.name} has compute capability {gpu.compute_capability}, and TensorRT for RTX is made for "
        f"{', '.join(_MADE_FOR)}, 12.0 and later: use device='cuda', or 'tensorrt' (data-centre GPUs, Jetson)"
    )


class RtxContexts:
    """Execution contexts of one engine, and the kernels that were compiled for them.

    Args:
        trt: the module `tensorrt_rtx`.
        cache: where the kernels of earlier processes are.
        record: the engine.
        here: this machine.
    """

    def __init__(self, trt: Any, cache: EngineCache, record: EngineRecord, here: Environment) -> None:
        self._trt, self._cache, self._record, self._here = trt, cache, record, here
        self._config: Any = None
        self._kernels: Any = None
        self._kept = b""

    def check(self, runtime: Any, plan: bytes) -> None:
        """Say in words why the runtime will not take a plan; what its header does not show, loading will.

        Raises:
            EngineError: the header is of another version, GPU or driver, or none.
        """
        validity, reasons = runtime.get_engine_validity(plan[: runtime.engine_header_size])
        if validity == self._trt.EngineValidity.INVALID:
            words = [text for bit, text in _WHY_NOT.items() if int(reasons) & bit] or ["it does not say why"]
            raise EngineError(
                f"TensorRT for RTX {self._trt.__version__} refuses the engine {self._record.plan}: {'; '.join(words)}; "
                "`bgert build DIR --for any --force` builds it again"
            )

    def open(self, engine: Any) -> None:
        """Prepare contexts of an engine, with the kernels of earlier processes where they fit."""
        trt = self._trt
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED  # the backend captures lanes itself
        kernels = config.create_runtime_cache()
        kept = self._cache.kernels(self._record, self._here)
        if kept and kernels.deserialize(kept):
            self._kept = kept
        if not config.set_runtime_cache(kernels):
            raise EngineError("TensorRT for RTX takes no runtime cache")
        self._config, self._kernels = config, kernels

    def make(self, engine: Any) -> Any:
        """An execution context, or None; compiles kernels that no cache has, which takes seconds."""
        return engine.create_execution_context(self._config)

    def capturable(self, context: Any, stream: int) -> bool:
        """Whether the context may be captured into a CUDA graph, its shapes and addresses set."""
        return bool(context.is_stream_capturable(stream))

    def close(self) -> None:
        """Keep what was compiled, and let go; the contexts must be gone."""
        if self._kernels is not None:
            try:
                found = bytes(self._kernels.serialize())
                if found != self._kept:
                    self._cache.store_kernels(self._record, self._here, found)
            except (EngineError, IntegrityError) as error:  # the next process compiles again
                warn_caller(f"compiled kernels are not kept: {error}", RuntimeWarning)
        self._kernels = self._config = None
