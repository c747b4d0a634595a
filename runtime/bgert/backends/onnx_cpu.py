"""ONNX Runtime on the CPU: one session, one worker a core, or all cores on one batch.

bgert's own graphs read packed rows; those that another exporter wrote, and portable ones, rows and columns.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert import _native
from bgert.backends.graph_file import verify_graph
from bgert.backends.onnxruntime_import import import_onnxruntime
from bgert.backends.padded_layout import INPUTS, PaddedLayout
from bgert.backends.protocol import BackendInfo
from bgert.cache_folder import remake
from bgert.cpu_count import available_cpus
from bgert.errors import EngineError, ModelFolderError
from bgert.lifecycle import NativeCall, keep_for_ever, never_copied, on_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from bgert.batching import PackedBatch
    from bgert.model_folder import GraphEntry, TokenOutput

__all__ = ["KERNELS", "OnnxCpuBackend", "feeds_of", "kernels_name", "open_session"]

# bgert's own operators (runtime/src/cpu_ops), built beside the tokenizer.
KERNELS = Path(_native.__file__).with_name("_kernels.dll" if sys.platform == "win32" else "_kernels.so")
# 128 to 1,024 make little difference (LOG.md); small batches spread well over the workers.
TOKEN_BUDGET = 512


class OnnxCpuBackend:
    """A graph on ONNX Runtime's CPU provider.

    In `throughput` mode the session has one intra-op thread and each core runs batches of its own: no barrier
    between cores inside an operator. In `latency` mode all cores work on one batch.

    A forked child opens a session of its own on first use and leaves the one it inherited alone: a thread that the
    fork did not copy may hold a lock inside it, and its destructor waits for threads that are not there.
    """

    def __init__(
        self,
        folder: Path,
        graph: GraphEntry,
        architecture: Mapping[str, Any],
        *,
        columns: int,
        token_outputs: Sequence[TokenOutput] = (),
        threads: int | None,
        mode: str,
    ) -> None:
        cores = threads or available_cpus()
        self._path = verify_graph(folder, graph)
        self._layout = PaddedLayout.of(graph.inputs, architecture) if graph.padded else None
        self._intra_op_threads = cores if mode == "latency" else 1
        self._opening = threading.Lock()
        self._session: Any = None
        self._inputs: list[str] = []
        self._output = graph.output
        self.token_outputs = {entry.name: entry for entry in token_outputs}
        expected = [(graph.output, columns), *((entry.output, entry.columns) for entry in token_outputs)]
        _check_outputs(self._path, self._opened().get_outputs(), expected)
        on_fork(self)
        self.info = BackendInfo(
            device="cpu",
            precision=graph.precision,
            engine=_engine(),
            workers=1 if mode == "latency" else cores,
            token_budget=TOKEN_BUDGET,
            cores=self._intra_op_threads,
        )

    def forked(self) -> None:
        """In a forked child: forget the parent's session."""
        keep_for_ever(self._session)
        self._session = None
        self._opening = threading.Lock()

    def _opened(self) -> Any:
        """This process's session."""
        session = self._session
        if session is not None:
            return session
        with self._opening:
            if self._session is None:
                session = open_session(self._path, self._intra_op_threads)
                self._inputs = [entry.name for entry in session.get_inputs()]
                self._session = session
            return self._session

    def run(self, batch: PackedBatch) -> NDArray[np.float32]:
        """Packed texts to float32[B, columns]."""
        return self._run([self._output], batch)[0]

    def run_tokens(self, batch: PackedBatch, names: Sequence[str]) -> list[NDArray[np.float32]]:
        """What `run` gives, and float32[T, columns] for each of the `token_outputs` that are named."""
        return self._run([self._output, *(self.token_outputs[name].output for name in names)], batch)

    def _run(self, outputs: list[str], batch: PackedBatch) -> list[NDArray[np.float32]]:
        session = self._opened()
        try:
            found: list[NDArray[np.float32]] = session.run(outputs, self._feeds(batch))
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            raise EngineError(f"{self.info.engine} failed on {self._path}: {error}") from error
        return found

    def _feeds(self, batch: PackedBatch) -> dict[str, NDArray[Any]]:
        if self._layout is None:
            return dict(feeds_of(self._inputs, batch))
        # Graphs that are not bgert's take int64.
        return {name: array.astype(np.int64) for name, array in self._layout.arrays(batch).items()}


def open_session(path: Path, intra_op_threads: int = 1, *, also: Collection[str] = ()) -> Any:
    """An `onnxruntime.InferenceSession` for one of bgert's CPU graphs; `also` are inputs that the caller feeds itself.

    Raises:
        EngineNotInstalledError: onnxruntime cannot be imported.
        ModelFolderError: ONNX Runtime cannot load the graph, or bgert does not know what to feed it.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A memory pattern is kept for every shape that was ever run: with packed batches that never ends.
    options.enable_mem_pattern = False
    if intra_op_threads > 1:
        # Threads spin between the operators of a run, which halves the latency of short texts, and sleep after it, so
        # that an idle model leaves the cores to others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        with never_copied, NativeCall():
            options.register_custom_ops_library(str(KERNELS))
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
    except Exception as error:  # as above
        raise ModelFolderError(f"ONNX Runtime cannot load {path}: {error}") from error
    if unknown := sorted({entry.name for entry in session.get_inputs()} - _FEEDS.keys() - {*INPUTS, *also}):
        raise ModelFolderError(f"{path} has an input {unknown[0]!r} that this bgert does not know: {remake(path)}")
    return session


def _check_outputs(path: Path, outputs: list[Any], expected: list[tuple[str, int]]) -> None:
    """Raise ModelFolderError unless a graph has the outputs that its manifest says: float32[.., columns] each."""
    found = [(output.name, output.type, list(output.shape)[1:]) for output in outputs]
    if found != [(name, "tensor(float)", [columns]) for name, columns in expected]:
        said = ", ".join(f"{name} with {columns} numbers" for name, columns in expected)
        listed = ", ".join(f"{output.name} {output.type} {list(output.shape)}" for output in outputs)
        raise ModelFolderError(f"{path} gives {listed[:400]}, the manifest says {said[:400]} an input: {remake(path)}")


def feeds_of(inputs: Iterable[str], batch: PackedBatch) -> dict[str, NDArray[np.int32]]:
    """What a graph's inputs get for a batch."""
    return {name: _FEEDS[name](batch) for name in inputs}


def _engine() -> str:
    """ONNX Runtime's version, and which of bgert's kernels the processor got."""
    return f"onnxruntime {import_onnxruntime().__version__}, {kernels_name()} kernels"


def kernels_name() -> str:
    """The kernels of the last session that was opened; before one, those that it would take, "" for an unknown name."""
    kernels = ctypes.CDLL(str(KERNELS))
    kernels.bgert_kernels_name.restype = ctypes.c_char_p
    name: bytes = kernels.bgert_kernels_name()
    return name.decode()


def _position_ids(batch: PackedBatch) -> NDArray[np.int32]:
    starts, lengths = batch.cu_seqlens[:-1], np.diff(batch.cu_seqlens)
    return np.arange(len(batch.input_ids), dtype=np.int32) - np.repeat(starts, lengths)


_FEEDS: dict[str, Callable[[PackedBatch], NDArray[np.int32]]] = {
    "input_ids": lambda batch: batch.input_ids,
    "token_type_ids": lambda batch: batch.type_ids,
    "position_ids": _position_ids,
    "cu_seqlens": lambda batch: batch.cu_seqlens,
    "cls_rows": lambda batch: batch.cu_seqlens[:-1],
    "seen": lambda batch: np.diff(batch.cu_seqlens) if batch.seen is None else batch.seen,
}
