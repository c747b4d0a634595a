"""One engine, built by TensorRT or by TensorRT for RTX, looked at and stored.

The build runs in a thread of its own; the caller's thread stays free for Ctrl-C, which the library learns of through
its progress monitor.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from bgert.backends.tensorrt.library import Log
from bgert.errors import EngineError
from bgert_export.tensorrt.fusion import fused_in_list, fused_in_report, fusion_notes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bgert.backends.cuda_runtime import CudaRuntime
    from bgert.backends.tensorrt.engine_cache import EngineCache
    from bgert.backends.tensorrt.recipe import EngineRecord, Environment, Recipe
    from bgert.model_folder import GraphEntry, Manifest

    Say = Callable[[str], None]
    Gate = Callable[[list[str]], None]

__all__ = ["EngineBuilder", "attention_layers", "progress_monitor"]

_POLL = 0.2  # seconds


def attention_layers(manifest: Manifest) -> int:
    """How many layers have attention over all tokens: in the last layer of CLS models one token asks."""
    return int(manifest.architecture["num_hidden_layers"]) - (manifest.pooling in (None, "cls"))


class EngineBuilder:
    """One build.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.
        cuda: the device; None for TensorRT for RTX, which builds without one.
        cache: where the engine goes, and where the timings of earlier builds are.
        recipe: what goes into the engine.
        here: this machine.
        say: takes a line for the person who waits.
    """

    def __init__(
        self, trt: Any, cuda: CudaRuntime | None, cache: EngineCache, recipe: Recipe, here: Environment, say: Say
    ) -> None:
        self._trt, self._cuda, self._cache, self._recipe, self._here, self._say = trt, cuda, cache, recipe, here, say
        self._product = "TensorRT" if cuda else "TensorRT for RTX"
        self._log = Log(trt)
        self._cancelled = threading.Event()

    def run(self, path: Path, manifest: Manifest, graph: GraphEntry, *, lean: bool, gate: Gate) -> EngineRecord:
        """Build, look at the fusions, let `gate` refuse, and store.

        Raises:
            EngineError: the library failed, or the gate; nothing was stored.
        """
        profiles = self._recipe.profiles
        shapes = ", ".join(f"{profile.texts} x {profile.length}" for profile in profiles)
        where = self._here.gpu or self._here.targets
        self._say(f"building for {where} with {self._product} {self._here.tensorrt}: profiles up to {shapes}")
        started = time.monotonic()
        plan = self._in_thread(lambda: self._plan(path, graph, lean=lean))
        seconds = time.monotonic() - started
        notes: list[str] = []
        fused: list[int] | None = None
        if lean:
            notes.append("not inspected: the full runtime does not load an engine without a runtime of its own")
        elif self._cuda is None:
            fused = fused_in_list(self._log.layers, len(profiles))
        else:
            fused = self._fused(plan, graph, self._cuda)
        notes += fusion_notes(fused, profiles, attention_layers(manifest))
        for note in notes:
            self._say(note)
        gate(notes)  # before anything is stored
        planned = self._log.activations
        return self._cache.store(
            self._recipe,
            plan,
            seconds=round(seconds, 1),
            fused_attention=fused,
            notes=notes,
            activations=planned if len(planned) == len(profiles) else None,
            weights=self._log.weights,
        )

    def _in_thread(self, work: Callable[[], bytes]) -> bytes:
        """Run `work` in a thread; what interrupts this one cancels the build and is raised when it has ended."""
        results: list[bytes] = []
        failures: list[BaseException] = []

        def guarded() -> None:
            try:
                results.append(work())
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=guarded, name="bgert-build")
        thread.start()
        try:
            while thread.is_alive():
                thread.join(_POLL)
        except BaseException:
            self._cancelled.set()
            self._say("stopping: TensorRT ends the step that it is in")
            thread.join()
            raise
        if failures:
            raise failures[0]
        return results[0]

    def _plan(self, path: Path, graph: GraphEntry, *, lean: bool) -> bytes:
        trt, log = self._trt, self._log
        try:
            builder = trt.Builder(log.logger)
        except (TypeError, RuntimeError) as error:  # TypeError where the library returns no object
            raise EngineError(f"{self._product} {trt.__version__} makes no builder: {error}{log.take()}") from error
        # Ignored by 11, where every network is strongly typed.
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log.logger)  # must outlive the build: it holds the weights
        if not parser.parse_from_file(str(path)):
            errors = [parser.get_error(number) for number in range(parser.num_errors)]
            listed = "; ".join(f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors)
            raise EngineError(f"{self._product} {trt.__version__} cannot read {path}: {listed}{log.take()}")
        config = builder.create_builder_config()
        self._configure(config, lean=lean)
        self._add_profiles(builder, config, graph)
        monitor = progress_monitor(trt, self._product, self._say, self._cancelled)
        config.progress_monitor = monitor
        timing = self._use_timing_cache(config) if self._cuda else None  # RTX measures nothing
        plan = builder.build_serialized_network(network, config)
        del timing, monitor  # alive until here, as TensorRT holds no reference
        if plan is None:
            if self._cancelled.is_set():
                raise EngineError("the build was cancelled; nothing was stored")
            raise EngineError(f"{self._product} {trt.__version__} could not build the engine{log.take()}")
        if self._cuda:
            try:
                self._cache.store_timing(self._here, bytes(config.get_timing_cache().serialize()))
            except EngineError as error:  # no reason to lose the engine
                self._say(f"the timing cache is not kept: {error}")
        return bytes(plan)

    def _configure(self, config: Any, *, lean: bool) -> None:
        trt = self._trt
        config.max_aux_streams = 0  # one chain of layers: other streams would only be waited for
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the names of the kernels
        config.clear_flag(trt.BuilderFlag.TF32)  # what the graph calls float32 is float32
        if self._cuda is None:
            config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # nothing allocated while a graph is captured
            targets = [] if self._recipe.environment.targets == "any" else self._recipe.environment.targets.split(",")
            config.num_compute_capabilities = len(targets)
            for index, name in enumerate(targets):
                if not config.set_compute_capability(getattr(trt.ComputeCapability, name.upper()), index):
                    raise EngineError(f"{self._product} {trt.__version__} does not build for {name}{self._log.take()}")
            return
        config.builder_optimization_level = self._recipe.level
        if self._recipe.workspace is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self._recipe.workspace)
        if lean:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
            config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)  # no host code in the plan

    def _add_profiles(self, builder: Any, config: Any, graph: GraphEntry) -> None:
        for number, profile in enumerate(self._recipe.profiles):
            shapes = builder.create_optimization_profile()
            least, most = (1, profile.length), (profile.texts, profile.length)
            for name in graph.inputs:
                shapes.set_shape(name, least, most, most)
            if config.add_optimization_profile(shapes) != number:
                raise EngineError(f"{self._product} refuses the profile {least} to {most}{self._log.take()}")

    def _use_timing_cache(self, config: Any) -> Any:
        """The kept measurements of earlier builds, or an empty cache where there are none that fit."""
        kept = self._cache.timing(self._here)
        timing = config.create_timing_cache(kept)
        if timing is None or not config.set_timing_cache(timing, False):
            self._log.take()
            if kept:
                self._say("the timing cache of earlier builds does not fit: starting another")
            timing = config.create_timing_cache(b"")
            if timing is None or not config.set_timing_cache(timing, False):
                raise EngineError(f"TensorRT makes no timing cache{self._log.take()}")
        return timing

    def _fused(self, plan: bytes, graph: GraphEntry, cuda: CudaRuntime) -> list[int]:
        """Fused attention layers by profile."""
        runtime = self._trt.Runtime(self._log.logger)
        return self._inspect(runtime.deserialize_cuda_engine(plan), graph, cuda)  # the engine goes before the runtime

    def _inspect(self, engine: Any, graph: GraphEntry, cuda: CudaRuntime) -> list[int]:
        trt = self._trt
        if engine is None:
            raise EngineError(f"TensorRT does not load the engine that it built{self._log.take()}")
        inspector = engine.create_engine_inspector()
        found = []
        with closing(cuda.stream()) as stream:
            for number, profile in enumerate(self._recipe.profiles):
                context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
                if context is None or not context.set_optimization_profile_async(number, stream.address):
                    raise EngineError(f"the engine has no profile {number}{self._log.take()}")
                for name in graph.inputs:
                    if not context.set_input_shape(name, (profile.texts, profile.length)):
                        raise EngineError(f"profile {number} does not take its own shape{self._log.take()}")
                inspector.execution_context = context
                text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
                found.append(fused_in_report(text, number))
            stream.synchronize()
            del inspector, context
        return found


def progress_monitor(trt: Any, product: str, say: Say, cancelled: threading.Event) -> Any:
    """Says the phases of the build and asks TensorRT to stop once `cancelled` is set."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # a class of a module without types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                say(f"{product}: {phase_name} ({num_steps} steps)")

        def step_complete(self, phase_name: str, step: int) -> bool:
            del phase_name, step
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            del phase_name

    return Monitor()
