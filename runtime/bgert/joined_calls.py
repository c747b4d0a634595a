"""Awaiting calls of one event loop that run together: what arrives while a batch runs is the next batch."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bgert.results import RunInfo

    Result = tuple[NDArray[Any], RunInfo]
    Embed = Callable[..., tuple[NDArray[Any], RunInfo, NDArray[np.int64]]]

__all__ = ["JoinedCalls"]

MOST_TEXTS = 16_384  # a batch takes no further calls beyond that, so that nobody waits for all of them


@dataclass(eq=False)
class _Call:
    items: Sequence[str]
    options: tuple[Any, ...]
    future: asyncio.Future[Result]


@dataclass(eq=False)
class _Queue:
    waiting: list[_Call] = field(default_factory=list)
    task: asyncio.Task[None] | None = None


class JoinedCalls:
    """Joins calls with equal options; `embed(items, *options, False)` runs in a thread, one at a time for each loop."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()

    async def call(self, items: Sequence[str], options: tuple[Any, ...]) -> Result:
        """The rows of some texts, and how they came about. A call that is cancelled while it waits never runs."""
        loop = asyncio.get_running_loop()
        queue = self._queues.setdefault(loop, _Queue())
        call = _Call(items, options, loop.create_future())
        queue.waiting.append(call)
        if queue.task is None:
            queue.task = loop.create_task(self._serve(queue))
        return await call.future

    async def _serve(self, queue: _Queue) -> None:
        try:
            while calls := _next(queue):
                if not await self._answer(calls) and len(calls) > 1:
                    for call in calls:  # one bad text is its caller's error alone
                        if not call.future.done():
                            await self._answer([call])
        finally:
            queue.task = None
            for call in queue.waiting:  # the loop ends
                call.future.cancel()
            queue.waiting.clear()

    async def _answer(self, calls: list[_Call]) -> bool:
        """Run calls together; False if they failed, and a single one then has its error."""
        items = [item for call in calls for item in call.items]
        try:
            rows, info, lengths = await asyncio.to_thread(self._embed, items, *calls[0].options, False)
        except Exception as error:
            if len(calls) == 1 and not calls[0].future.done():
                calls[0].future.set_exception(error)
            return False
        except BaseException:
            for call in calls:
                call.future.cancel()
            raise
        start = 0
        for call in calls:
            own = slice(start, start := start + len(call.items))
            if not call.future.done():
                tokens = int(lengths[own].sum())
                part = replace(info, tokens=tokens, truncated=info.truncated[own].copy())
                call.future.set_result((rows[own].copy(), part))
        return True


def _next(queue: _Queue) -> list[_Call]:
    """Take the oldest call and those with its options."""
    queue.waiting = [call for call in queue.waiting if not call.future.done()]
    taken: list[_Call] = []
    texts = 0
    for call in queue.waiting:
        if call.options == queue.waiting[0].options and (not taken or texts + len(call.items) <= MOST_TEXTS):
            taken.append(call)
            texts += len(call.items)
    queue.waiting = [call for call in queue.waiting if call not in taken]
    return taken
