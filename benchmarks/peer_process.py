"""A peer as the harness sees it: a process that answers one command at a time and sleeps in between."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import IO, Any

__all__ = ["PeerFailedError", "PeerProcess"]

FOLDER = Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")


class PeerFailedError(RuntimeError):
    """A peer raised, died or did not answer in time; the message is its own."""


class PeerProcess:
    """A peer's process.

    Args:
        python: interpreter of its environment.
        adapter: module below `peers`.
        log: file that its standard error is appended to.
        limit: seconds that one command may take.
    """

    def __init__(self, python: str, adapter: str, log: IO[str], limit: float) -> None:
        self.limit = limit
        self.process = subprocess.Popen(
            [python, "-W", "ignore", "-m", "peers.serve", adapter],
            cwd=FOLDER,
            env=surroundings(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; `seconds` in it was taken inside the peer.

        Raises:
            PeerFailedError: the peer raised, died or was too slow.
        """
        if self.process.stdin is None or self.process.stdout is None:
            raise PeerFailedError("the peer has no pipes")
        timer = threading.Timer(self.limit, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:  # the pipe of a dead process
            line = ""
        finally:
            expired = not timer.is_alive()
            timer.cancel()
        if not line:
            code = self.process.wait()
            raise PeerFailedError(
                f"no answer to {do!r} within {self.limit:.0f} s" if expired else f"died in {do!r}, status {code}"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailedError(answer["error"])
        return answer

    def cpu_seconds(self) -> float:
        """CPU time of all its threads so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def close(self) -> None:
        """End it."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # a library's threads that do not end
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def surroundings() -> dict[str, str]:
    """The environment variables of a peer: no hub, telemetry or forked tokenizers, nothing of the caller's Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1", "ORT_DISABLE_TELEMETRY": "1"}
    return kept | offline | {"TOKENIZERS_PARALLELISM": "true", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}


def cold_start(python: str, adapter: str, task: dict[str, Any], log: IO[str], limit: float) -> float:
    """Seconds from starting a process to the vector of one short text: imports, load, first run. Files are cached."""
    text = ["hello", "hello"] if task["kind"] == "reranker" else "hello"
    first = Path(task["texts"]) / "first.json"
    first.write_text(json.dumps([text]))
    begun = time.perf_counter()
    with PeerProcess(python, adapter, log, limit) as peer:
        peer.ask("load", task=task)
        peer.ask("texts", name="first", path=str(first))
        peer.ask("encode", name="first")
        return time.perf_counter() - begun
