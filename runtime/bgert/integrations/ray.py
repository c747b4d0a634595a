"""Ray Data: a stage that embeds or scores, with the model opened once an actor, and parquet to parquet with resume."""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

from bgert.errors import EngineError, EngineNotInstalledError, IntegrityError, InvalidOptionError, install_extra
from bgert.exported_models import targets_for
from bgert.hub import locate
from bgert.integrations import arrow
from bgert.model import check_whole
from bgert.model_folder import Manifest

__all__ = ["Embed", "Score", "embed_parquet"]

SPARE_CPUS = 2
"""Beside the actors: one for what reads and writes, one for Ray's actor that leaves out on resume what is done."""
LARGEST_BLOCK, SMALLEST_BLOCK, BLOCKS_AN_ACTOR = 8192, 128, 8


class Embed(arrow.Embed):
    """A class for `Dataset.map_batches(Embed, batch_format="pyarrow", ...)`; arguments as those of `arrow.Embed`.

    Threads are the CPUs that Ray gave the actor, the device is its GPU if it was given one, else the CPU, unless
    `threads=` and `device=` say otherwise. Ray divides GPUs and not their memory: pass `gpu_memory_limit` where several
    actors share one.
    """

    def __init__(self, folder: str | Path, **options: Any) -> None:
        super().__init__(folder, **{**assigned(), **options})
        _ = self.model  # opened now: an actor that cannot ends at once


class Score(arrow.Score):
    """As `Embed`, with the arguments of `arrow.Score`."""

    def __init__(self, folder: str | Path, **options: Any) -> None:
        super().__init__(folder, **{**assigned(), **options})
        _ = self.model


class _SameModel(Embed):
    """`Embed` of the model that the driver has, or an error."""

    def __init__(self, folder: str | Path, model: str, **options: Any) -> None:
        super().__init__(folder, **options)
        if _digest(self.model.manifest) != model:
            raise IntegrityError(f"{folder} on this machine is not the model that it is on the driver's: copy it again")


def assigned() -> dict[str, Any]:
    """Model options by what Ray gave this actor or task."""
    resources = library("ray").get_runtime_context().get_assigned_resources()
    return {
        "threads": max(1, int(resources.get("CPU", 1))),
        "device": "cuda" if resources.get("GPU", 0) > 0 else "cpu",
    }


def embed_parquet(
    source: str | Path | list[str | Path],
    target: str | Path,
    folder: str | Path,
    *,
    id_column: str,
    checkpoint: str | Path | None = None,
    actors: int | tuple[int, int] | None = None,
    num_cpus: int = 1,
    num_gpus: float = 0,
    rows_per_file: int | None = None,
    filesystem: Any = None,
    **options: Any,
) -> int:
    """Embed a column of parquet files into parquet files with all columns of the source and the vectors.

    The same call again goes on where one was stopped, whatever stopped it, and does nothing where all is done: Ray
    keeps the ids of what is written (`ray.data.checkpoint`). It needs ids that are unique, which is checked, and a
    checkpoint that every machine can reach. An id stands for its row: where a text changed, it is not embedded again.

    Args:
        source: a parquet file, a folder of them or a list, as `ray.data.read_parquet` takes it.
        target: a folder, created.
        folder: a model folder at the same path on every machine, or a hub id; each actor checks that its model is the
            driver's.
        id_column: whole numbers or strings, unique and without nulls.
        checkpoint: a folder of its own for the ids; None for `target` + `.checkpoint`.
        actors: processes that embed, each with the model: a number, or (least, most); None for from one to as many as
            the cluster has room for.
        num_cpus: CPUs of an actor, its threads.
        num_gpus: GPUs of an actor; a fraction lets several share one: pass `gpu_memory_limit` then.
        rows_per_file: rows embedded and written at a time, lost when a process dies; None for at most 8192, fewer where
            otherwise actors would have nothing to do.
        filesystem: a `pyarrow.fs.FileSystem` for source, target and checkpoint; None for what their paths say.
        **options: of `Embed`: column, output, role, prefix, dtype, dimensions, max_length, truncated, precision ...

    Returns:
        Rows in `target`, as many as in `source`.

    Raises:
        InvalidOptionError: ids are not unique, the cluster has too few CPUs or GPUs, `target` holds what is not of this
            job, or the checkpoint is of a job with another model or other options.
        InvalidTextError: there is no column of texts, or (as the cause of Ray's error) it holds nulls.
        EngineError: `target` does not hold the rows of `source` in the end.
    """
    data = library("ray.data")
    pool = _pool(actors, num_cpus, num_gpus)
    embed = arrow.Embed(folder, **options)
    wanted = {"device": "cuda" if num_gpus else "cpu", "precision": "auto", **options}
    model = _digest(Manifest.read(locate(folder, targets_for(wanted["device"], wanted["precision"]))))
    source = [_absolute(path, filesystem) for path in (source if isinstance(source, list) else [source])]
    target = _absolute(target, filesystem)
    checkpoint = _absolute(checkpoint or f"{target.rstrip('/')}.checkpoint", filesystem)
    dataset = data.read_parquet(source, filesystem=filesystem)
    schema = dataset.schema()
    arrow.check_names(schema.names, [id_column, embed.column], embed.added)
    arrow.check_texts(embed.column, schema.base_schema.field(embed.column).type)
    rows = _count(data.read_parquet(source, columns=[id_column], filesystem=filesystem), id_column)
    if rows_per_file is None:
        rows_per_file = min(LARGEST_BLOCK, max(SMALLEST_BLOCK, -(-rows // (pool[1] * BLOCKS_AN_ACTOR))))
    check_whole("rows_per_file", rows_per_file, 1, None)
    settings = {name: str(value) for name, value in vars(embed).items() if name not in ("folder", "options")}
    job = {
        "model": model,
        "id_column": id_column,
        "device": str(wanted["device"]).partition(":")[0],
        "precision": str(wanted["precision"]),
        "split_special_tokens": str(bool(wanted.get("split_special_tokens"))),
        **settings,
    }
    _begin_or_go_on(target, checkpoint, filesystem, job)
    ids = library("ray.data.checkpoint").CheckpointConfig(
        id_column, f"{checkpoint}/ids", delete_checkpoint_on_success=False, override_filesystem=filesystem
    )
    # By default 1 GiB, for which an actor on a small machine would wait for ever; Ray then takes what the ids need.
    ids.checkpoint_actor_memory_bytes = 0
    dataset.context.checkpoint_config = ids
    dataset.repartition(target_num_rows_per_block=rows_per_file).map_batches(
        _SameModel,
        fn_constructor_args=(folder, model),
        fn_constructor_kwargs=options,
        batch_format="pyarrow",
        batch_size=None,
        compute=data.ActorPoolStrategy(min_size=pool[0], max_size=pool[1]),
        num_cpus=num_cpus,
        num_gpus=num_gpus or None,
    ).write_parquet(target, filesystem=filesystem)
    written = data.read_parquet(target, filesystem=filesystem).count()
    if written != rows:
        raise EngineError(
            f"{target} has {written} rows and {source} {rows}: remove {target} and {checkpoint}, try again"
        )
    return rows


def _pool(actors: int | tuple[int, int] | None, num_cpus: int, num_gpus: float) -> tuple[int, int]:
    """The least and the most actors; an error where Ray would wait for ever without a word."""
    ray = library("ray")
    if not ray.is_initialized():
        ray.init()
    check_whole("num_cpus", num_cpus, 1, None)
    have = ray.cluster_resources()
    cpus, gpus = int(have.get("CPU", 0)), have.get("GPU", 0)
    room = (cpus - SPARE_CPUS) // num_cpus
    if num_gpus:
        room = min(room, int(gpus) * int(1 / num_gpus) if num_gpus < 1 else int(gpus // num_gpus))
    least, most = (1, max(room, 1)) if actors is None else (actors, actors) if isinstance(actors, int) else actors
    check_whole("actors", least, 1, most)
    if least > room:
        cpus_needed = least * num_cpus + SPARE_CPUS
        raise InvalidOptionError(
            f"Ray has {cpus} CPUs and {gpus:g} GPUs and would wait for ever: {least} actors need {cpus_needed} CPUs "
            f"(each {num_cpus}, and {SPARE_CPUS} for reading, writing and resuming), {least * num_gpus:g} GPUs. On one "
            f"machine say ray.init(num_cpus={cpus_needed}), as those {SPARE_CPUS} do little, or take fewer actors"
        )
    return least, most


def _count(ids: Any, name: str) -> int:
    """Rows of a dataset of ids; an error unless each is there once."""
    compute = library("pyarrow.compute")
    pyarrow = arrow.arrow()
    batches = [batch[name] for batch in ids.iter_batches(batch_format="pyarrow", batch_size=None)]
    if not batches:
        raise InvalidOptionError("the source has no rows")
    column = pyarrow.chunked_array([chunk for batch in batches for chunk in batch.chunks])
    types = pyarrow.types
    if not (types.is_integer(column.type) or types.is_string(column.type) or types.is_large_string(column.type)):
        raise InvalidOptionError(f"column {name!r} holds {column.type}: ids are whole numbers or strings")
    if column.null_count:
        raise InvalidOptionError(
            f"column {name!r} has {column.null_count} nulls: every row needs an id to be found again"
        )
    if compute.count_distinct(column).as_py() != len(column):
        counts = column.value_counts()
        twice = [str(count["values"]) for count in counts.filter(compute.greater(counts.field("counts"), 1))[:3]]
        raise InvalidOptionError(
            f"column {name!r} has values more than once ({', '.join(twice)} ...): a second run would take such a row "
            "for done when another was"
        )
    return len(column)


def _begin_or_go_on(target: str, checkpoint: str, filesystem: Any, job: dict[str, str]) -> None:
    """Write down what a new job is; an error where the old one was another, or where there are files of none."""
    files = library("pyarrow.fs")
    place, folder = (filesystem, checkpoint) if filesystem else files.FileSystem.from_uri(checkpoint)
    note = f"{folder}/job.json"
    if place.get_file_info(note).type == files.FileType.File:
        with place.open_input_stream(note) as file:
            old = json.loads(file.read())
        if other := [name for name in job if old.get(name) != job[name]]:
            raise InvalidOptionError(
                f"{checkpoint} is of a job with another {', '.join(other)}: with the same ones it goes on; else take "
                "another target, or remove both folders"
            )
        return
    where, path = (filesystem, target) if filesystem else files.FileSystem.from_uri(target)
    if where.get_file_info(files.FileSelector(path, allow_not_found=True)):
        raise InvalidOptionError(f"{target} holds files and there is no {checkpoint}: take a new folder")
    place.create_dir(folder, recursive=True)
    with place.open_output_stream(f"{note}.new") as file:
        file.write(json.dumps(job).encode())
    place.move(f"{note}.new", note)


def _digest(manifest: Manifest) -> str:
    """What decides about vectors, in 16 digits."""
    parts = [
        [(graph.target, graph.precision, [file.sha256 for file in graph.files]) for graph in manifest.graphs],
        [file.sha256 for file in manifest.tokenizer_files],
        [manifest.tokenizer, manifest.max_tokens, manifest.prompts],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _absolute(path: str | Path, filesystem: Any) -> str:
    """Ray's workers have other working directories."""
    return str(path) if filesystem is not None or "://" in str(path) else str(Path(path).expanduser().absolute())


def library(name: str) -> Any:
    """A module of Ray's or of pyarrow."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise EngineNotInstalledError(f"this needs {error.name}: {install_extra('ray')}") from None
