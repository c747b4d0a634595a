"""CUDA graphs of small batches: copy up, model, copy down as one launch, from whichever thread has the batch.

A graph holds addresses, so a lane is a set of buffers with a graph for each of some shapes. They are captured from
plain runs of ONNX Runtime on its own stream, and not by ONNX Runtime, whose graphs belong to the thread that captured
them and leave the copies out. All share the activations of the plain runs: they are launched on the same stream, and
never in the middle of what another batch queues there.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import numpy as np

from bgert.backends.cuda.packed_layout import fit
from bgert.batching import PackedBatch
from bgert.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from bgert.backends.cuda.packed_layout import Bucket, InputPlan
    from bgert.backends.cuda_runtime import CudaRuntime, Event, Graph, Stream

__all__ = ["Lane"]

TOLERANCE = 0.01  # of the largest number: a graph that left work out is far beyond it


class Lane:
    """Buffers of one small batch at a time, with a graph for each bucket that was captured.

    Args:
        cuda: the CUDA runtime.
        plan: inputs of the graph.
        buckets: the largest shapes that it shall hold decide its size.
        columns: numbers in a row of the output.
        stream: where everything is queued.

    Raises:
        CudaError: there is no memory for it.
    """

    def __init__(
        self, cuda: CudaRuntime, plan: InputPlan, buckets: Sequence[Bucket], columns: int, stream: Stream
    ) -> None:
        self._cuda, self._plan, self._columns, self._stream = cuda, plan, columns, stream
        self._graphs: dict[Bucket, Graph] = {}
        self._alone: list[Bucket] = []
        self._together: list[Bucket] = []
        self._placed: dict[Bucket, tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32] | None]] = {}
        inputs = max(plan.nbytes(bucket) for bucket in buckets)
        output = 4 * columns * max(bucket.texts for bucket in buckets)
        with ExitStack() as undo:
            self._host_in = undo.enter_context(closing(cuda.allocate_pinned(inputs)))
            self.device_in = undo.enter_context(closing(cuda.allocate(inputs)))
            self.device_out = undo.enter_context(closing(cuda.allocate(output)))
            self._host_out = undo.enter_context(closing(cuda.allocate_pinned(output)))
            self._spinning = undo.enter_context(closing(cuda.event(spin=True)))
            self._sleeping = undo.enter_context(closing(cuda.event()))
            self._undo = undo.pop_all()
        self._input = self._host_in.array()
        self._output = self._host_out.array().view(np.float32)

    def close(self) -> None:
        """Free it; nothing of it may be at work."""
        self._undo.close()

    def capture(self, bucket: Bucket, tokens: int, run: Callable[[], object]) -> None:
        """Capture a bucket's graph, and hold its numbers against those of a plain run with other inputs.

        Args:
            bucket: the shape.
            tokens: of a text that it holds and the model takes.
            run: queues the model on the stream, its inputs and output being this lane's.

        Raises:
            EngineError: it cannot be captured, or its numbers are others.
        """
        plan, nbytes, size = self._plan, self._plan.nbytes(bucket), bucket.texts * self._columns

        def work() -> None:
            self._cuda.upload(self.device_in, self._host_in, nbytes, self._stream)
            run()
            self._cuda.download(self._host_out, self.device_out, 4 * size, self._stream)

        plan.fill(self._input, _text(1, tokens), bucket)
        work()  # what is loaded or allocated at a first run is, before the capture
        self._stream.synchronize()
        expected = self._output[:size].copy()
        plan.fill(self._input, _text(0, 1), bucket)
        work()  # what a graph that leaves work out would find
        self._stream.synchronize()
        graph = self._cuda.capture(self._stream, work)
        self._undo.callback(graph.close)
        plan.fill(self._input, _text(1, tokens), bucket)
        self._output[:size] = 0
        graph.launch(self._stream)
        self._stream.synchronize()
        if not np.allclose(self._output[:size], expected, 0, TOLERANCE * np.abs(expected).max(), equal_nan=True):
            raise EngineError(f"its graph of {bucket.tokens} tokens gives other numbers than the model")
        places = {name: (dtype, offset) for name, dtype, _, offset in plan.places(bucket)}
        ids, types = (
            self._input[places[name][1] :][: 4 * bucket.tokens].view(np.int32) if name in places else None
            for name in ("input_ids", "token_type_ids")
        )
        assert ids is not None  # noqa: S101  # every graph has it
        self._placed[bucket] = self._input[:nbytes], ids, types
        self._graphs[bucket] = graph
        (self._alone if bucket.texts == 2 else self._together).append(bucket)

    def bucket_for(self, batch: PackedBatch) -> Bucket | None:
        """The smallest shape that holds a batch, if any."""
        if len(batch) == 1:
            tokens = len(batch.input_ids)
            return next((bucket for bucket in self._alone if tokens <= bucket.tokens), None)
        return fit(np.diff(batch.cu_seqlens), self._together)

    def fill(self, batch: PackedBatch, bucket: Bucket) -> None:
        """Lay a batch out. Of a text alone all but its ids follow from its length, and is copied from a template."""
        block, ids, types = self._placed[bucket]
        template = self._plan.template(bucket, batch)
        if template is None:
            self._plan.fill(block, batch, bucket)
            return
        block[:] = template
        ids[: len(batch.input_ids)] = batch.input_ids
        if types is not None:
            types[: len(batch.type_ids)] = batch.type_ids

    def launch(self, bucket: Bucket, *, spin: bool) -> Event:
        """Queue what was laid out; what to wait for, in a loop or asleep."""
        done = self._spinning if spin else self._sleeping
        self._graphs[bucket].launch(self._stream)
        done.record(self._stream)
        return done

    def rows(self, texts: int) -> NDArray[np.float32]:
        """A copy of the results, float32[texts, columns]."""
        return self._output[: texts * self._columns].reshape(texts, self._columns).copy()


def _text(token: int, tokens: int) -> PackedBatch:
    ids = np.full(tokens, token, np.int32)
    return PackedBatch(ids, np.array([0, tokens], np.int32), np.zeros_like(ids))
