"""The server: an event loop and granian's embedded RSGI server around the API, in one process or in several."""

import asyncio
import gc
import logging
import signal
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
import uvloop
from granian.constants import HTTPModes, SSLProtocols
from granian.http import HTTP1Settings
from granian.server.embed import Server

from tillway import workers
from tillway.data_directory import occupied
from tillway.http.rsgi import Door
from tillway.settings import Settings, address_of
from tillway.telemetry.lines import LineHandler, Lines, Writer
from tillway.telemetry.metrics import Metrics
from tillway.telemetry.recorder import Recorder
from tillway.telemetry.scrape import Scrape
from tillway.telemetry.traces import Traces
from tillway.wiring import assemble, public_url

BACKLOG = 1024
SWITCH_SECONDS = 0.0005
GC_THRESHOLD = 50_000
"""New containers, beyond those freed, after which the youngest are searched for cycles."""

REACHABLE_WITHIN_SECONDS = 10.0

DISMISSED_WITHIN_SECONDS = 1.0
"""How long the answers to those who are sent away may take to leave."""

CLOSING_SECONDS = 1.0
"""What background tasks get to finish at least. The rest of them is found again by the next start."""

_STOPPING_HEADERS = [("content-type", "application/json"), ("retry-after", "1"), ("stripe-should-retry", "true")]
_STOPPING = (
    b'{"error":{"type":"api_error","code":"server_stopping","message":"The server is stopping and did not finish this '
    b'request. Repeat it with the same Idempotency-Key; without one, ask for the object before you repeat it."}}'
)


class CannotListen(Exception):
    """The address cannot be listened on, or not with these TLS files. The text says why."""


Visitor = Callable[[str], Awaitable[Literal["serve", "stop"]]]
"""Gets the server's URL as soon as it answers, and says whether it goes on."""


def run(settings: Settings, visitor: Visitor | None = None) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is in flight and return.

    Raises `CannotListen`, `DataDirectoryInUse`, `TracesUnavailable`, and what `assemble` raises.
    """
    _check_tls(settings)
    settings, address = _bound(settings)
    with occupied(settings.data_dir, f"tillway serve, {public_url(settings)}"):
        if settings.workers > 1:
            workers.supervise(
                settings.workers, lambda number, tie: _work(_of_worker(settings, number), address, None, tie)
            )
        else:
            _work(settings, address, visitor)


def _of_worker(settings: Settings, number: int) -> Settings:
    """The settings of one process of several: they share the port, and each has a port of its own for its metrics."""
    listen = address_of(settings.metrics_listen)
    if listen is None or number == 0:
        return settings
    host, port = listen
    shown = f"[{host}]" if ":" in host else host
    return msgspec.structs.replace(settings, metrics_listen=f"{shown}:{port + number if port else 0}")


def _work(settings: Settings, address: str, visitor: Visitor | None, tie: workers.Tie | None = None) -> None:
    """Serve in this process, which `tie` binds to its supervisor where it is one of several."""
    traces = Traces.from_environment(settings.trace_context) if settings.traces == "on" else None
    writer = Writer(sys.stderr.fileno())
    lines = Lines(writer, settings.log_format)
    handler = LineHandler(lines)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(settings.log_level.upper())
    recorder = Recorder(Metrics(), lines if root.isEnabledFor(logging.INFO) else None, traces)
    try:
        uvloop.run(_serve(settings, address, visitor, recorder, lines, tie))
    finally:
        if traces is not None:
            traces.close()
        root.removeHandler(handler)
        writer.close()


class Lobby:
    """The door, and who is inside: a server that stops waits for them."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._inside: set[asyncio.Task[Any]] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    async def __call__(self, scope: Any, protocol: Any) -> None:
        task = asyncio.current_task()
        assert task is not None, "granian runs every request as a task of its own"
        self._inside.add(task)
        self._empty.clear()
        try:
            await self._door(scope, protocol)
        except asyncio.CancelledError:
            # What was begun is in the store: the same Idempotency-Key finds it, whoever serves then.
            protocol.response_bytes(503, _STOPPING_HEADERS, _STOPPING)
        finally:
            self._inside.discard(task)
            if not self._inside:
                self._empty.set()

    async def emptied(self) -> None:
        """Return when nobody is inside."""
        await self._empty.wait()

    async def dismiss(self) -> None:
        """Answer everybody who is still inside that the server stops, at once."""
        for task in list(self._inside):
            task.cancel()
        await asyncio.wait((asyncio.ensure_future(self.emptied()),), timeout=DISMISSED_WITHIN_SECONDS)


def _tune_the_interpreter() -> None:
    """What was loaded stays for the life of the process, and a request's garbage is freed by counting references: the
    cycle collector need not look at either every few hundred objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    # A thread that comes back from the disk asks for the interpreter and gets it after at most this long.
    sys.setswitchinterval(SWITCH_SECONDS)


async def _serve(
    settings: Settings,
    address: str,
    visitor: Visitor | None,
    recorder: Recorder,
    lines: Lines,
    tie: workers.Tie | None,
) -> None:
    running = await assemble(settings, recorder=recorder)
    scrape = Scrape(recorder.metrics, running.store, running.platform.engine.clock, lines.writer)
    try:
        await _offer_metrics(settings, scrape, lines)
    except CannotListen:
        await running.close()
        raise
    _tune_the_interpreter()
    lobby = Lobby(Door(running.api))
    server = Server(
        lobby,
        address=address,
        port=settings.port,
        # HTTP/1.1 alone, under TLS too: its time-outs are the ones that hold here.
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        # The clock of a request's headers starts when the connection is made or the last answer is sent, so this is the
        # idle time-out as well.
        http1_settings=HTTP1Settings(header_read_timeout=settings.header_seconds * 1000),
        log_enabled=False,
        ssl_cert=settings.tls_cert,
        ssl_key=settings.tls_key,
        ssl_protocol_min=SSLProtocols.tls12,
    )
    asked, urged = _signals(tie)
    running.runner.start()
    serving = asyncio.ensure_future(server.serve())
    await _reachable(address, settings.port, serving)
    lines.tell("Tillway serves", url=public_url(settings))
    if tie is not None:
        tie.serves()
    visit = asyncio.ensure_future(visitor(public_url(settings))) if visitor is not None else None
    waits = {asked, serving} if visit is None else {asked, serving, visit}
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    if visit is not None and visit.done() and not visit.exception() and visit.result() == "serve":
        await asyncio.wait((asked, serving), return_when=asyncio.FIRST_COMPLETED)
    stopped_in_order = not serving.done()
    server.stop()
    lines.tell("Tillway stops; what is in flight finishes first.")
    deadline = time.monotonic() + settings.shutdown_seconds
    emptied = asyncio.ensure_future(lobby.emptied())
    await asyncio.wait((emptied, urged), timeout=settings.shutdown_seconds, return_when=asyncio.FIRST_COMPLETED)
    await lobby.dismiss()
    await asyncio.wait((serving,), timeout=DISMISSED_WITHIN_SECONDS)
    await scrape.close()
    left = 0.0 if urged.done() else deadline - time.monotonic()
    await running.close(within_seconds=max(left, CLOSING_SECONDS))
    if not stopped_in_order:
        raise RuntimeError("the HTTP server ended by itself")
    if visit is not None:
        if not visit.done():
            visit.cancel()
            return
        visit.result()


def _signals(tie: workers.Tie | None) -> "tuple[asyncio.Future[None], asyncio.Future[None]]":
    """What the first SIGTERM or SIGINT completes, and what the second does: whoever asks twice will not wait. A worker
    whose supervisor is gone is asked by that: nobody else would ever stop it."""
    loop = asyncio.get_running_loop()
    asked, urged = loop.create_future(), loop.create_future()

    def received() -> None:
        if not asked.done():
            asked.set_result(None)
        elif not urged.done():
            urged.set_result(None)

    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, received)
    if tie is not None:
        orphaned = tie.orphaned

        def bereft() -> None:
            loop.remove_reader(orphaned)
            received()

        loop.add_reader(orphaned, bereft)
    return asked, urged


async def _offer_metrics(settings: Settings, scrape: Scrape, lines: Lines) -> None:
    """`/metrics` on its own address, where the settings name one. Raises `CannotListen`."""
    found = address_of(settings.metrics_listen)
    if found is None:
        return
    host, port = found
    try:
        port = await scrape.start(host, port)
    except OSError as error:
        raise CannotListen(
            f"metrics_listen {settings.metrics_listen} cannot be listened on: {error.strerror}"
        ) from None
    shown = f"[{host}]" if ":" in host else host
    lines.tell("Metrics are at", url=f"http://{shown}:{port}/metrics")


async def _reachable(address: str, port: int, serving: "asyncio.Future[None]") -> None:
    """Wait until the port answers, so that the ready line is true."""
    deadline = time.monotonic() + REACHABLE_WITHIN_SECONDS
    while time.monotonic() < deadline:
        if serving.done():
            await serving
            raise RuntimeError(f"the server on {address}:{port} ended as it began")
        try:
            _, writer = await asyncio.open_connection(address, port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return
    raise RuntimeError(f"nothing listens on {address}:{port} after {REACHABLE_WITHIN_SECONDS:g} seconds")


def _bound(settings: Settings) -> tuple[Settings, str]:
    """The settings with a port that can be had (0 becomes a free one), and the address behind the name of the host.

    The server shares its port with whoever asks (SO_REUSEPORT), so a second one on the same port would take half of the
    first one's customers and none would be told: a plain bind refuses that. Raises `CannotListen`.
    """
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # Where a name has addresses of both families, the older one is what everybody reaches.
        family, _, _, _, place = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            port = probe.getsockname()[1]
    except OSError as error:
        raise CannotListen(f"{settings.host}:{settings.port} cannot be listened on: {error.strerror}") from None
    return msgspec.structs.replace(settings, port=port), str(place[0])


def _check_tls(settings: Settings) -> None:
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ValueError) as error:
        raise CannotListen(
            f"tls_cert {settings.tls_cert} and tls_key {settings.tls_key} cannot be used: {error}. "
            f"Name a chain of certificates and the private key that belongs to it, both PEM."
        ) from None
