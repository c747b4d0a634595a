"""Whether the server is well: a known text goes through queue, thread and engine, and its result must not change."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from bgert.batching import PackedBatch, slice_batch
from bgert.errors import EngineError
from bgert.serve.messages import Response
from bgert.serve.queue import PROBE
from bgert.serve.refusal import Refusal
from bgert.serve.worker import Work

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bgert.serve.messages import Request
    from bgert.serve.models import Served
    from bgert.serve.service import Service

__all__ = ["Canary", "Health", "warm_up"]

CANARY = ("A canary sings in the mine.", "它停下来的时候，我们就出去。")
FRESH_SECONDS = 10.0  # a success of this age is as good as a new one
PATIENCE = 3  # canaries that fail one after the other
WARM_SECONDS = 0.3
LEAST_COSINE = 0.999


class Canary:
    """The known text of one model."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self._batch = canary_batch(served)
        self._expected = served.engine.backend.run(self._batch)
        if self._expected.shape != (1, served.engine.columns) or not np.isfinite(self._expected).all():
            raise EngineError(
                f"{served.name} gives no usable result for a known text: run `bgert verify` on its folder"
            )
        self.failures = 0
        """Canaries that failed, one after the other, until now."""
        self.reason = ""

    async def sing(self) -> bool:
        """Send the text through the engine; whether it came back as it was at the start."""
        engine = self.served.engine
        work = Work(self._batch, engine.columns, lane=PROBE)
        try:
            rows = await engine.submit(work)
        except Exception as error:  # whatever the engine raises is its illness
            self.failures += 1
            self.reason = f"{type(error).__name__}: {error}"
            return False
        finally:
            if work.done < len(work):
                engine.cancel(work)
        if not self._same(rows):
            self.failures += 1
            self.reason = "a known text has another result than at the start"
            return False
        self.failures = 0
        return True

    def _same(self, rows: NDArray[np.float32]) -> bool:
        if self.served.model.device == "cpu":
            return rows.tobytes() == self._expected.tobytes()
        if self.served.kind == "encoder":
            product = float(np.vdot(rows, self._expected))
            return product >= LEAST_COSINE * float(np.linalg.norm(rows) * np.linalg.norm(self._expected))
        return bool(np.allclose(rows, self._expected, rtol=1e-2, atol=1e-2))


def canary_batch(served: Served) -> PackedBatch:
    """The known text, or pair, as a row."""
    pair = [CANARY[1]] if served.kind == "reranker" else None
    tokens = served.tokenize([CANARY[0]], pair)
    return PackedBatch(tokens.ids, tokens.cu_seqlens, tokens.type_ids)


def warm_up(served: Served) -> None:
    """Run every bucket of the engine once, then full batches until its speed is known. Called before it starts."""
    engine, row = served.engine, canary_batch(served)
    info = engine.backend.info
    for bucket in info.buckets:
        engine.backend.run(repeated(row, min(bucket.length, served.model.max_length), bucket.texts))
    length = min(128, served.model.max_length)
    batch = repeated(row, length, max(1, info.token_budget // length))
    engine.backend.run(batch)
    begun = time.perf_counter()

    def run() -> int:
        runs = 0
        while time.perf_counter() - begun < WARM_SECONDS or not runs:
            engine.backend.run(batch)
            runs += 1
        return runs

    # All at one time, as they will be: they share caches, memory or the device.
    with ThreadPoolExecutor(info.workers, thread_name_prefix="bgert-warm") as pool:
        runs = sum(future.result() for future in [pool.submit(run) for _ in range(info.workers)])
    seconds = max(time.perf_counter() - begun, 1e-9)
    engine.speed.begin(runs * len(batch.input_ids) / seconds)


def repeated(row: PackedBatch, length: int, texts: int) -> PackedBatch:
    """A batch of `texts` rows of `length` tokens, all alike."""
    ids = np.resize(row.input_ids, length)
    types = np.resize(slice_batch(row, 0, 1).type_ids * 0, length)
    cu_seqlens = np.arange(0, length * texts + 1, length, dtype=np.int32)
    return PackedBatch(np.tile(ids, texts), cu_seqlens, np.tile(types, texts))


class Health:
    """The state of the server, kept by `watch`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.canaries: list[Canary] = []
        self.progress: str | None = "starting"
        """What is being loaded; None when everything is."""
        self.draining = False
        self.stopped = False
        """Whether new requests are refused because the server ends."""
        self.died: str | None = None

    def trouble(self) -> str | None:
        """Why the server is not ready; None if it is."""
        if self.died is not None:
            return f"the engine has failed: {self.died}"
        if self.draining:
            return "the server is shutting down"
        if self.progress is not None:
            return f"the server is starting: {self.progress}"
        for canary in self.canaries:
            if canary.failures:
                return f"{canary.served.name} is not well: {canary.reason}"
            age = time.monotonic() - canary.served.engine.last_success
            if age > 3 * FRESH_SECONDS:
                return f"{canary.served.name} has done nothing for {age:.0f} s"
        return None

    def check_serving(self) -> None:
        """Refuse a request while there is nothing to serve it.

        Raises:
            Refusal: `unavailable`.
        """
        if self.died is not None or self.progress is not None or self.stopped:
            raise Refusal("unavailable", str(self.trouble()), retry_after=2)

    async def watch(self, on_death: Callable[[str], object]) -> None:
        """Look after the engines until the server ends."""
        singing: dict[Canary, asyncio.Task[bool]] = {}
        timeout = self._service.settings.engine_timeout
        while self.died is None and not self.stopped:
            await asyncio.sleep(0.5)
            for canary in self.canaries:
                engine = canary.served.engine
                if (seconds := engine.stuck()) > timeout:
                    engine.die(f"a batch of {canary.served.name} has not ended in {seconds:.0f} s (--engine-timeout)")
                task = singing.get(canary)
                stale = time.monotonic() - engine.last_success > FRESH_SECONDS
                if (stale or engine.failures or canary.failures) and (task is None or task.done()):
                    singing[canary] = asyncio.create_task(canary.sing())
                if canary.failures >= PATIENCE:
                    engine.die(f"{canary.served.name} failed {canary.failures} times on a known text: {canary.reason}")
                if engine.died is not None:
                    self.died = engine.died
                    on_death(engine.died)
                    break

    async def ready(self, service: Service, request: Request) -> Response:  # noqa: ARG002 - as every handler
        """`GET /health`: empty and 200, or 503 with the reason."""
        if (trouble := self.trouble()) is not None:
            raise Refusal("unavailable", trouble)
        return Response(200)

    async def live(self, service: Service, request: Request) -> Response:  # noqa: ARG002 - as every handler
        """`GET /health/live`: the event loop answers."""
        return Response(200)
