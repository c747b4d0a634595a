"""HTTP/1.1 for load: connections that are kept open, and as little work as possible for each reply."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FAILED", "Connection", "Pool", "post"]

FAILED = 0  # the status of a request that got no reply
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def post(path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole request as it goes over the wire."""
    fields = {"host": "localhost", "content-type": "application/json", "content-length": str(len(body))}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in {**fields, **(headers or {})}.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Connection(asyncio.Protocol):
    """One connection with at most one request on its way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._whole: int | None = None
        self._head = b""
        self._reply: asyncio.Future[tuple[int, bytes]] | None = None

    @property
    def open(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing() and self._reply is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def request(self, data: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send a request.

        Returns:
            Status and body of the reply to come; `ConnectionError` if the connection ends before it.
        """
        self._reply = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            self._fail("the connection is closed")
        else:
            self._transport.write(data)
        return self._reply

    def close(self) -> None:
        """End it at once, whatever is on its way."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Collect a reply."""
        self._received += data
        if self._whole is None:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = bytes(self._received[:end])
            found = LENGTH.search(self._head)
            if found is None:
                self._fail("a reply without content-length")
                self.close()
                return
            self._whole = end + 4 + int(found[1])
        if len(self._received) < self._whole:
            return
        body = bytes(self._received[len(self._head) + 4 : self._whole])
        self._received.clear()
        self._whole = None
        reply, self._reply = self._reply, None
        if b"connection: close" in self._head.lower():
            self.close()
        if reply is not None and not reply.done():
            reply.set_result((int(self._head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        self._fail(str(exc or "the server closed the connection"))

    def _fail(self, reason: str) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionError(reason))
        self._reply = None


class Pool:
    """Connections to one port of this machine: an idle one is used again, and none is waited for."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()

    async def send(self, data: bytes) -> tuple[int, bytes]:
        """Status and body of the reply; `FAILED` where there is none."""
        connection = None
        while self._idle and connection is None:
            connection = self._idle.pop()
            if not connection.open:
                self._all.discard(connection)
                connection = None
        try:
            if connection is None:
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_connection(Connection, "127.0.0.1", self.port)
                self._all.add(connection)
            reply = await connection.request(data)
        except OSError:
            if connection is not None:
                self._all.discard(connection)
            return FAILED, b""
        if connection.open:
            self._idle.append(connection)
        else:
            self._all.discard(connection)
        return reply

    def close(self) -> None:
        """End all connections; requests on their way are left behind."""
        for connection in self._all:
            connection.close()
        self._all.clear()
        self._idle.clear()
