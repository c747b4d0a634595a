"""ONNX Runtime on the CPU: one session, one worker a core, or all cores on one batch."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert import _native
from bgert.backends.protocol import BackendInfo
from bgert.cpu_count import available_cpus
from bgert.errors import EngineError, EngineNotInstalledError, ModelFolderError, install_extra
from bgert.model_folder import verify_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from bgert.batching import PackedBatch
    from bgert.model_folder import GraphEntry

__all__ = ["OnnxCpuBackend", "feeds_of", "open_session"]

# bgert's own operators (runtime/src/cpu_ops), built beside the tokenizer.
KERNELS = Path(_native.__file__).with_name("_kernels.dll" if sys.platform == "win32" else "_kernels.so")
# 128 to 1,024 make little difference (LOG.md); small batches spread well over the workers.
TOKEN_BUDGET = 512


class OnnxCpuBackend:
    """A packed graph on ONNX Runtime's CPU provider.

    In `throughput` mode the session has one intra-op thread and each core runs batches of its own: no barrier
    between cores inside an operator. In `latency` mode all cores work on one batch.
    """

    def __init__(self, folder: Path, graph: GraphEntry, *, threads: int | None, mode: str) -> None:
        cores = threads or available_cpus()
        self._path = folder / graph.files[0].name
        self._intra_op_threads = cores if mode == "latency" else 1
        verify_files(folder, graph.files)
        self._open()
        self.info = BackendInfo(
            device="cpu",
            precision=graph.precision,
            engine=_engine(),
            workers=1 if mode == "latency" else cores,
            token_budget=TOKEN_BUDGET,
        )

    def _open(self) -> None:
        self._session = open_session(self._path, self._intra_op_threads)
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        self._pid = os.getpid()

    def run(self, batch: PackedBatch) -> NDArray[np.float32]:
        """Packed texts to float32[B, columns]."""
        if self._pid != os.getpid() and self._intra_op_threads > 1:
            # The thread pool did not survive the fork, and the old session would wait for it: never destroy it.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
            self._open()
        try:
            output: NDArray[np.float32] = self._session.run(None, feeds_of(self._inputs, batch))[0]
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            raise EngineError(f"{self.info.engine} failed on {self._path}: {error}") from error
        return output


def open_session(path: Path, intra_op_threads: int = 1) -> Any:
    """An `onnxruntime.InferenceSession` for one of bgert's CPU graphs.

    Raises:
        EngineNotInstalledError: onnxruntime cannot be imported.
        ModelFolderError: ONNX Runtime cannot load the graph, or bgert does not know what to feed it.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineNotInstalledError(f"ONNX Runtime cannot be imported ({error}): {install_extra('cpu')}") from None
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
        options.register_custom_ops_library(str(KERNELS))
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        raise ModelFolderError(f"ONNX Runtime cannot load {path}: {error}") from error
    if unknown := sorted({entry.name for entry in session.get_inputs()} - _FEEDS.keys()):
        raise ModelFolderError(
            f"{path} has an input {unknown[0]!r} that this bgert does not know: export the model again"
        )
    return session


def feeds_of(inputs: Iterable[str], batch: PackedBatch) -> dict[str, NDArray[np.int32]]:
    """What a graph's inputs get for a batch."""
    return {name: _FEEDS[name](batch) for name in inputs}


def _engine() -> str:
    """ONNX Runtime's version, and which of bgert's kernels the processor got."""
    import onnxruntime

    kernels = ctypes.CDLL(str(KERNELS))
    kernels.bgert_kernels_name.restype = ctypes.c_char_p
    return f"onnxruntime {onnxruntime.__version__}, {kernels.bgert_kernels_name().decode()} kernels"


def _position_ids(batch: PackedBatch) -> NDArray[np.int32]:
    starts, lengths = batch.cu_seqlens[:-1], np.diff(batch.cu_seqlens)
    return np.arange(len(batch.input_ids), dtype=np.int32) - np.repeat(starts, lengths)


_FEEDS: dict[str, Callable[[PackedBatch], NDArray[np.int32]]] = {
    "input_ids": lambda batch: batch.input_ids,
    "token_type_ids": lambda batch: batch.type_ids,
    "position_ids": _position_ids,
    "cu_seqlens": lambda batch: batch.cu_seqlens,
    "cls_rows": lambda batch: batch.cu_seqlens[:-1],
}
