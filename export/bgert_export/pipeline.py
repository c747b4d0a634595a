"""Export from end to end: locate, open, decide, write, verify, rename."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import bgert
from bgert.errors import BgertError, InvalidOptionError
from bgert.model_folder import Choice, FileEntry, Manifest
from bgert.tokenizer import Tokenizer
from bgert_export.checkpoint import Checkpoint, locate
from bgert_export.errors import UnsupportedCheckpointError, VerificationError, WriteError
from bgert_export.huggingface_tokenizer import check_runner, read_tokenizer
from bgert_export.multi_vector import is_multi_vector
from bgert_export.portable_files import write_portable_files
from bgert_export.sentence_transformers_folder import write_sentence_transformers_files
from bgert_export.settings import Options, decide
from bgert_export.staging import Staging
from bgert_export.tables import check_tables, without_unread_types
from bgert_export.targets import TARGETS, Job, check_targets
from bgert_export.token_heads import FILES, read_token_heads
from bgert_export.traced.checkpoint import TracedCheckpoint
from bgert_export.traced.target import check_via, write_traced
from bgert_export.verification.torch_reference import require_torch
from bgert_export.verification.verify import verify_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from bgert.model_folder import GraphEntry
    from bgert_export.checkpoint import CheckpointFolder
    from bgert_export.settings import Settings

    Progress = Callable[[str], None]

__all__ = ["export_checkpoint"]


def export_checkpoint(
    source: str | Path,
    destination: str | Path,
    *,
    revision: str | None,
    options: Options,
    targets: Sequence[str],
    int8_floor: float,
    fp8_floor: float,
    verify: bool,
    force: bool,
    ignore_unknown_weights: bool,
    via: str | None,
    optimum_python: str | Path | None,
    tokenizer: str,
    progress: Progress | None,
) -> Manifest:
    """See `bgert_export.export`."""
    say = progress or _silent
    targets = check_targets(targets)
    if via is not None:
        check_via(via, targets, optimum_python)
    elif optimum_python is not None:
        raise InvalidOptionError("--optimum-python is for --via optimum")
    for name, floor in (("int8_floor", int8_floor), ("fp8_floor", fp8_floor)):
        if not 0 < floor < 1:
            raise InvalidOptionError(f"{name} is {floor!r}: use a number between 0 and 1")
    check_runner(tokenizer)
    if verify:
        require_torch()
    staging = Staging(destination, force=force)
    staging.check()
    located = locate(source, revision=revision, progress=progress)
    checkpoint: Checkpoint | TracedCheckpoint
    if via is None:
        checkpoint = Checkpoint.open(located, ignore_unknown_weights=ignore_unknown_weights)
    else:
        checkpoint = TracedCheckpoint.open(located, via=via)
    if tokenizer != "bgert" and is_multi_vector(checkpoint):
        raise UnsupportedCheckpointError("a ColBERT checkpoint takes bgert's own tokenizers alone")
    settings = decide(checkpoint, options)
    spec = without_unread_types(read_tokenizer(checkpoint.transformer_folder, tokenizer), checkpoint.architecture)
    check_tables(spec, checkpoint.architecture)
    of_texts = not settings.mlm_head and not settings.multi_vector
    if isinstance(checkpoint, Checkpoint) and checkpoint.architecture.kind == "encoder" and of_texts:
        settings.token_heads = read_token_heads(checkpoint, Tokenizer(spec), normalize=settings.normalize)
    choices = settings.choices
    choices += [Choice("tokenizer", None, note) for note in spec.notes]
    if isinstance(checkpoint, Checkpoint):
        besides = settings.mlm_head or settings.multi_vector
        choices += _unused(checkpoint, besides.used if besides is not None else frozenset())
    if settings.token_heads and of_texts:
        names = [head.entry.name for head in settings.token_heads]
        why = f"the checkpoint has {' and '.join(FILES.values())}; in graphs for the CPU, others give dense alone"
        choices.append(Choice("token_outputs", names, why))
    if not verify:
        choices.append(Choice("verify", False, "asked for: the graph was not compared with PyTorch"))
    for choice in choices:
        value = "" if choice.value is None else f" {choice.value!r}"
        say(f"{choice.field}:{value} ({choice.why})")
    try:
        with staging:
            section = spec.write(staging.folder)
            if "portable" in targets:
                write_portable_files(staging.folder, checkpoint, Tokenizer(spec), settings.max_tokens)
            if isinstance(checkpoint, TracedCheckpoint):
                say(f"writing the graph by way of {via}")
                graphs = [write_traced(checkpoint, settings, staging.folder, optimum_python)]
                say(f"via: {via!r} ({choices[-1].why})")
            else:
                graphs = _written(Job(checkpoint, settings, spec, staging.folder, say, int8_floor, fp8_floor), targets)
            manifest = _manifest(checkpoint, settings, staging.folder, section, graphs)
            manifest.write(staging.folder)
            if not manifest.roles:  # its class has no module that gives a vector for every token
                write_sentence_transformers_files(staging.folder, manifest.kind, settings)
            if verify:
                graphs = _verified(graphs, staging.folder, checkpoint, progress)
                for graph in graphs:
                    if graph.parity is None:
                        name = f"{graph.target} {graph.precision}"
                        choices.append(Choice("verify", False, f"{name} does not run where it was exported"))
                manifest = replace(manifest, graphs=graphs)
                manifest.write(staging.folder)
            staging.commit()
    except BgertError:
        raise
    except OSError as error:
        raise WriteError(f"cannot write {destination}: {error.strerror}; nothing was left behind") from error
    return manifest


def _unused(checkpoint: Checkpoint, read: Collection[str]) -> list[Choice]:
    """What the checkpoint holds and the graph does not, but for weights that were `read` besides.

    Raises:
        CheckpointError: a weight is NaN or infinite.
    """
    checkpoint.network.check_finite()
    choices = []
    if unused := [name for name in checkpoint.network.weight_map.unused if name not in read]:
        choices.append(Choice("unused_weights", unused, "the graph has no use for them"))
    if layers := checkpoint.network.weight_map.unused_layers:
        count = checkpoint.architecture.num_hidden_layers
        choices.append(Choice("unused_layers", layers, f"config.json has num_hidden_layers {count}"))
    return choices


def _written(job: Job, targets: Sequence[str]) -> list[GraphEntry]:
    graphs = []
    for target in targets:
        job.say(f"writing the graph for {target}")
        graphs.append(TARGETS[target](job))
    return graphs


def _verified(
    graphs: list[GraphEntry], folder: Path, checkpoint: CheckpointFolder, progress: Progress | None
) -> list[GraphEntry]:
    """The entries with their parity reports; those whose device is not here have none.

    Raises:
        VerificationError: a graph is not equal to PyTorch.
    """
    reports = {(report.target, report.precision): report for report in verify_folder(folder, checkpoint, progress)}
    for report in reports.values():
        if not report.passed:
            raise VerificationError(
                f"the exported graph {report.target} {report.precision} differs from PyTorch, so nothing was written: "
                + "; ".join(report.failures)
            )
        if progress is not None:
            progress(report.summary())
    found = {key: report.parity for key, report in reports.items()}
    return [replace(graph, parity=found.get((graph.target, graph.precision))) for graph in graphs]


def _silent(line: str) -> None:
    del line


def _manifest(
    checkpoint: CheckpointFolder, settings: Settings, folder: Path, tokenizer: dict[str, Any], graphs: list[GraphEntry]
) -> Manifest:
    architecture = checkpoint.architecture
    encoder = architecture.kind == "encoder"
    return Manifest(
        kind=architecture.kind,
        generator=f"bgert {bgert.__version__}",
        source=checkpoint.source_record(),
        architecture=architecture.as_dict(),
        tokenizer=tokenizer,
        tokenizer_files=[FileEntry.of(folder, name) for name in tokenizer["files"]],
        max_tokens=settings.max_tokens,
        graphs=graphs,
        pooling=settings.pooling,
        normalize=settings.normalize,
        dimensions=settings.dimensions(architecture.hidden_size) if encoder else None,
        num_labels=architecture.num_labels,
        prompts=settings.prompts,
        default_prompt=settings.default_prompt,
        choices=settings.choices,
        token_outputs=[head.entry for head in settings.token_heads],
        roles=settings.multi_vector.roles if settings.multi_vector is not None else {},
    )
