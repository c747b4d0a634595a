"""A server that is measured: a process of its own, what it has used, what its metrics say."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from bgert.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ServerProcess", "bgert_server"]

READY_SECONDS = 180.0
STOP_SECONDS = 10.0


class ServerProcess:
    """A server on this machine's loopback.

    Args:
        command: starts it.
        port: where it will listen; None if it says so itself in a line `ready on http://127.0.0.1:PORT`.
        environment: variables in place of this process's.

    Raises:
        EngineError: it ended, or was not ready in time; the message has its last words.
    """

    def __init__(
        self, command: Sequence[str], *, port: int | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(  # noqa: S603 - the caller's own command
            command, stdout=subprocess.DEVNULL, stderr=self._log, env=environment
        )
        self.port = 0
        end = time.monotonic() + READY_SECONDS
        try:
            while not self._ready(port):
                if self.process.poll() is not None or time.monotonic() > end:
                    state = "was not ready in time" if self.process.poll() is None else "ended at its start"
                    raise EngineError(f"{command[0]} {state}: {self.said()[-500:].strip()}")
                time.sleep(0.05)
        except BaseException:
            self.stop()
            raise

    def _ready(self, port: int | None) -> bool:
        if port is None:
            found = re.search(r"ready on http://127\.0\.0\.1:(\d+)\n", self.said())
            self.port = int(found[1]) if found else 0
            return found is not None
        self.port = port
        try:
            return bool(self.get("/health"))
        except OSError:
            return False

    def said(self) -> str:
        """Its standard error so far."""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode("utf-8", "replace")

    def get(self, path: str) -> str:
        """The body of a page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as reply:
            return str(reply.read().decode()) or " "

    def metrics(self) -> dict[str, float]:
        """Its samples, by name with labels."""
        lines = (line.rpartition(" ") for line in self.get("/metrics").splitlines() if line and line[0] != "#")
        return {name: float(value) for name, _, value in lines}

    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far (Linux)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Resident memory (Linux)."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> int:
        """End it; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._log.close()


def bgert_server(folder: str | Path, *options: str) -> ServerProcess:
    """`bgert serve` of one folder on a free port of the loopback, with no variables of `bgert serve` but `options`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BGERT_")}
    command = [sys.executable, "-m", "bgert", "serve", str(folder), "--port", "0", *options]
    return ServerProcess(command, environment=kept)
