"""The server: an event loop and granian's embedded RSGI server around the API, in one process or in several."""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import uvloop

from tillway import service_manager, workers
from tillway.data_directory import occupied
from tillway.engine.siblings import Siblings
from tillway.http.rsgi import RsgiApp
from tillway.http.sockets import Sockets
from tillway.http_server import HttpServer, HttpServers, OneSide, listen, set_up_listening
from tillway.installation import check_key_file, public_url
from tillway.open_connections import Bounds, OpenConnections
from tillway.settings import WITHOUT_TLS_REMEDY, Settings, address_of, networks_of
from tillway.telemetry.lines import LineHandler, Lines, Writer
from tillway.telemetry.metrics import Metrics
from tillway.telemetry.recorder import Recorder
from tillway.telemetry.traces import Traces
from tillway.wiring import Running, assemble, look_for_restore

if TYPE_CHECKING:
    from tillway.telemetry.scrape import Scrape

log = logging.getLogger(__name__)

FILES_MAX = 65_536
"""The open files that a server process asks for."""

CONNECTIONS_LEAST = 128
"""The bound of connections in all where the limit of open files is very low."""

SWITCH_SECONDS = 0.0005
GC_THRESHOLD = 50_000
"""The number of new containers, less those freed, after which the collector searches the youngest for cycles."""

REACHABLE_WITHIN_SECONDS = 10.0

CANCELLED_WITHIN_SECONDS = 1.0
"""How long the 503 answers to cancelled requests may take to be sent."""

CLOSING_SECONDS = 1.0
"""The least time that background tasks get to finish. The next start finds those that did not."""


class CannotListen(Exception):
    """The server cannot listen on the address, or not with these TLS files or this log file. The text says why."""


Visitor = Callable[[str], Awaitable[Literal["serve", "stop"]]]
"""Called with the server's URL once it answers. Its result says whether the server continues or stops."""


def run(settings: Settings, visitor: Visitor | None = None) -> None:
    """Serve until SIGTERM or SIGINT; then finish the requests in flight and return.

    Raises `CannotListen`, `DataDirectoryInUse`, `TracesUnavailable`, and the errors of `assemble`.
    """
    _check_tls(settings)
    _ignore_signals(signal.SIGUSR1, signal.SIGUSR2)
    if visitor is None:
        _ignore_signals(signal.SIGHUP)  # Until it can be obeyed.
    _raise_file_limit()
    try:
        passed = service_manager.take_passed_socket()
    except service_manager.UnusableSocket as unusable:
        raise CannotListen(str(unusable)) from None
    settings, address = _resolve_address(settings) if passed is None else _address_of(passed, settings)
    _check_dashboard_address(settings, address)
    with occupied(settings.data_dir, f"tillway serve, {public_url(settings)}"):
        processes = settings.workers or workers.by_cores()
        if processes > 1 and visitor is None:
            siblings = Siblings(processes)

            def work(number: int, link: workers.SupervisorLink) -> None:
                siblings.begin(number)
                _serve_in_process(_settings_of_worker(settings, number), address, passed, None, link, siblings)

            workers.supervise(processes, work)
        else:
            _serve_in_process(settings, address, passed, visitor)


def _ignore_signals(*signs: signal.Signals) -> None:
    """Ignore signals that end a process by default, and by which other servers reopen logs or tell their state."""
    for sign in signs:
        signal.signal(sign, signal.SIG_IGN)


def _settings_of_worker(settings: Settings, number: int) -> Settings:
    """Return the settings of one of several processes. They share the port; each serves its metrics on its own port."""
    listen = address_of(settings.metrics_listen)
    if listen is None or number == 0:
        return settings
    host, port = listen
    shown = f"[{host}]" if ":" in host else host
    return msgspec.structs.replace(settings, metrics_listen=f"{shown}:{port + number if port else 0}")


def _serve_in_process(
    settings: Settings,
    address: str,
    passed: socket.socket | None,
    visitor: Visitor | None,
    link: workers.SupervisorLink | None = None,
    siblings: Siblings | None = None,
) -> None:
    """Serve in this process, on the socket that was passed if one was. `link` connects one of several processes to
    their supervisor, `siblings` to the others."""
    traces = Traces.from_environment(settings.trace_context) if settings.traces == "on" else None
    writer = Writer(sys.stderr.fileno() if settings.log_file is None else _open_log(settings.log_file))
    lines = Lines(writer, settings.log_format)
    handler = LineHandler(lines)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(settings.log_level.upper())
    recorder = Recorder(
        Metrics(), lines if root.isEnabledFor(logging.INFO) else None, traces, settings.metrics_merchants
    )
    try:
        uvloop.run(_serve(settings, address, passed, visitor, recorder, lines, link, siblings))
    finally:
        if traces is not None:
            traces.close()
        root.removeHandler(handler)
        writer.close()


def _open_log(path: Path) -> int:
    """Open the log file, to append to it, and return its descriptor. Raises `CannotListen`."""
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotListen(f"log_file {path} cannot be opened: {error.strerror}") from None


class DrainingApp:
    """Keeps track of the requests in flight, so that a server that stops can wait for them."""

    def __init__(self, app: RsgiApp) -> None:
        self._app = app
        self._idle: asyncio.Future[None] | None = None
        """Done when no request is in flight; made when the server stops."""
        self._sockets = Sockets(app.api.platform)
        app.api.platform.serves_sockets = True

    def __call__(self, scope: Any, protocol: Any) -> Awaitable[None]:
        return self._sockets.serve(scope, protocol) if scope.proto == "ws" else self._app.serve(scope, protocol)

    def answering(self) -> Iterator[str]:
        """The peers (address and port) of requests that are whole and wait for their answers."""
        return (scope.client for task, scope in self._app.in_flight.items() if not self._app.reads_body_of(task))

    async def wait_until_idle(self) -> None:
        """End the websockets, and return when no request is in flight."""
        self._sockets.close()
        self._app.on_idle = self._tell_idle
        while self._app.in_flight:
            if self._idle is None or self._idle.done():
                self._idle = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)

    def _tell_idle(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def cancel_all(self) -> None:
        """Answer every request that is still in flight with 503 at once."""
        for task in list(self._app.in_flight):
            task.cancel()
        await asyncio.wait((asyncio.ensure_future(self.wait_until_idle()),), timeout=CANCELLED_WITHIN_SECONDS)


class Renewal:
    """Obeys SIGHUP: opens the log file anew, and reads the certificates again."""

    def __init__(self, settings: Settings, server: HttpServers, lines: Lines[Writer]) -> None:
        self._settings = settings
        self._server = server
        self._lines = lines
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def begin(self) -> None:
        """Renew. A signal during a renewal is obeyed after it."""
        if self._task is not None and not self._task.done():
            self._again = True
            return
        self._task = asyncio.ensure_future(self._renew())

    async def _renew(self) -> None:
        while True:
            self._again = False
            service_manager.notify_renewing()
            try:
                if self._settings.log_file is not None:
                    self._lines.writer.switch_to(_open_log(self._settings.log_file))
                if self._settings.tls_cert is not None:
                    _check_tls(self._settings)
                    await self._server.renew()
            except CannotListen as cannot:
                log.error("SIGHUP: the files in use stay", extra={"why": str(cannot)})
            else:
                self._lines.tell("SIGHUP: the log file and the certificates in use are those of now.")
            service_manager.notify_serving(public_url(self._settings))
            if not self._again:
                return


def tune_interpreter() -> None:
    """Make the cycle collector run less often.

    Loaded modules stay for the life of the process, and reference counting frees a request's garbage: there is no need
    to scan both every few hundred objects.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    # The longest wait for the interpreter of a thread that comes back from the disk.
    sys.setswitchinterval(SWITCH_SECONDS)


async def _serve(
    settings: Settings,
    address: str,
    passed: socket.socket | None,
    visitor: Visitor | None,
    recorder: Recorder,
    lines: Lines[Writer],
    link: workers.SupervisorLink | None,
    siblings: Siblings | None,
) -> None:
    running = await assemble(settings, recorder=recorder, siblings=siblings)
    await _prepare(settings, running)
    try:
        scrape = await _serve_metrics(settings, recorder, running, lines)
    except CannotListen:
        await running.close()
        raise
    tune_interpreter()
    app = DrainingApp(RsgiApp(running.api, trusted_proxies=networks_of(settings.trusted_proxies)))
    bounds, pages = _connection_bounds(settings), running.api.pages.prefix if running.api.pages is not None else ""
    try:
        listening = listen(address, settings.port) if passed is None else passed.dup()
        set_up_listening(listening, settings.write_seconds)
        server = _servers(settings, app, pages, listening, bounds)
    except (OSError, CannotListen) as error:
        await running.close()
        raise (error if isinstance(error, CannotListen) else _cannot_listen(settings, error)) from None
    connections = OpenConnections(settings.port, bounds, app.answering, settings.log_addresses == "on")
    watching = asyncio.ensure_future(connections.watch())
    asked, urged = _watch_signals(link)
    if visitor is None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, Renewal(settings, server, lines).begin)
    _begin_other_work(settings, running, siblings)
    serving = asyncio.ensure_future(server.serve())
    await _wait_until_reachable(address, settings.port, serving)
    if not settings.encrypts_or_is_local():
        log.warning("the server listens on a public address without TLS", extra={"remedy": WITHOUT_TLS_REMEDY})
    lines.tell("Tillway serves", url=public_url(settings))
    service_manager.notify_serving(public_url(settings))
    if link is not None:
        link.report_serving()
    visit = asyncio.ensure_future(visitor(public_url(settings))) if visitor is not None else None
    waits: set[asyncio.Future[Any]] = {asked, serving} if visit is None else {asked, serving, visit}
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    if visit is not None and visit.done() and not visit.exception() and visit.result() == "serve":
        await asyncio.wait((asked, serving), return_when=asyncio.FIRST_COMPLETED)
    stopped_in_order = not serving.done()
    watching.cancel()
    server.stop()
    service_manager.notify_stopping()
    lines.tell("Tillway stops; what is in flight finishes first.")
    deadline = time.monotonic() + settings.shutdown_seconds
    idle = asyncio.ensure_future(app.wait_until_idle())
    await asyncio.wait((idle, urged), timeout=settings.shutdown_seconds, return_when=asyncio.FIRST_COMPLETED)
    await app.cancel_all()
    await asyncio.wait((serving,), timeout=CANCELLED_WITHIN_SECONDS)
    if scrape is not None:
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


def _begin_other_work(settings: Settings, running: Running, siblings: Siblings | None) -> None:
    """Begin the work beside the requests."""
    running.runner.start()
    running.keep_notes()
    running.keep_settings_fresh()
    running.share_throttles()
    if not settings.store and (siblings is None or siblings.is_first):
        running.read_ahead()


def _servers(settings: Settings, app: DrainingApp, pages: str, listening: socket.socket, bounds: Bounds) -> HttpServers:
    """The server of the API and, where the settings name another address for it, that of the dashboard. Raises
    `CannotListen`."""
    tls = (settings.tls_cert, settings.tls_key) if settings.tls_cert and settings.tls_key else None
    seconds, found = settings.header_seconds, address_of(settings.dashboard_listen)
    if found is None or not pages:
        return HttpServers([HttpServer(app, listening, connections_max=bounds.in_all, header_seconds=seconds, tls=tls)])
    try:
        own = listen(*found)
        set_up_listening(own, settings.write_seconds)
    except OSError as error:
        raise _dashboard_cannot_listen(settings, error) from None
    sides = ((listening, OneSide(app, pages, shows_pages=False)), (own, OneSide(app, pages, shows_pages=True)))
    return HttpServers(
        [
            HttpServer(side, place, connections_max=bounds.in_all, header_seconds=seconds, tls=tls)
            for place, side in sides
        ]
    )


def _watch_signals(link: workers.SupervisorLink | None) -> "tuple[asyncio.Future[None], asyncio.Future[None]]":
    """Return two futures: the first SIGTERM or SIGINT completes one, the second signal the other, to stop at once.

    The end of the supervisor counts as a signal, because nothing else would stop its worker.
    """
    loop = asyncio.get_running_loop()
    asked, urged = loop.create_future(), loop.create_future()

    def on_signal() -> None:
        if not asked.done():
            asked.set_result(None)
        elif not urged.done():
            urged.set_result(None)

    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, on_signal)
    if link is not None:
        orphaned = link.orphaned

        def on_supervisor_gone() -> None:
            loop.remove_reader(orphaned)
            on_signal()

        loop.add_reader(orphaned, on_supervisor_gone)
    return asked, urged


async def _prepare(settings: Settings, running: Running) -> None:
    """Prepare the platform for the first request. Closes the platform if that fails."""
    try:
        await check_key_file(settings, running.store, running.keyring)
        await look_for_restore(settings, running.platform.engine)
        # The first payment does not wait until a connector is set up.
        await running.connections.set_up()
    except Exception:
        await running.close()
        raise


async def _serve_metrics(
    settings: Settings, recorder: Recorder, running: Running, lines: Lines[Writer]
) -> "Scrape | None":
    """Serve `/metrics` on its own address, if the settings name one. Raises `CannotListen`."""
    found = address_of(settings.metrics_listen)
    if found is None:
        return None
    # It serves by aiohttp, which a server without metrics and providers does not import.
    from tillway.telemetry.scrape import Scrape

    scrape = Scrape(recorder.metrics, running.store, running.platform.engine.clock, lines.writer)
    host, port = found
    try:
        port = await scrape.start(host, port)
    except OSError as error:
        raise CannotListen(
            f"metrics_listen {settings.metrics_listen} cannot be listened on: {error.strerror}"
        ) from None
    shown = f"[{host}]" if ":" in host else host
    lines.tell("Metrics are at", url=f"http://{shown}:{port}/metrics")
    return scrape


async def _wait_until_reachable(address: str, port: int, serving: "asyncio.Future[None]") -> None:
    """Wait until the port accepts connections, so that the log line about serving is true."""
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


def _resolve_address(settings: Settings) -> tuple[Settings, str]:
    """Return the settings with a usable port (a free one for 0), and the address of the host name.

    The server opens its port with SO_REUSEPORT, so a second server on the same port would silently receive half of the
    connections. A plain bind before that detects it. Raises `CannotListen`.
    """
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # If a name has addresses of both families, take the IPv4 address, which every client can reach.
        family, _, _, _, place = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            port = probe.getsockname()[1]
    except OSError as error:
        raise _cannot_listen(settings, error) from None
    return msgspec.structs.replace(settings, port=port), str(place[0])


def _address_of(passed: socket.socket, settings: Settings) -> tuple[Settings, str]:
    """Return the settings with the address and port of a socket that was passed in place of theirs, and the address."""
    address, port = passed.getsockname()[:2]
    return msgspec.structs.replace(settings, host=str(address), port=port), str(address)


def _check_dashboard_address(settings: Settings, address: str) -> None:
    """Refuse an address of the dashboard at which the server itself, at `address`, or another program listens.

    With SO_REUSEPORT each would silently receive a part of the connections. Raises `CannotListen`.
    """
    found = address_of(settings.dashboard_listen)
    if found is None or settings.dashboard != "on":
        return
    host, port = found
    if port == settings.port and (host == address or {host, address} & {"0.0.0.0", "::"}):
        raise CannotListen(f"dashboard_listen {settings.dashboard_listen} is the server's own address: choose another.")
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise _dashboard_cannot_listen(settings, error) from None


def _dashboard_cannot_listen(settings: Settings, error: OSError) -> CannotListen:
    return CannotListen(f"dashboard_listen {settings.dashboard_listen} cannot be listened on: {error.strerror}")


def _cannot_listen(settings: Settings, error: OSError) -> CannotListen:
    return CannotListen(f"{settings.host}:{settings.port} cannot be listened on: {error.strerror}")


def _raise_file_limit() -> None:
    """Allow as many open files as the operating system lets this process have: each connection is one.

    The soft limit is often 1,024, which as many idle connections used up, and the server answered no other.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # A system may have a lower bound of its own; the old limit then stays.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _connection_bounds(settings: Settings) -> Bounds:
    """The bounds of the open connections. Half of the files stay for all else."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_all = max(CONNECTIONS_LEAST, (FILES_MAX if files == resource.RLIM_INFINITY else files) // 2)
    exempt = (*networks_of(settings.trusted_proxies), *networks_of(settings.connections_exempt))
    return Bounds(in_all, settings.connections_per_address, exempt)


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
