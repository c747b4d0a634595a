"""What a fork and the end of the interpreter mean for native code.

A forked child has one thread and a copy of every lock as it was: an engine's session is not usable there, and its
destructor would wait for threads that the fork did not copy. And Python ends a daemon thread where it next asks for the
GIL; where C++ is below it, that aborts the process.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["NativeCall", "interpreter_ends", "keep_for_ever", "never_copied", "on_fork"]


class Inherited(Protocol):
    """What has to change in a forked child."""

    def forked(self) -> None:
        """Called in the child, before anything else runs there."""


_inherited: weakref.WeakSet[Inherited] = weakref.WeakSet()
never_copied = threading.RLock()
"""Held while something is done that no fork may cut in two, as opening a session: engines have locks of the process."""


def on_fork(owner: Inherited) -> None:
    """Call `owner.forked()` in every child that is forked while `owner` lives."""
    _inherited.add(owner)


def keep_for_ever(thing: object) -> None:
    """Never destroy an object, not even at the end of the interpreter, which clears lists and modules."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _in_child() -> None:
    _inside.clear()
    for owner in list(_inherited):
        owner.forked()
    never_copied.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=never_copied.acquire, after_in_parent=never_copied.release, after_in_child=_in_child)


_inside: dict[NativeCall, int] = {}
_ending = False


def interpreter_ends() -> bool:
    """Whether the interpreter is ending: no thread may be started that anybody waits for."""
    return _ending


class NativeCall:
    """A context around a call that gives up the GIL, which the end of the interpreter waits for.

    Once it ends, other threads than the main one get a SystemExit, which ends them without a word.

    Args:
        last: let it through even then: it is for the main thread, which waits.
    """

    __slots__ = ("_last",)

    def __init__(self, *, last: bool = False) -> None:
        self._last = last

    def __enter__(self) -> None:
        _inside[self] = threading.get_ident()
        if _ending and not self._last and threading.current_thread() is not threading.main_thread():
            _inside.pop(self, None)
            raise SystemExit

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _inside.pop(self, None)


def _others() -> Iterator[int]:
    own = threading.get_ident()
    return (thread for thread in list(_inside.values()) if thread != own)


def _wait_for_native_calls() -> None:
    global _ending
    _ending = True
    while any(_others()):
        time.sleep(0.001)


atexit.register(_wait_for_native_calls)
