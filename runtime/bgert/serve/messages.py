"""A request and a reply."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from bgert.serve.record import Record

if TYPE_CHECKING:
    from bgert.serve.routes import Handler, Route

__all__ = ["Request", "Response"]


STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


@dataclass(slots=True, eq=False)
class Request:
    """What a client asks."""

    client: str
    method: str = ""
    target: bytes = b""
    path: str = ""
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    """Names in lower case; the values of a repeated one are joined by commas."""
    body: bytes = b""
    body_length: int | None = None
    """The announced length, None for a chunked body."""
    begun: float = 0.0
    """`time.perf_counter()` when the headers were there."""
    record: Record = field(default_factory=Record)
    route: Route | None = None
    handler: Handler | None = None
    admitted: bool = False


class Response(NamedTuple):
    """What it gets."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False

    def head(self, *, close: bool, http_10: bool = False) -> bytes:
        """Status line and headers, to the empty line."""
        lines = [
            STATUS_LINES[self.status],
            f"date: {_date(int(time.time()))}\r\ncontent-length: {len(self.body)}\r\n",
        ]
        if self.body:
            lines.append(f"content-type: {self.content_type}\r\n")
        lines += [f"{name}: {value}\r\n" for name, value in self.headers]
        if close:
            lines.append("connection: close\r\n")
        elif http_10:
            lines.append("connection: keep-alive\r\n")
        lines.append("\r\n")
        return "".join(lines).encode("latin-1", "replace")
