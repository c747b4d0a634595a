"""Signals that end a command: the stack unwinds, so that what is half written is removed, and the status says which."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["Stopped", "signals_unwind"]

_NAMES = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "the terminal is gone"}
_SAME = 1.0  # seconds in which a second signal is the same wish: a group and its leader often get one each


class Stopped(KeyboardInterrupt):
    """The command was told to end."""

    def __init__(self, number: int) -> None:
        super().__init__(_NAMES[signal.Signals(number).name])
        self.status = 128 + number


@contextmanager
def signals_unwind(*, last: bool = False) -> Iterator[None]:
    """Raise Stopped where SIGINT, SIGTERM or SIGHUP come; one that the caller's parent had ignored stays so.

    Args:
        last: the process ends after the block: a signal that comes later finds everything done, and is ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopped: float | None = None

    def leave(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        del frame
        now = time.monotonic()
        if stopped is None or now > stopped + _SAME:
            stopped = now
            raise Stopped(number)

    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    previous = {number: signal.getsignal(number) for number in numbers}
    try:
        for number, handler in previous.items():
            if handler not in (signal.SIG_IGN, None):
                signal.signal(number, leave)
        yield
    finally:
        for number, handler in previous.items():
            if handler is not None:
                signal.signal(number, signal.SIG_IGN if last else handler)
