"""The cores that the models of a server share: no more batches at one time than cores, and equal parts for all."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Cores"]


class Cores:
    """As many places as there are cores; a batch needs one while it runs.

    A place that gets free goes to the model that has fewest. A model that has none gets one at once, above the number
    if need be, so that a short query never waits for the long batch of another model: the operating system shares a
    core between the two until the other's batch ends. Above the number there is thus at most one batch a model.

    Safe to use from many threads.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._changing = threading.Lock()
        self._running: dict[object, int] = {}
        self._waiting: dict[object, deque[threading.Lock]] = {}

    @contextmanager
    def place(self, model: object) -> Iterator[None]:
        """A context around a batch of a model; it may have to wait before it begins."""
        self._acquire(model)
        try:
            yield
        finally:
            self._release(model)

    @property
    def running(self) -> int:
        """Batches that have a place."""
        return sum(self._running.values())

    def _acquire(self, model: object) -> None:
        with self._changing:
            own = self._running.setdefault(model, 0)
            if own == 0 or (self.running < self._count and not self._waiting):
                self._running[model] = own + 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.setdefault(model, deque()).append(turn)
        turn.acquire()  # until `_release` of another thread gives its place on

    def _release(self, model: object) -> None:
        with self._changing:
            self._running[model] -= 1
            if self._running[model] == 0 and model in self._waiting:
                self._grant(model)
            while self._waiting and self.running < self._count:
                self._grant(min(self._waiting, key=self._running.__getitem__))

    def _grant(self, model: object) -> None:
        turns = self._waiting[model]
        self._running[model] += 1
        turns.popleft().release()
        if not turns:
            del self._waiting[model]
