"""From the TensorRT graph of a model folder to an engine in the cache: `bgert build`.

TensorRT tunes for the GPU it runs on, so an engine is built where it will be used. TensorRT for RTX compiles for
targets instead, on any machine, and the same inputs give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bgert.backends.cuda_runtime import CudaRuntime
from bgert.backends.graph_file import verify_graph
from bgert.backends.tensorrt.engine_cache import EngineCache, UntrustedCacheError
from bgert.backends.tensorrt.library import OLDEST_WITH_PROFILES, environment, import_builder, version_of, without_gpu
from bgert.backends.tensorrt.recipe import LEAN, RTX, Recipe, graph_digest
from bgert.errors import DeviceUnavailableError, EngineError, IntegrityError, InvalidOptionError
from bgert.model_folder import Manifest
from bgert_export.tensorrt.buckets import choose_lengths, default_lengths, profiles_of
from bgert_export.tensorrt.builder import EngineBuilder, attention_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bgert.backends.tensorrt.recipe import EngineRecord, Environment, Profile
    from bgert.model_folder import GraphEntry

    Say = Callable[[str], None]

__all__ = ["ANY", "BuildOptions", "build_engine", "describe", "plan_profiles"]

ANY = "any"
_ALONE = "sm75"  # an older tensor core: another graph, and more scratch memory for all that are built with it
_TARGETS = (ANY, _ALONE, "sm80", "sm86", "sm89", "sm120", "sm121")
_LEVEL = 3


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
    level: int = _LEVEL
    """TensorRT's optimisation level, 0 to 5."""
    lean: bool = False
    """For `tensorrt_lean`: version-compatible, without an embedded runtime."""
    require_fused: bool = False
    """Fail where attention was not fused, instead of saying so."""
    force: bool = False
    """Build even where the cache has this engine."""
    targets: Sequence[str] | None = None
    """Of TensorRT for RTX: `any` alone, or names as `sm89`; None for TensorRT and the GPU of this machine."""


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
    if options.targets is not None:
        _check_targets(options, graph.precision)
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
    return manifest, graph, profiles_of(lengths, manifest.positions, options.tokens_per_batch)


def _check_targets(options: BuildOptions, precision: str) -> None:
    targets = list(options.targets or [])
    unknown = [name for name in targets if name not in _TARGETS]
    if unknown or not targets or len(set(targets)) < len(targets) or (ANY in targets and len(targets) > 1):
        raise InvalidOptionError(
            f"targets {','.join(targets)!r}: use {ANY} (compute capability 8.0 and later), or names out of "
            f"{', '.join(_TARGETS[1:])}; 9.0, 10.0 and Jetson need TensorRT itself, built on that machine without --for"
        )
    if _ALONE in targets and len(targets) > 1:
        raise InvalidOptionError(f"{_ALONE} makes the engine worse for the others: build one for it alone")
    if _ALONE in targets and precision == "bf16":
        raise InvalidOptionError(f"{_ALONE} has no bf16: use --precision fp16, from export with --target tensorrt")
    if options.lean:
        raise InvalidOptionError("--lean is TensorRT's, and --for asks for TensorRT for RTX: use one of them")


def build_engine(folder: Path, options: BuildOptions, say: Say) -> EngineRecord:
    """Build the engine of a model folder, or find it in the cache.

    Raises:
        EngineNotInstalledError: TensorRT or cuda-bindings is missing, or for targets TensorRT for RTX.
        DeviceUnavailableError: there is no GPU or no driver, or its TensorRT is too old for several profiles.
        IntegrityError: the graph is not the one that export wrote, or the cache can be written by others.
        EngineError: TensorRT failed, or another process is building the same; nothing was stored.
    """
    manifest, graph, profiles = plan_profiles(folder, options)
    if options.targets is None:
        cuda = CudaRuntime("tensorrt")
        cuda.device_count()  # before any object of TensorRT exists, which without a driver would end the process
        cuda.set_device(0)
        trt = import_builder()
        if len(profiles) > 1 and version_of(trt) < OLDEST_WITH_PROFILES:
            raise DeviceUnavailableError(
                f"TensorRT {trt.__version__} gives wrong results with several profiles: pass one length to "
                f"--buckets, or use TensorRT {OLDEST_WITH_PROFILES[0]}.{OLDEST_WITH_PROFILES[1]} or later"
            )
        here = environment(trt, cuda.gpu())
        recipe = _recipe(graph, profiles, options, here)
        return _built(folder, manifest, graph, options, say, (trt, cuda, here, recipe))
    trt = import_builder(RTX)
    for name, value, default in (("--level", options.level, _LEVEL), ("--workspace", options.workspace, None)):
        if value != default:
            say(f"{name} has no effect on TensorRT for RTX")
    here = without_gpu(trt, ",".join(sorted(options.targets, key=_TARGETS.index)))
    recipe = _recipe(graph, profiles, replace(options, level=_LEVEL, workspace=None), here)
    return _built(folder, manifest, graph, options, say, (trt, None, here, recipe))


def _built(
    folder: Path,
    manifest: Manifest,
    graph: GraphEntry,
    options: BuildOptions,
    say: Say,
    prepared: tuple[Any, CudaRuntime | None, Environment, Recipe],
) -> EngineRecord:
    trt, cuda, here, recipe = prepared
    path = verify_graph(folder, graph)
    cache = EngineCache()
    with cache.building(recipe):
        if (record := _cached(cache, recipe, options, say)) is not None:
            return record
        for reason in cache.stale(recipe):
            say(f"an engine of this model is in the cache, but {reason}: building another")
        builder = EngineBuilder(trt, cuda, cache, recipe, here, say)
        return builder.run(path, manifest, graph, lean=options.lean, gate=lambda notes: _gate(notes, options))


def _recipe(graph: GraphEntry, profiles: list[Profile], options: BuildOptions, here: Environment) -> Recipe:
    return Recipe(
        graph=graph_digest(graph),
        precision=graph.precision,
        environment=replace(here, library=LEAN) if options.lean else here,
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


def describe(record: EngineRecord, manifest: Manifest) -> str:
    """What was built, to read: kernels, memory as the builder planned it, and the digest to rebuild it by."""
    recipe = record.recipe
    built_for = recipe.environment.targets or recipe.environment.gpu
    lines = [f"{record.plan}: {record.size / 1e6:.0f} MB for {built_for}, built in {record.seconds:g} s"]
    for number, profile in enumerate(recipe.profiles):
        facts = []
        if record.fused_attention is not None:
            facts.append(f"{record.fused_attention[number]} of {attention_layers(manifest)} attention layers fused")
        if record.activations is not None:
            facts.append(f"activations {record.activations[number] / 1e6:.1f} MB")
        lines.append(
            f"length {profile.length:>5}, 1 to {profile.texts:>3} texts: {', '.join(facts) or 'not inspected'}"
        )
    if record.weights is not None:
        lines.append(f"weights {record.weights / 1e6:.1f} MB")
    lines.append(f"SHA-256 {record.sha256}")
    return "\n".join(lines)


def _lengths_in(folder: Path, manifest: Manifest, name: str) -> Any:
    """int32[n]: tokens of a file's texts; for rerankers query, tab, document."""
    import numpy as np

    from bgert.jobs.text_files import read_texts
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
