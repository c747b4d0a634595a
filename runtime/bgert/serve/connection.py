"""HTTP/1.1 on one connection, over httptools' parser: bounded in memory and in time, whatever the client does.

A request is admitted or refused when its headers are there, before its body is read. A client that leaves cancels
its request. A reply is always whole: length first, never a stream.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

import httptools

from bgert.serve.messages import Request, Response

if TYPE_CHECKING:
    from bgert.serve.app import App

__all__ = ["Connection"]

MOST_HEADER_BYTES = 32 << 10
MOST_DISCARDED = 64 << 20
HEAD_SECONDS = 10.0  # from the first byte, or the connection, to the end of the headers
IDLE_SECONDS = 75.0  # between requests; more than the 60 s of common load balancers
BODY_SECONDS = 10.0  # for a body, and a second more for each
BODY_RATE = 16 << 10  # bytes of it
UNREAD_SECONDS = 20.0  # a client that takes nothing of its reply
LINGER_SECONDS = 2.0  # to read the reply after a refusal, while the rest of the body is thrown away


@dataclass(slots=True, eq=False)
class _Turn:
    """One request in the order of the connection, with the reply where admission already gave one."""

    request: Request
    reply: Response | None
    keep_alive: bool
    http_10: bool
    chunks: list[bytes] = field(default_factory=list)
    received: int = 0
    complete: bool = False
    must_close: bool = False
    ended: bool = False


class Connection(asyncio.Protocol):
    """One client's connection.

    `sweep` is called about twice a second and ends what takes too long: there are no timers to set and unset.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._client = ""
        self._parser = httptools.HttpRequestParser(self)
        self._request = Request("")
        self._head_bytes = 0
        self._reading: _Turn | None = None
        """The request whose body is being read."""
        self._turns: deque[_Turn] = deque()
        """Requests without a reply; the first is being served once it is complete."""
        self._task: asyncio.Task[None] | None = None
        self._lingering = False
        self._discarded = 0
        self._head_since: float | None = time.monotonic()
        self._body_since = 0.0
        self._idle_since: float | None = None
        self._unread_since: float | None = None
        self._unread = 0

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = transport  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) and peer else "unix"
        self.app.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The client is gone: so is its work."""
        self.app.connections.discard(self)
        self._drop_turns()
        self._reading = None
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._lingering or self._transport.is_closing():
            self._discarded += len(data)
            if self._discarded > MOST_DISCARDED:
                self._transport.abort()
            return
        self._idle_since = None
        if self._reading is None:
            if self._head_since is None:
                self._head_since = time.monotonic()
            self._head_bytes += len(data)
        self._feed(data)
        if self._reading is None and self._head_bytes > MOST_HEADER_BYTES:
            self._refuse_connection(431, "the headers are larger than 32 KiB")

    def _feed(self, data: bytes | memoryview) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            # HTTP/2 is offered by some clients beside a request that is whole without it.
            rest = bytes(data)[error.args[0] :]
            head = [f"{self._request.method} ".encode(), self._request.target, b" HTTP/1.1\r\n"]
            for name, value in self._request.headers.items():
                if name not in ("upgrade", "connection", "http2-settings"):
                    head.append(f"{name}: {value}\r\n".encode("latin-1"))
            self._parser = httptools.HttpRequestParser(self)
            self._feed(b"".join([*head, b"\r\n", rest]))
        except httptools.HttpParserError as error:
            status, message = getattr(error.__context__, "refusal", (400, "this is not a valid HTTP/1.1 request"))
            self._refuse_connection(status, message)

    # the parser's side

    def on_message_begin(self) -> None:
        """A request begins."""
        self._request = Request(self._client)
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._request.target += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or a trailer, which nobody needs."""
        self._count_head(len(name) + len(value))
        if self._reading is not None:
            return
        headers, key, text = self._request.headers, name.decode("latin-1").lower(), value.decode("latin-1").strip()
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MOST_HEADER_BYTES:
            raise _BadHeadError(431, "the headers are larger than 32 KiB")

    def on_headers_complete(self) -> None:
        """Admit the request or refuse it."""
        if self._lingering or self._transport.is_closing():
            return
        parser, request = self._parser, self._request
        request.method = parser.get_method().decode("ascii")
        if parser.should_upgrade():
            if request.method == "CONNECT":
                raise _BadHeadError(405, "this is no proxy")
            return
        try:
            url = httptools.parse_url(request.target)
        except httptools.HttpParserInvalidURLError:
            raise _BadHeadError(400, "the path of the request is no valid one") from None
        request.path = unquote((url.path or b"/").decode("latin-1"))
        request.query = (url.query or b"").decode("latin-1")
        request.begun = time.perf_counter()
        self._head_since = None
        headers = request.headers
        if "transfer-encoding" not in headers:
            request.body_length = int(headers.get("content-length") or 0)
        turn = _Turn(
            request,
            self.app.admit(request),
            keep_alive=parser.should_keep_alive(),
            http_10=parser.get_http_version() == "1.0",
        )
        self._reading = turn
        self._body_since = time.monotonic()
        self._turns.append(turn)
        if headers.get("expect", "").lower() == "100-continue":
            if turn.reply is not None:
                turn.must_close = True  # whether the body still comes cannot be known
            elif len(self._turns) == 1:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if turn.reply is not None and request.body_length != 0:
            # The client is told before it has sent the rest.
            turn.complete = True
            self._next()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        turn = self._reading
        if turn is None:
            return
        if turn.reply is not None:
            return
        turn.received += len(body)
        self.app.admission.body_bytes += len(body)
        turn.chunks.append(body)
        if (reply := self.app.check_body(turn.request, turn.received)) is not None:
            self._forget(turn)
            turn.reply = reply
            turn.complete = True
            self._next()

    def on_message_complete(self) -> None:
        """The request is whole."""
        turn = self._reading
        self._head_bytes = 0
        if turn is None or self._parser.should_upgrade():
            return
        self._reading = None
        turn.complete = True
        if not turn.ended:
            self._next()
        if not self._turns:
            self._idle_since = time.monotonic()
        self._flow()

    def _flow(self) -> None:
        """Read on, unless requests already wait. Without reading nobody would see a client leave."""
        if not self._transport.is_closing():
            if len(self._turns) > 1:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # requests in turn

    def _next(self) -> None:
        """Serve the first request if it is whole and none is being served."""
        while self._turns and self._turns[0].complete and self._task is None:
            turn = self._turns[0]
            if turn.reply is None:
                turn.request.body = b"".join(turn.chunks)
                turn.chunks.clear()
                self._task = self._loop.create_task(self._serve(turn))
                return
            self._reply(turn, turn.reply)

    async def _serve(self, turn: _Turn) -> None:
        try:
            reply = await self.app.handle(turn.request)
        except asyncio.CancelledError:  # the client left
            self._end(turn, None)
            self._transport.abort()
            return
        finally:
            self._task = None
        self._reply(turn, reply)
        self._next()
        self._flow()

    def _forget(self, turn: _Turn) -> None:
        """The body is no longer held."""
        self.app.admission.body_bytes -= turn.received
        turn.received = 0
        turn.chunks.clear()
        turn.request.body = b""

    def _end(self, turn: _Turn, reply: Response | None) -> None:
        """A request has its reply, or never will."""
        if not turn.ended:
            turn.ended = True
            self._forget(turn)
            self.app.ended(turn.request, reply)

    def _drop_turns(self) -> None:
        serving = self._turns[0] if self._task is not None and self._turns else None
        for turn in self._turns:
            if turn is not serving:  # it ends when its task does
                self._end(turn, None)
        self._turns.clear()

    def _reply(self, turn: _Turn, reply: Response) -> None:
        if self._transport.is_closing():
            self._end(turn, None)
            return
        self._turns.popleft()
        unfinished = self._reading is turn  # the rest of its body is still to come
        promised = turn.request.body_length
        endless = unfinished and (promised is None or promised > self.app.settings.max_body)
        close = reply.close or turn.must_close or not turn.keep_alive or endless or self.app.draining
        head = reply.head(close=close, http_10=turn.http_10)
        if turn.request.method == "HEAD":
            self._transport.write(head)
        elif len(reply.body) < 1 << 16:
            self._transport.write(head + reply.body)
        else:
            self._transport.writelines([head, reply.body])
        turn.reply = reply
        self._end(turn, reply)
        if close:
            self._drop_turns()
            self._close(linger=unfinished)
        elif not self._turns and not unfinished:
            self._idle_since = time.monotonic()

    def _refuse_connection(self, status: int, message: str) -> None:
        """Answer what is no request, and close."""
        if self._transport.is_closing() or self._lingering:
            return
        self.app.refused_connection()
        body = f'{{"error":{{"message":"{message}","type":"invalid_request_error","param":null,"code":null}}}}'
        reply = Response(status, body.encode(), close=True)
        if self._reading is not None and self._reading.reply is None and self._turns[0] is self._reading:
            self._reply(self._reading, reply)
            return
        if self._turns:  # after good requests, which would get this reply for theirs
            self._transport.abort()
            return
        self._transport.write(reply.head(close=True) + reply.body)
        self._close(linger=True)

    def _close(self, *, linger: bool) -> None:
        """Close after the reply; while the client still sends, it would lose the reply if that were at once."""
        self._reading = None
        if linger and self._transport.can_write_eof():
            self._lingering = True
            self._head_since = time.monotonic()
            self._transport.resume_reading()
            self._transport.write_eof()
        else:
            self._transport.close()

    # the app's side

    @property
    def busy(self) -> bool:
        """Whether a request is being served or read."""
        return bool(self._turns)

    def shut(self) -> None:
        """Close if nothing is being served; a busy connection closes after its reply, see `App.draining`."""
        if not self.busy:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def sweep(self, now: float) -> None:
        """End what takes too long.

        Args:
            now: `time.monotonic()`.
        """
        unread = self._transport.get_write_buffer_size()
        if unread == 0 or unread != self._unread:
            self._unread, self._unread_since = unread, now
        elif self._unread_since is not None and now - self._unread_since > UNREAD_SECONDS:
            self._transport.abort()
            return
        if self._lingering:
            if self._head_since is not None and now - self._head_since > LINGER_SECONDS:
                self._transport.abort()
        elif self._reading is not None:
            if now - self._body_since > BODY_SECONDS + self._reading.received / BODY_RATE:
                self._slow_body(self._reading)
        elif self._head_since is not None and not self._turns:
            if now - self._head_since > HEAD_SECONDS:
                self._transport.close()
        elif self._idle_since is not None and now - self._idle_since > IDLE_SECONDS:
            self._transport.close()

    def _slow_body(self, turn: _Turn) -> None:
        if turn.reply is None and self._turns[0] is turn:
            self._reply(turn, self.app.too_slow(turn.request))
        else:
            self._transport.abort()


class _BadHeadError(Exception):
    """Ends the parsing of a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.refusal = (status, message)
