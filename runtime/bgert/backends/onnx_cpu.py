"""ONNX Runtime on the CPU: one session, one worker a core, or all cores on one batch."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.backends import BackendInfo
from bgert.cpu_count import available_cpus
from bgert.errors import EngineError, EngineNotInstalledError, ModelFolderError
from bgert.model_folder import verify_files

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.batching import PackedBatch
    from bgert.model_folder import GraphEntry

__all__ = ["OnnxCpuBackend"]

# Small enough for activations to stay in the caches; larger batches were slower (LOG.md).
TOKEN_BUDGET = 512


class OnnxCpuBackend:
    """A packed graph on ONNX Runtime's CPU provider.

    In `throughput` mode the session has one intra-op thread and each core runs batches of its own: no barrier
    between cores inside an operator. In `latency` mode all cores work on one batch.
    """

    def __init__(self, folder: Path, graph: GraphEntry, *, threads: int | None, mode: str) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineNotInstalledError(
                f"ONNX Runtime cannot be imported ({error}): pip install 'bgert[cpu]'"
            ) from None
        cores = threads or available_cpus()
        self._ort = onnxruntime
        self._path = folder / graph.files[0].name
        self._intra_op_threads = cores if mode == "latency" else 1
        self.info = BackendInfo(
            device="cpu",
            precision=graph.precision,
            engine=f"onnxruntime {onnxruntime.__version__}",
            workers=1 if mode == "latency" else cores,
            token_budget=TOKEN_BUDGET,
        )
        verify_files(folder, graph.files)
        self._open()
        declared = {entry.name for entry in self._session.get_inputs()}
        if unknown := sorted(declared - _FEEDS.keys()):
            raise ModelFolderError(f"{self._path} has an input {unknown[0]!r} that this bgert does not know")
        self._feeds = {name: _FEEDS[name] for name in declared}

    def _open(self) -> None:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._intra_op_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A memory pattern is kept for every shape that was ever run: with packed batches that never ends.
        options.enable_mem_pattern = False
        # The fused kernel is several times slower than Add + LayerNormalization on the CPU.
        options.add_session_config_entry("optimization.disable_specified_optimizers", "SkipLayerNormFusion")
        if self._intra_op_threads > 1:
            # Idle threads that spin would take the cores from whatever runs beside the model.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = self._ort.InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            raise ModelFolderError(f"ONNX Runtime cannot load {self._path}: {error}") from error
        self._pid = os.getpid()

    def run(self, batch: PackedBatch) -> NDArray[np.float32]:
        """Packed texts to float32[B, columns]."""
        if self._pid != os.getpid() and self._intra_op_threads > 1:
            # The thread pool did not survive the fork, and the old session would wait for it: never destroy it.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
            self._open()
        layout = _Layout(batch)
        feeds = {name: feed(layout) for name, feed in self._feeds.items()}
        try:
            output: NDArray[np.float32] = self._session.run(None, feeds)[0]
        except Exception as error:  # as above
            raise EngineError(f"{self.info.engine} failed on {self._path}: {error}") from error
        return output


class _Layout:
    """Index arrays between packed rows [T] and padded slots [B, S]."""

    def __init__(self, batch: PackedBatch) -> None:
        self.batch = batch
        self.starts = batch.cu_seqlens[:-1]
        self.lengths = np.diff(batch.cu_seqlens)
        self.longest = int(self.lengths.max())

    def position_ids(self) -> NDArray[np.int32]:
        count = len(self.batch.input_ids)
        return np.arange(count, dtype=np.int32) - np.repeat(self.starts, self.lengths)

    def padded_rows(self) -> NDArray[np.int32]:
        """int32[B, S]; padding repeats the last row of its own text, so that no text reads another's."""
        offsets = np.minimum(np.arange(self.longest, dtype=np.int32), self.lengths[:, None] - 1)
        rows: NDArray[np.int32] = self.starts[:, None] + offsets
        return rows

    def packed_slots(self) -> NDArray[np.int32]:
        first_slot = np.arange(len(self.lengths), dtype=np.int32) * np.int32(self.longest)
        return self.position_ids() + np.repeat(first_slot, self.lengths)


_FEEDS: dict[str, Any] = {
    "input_ids": lambda layout: layout.batch.input_ids,
    "token_type_ids": lambda layout: layout.batch.type_ids,
    "position_ids": _Layout.position_ids,
    "padded_rows": _Layout.padded_rows,
    "packed_slots": _Layout.packed_slots,
    "sequence_lengths": lambda layout: layout.lengths,
    "cls_rows": lambda layout: layout.starts,
}
