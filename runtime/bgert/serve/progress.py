"""Whether a batch gets on: by the processor's time of its thread, not by the clock, which runs for the starved too."""

from __future__ import annotations

import threading
import time

__all__ = ["Progress"]

LEAST_SHARE = 1e-3  # of a core; a thread that gets less does nothing
WAITED_OUT = 10.0  # times the limit, by the clock, after which a batch is given up even if it gets on
LONGEST_TICK = 1.0  # seconds that one look counts for, however long ago the last was: nobody looked meanwhile


class Progress:
    """One thread's batch, as the thread tells and as another one looks at it from time to time."""

    def __init__(self) -> None:
        self._clock: int | None = None
        self._number = 0
        self._running = False
        self._cpu_begun = 0.0
        self._seen = 0
        self._cpu_seen = 0.0
        self._looked = 0.0
        self._still = 0.0
        self._waited = 0.0

    # The thread.

    def attach(self) -> None:
        """Called first, in the thread that runs the batches."""
        if hasattr(time, "pthread_getcpuclockid"):  # not on macOS and Windows
            self._clock = time.pthread_getcpuclockid(threading.get_ident())

    def begin(self) -> None:
        """A batch begins."""
        self._cpu_begun = self._cpu() or 0.0
        self._number += 1
        self._running = True

    def end(self) -> None:
        """It has ended."""
        self._running = False

    def _cpu(self) -> float | None:
        """Seconds that the thread has had of a core; None where that cannot be known."""
        if self._clock is None:
            return None
        try:
            return time.clock_gettime(self._clock)
        except OSError:  # the thread is gone
            return None

    # Who looks.

    def stuck(self, now: float) -> float:
        """How long the batch has taken, in seconds to hold against the limit for one.

        The longest of: what it has had of a core; how long it has had nothing of one, which on a device is the time
        that the device takes; and a tenth of its time by the clock. Time by the clock counts as it is looked at, so a
        process that was stopped is not held to have been waiting.

        Args:
            now: `time.monotonic()`.
        """
        tick, self._looked = min(now - self._looked, LONGEST_TICK), now
        number, cpu = self._number, self._cpu()
        if not self._running or number != self._seen:
            self._seen, self._cpu_seen = number, cpu or 0.0
            self._still = self._waited = 0.0
            return 0.0
        self._waited += tick
        if cpu is None:
            return self._waited
        if cpu - self._cpu_seen > LEAST_SHARE * tick:
            self._still = 0.0
        else:
            self._still += tick
        self._cpu_seen = cpu
        return max(cpu - self._cpu_begun, self._still, self._waited / WAITED_OUT)
