"""From the TensorRT graph of a model folder to an engine in the cache: `bgert build`.

TensorRT tunes for the GPU it runs on, so an engine is built where it will be used. The build runs in a thread of its
own; the caller's thread stays free for Ctrl-C, which TensorRT learns of through its progress monitor.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bgert.backends.cuda_driver import Cuda
from bgert.backends.graph_file import verify_graph
from bgert.backends.tensorrt.engine_cache import EngineCache, Recipe, UntrustedCacheError, graph_digest
from bgert.backends.tensorrt.library import OLDEST_WITH_PROFILES, Log, environment, import_builder, version_of
from bgert.errors import DeviceUnavailableError, EngineError, IntegrityError, InvalidOptionError
from bgert.model_folder import Manifest
from bgert_export.tensorrt.buckets import choose_lengths, default_lengths, profiles_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bgert.backends.tensorrt.engine_cache import EngineRecord, Environment, Profile
    from bgert.model_folder import GraphEntry

    Say = Callable[[str], None]

__all__ = ["BuildOptions", "build_engine", "plan_profiles"]

# `_gemm_mha_v2_myl0_12`. The attention of one query, in the last layer of CLS models, becomes `_gemv_mha_v1` at best.
_FUSED = re.compile("gemm_mha|fmha", re.IGNORECASE)
_PROFILE = re.compile(r"\[profile (\d+)\]")
_POLL = 0.2  # seconds


@dataclass(frozen=True)
class BuildOptions:
    """What `bgert build` is asked for."""

    precision: str | None = None
    """`fp16` or `bf16`; None for the folder's first TensorRT graph."""
    buckets: Sequence[int] | None = None
    """Lengths; None to choose them."""
    lengths_file: str | None = None
    """Texts to choose the buckets from; None for powers of two."""
    tokens_per_batch: int = 8192
    workspace: int | None = None
    """Bytes a kernel may use; None for no limit."""
    level: int = 3
    """TensorRT's optimisation level, 0 to 5."""
    lean: bool = False
    """For `tensorrt_lean`: version-compatible, without an embedded runtime."""
    require_fused: bool = False
    """Fail where attention was not fused, instead of saying so."""
    force: bool = False
    """Build even where the cache has this engine."""


def plan_profiles(folder: Path, options: BuildOptions) -> tuple[Manifest, GraphEntry, list[Profile]]:
    """What would be built; needs neither GPU nor TensorRT.

    Raises:
        InvalidOptionError: the folder has no such graph, or an option is out of range.
        BgertError: the folder or the file of texts cannot be read.
    """
    manifest = Manifest.read(folder)
    graph = manifest.graph("tensorrt", options.precision)
    if graph is None:
        what = f"tensorrt graph in {options.precision}" if options.precision else "tensorrt graph"
        raise InvalidOptionError(f"{folder} has no {what}: export the checkpoint with --target tensorrt")
    if not 0 <= options.level <= 5:
        raise InvalidOptionError(f"level is {options.level}: use 0 to 5")
    if options.lean and options.require_fused:
        raise InvalidOptionError("--require-fused cannot be had with --lean: such an engine is not inspected here")
    if options.buckets is not None and options.lengths_file is not None:
        raise InvalidOptionError("--buckets and --lengths each choose the buckets: use one of them")
    longest = manifest.max_tokens
    if options.buckets is not None:
        lengths = list(options.buckets)
    elif options.lengths_file is not None:
        lengths = choose_lengths(_lengths_in(folder, manifest, options.lengths_file), longest)
    else:
        lengths = default_lengths(longest)
    return manifest, graph, profiles_of(lengths, longest, options.tokens_per_batch)


def build_engine(folder: Path, options: BuildOptions, say: Say) -> EngineRecord:
    """Build the engine of a model folder, or find it in the cache.

    Raises:
        EngineNotInstalledError: TensorRT or cuda-bindings is missing.
        DeviceUnavailableError: there is no GPU or no driver, or its TensorRT is too old for several profiles.
        IntegrityError: the graph is not the one that export wrote, or the cache can be written by others.
        EngineError: TensorRT failed, or another process is building the same; nothing was stored.
    """
    manifest, graph, profiles = plan_profiles(folder, options)
    cuda = Cuda.open()  # before any object of TensorRT exists: see cuda_driver
    try:
        trt = import_builder()
        if len(profiles) > 1 and version_of(trt) < OLDEST_WITH_PROFILES:
            raise DeviceUnavailableError(
                f"TensorRT {trt.__version__} gives wrong results with several profiles: pass one length to --buckets, "
                f"or use TensorRT {OLDEST_WITH_PROFILES[0]}.{OLDEST_WITH_PROFILES[1]} or later"
            )
        path = verify_graph(folder, graph)
        here = environment(trt, cuda.gpu)
        recipe = _recipe(graph, profiles, options, here)
        cache = EngineCache()
        with cache.building(recipe):
            if (record := _cached(cache, recipe, options, say)) is not None:
                return record
            for reason in cache.stale(recipe):
                say(f"an engine of this model is in the cache, but {reason}: building another")
            build = _Build(trt, cuda, cache, recipe, here, say)
            return build.run(path, manifest, graph, options)
    finally:
        cuda.close()


def _recipe(graph: GraphEntry, profiles: list[Profile], options: BuildOptions, here: Environment) -> Recipe:
    return Recipe(
        graph=graph_digest(graph),
        precision=graph.precision,
        environment=replace(here, library="tensorrt_lean") if options.lean else here,
        profiles=profiles,
        workspace=options.workspace,
        level=options.level,
    )


def _cached(cache: EngineCache, recipe: Recipe, options: BuildOptions, say: Say) -> EngineRecord | None:
    if options.force:
        return None
    try:
        record = cache.lookup(recipe)
    except UntrustedCacheError:
        raise
    except IntegrityError as error:
        say(f"{error}; building it again")
        return None
    if record is not None:
        say(f"this engine is in the cache: {record.plan}")
        _gate(record.notes, options)
    return record


def _gate(notes: list[str], options: BuildOptions) -> None:
    if options.require_fused and notes:
        raise EngineError(f"attention is not fused as asked for: {'; '.join(notes)}")


class _Build:
    """One build on one device."""

    def __init__(self, trt: Any, cuda: Cuda, cache: EngineCache, recipe: Recipe, here: Environment, say: Say) -> None:
        self._trt, self._cuda, self._cache, self._recipe, self._here, self._say = trt, cuda, cache, recipe, here, say
        self._log = Log(trt)
        self._cancelled = threading.Event()

    def run(self, path: Path, manifest: Manifest, graph: GraphEntry, options: BuildOptions) -> EngineRecord:
        profiles = self._recipe.profiles
        shapes = ", ".join(f"{profile.texts} x {profile.length}" for profile in profiles)
        self._say(f"building for {self._here.gpu} with TensorRT {self._here.tensorrt}: profiles up to {shapes}")
        started = time.monotonic()
        plan = self._in_thread(lambda: self._plan(path, graph, options))
        seconds = time.monotonic() - started
        notes: list[str] = []
        fused: list[int] | None = None
        if options.lean:
            notes.append("not inspected: the full runtime does not load an engine without a runtime of its own")
        else:
            fused = self._fused(plan, graph)
        wanted = int(manifest.architecture["num_hidden_layers"]) - (manifest.pooling != "mean")
        notes += _fusion_notes(fused, profiles, wanted)
        for note in notes:
            self._say(note)
        _gate(notes, options)  # before anything is stored
        return self._cache.store(self._recipe, plan, seconds=round(seconds, 1), fused_attention=fused, notes=notes)

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

    def _plan(self, path: Path, graph: GraphEntry, options: BuildOptions) -> bytes:
        trt, log = self._trt, self._log
        try:
            builder = trt.Builder(log.logger)
        except (TypeError, RuntimeError) as error:  # TypeError where the library returns no object
            raise EngineError(f"TensorRT {trt.__version__} makes no builder: {error}{log.take()}") from error
        # Ignored by 11, where every network is strongly typed.
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log.logger)  # must outlive the build: it holds the weights
        if not parser.parse_from_file(str(path)):
            errors = [parser.get_error(number) for number in range(parser.num_errors)]
            listed = "; ".join(f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors)
            raise EngineError(f"TensorRT {trt.__version__} cannot read {path}: {listed}{log.take()}")
        config = builder.create_builder_config()
        self._configure(config, options)
        self._add_profiles(builder, config, graph)
        monitor = _monitor(trt, self._say, self._cancelled)
        config.progress_monitor = monitor
        timing = self._use_timing_cache(config)
        plan = builder.build_serialized_network(network, config)
        del timing, monitor  # alive until here, as TensorRT holds no reference
        if plan is None:
            if self._cancelled.is_set():
                raise EngineError("the build was cancelled; nothing was stored")
            raise EngineError(f"TensorRT {trt.__version__} could not build the engine{log.take()}")
        try:
            self._cache.store_timing(self._here, bytes(config.get_timing_cache().serialize()))
        except EngineError as error:  # no reason to lose the engine
            self._say(f"the timing cache is not kept: {error}")
        return bytes(plan)

    def _configure(self, config: Any, options: BuildOptions) -> None:
        trt = self._trt
        config.builder_optimization_level = options.level
        config.max_aux_streams = 0  # one chain of layers: other streams would only be waited for
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the inspector needs the kernels' names
        config.clear_flag(trt.BuilderFlag.TF32)  # what the graph calls float32 is float32
        if options.workspace is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
        if options.lean:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
            config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)  # no host code in the plan

    def _add_profiles(self, builder: Any, config: Any, graph: GraphEntry) -> None:
        for number, profile in enumerate(self._recipe.profiles):
            shapes = builder.create_optimization_profile()
            least, most = (1, profile.length), (profile.texts, profile.length)
            for name in graph.inputs:
                shapes.set_shape(name, least, most, most)
            if config.add_optimization_profile(shapes) != number:
                raise EngineError(f"TensorRT refuses the profile {least} to {most}{self._log.take()}")

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

    def _fused(self, plan: bytes, graph: GraphEntry) -> list[int]:
        """Fused attention layers by profile."""
        runtime = self._trt.Runtime(self._log.logger)
        return self._inspect(runtime.deserialize_cuda_engine(plan), graph)  # the engine goes before the runtime

    def _inspect(self, engine: Any, graph: GraphEntry) -> list[int]:
        trt = self._trt
        if engine is None:
            raise EngineError(f"TensorRT does not load the engine that it built{self._log.take()}")
        inspector = engine.create_engine_inspector()
        stream = self._cuda.stream()
        found = []
        for number, profile in enumerate(self._recipe.profiles):
            context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
            if context is None or not context.set_optimization_profile_async(number, stream):
                raise EngineError(f"the engine has no profile {number}{self._log.take()}")
            for name in graph.inputs:
                if not context.set_input_shape(name, (profile.texts, profile.length)):
                    raise EngineError(f"profile {number} does not take its own shape{self._log.take()}")
            inspector.execution_context = context
            text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
            found.append(_count_fused(text, number))
        self._cuda.call("cudaStreamSynchronize", stream)
        del inspector, context
        return found


def _fusion_notes(fused: list[int] | None, profiles: list[Profile], wanted: int) -> list[str]:
    """Where fewer layers are fused than have attention over all tokens (the last layer may ask for one token only)."""
    return [
        f"length {profile.length}: {count} of {wanted} attention layers are fused, which is slow"
        for profile, count in zip(profiles, fused or [], strict=False)
        if count < wanted
    ]


def _count_fused(text: str, number: int) -> int:
    """Layers of fused attention in the inspector's JSON, of one profile where its names tell profiles apart."""
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"the engine inspector's answer cannot be read: {error!r}") from error
    names = [str(layer.get("Name", "")) if isinstance(layer, dict) else str(layer) for layer in layers]
    marked = [(name, _PROFILE.search(name)) for name in names]
    if any(mark for _, mark in marked):
        names = [name for name, mark in marked if int(mark.group(1) if mark else 0) == number]
    return sum(bool(_FUSED.search(name)) for name in names)


def _monitor(trt: Any, say: Say, cancelled: threading.Event) -> Any:
    """Says the phases of the build and asks TensorRT to stop once `cancelled` is set."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # a class of a module without types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                say(f"TensorRT: {phase_name} ({num_steps} steps)")

        def step_complete(self, phase_name: str, step: int) -> bool:
            del phase_name, step
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            del phase_name

    return Monitor()


def _lengths_in(folder: Path, manifest: Manifest, name: str) -> Any:
    """int32[n]: tokens of a file's texts; for rerankers query, tab, document."""
    import numpy as np

    from bgert.commands.text_files import read_texts
    from bgert.tokenizer import Tokenizer

    lines = list(read_texts(name))
    if not lines:
        raise InvalidOptionError(f"{name} holds no texts")
    tokenizer = Tokenizer.from_folder(folder)
    if manifest.kind == "encoder":
        batch = tokenizer.encode_batch(lines, max_length=manifest.max_tokens)
    else:
        pairs = [line.split("\t", 1) for line in lines]
        if any(len(pair) != 2 for pair in pairs):
            raise InvalidOptionError(f"{name}: a line has no tab between query and document")
        queries, documents = ([pair[side] for pair in pairs] for side in (0, 1))
        batch = tokenizer.encode_batch(queries, documents, max_length=manifest.max_tokens)
    return np.diff(batch.cu_seqlens)
