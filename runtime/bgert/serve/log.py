"""The access log: a JSON object a line on stdout, without any text of a user."""

from __future__ import annotations

import atexit
import queue
import sys
import threading
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import msgspec

from bgert.serve.queue import LANES

if TYPE_CHECKING:
    from bgert.serve.messages import Request, Response

__all__ = ["AccessLog"]

MOST_WAITING = 10_000
LEFT = 499  # the client closed the connection, as nginx writes it


class AccessLog:
    """Writes lines from a thread of its own: a reader that is slow or stuck holds up no request.

    Lines beyond `MOST_WAITING` are counted and lost.
    """

    def __init__(self) -> None:
        self._lines: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self.lost = 0
        self._thread: threading.Thread | None = None

    def request(self, request: Request, reply: Response | None, seconds: float) -> None:
        """Log one request."""
        record = request.record
        entry: dict[str, Any] = {
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "request_id": record.request_id,
            "client": request.client,
            "method": request.method,
            "route": request.route.path if request.route else None,
            "status": reply.status if reply is not None else LEFT,
            "ms": round(seconds * 1e3, 2),
        }
        if record.texts:
            entry |= {
                "model": record.model,
                "lane": None if record.lane is None else LANES[record.lane],
                "texts": record.texts,
                "tokens": record.tokens,
                "truncated": len(record.truncated),
                "tokenize_ms": round(record.tokenize_seconds * 1e3, 2),
                "queue_ms": round(record.queue_seconds * 1e3, 2),
                "run_ms": round(record.run_seconds * 1e3, 2),
            }
        for name in ("trace_id", "failure", "detail"):
            if (value := getattr(record, name)) is not None:
                entry[name] = value
        try:
            self._lines.put_nowait(msgspec.json.encode(entry) + b"\n")
        except queue.Full:
            self.lost += 1
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="bgert-log", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def close(self) -> None:
        """Write what waits, for two seconds at most."""
        if self._thread is not None and self._thread.is_alive():
            try:
                self._lines.put(None, timeout=2)
            except queue.Full:
                return
            self._thread.join(2)

    def _write(self) -> None:
        out = sys.stdout.buffer
        try:
            while (line := self._lines.get()) is not None:
                out.write(line)
                if self._lines.empty():
                    out.flush()
            out.flush()
        except (OSError, ValueError):  # nobody reads any more
            return
