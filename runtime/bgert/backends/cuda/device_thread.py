"""One thread that does what it is given, in order."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from bgert.errors import EngineError
from bgert.lifecycle import NativeCall

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DeviceThread"]

Result = TypeVar("Result")


class DeviceThread:
    """As an executor with one worker, but that it can be told to end from a finalizer.

    A finalizer may run in the middle of anything, `ThreadPoolExecutor.submit` and its locks included; to put into a
    SimpleQueue is safe even there.
    """

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[tuple[Future[Any] | None, Callable[..., Any], tuple[Any, ...]]]
        self._work = queue.SimpleQueue()
        self._thread = threading.Thread(target=_serve, args=[self._work], name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise EngineError(f"a GPU needs a thread of its own: {error}; allow more (`ulimit -u`)") from None

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Call a function in the thread."""
        future: Future[Result] = Future()
        self._work.put((future, function, arguments))
        return future

    def end(self, last: Callable[[], Any]) -> None:
        """Call a last function when everything before it is done, and end."""
        self._work.put((None, last, ()))

    def join(self, timeout: float) -> None:
        """Wait for the end."""
        self._thread.join(timeout)


def _serve(work: queue.SimpleQueue[tuple[Future[Any] | None, Callable[..., Any], tuple[Any, ...]]]) -> None:
    while True:
        future, function, arguments = work.get()
        if future is None:
            with NativeCall(last=True):
                function()
            return
        try:
            with NativeCall(last=True):
                result = function(*arguments)
            future.set_result(result)
        except BaseException as error:
            future.set_exception(error)
        result = None
        del future, function, arguments  # whoever they belong to may go while this thread waits
