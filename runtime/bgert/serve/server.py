"""The process: sockets, loading, signals, draining and exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bgert.cpu_count import available_cpus
from bgert.errors import InvalidOptionError
from bgert.serve.app import App
from bgert.serve.connection import Connection
from bgert.serve.cores import Cores
from bgert.serve.health import Canary, Health, warm_up
from bgert.serve.log import AccessLog
from bgert.serve.models import load
from bgert.serve.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from bgert.serve.models import Served
    from bgert.serve.settings import Settings

__all__ = ["ENGINE_DEAD", "run"]

ENGINE_DEAD = 70  # sysexits: internal software error; a supervisor starts the server again
SWEEP_SECONDS = 0.5
FIRST_GIVEN_FILE = 3  # SD_LISTEN_FDS_START
FLUSH_SECONDS = 1.0  # for the last replies to leave
JOIN_SECONDS = 5.0  # for the last batches to end


def run(settings: Settings) -> int:
    """Serve until a signal; returns the exit status.

    Raises:
        BgertError: a folder cannot be served.
        OSError: the address cannot be listened on.
    """
    _many_files()
    server = Server(settings)
    with contextlib.ExitStack() as stack:
        loop = _new_loop()
        stack.callback(loop.close)
        status = loop.run_until_complete(server.main())
    server.app.log.close()
    if not server.ended():
        # The interpreter must not end under a thread that is in an engine.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # Windows has none
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _many_files() -> None:
    """Allow as many connections as the system lets a process have."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Server:
    """One run of `bgert serve`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.service = Service(settings)
        self.health = Health(self.service)
        self.app = App(self.service, self.health, AccessLog())
        self.forced = False
        self._cores = Cores(max(available_cpus(), settings.threads or 1))

    async def main(self) -> int:
        """Listen, load, serve, drain."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        self._stop = stop
        for number in (signal.SIGTERM, signal.SIGINT):
            _on_signal(loop, number, self._signalled)
        listener = await self._listen()
        self._address = _address(listener)
        tasks = [loop.create_task(self._sweep()), loop.create_task(self.health.watch(self._engine_died))]
        loading = loop.create_task(self._load())
        stopped = loop.create_task(stop.wait())
        try:
            await asyncio.wait([loading, stopped], return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                loading.result()
                await stopped
                await self._drain(listener)
            else:
                self.forced = True  # the loading thread goes on for as long as it takes
        finally:
            listener.close()
            for task in [*tasks, loading, stopped]:
                task.cancel()
            for served in self.service.models:
                served.engine.stop()
            if self.settings.uds is not None:
                Path(self.settings.uds).unlink(missing_ok=True)
        return 0 if self.health.died is None else ENGINE_DEAD

    def ended(self) -> bool:
        """Whether no thread is left in an engine; those that run get the time for a batch."""
        if self.forced or self.health.died is not None:
            return False
        return all(served.engine.join(JOIN_SECONDS) for served in self.service.models)

    async def _listen(self) -> asyncio.Server:
        loop, settings = asyncio.get_running_loop(), self.settings

        def connect() -> Connection:
            return Connection(self.app)

        if (given := _given_socket()) is not None:
            if settings.uds is not None:
                raise InvalidOptionError("the supervisor gives the socket to listen on: leave --uds out")
            create = loop.create_server if given.family != socket.AF_UNIX else loop.create_unix_server
            return await create(connect, sock=given, backlog=2048)
        if settings.uds is not None:
            return await loop.create_unix_server(connect, path=_free_socket(Path(settings.uds)), backlog=2048)
        return await loop.create_server(connect, host=settings.host, port=settings.port, backlog=2048)

    async def _load(self) -> None:
        """Load every folder, and begin to serve when all are there."""
        loop, names = asyncio.get_running_loop(), dict[str, str]()
        for number, folder in enumerate(self.settings.folders):
            self.health.progress = f"loading {number + 1} of {len(self.settings.folders)} models"
            served, canary = await loop.run_in_executor(None, self._open, number)
            if served.name in names:
                raise InvalidOptionError(
                    f"{names[served.name]} and {folder} would both be served as {served.name!r}: give each a --name"
                )
            names[served.name] = folder
            served.engine.start(loop)
            served.engine.last_success = time.monotonic()
            self.service.metrics.watch(served, self.settings)
            self.service.models.append(served)
            self.health.canaries.append(canary)
            _say(_line(served))
        self.service.metrics.watch_queues(self.service.models)
        self.health.progress = None
        _say(f"ready on {self._address}")

    def _open(self, number: int) -> tuple[Served, Canary]:
        served = load(number, self.settings, self._cores)
        warm_up(served)
        return served, Canary(served)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for connection in list(self.app.connections):
                connection.sweep(now)

    def _signalled(self) -> None:
        if self._stop.is_set():
            _say("a second signal: ending at once")
            sys.stderr.flush()
            os._exit(1)
        self._stop.set()

    def _engine_died(self, reason: str) -> None:
        _say(f"the engine has failed, ending with status {ENGINE_DEAD}: {reason}")
        self._stop.set()

    async def _drain(self, listener: asyncio.Server) -> None:
        """Finish what was begun, then close."""
        self.health.draining = True
        if self.health.died is None and self.settings.drain_delay:
            await asyncio.sleep(self.settings.drain_delay)
        listener.close()
        self.health.stopped = True
        end = time.monotonic() + self.settings.drain_timeout
        if self.health.died is None:
            _say(f"finishing {self.app.admission.requests} requests")
        while self.app.connections and time.monotonic() < end:
            for connection in list(self.app.connections):
                connection.shut()
            await asyncio.sleep(0.02)
        for served in self.service.models:
            served.engine.die("the server is shutting down")
        end = time.monotonic() + FLUSH_SECONDS
        while any(connection.busy for connection in self.app.connections) and time.monotonic() < end:
            await asyncio.sleep(0.02)
        for connection in list(self.app.connections):
            connection.abort()
        await asyncio.sleep(0)


def _given_socket() -> socket.socket | None:
    """The listening socket that systemd, or what does as systemd, has opened for this process; it is the third file.

    Raises:
        InvalidOptionError: there are several, or it is no listening socket.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    if os.environ.get("LISTEN_FDS") != "1":
        raise InvalidOptionError(f"LISTEN_FDS is {os.environ.get('LISTEN_FDS')!r}: give one socket to listen on")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    try:
        given = socket.socket(fileno=FIRST_GIVEN_FILE)
        listening = given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise InvalidOptionError(f"LISTEN_FDS names a socket that is none: {error.strerror}") from None
    if not listening or given.type != socket.SOCK_STREAM:
        raise InvalidOptionError("LISTEN_FDS names a socket that does not listen for streams")
    given.set_inheritable(False)
    given.setblocking(False)
    return given


def _address(listener: asyncio.Server) -> str:
    """Where clients find the server, with the port that `--port 0` got."""
    name = listener.sockets[0].getsockname()
    if isinstance(name, str):
        return f"unix socket {name}"
    host, port = name[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _on_signal(loop: asyncio.AbstractEventLoop, number: int, call: Callable[[], None]) -> None:
    try:
        loop.add_signal_handler(number, call)
    except NotImplementedError:  # Windows
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(call))


def _free_socket(path: Path) -> str:
    """A socket that a dead server left is removed; one that answers is another server's."""
    if path.exists():
        probe = socket.socket(socket.AF_UNIX)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except OSError as error:
            raise InvalidOptionError(f"{path} is there and is no socket: name another --uds") from error
        else:
            raise InvalidOptionError(f"another server listens on {path}")
        finally:
            probe.close()
    return str(path)


def _line(served: Served) -> str:
    model, speed = served.model, served.engine.tokens_per_second
    what = f"{served.engine.columns} dimensions" if served.kind == "encoder" else f"{served.engine.columns} scores"
    return (
        f"{served.name}: {served.kind}, {what}, {model.max_length} tokens, {model.device} {model.precision}, "
        f"{model.engine}, about {speed:,.0f} tokens/s"
    )


def _say(text: str) -> None:
    print(f"bgert serve: {text}", file=sys.stderr, flush=True)
