"""Comparison of a model folder with the PyTorch checkpoint, through the public runtime.

Token ids must be equal; vectors and logits must agree within the tolerances below. PyTorch runs first and is
released before the engine loads, so both never are in memory together. The runtime's calls, with all that goes around
the network, are compared with sentence-transformers' beside that (`calls.py`).
"""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.errors import DeviceUnavailableError, EngineNotInstalledError, InvalidOptionError, TruncationWarning
from bgert.model_folder import Manifest, Parity
from bgert.paths import user_path
from bgert_export.checkpoint import Checkpoint, locate
from bgert_export.sentence_transformers_files import dense_folders
from bgert_export.traced.checkpoint import TracedCheckpoint
from bgert_export.verification.calls import compare_calls, no_call, reference_calls, summary_of
from bgert_export.verification.correlation import least_correlation
from bgert_export.verification.groups import Group, built_in_groups, corpus_of, file_groups, pooled_rows, run_in_batches
from bgert_export.verification.native_classes import native_class
from bgert_export.verification.token_outputs import compare_token_outputs, expected_token_outputs
from bgert_export.verification.torch_reference import TorchReference, require_torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.model_folder import CallParity, GraphEntry
    from bgert_export.checkpoint import CheckpointFolder
    from bgert_export.verification.calls import Limits

    Array = NDArray[np.float32]
    Made = list[tuple[list[CallParity], list[str]]]
    Progress = Callable[[str], None]

__all__ = ["TOLERANCES", "Report", "Tolerance", "verify_against", "verify_folder"]


@dataclass(frozen=True)
class Tolerance:
    """What a graph of one kind and precision may differ by."""

    max_abs_error: float | None
    """Encoders: of components of vectors at length one (those that are not normalised are divided by the length of
    PyTorch's). Rerankers: of raw logits."""
    min_cosine: float | None = None
    mean_cosine: float | None = None
    correlation: float | None = None
    """Rerankers: of all logits with PyTorch's, at least."""
    order_gap: float | None = 1e-5
    """Rerankers: logits of PyTorch nearer than this may come in either order; None where order is not judged."""


TOLERANCES = {
    ("encoder", "fp32"): Tolerance(2e-5, 0.999999),
    ("reranker", "fp32"): Tolerance(1e-4),
    # Of every value rounded to 16 bits where the graph says; cosine is the bound that matters.
    ("encoder", "fp16"): Tolerance(2e-2, 0.9995, mean_cosine=0.9999),
    ("reranker", "fp16"): Tolerance(2e-2, order_gap=2e-2),
    ("encoder", "bf16"): Tolerance(5e-2, 0.999),
    ("reranker", "bf16"): Tolerance(0.25, order_gap=0.25),
}


def _tolerance(kind: str, graph: GraphEntry) -> Tolerance:
    """What a graph must keep to: the table's, or the floor that it was made with."""
    if graph.floor is None:
        return TOLERANCES[kind, graph.precision]
    if kind == "encoder":
        return Tolerance(None, mean_cosine=graph.floor)
    return Tolerance(None, correlation=graph.floor, order_gap=None)


@dataclass
class Report:
    """The outcome for one graph."""

    target: str
    precision: str
    passed: bool
    failures: list[str]
    """What failed, in words."""
    parity: Parity
    tolerance: Tolerance

    def summary(self) -> str:
        """A line or two for people."""
        parity = self.parity
        parts = [f"{parity.count} compared", f"max abs error {parity.max_abs_error:.2e}"]
        if parity.min_cosine is not None:
            parts.append(f"min cosine {parity.min_cosine:.9f}")
        if parity.mean_cosine is not None:
            parts.append(f"mean {parity.mean_cosine:.6f}")
        if parity.rank_agreement is not None:
            parts.append(f"same order for {100 * parity.rank_agreement:g} % of queries")
        equal = "equal to" if self.precision == "fp32" else "within its tolerance of"
        verdict = equal if self.passed else "DIFFERS from"
        line = f"{self.target} {self.precision}: {verdict} {parity.reference} ({', '.join(parts)}; {parity.engine})"
        return "\n  ".join([line, *summary_of(parity.calls), *self.failures])


def verify_against(
    folder: str | Path,
    against: str | Path,
    *,
    revision: str | None = None,
    texts_file: str | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    show_progress: bool = False,
) -> list[Report]:
    """Compare every graph of a model folder that runs here with a checkpoint; see `bgert verify --help`.

    On the `cpu`, graphs of TensorRT run on ONNX Runtime; on `tensorrt` and `tensorrt-rtx` they run as they are served,
    through the engine that `bgert build` made, and other graphs are left out. `show_progress` is for a bar beside
    PyTorch, which takes most of the time.

    Raises:
        DeviceUnavailableError: no graph runs here.
        BgertError: either side cannot be loaded, or the text file cannot be read.
    """
    require_torch()
    if device not in ("cpu", "tensorrt", "tensorrt-rtx"):
        raise InvalidOptionError(f"unknown device {device!r}: use cpu, tensorrt or tensorrt-rtx")
    manifest = Manifest.read(folder)
    if device != "cpu" and manifest.graph("tensorrt") is None:
        raise InvalidOptionError(f"{folder} has no tensorrt graph: export the checkpoint with --target tensorrt")
    source = locate(against, revision=revision, progress=progress)
    checkpoint: CheckpointFolder
    if (via := manifest.architecture.get("via")) is not None:
        checkpoint = TracedCheckpoint.open(source, via=str(via))
    else:
        checkpoint = Checkpoint.open(source, ignore_unknown_weights=True)  # as transformers does
    _require_one_shape(manifest, checkpoint, folder, against)
    groups = (
        file_groups(manifest.kind, manifest.max_tokens, texts_file)
        if texts_file
        else built_in_groups(manifest.kind, manifest.max_tokens, manifest.positions if device == "cpu" else 0)
    )
    reports = _compare(user_path(folder), manifest, checkpoint, groups, texts_file, progress, device, show_progress)
    if not reports:
        raise DeviceUnavailableError(f"none of the graphs of {folder} runs here, so nothing was compared")
    return reports


def _require_one_shape(
    manifest: Manifest, checkpoint: CheckpointFolder, folder: str | Path, against: str | Path
) -> None:
    """Refuse another model before anything is computed."""
    theirs = checkpoint.architecture.as_dict()
    ours = manifest.architecture | {"kind": manifest.kind, "num_labels": manifest.num_labels}
    differing = [f"{name} {ours[name]} and {value}" for name, value in theirs.items() if ours.get(name, value) != value]
    if differing:
        raise InvalidOptionError(
            f"{folder} is not a model of {against}: {', '.join(differing)}; they cannot be compared"
        )


def verify_folder(folder: Path, checkpoint: CheckpointFolder, progress: Progress | None = None) -> list[Report]:
    """Compare a model folder with the checkpoint it was just written from, on the built-in texts.

    A graph for a device that is not here has no report.
    """
    manifest = Manifest.read(folder)
    groups = built_in_groups(manifest.kind, manifest.max_tokens, manifest.positions)
    return _compare(folder, manifest, checkpoint, groups, None, progress)


def _compare(
    folder: Path,
    manifest: Manifest,
    checkpoint: CheckpointFolder,
    groups: list[Group],
    texts_file: str | None,
    progress: Progress | None,
    device: str = "cpu",
    show_progress: bool = False,
) -> list[Report]:
    prefix = manifest.prompts.get(manifest.default_prompt, "") if manifest.default_prompt is not None else ""
    count = sum(len(group.texts) for group in groups)
    if progress is not None:
        progress(f"verifying: PyTorch on {count} inputs")
    reference = TorchReference(
        checkpoint.transformer_folder,
        kind=manifest.kind,
        token_types=checkpoint.architecture.reads_token_types,
        pooling=manifest.pooling,
        normalize=manifest.normalize,
        dense=dense_folders(checkpoint.folder) if manifest.kind == "encoder" else (),
        num_labels=manifest.num_labels,
        native=native_class(checkpoint.architecture, checkpoint.config),
    )
    described = reference.description
    for group in groups:
        group.inputs = reference.tokenize([prefix + text for text in group.texts], group.second, group.max_length)
    of_tokens = expected_token_outputs(reference, checkpoint.transformer_folder, manifest, prefix)
    rows = reference.run([entry for group in groups for entry in group.inputs], show_progress=show_progress)
    del reference
    for group in groups:
        group.expected, rows = rows[: len(group.inputs)], rows[len(group.inputs) :]
    called = _graph_to_call(manifest, device.partition("-")[0])
    calls = reference_calls(checkpoint, manifest) if called is not None else []
    corpus = corpus_of(groups, texts_file)
    differences = _token_differences(folder, groups, prefix)
    reports = []
    for graph in manifest.graphs:
        if device != "cpu" and graph.target != "tensorrt":
            continue
        if progress is not None:
            progress(f"verifying: {graph.target} {graph.precision} on the same")
        failures = list(differences)
        try:
            made: Made = []
            given: Made = []

            def make(model: Any, graph: GraphEntry = graph, made: Made = made, given: Made = given) -> None:
                if graph is called:
                    made.append(compare_calls(model, manifest, calls, _limits(manifest, graph)))
                if graph.token_outputs:
                    given.append(compare_token_outputs(model, of_tokens, prefix, _limits(manifest, graph)))

            for found, engine in _outputs(folder, manifest, graph, groups, prefix, device, make):
                report = _compare_graph(manifest, graph, groups, found, engine, described, corpus)
                failures += report.failures
            for parities, differences_of_calls in made or [([no_call(manifest.kind)], [])] * (called is None):
                report.parity = replace(report.parity, calls=parities)
                failures += differences_of_calls
            for parities, differences_of_outputs in given:
                report.parity = replace(report.parity, calls=[*report.parity.calls, *parities])
                failures += differences_of_outputs
        except (DeviceUnavailableError, EngineNotInstalledError) as error:
            if graph.target != "cuda":
                raise
            if progress is not None:
                progress(f"{graph.target} {graph.precision}: NOT verified, because it does not run here: {error}")
            continue
        report.failures = failures
        report.passed = not report.failures
        reports.append(report)
    return reports


def _graph_to_call(manifest: Manifest, device: str) -> GraphEntry | None:
    """The graph that the runtime's calls are made with: one that runs here as it will be served, fp32 if possible."""
    runs = [graph for graph in manifest.graphs if graph.target in (device, "cuda") and graph.precision != "fp8"]
    runs.sort(key=lambda graph: (graph.target != device, graph.precision != "fp32"))
    return runs[0] if runs else None


def _limits(manifest: Manifest, graph: GraphEntry) -> Limits:
    tolerance = _tolerance(manifest.kind, graph)
    mean = tolerance.mean_cosine if manifest.kind == "encoder" else tolerance.correlation
    return tolerance.max_abs_error, tolerance.min_cosine, mean


def _token_differences(folder: Path, groups: list[Group], prefix: str) -> list[str]:
    from bgert.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_folder(folder)
    wrong: list[tuple[str, str]] = []
    for group in groups:
        batch = group.encode(tokenizer, prefix)
        for number, (first, last) in enumerate(zip(batch.cu_seqlens, batch.cu_seqlens[1:], strict=False)):
            expected = group.inputs[number]
            same = np.array_equal(batch.ids[first:last], expected.ids)
            if group.second is not None:
                same = same and np.array_equal(batch.type_ids[first:last], expected.types)
            if not same:
                wrong.append((group.name, group.texts[number]))
    if not wrong:
        return []
    name, text = wrong[0]
    return [f"token ids of {len(wrong)} inputs differ from transformers', first in {name}: {_short(text)}"]


def _compare_graph(
    manifest: Manifest,
    graph: GraphEntry,
    groups: list[Group],
    found: list[Array],
    engine: str,
    described: str,
    corpus: str,
) -> Report:
    tolerance = _tolerance(manifest.kind, graph)
    errors, cosines = [], []
    worst = (-1.0, "", "")
    agreed: list[bool] = []
    for group, rows in zip(groups, found, strict=True):
        expected = group.expected.astype(np.float64)
        scale = np.ones((len(expected), 1))
        if manifest.kind == "encoder":
            scale = np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
            lengths = np.maximum(np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True), 1e-12)
            cosines.append((expected / scale * (rows / lengths)).sum(1))
        elif group.name.startswith("query"):
            agreed.append(_same_order(expected[:, 0], rows[:, 0], tolerance.order_gap or 0.0))
        error = np.abs((rows - expected) / scale).max(axis=1)
        errors.append(error)
        if error.max() > worst[0]:
            worst = (float(error.max()), group.name, group.texts[int(error.argmax())])
    cosine = np.concatenate(cosines) if cosines else None
    parity = Parity(
        reference=described,
        corpus=corpus,
        count=sum(len(error) for error in errors),
        max_abs_error=float(np.concatenate(errors).max()),
        min_cosine=None if cosine is None else float(cosine.min()),
        mean_cosine=None if cosine is None else float(cosine.mean()),
        rank_agreement=float(np.mean(agreed)) if agreed else None,
        engine=engine,
    )
    failures = []
    if tolerance.max_abs_error is not None and not parity.max_abs_error <= tolerance.max_abs_error:
        failures.append(
            f"max abs error {parity.max_abs_error:.2e} is above {tolerance.max_abs_error:g}, "
            f"in {worst[1]}: {_short(worst[2])}"
        )
    if tolerance.min_cosine is not None and not (parity.min_cosine or 0.0) >= tolerance.min_cosine:
        failures.append(f"min cosine {parity.min_cosine} is below {tolerance.min_cosine}")
    if tolerance.mean_cosine is not None and not (parity.mean_cosine or 0.0) >= tolerance.mean_cosine:
        failures.append(f"mean cosine {parity.mean_cosine} is below {tolerance.mean_cosine}")
    if tolerance.correlation is not None:
        correlation = least_correlation(np.concatenate([group.expected for group in groups]), np.concatenate(found))
        if not correlation >= tolerance.correlation:
            failures.append(f"the correlation of scores {correlation:.5f} is below {tolerance.correlation}")
    if tolerance.order_gap is not None and not all(agreed):
        failures.append(f"the documents of {agreed.count(False)} of {len(agreed)} queries come in another order")
    return Report(graph.target, graph.precision, not failures, failures, parity, tolerance)


def _outputs(
    folder: Path,
    manifest: Manifest,
    graph: GraphEntry,
    groups: Sequence[Group],
    prefix: str,
    device: str,
    make_calls: Callable[[Any], None] | None,
) -> Iterator[tuple[list[Array], str]]:
    """Outputs of every group and the engine that made them, once for each way of running the graph here.

    The last way is the one that the report describes. `make_calls` gets the open model, where it is the runtime's.
    """
    if graph.precision == "fp8":
        yield from _fp8_outputs(folder, manifest, graph, groups, prefix)
        return
    if graph.target in (device.partition("-")[0], "cuda"):
        yield _run_groups(folder, manifest, graph, groups, prefix, make_calls, device)
        return
    from bgert_export.tensorrt.stand_in import StandIn

    for rounded in {"fp32": (False,), "fp16": (False, True), "bf16": (True,)}[graph.precision]:
        engine = StandIn(folder, manifest, graph, rounded=rounded)
        yield run_in_batches(folder, groups, prefix, engine), engine.engine


def _fp8_outputs(
    folder: Path, manifest: Manifest, graph: GraphEntry, groups: Sequence[Group], prefix: str
) -> Iterator[tuple[list[Array], str]]:
    """As it is served, where there is a GPU for it, small batches in fp16; then all of it in FP8, in numpy."""
    from bgert_export.fp8.stand_in import Fp8StandIn

    with contextlib.suppress(DeviceUnavailableError, EngineNotInstalledError):
        yield _run_groups(folder, manifest, graph, groups, prefix, None, graph.target)
    stand_in = Fp8StandIn.of(folder, manifest, graph)
    yield run_in_batches(folder, groups, prefix, stand_in), stand_in.engine


def _run_groups(
    folder: Path,
    manifest: Manifest,
    graph: GraphEntry,
    groups: Sequence[Group],
    prefix: str,
    make_calls: Callable[[Any], None] | None,
    device: str,
) -> tuple[list[Array], str]:
    """Outputs of every group, and the engine that made them; `make_calls` gets the open model after that."""
    from bgert.batching import PackedBatch

    found: list[Array] = []
    model: Any = _open_model(folder, manifest.kind, graph, device)
    # The runtime sorts by length and cuts; uneven batches are put to the same session past that.
    backend = model._runner.backend
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        for group in groups:
            if group.one_batch:
                batch = group.encode(model.tokenizer, prefix)
                rows = backend.run(PackedBatch(batch.ids, batch.cu_seqlens, batch.type_ids))
            elif group.second is None:
                rows = pooled_rows(model, group, prefix)
            else:
                rows = model.score(list(zip(group.texts, group.second, strict=True)), max_length=group.max_length)
            found.append(np.asarray(rows).reshape(len(group.texts), -1))
        if make_calls is not None:
            make_calls(model)
    return found, model.engine


def _open_model(folder: Path, kind: str, graph: GraphEntry, device: str) -> Any:
    from bgert import Encoder, Reranker

    opened = Encoder if kind == "encoder" else Reranker
    where: Any = device if device.startswith(graph.target) else graph.target
    return opened(folder, device=where, precision=graph.precision)  # type: ignore[arg-type]


def _same_order(expected: NDArray[np.float64], found: Array, gap: float) -> bool:
    """Whether `found` puts any two in the order of `expected`, up to those nearer than `gap`."""
    ordered = expected[np.argsort(-found, kind="stable")]
    least_so_far = np.minimum.accumulate(ordered)
    return bool((ordered - least_so_far <= gap).all())


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
