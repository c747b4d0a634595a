"""From texts to rows: prompts, tokens, admission, the queue, and the deadline. What all dialects do alike."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from bgert.batching import PackedBatch
from bgert.errors import BgertError, InvalidOptionError, InvalidTextError
from bgert.serve.admission import Admission
from bgert.serve.metrics import Metrics
from bgert.serve.models import Served, pick
from bgert.serve.queue import BULK
from bgert.serve.refusal import Refusal
from bgert.serve.worker import EngineDeadError, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from bgert.serve.messages import Request
    from bgert.serve.settings import Settings
    from bgert.tokenizer import TokenBatch

__all__ = ["Service"]

T = TypeVar("T")
IDS_REFUSED = (
    "the input is token ids. Those of another model's tokenizer would give vectors of other words, so this server "
    "takes texts alone. LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False). A server started with "
    "--token-ids takes the ids of its own model's tokenizer"
)
# Below these, a hand-over to a thread costs more than the event loop loses.
CHARACTERS_ON_LOOP = 16 << 10
NUMBERS_ON_LOOP = 16 << 10


@dataclass
class Service:
    """The models and what stands before them."""

    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)
    models: list[Served] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.admission = Admission(self.settings)
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="bgert-text")

    def pick(self, request: Request, kind: str, name: str | None) -> Served:
        """The model that a request means; it is noted in the record."""
        served = pick(self.models, kind, name)
        request.record.model, request.record.kind = served.name, served.kind
        return served

    async def embed(
        self,
        request: Request,
        served: Served,
        texts: Sequence[str],
        *,
        prefix: str = "",
        truncate: bool | None = None,
        side: str = "right",
        max_length: int | None = None,
        param: str = "input",
    ) -> NDArray[np.float32]:
        """Embed texts as `Encoder.encode` does.

        Args:
            request: for its record and its deadline.
            served: an encoder.
            texts: at least one, none empty.
            prefix: what to put before each.
            truncate: cut what is too long; None for the server's default.
            side: which end of a long text is cut, `left` or `right`.
            max_length: tokens a text may have; None for the model's limit.
            param: what the dialect calls the texts, for messages.

        Returns:
            float32[n, dimensions] in the order of the texts.

        Raises:
            Refusal: the texts cannot be served, or not now.
        """
        self.check_count(len(texts), param)
        if (blank := next((index for index, text in enumerate(texts) if not text), None)) is not None:
            raise Refusal("empty", f"{param} {blank} is empty: leave it out", param=param)
        if prefix:
            texts = [prefix + text for text in texts]
        batch = await self._tokenize(request, served, texts, None, max_length, "longest_first", side)
        self._truncation(request, served, batch, truncate, max_length, param)
        return await self.run(request, served, PackedBatch(batch.ids, batch.cu_seqlens, batch.type_ids))

    async def embed_any(
        self,
        request: Request,
        served: Served,
        items: Sequence[Any],
        *,
        prefix: str,
        truncate: bool | None,
        side: str = "right",
        param: str = "input",
    ) -> NDArray[np.float32]:
        """As `embed`, of texts, of one row of token ids, or of rows of them."""
        if all(isinstance(item, str) for item in items):
            return await self.embed(request, served, items, prefix=prefix, truncate=truncate, side=side, param=param)
        if not self.settings.token_ids:
            raise Refusal("validation", IDS_REFUSED, param=param)
        rows = [items] if all(isinstance(item, int) for item in items) else items
        if not all(isinstance(row, list) for row in rows):
            raise Refusal("validation", f"{param} mixes texts and token ids: send texts", param=param)
        self.check_count(len(rows), param)
        packed = served.packed(rows, param)
        request.record.texts += len(packed)
        return await self.run(request, served, packed)

    async def score(
        self,
        request: Request,
        served: Served,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        *,
        max_length: int | None = None,
        truncation: str = "longest_first",
        truncate: bool | None = None,
        side: str = "right",
        param: str = "documents",
    ) -> NDArray[np.float32]:
        """Logits of texts or pairs as `Reranker.score` gives them; arguments and errors as of `embed`.

        Returns:
            float32[n, num_labels], raw.
        """
        self.check_count(len(texts), param)
        if pairs is not None and (prefix := served.prefix(None)):
            texts = [prefix + text for text in texts]
        batch = await self._tokenize(request, served, texts, pairs, max_length, truncation, side)
        self._truncation(request, served, batch, truncate, max_length, param)
        return await self.run(request, served, PackedBatch(batch.ids, batch.cu_seqlens, batch.type_ids))

    def check_count(self, count: int, param: str) -> None:
        """Refuse a request without texts, or with too many."""
        if count == 0:
            raise Refusal("empty", f"{param} is empty: send at least one text", param=param)
        if count > self.settings.max_client_batch:
            raise Refusal(
                "validation",
                f"{param} has {count} texts and this server takes {self.settings.max_client_batch} a request "
                "(--max-client-batch)",
                param=param,
            )

    async def _tokenize(
        self,
        request: Request,
        served: Served,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        max_length: int | None,
        truncation: str,
        side: str,
    ) -> TokenBatch:
        begun = time.perf_counter()
        characters = sum(map(len, texts)) + (sum(map(len, pairs)) if pairs is not None else 0)
        record = request.record
        record.texts += len(texts)
        record.characters += characters
        try:
            batch = await self.offload(
                characters > CHARACTERS_ON_LOOP, served.tokenize, texts, pairs, max_length, truncation, side
            )
        except (InvalidTextError, InvalidOptionError) as error:
            raise Refusal("validation", str(error)) from None
        record.tokenize_seconds += time.perf_counter() - begun
        return batch

    async def offload(self, long: bool, call: Callable[..., T], *args: Any) -> T:
        """Call at once, or in a thread where it is long."""
        if not long:
            return call(*args)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)

    def _truncation(
        self,
        request: Request,
        served: Served,
        batch: TokenBatch,
        truncate: bool | None,
        max_length: int | None,
        param: str,
    ) -> None:
        """Note which texts were cut, or refuse the request if they may not be."""
        if not batch.truncated.any():
            return
        cut = np.flatnonzero(batch.truncated).tolist()
        if not (truncate if truncate is not None else not self.settings.no_truncate):
            raise Refusal(
                "validation",
                f"{param} {cut[0]} is longer than the {max_length or served.model.max_length} tokens that "
                f"{served.name} takes, and it was not to be cut: send shorter texts, or let them be truncated",
                param=param,
            )
        request.record.truncated += tuple(cut)

    async def run(self, request: Request, served: Served, batch: PackedBatch) -> NDArray[np.float32]:
        """Queue rows and wait for their results, until the deadline or until the client leaves."""
        loop, engine, record = asyncio.get_running_loop(), served.engine, request.record
        work = Work(batch, engine.columns, lane=BULK if record.bulk else None)
        record.tokens += work.tokens
        record.lane = work.lane
        left = request.begun + self.seconds(request) - time.perf_counter()
        if left <= 0:
            raise _late(self.seconds(request))
        self.admission.before_queue(engine, work, left)
        future = engine.submit(work)

        def expire() -> None:
            if not future.done():
                future.set_exception(_late(self.seconds(request)))

        timer = loop.call_later(left, expire)
        try:
            return await future
        except EngineDeadError as error:
            raise Refusal("unavailable", f"the engine has failed: {error}", retry_after=5) from None
        except BgertError as error:
            record.detail = f"{type(error).__name__}: {error}"
            raise Refusal("backend", "the model failed on this request; the server goes on") from error
        finally:
            timer.cancel()
            if work.done < len(work):
                self.metrics.dropped(served, work.lane, engine.cancel(work))
            record.queue_seconds = work.queue_seconds / len(work)
            record.run_seconds = work.run_seconds / len(work)

    def seconds(self, request: Request) -> float:
        """How long a request may take: the server's limit, or less where the client will not wait so long."""
        limit = self.settings.request_timeout
        for name in ("x-request-timeout", "x-stainless-read-timeout"):
            try:
                given = float(request.headers[name])
            except (KeyError, ValueError):
                continue
            if 0 < given < limit:
                limit = given
        return limit


def _late(seconds: float) -> Refusal:
    return Refusal("timeout", f"the request was not done within {seconds:g} s and was dropped", retry_after=1)
