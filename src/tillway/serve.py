"""The server: one process, one event loop, granian's embedded RSGI server around the API."""

import asyncio
import logging
import signal
import socket
import sys

import msgspec
import uvloop
from granian.constants import HTTPModes, SSLProtocols
from granian.http import HTTP1Settings
from granian.server.embed import Server

from tillway.api.rsgi import Door
from tillway.data_directory import occupied
from tillway.settings import Settings
from tillway.wiring import assemble, public_url

BACKLOG = 1024
REACHABLE_WITHIN_SECONDS = 10.0


class PortTaken(Exception):
    """The address cannot be listened on. The text says why."""


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is in flight and return.

    Raises `PortTaken`, `DataDirectoryInUse`, and what `assemble` raises.
    """
    settings = _with_port(settings)
    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    with occupied(settings.data_dir, f"tillway serve, {public_url(settings)}"):
        uvloop.run(_serve(settings))


class CountingDoor:
    """The door, and how many are inside: a server that stops waits for them."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()

    async def __call__(self, scope: object, protocol: object) -> None:
        self._inside += 1
        self._empty.clear()
        try:
            await self._door(scope, protocol)
        finally:
            self._inside -= 1
            if self._inside == 0:
                self._empty.set()

    async def emptied(self) -> None:
        """Return when nobody is inside."""
        await self._empty.wait()


async def _serve(settings: Settings) -> None:
    running = await assemble(settings)
    door = CountingDoor(Door(running.api))
    server = Server(
        door,
        address=settings.host,
        port=settings.port,
        # HTTP/1.1 alone, under TLS too: its time-outs are the ones that hold here.
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        http1_settings=HTTP1Settings(header_read_timeout=settings.header_seconds * 1000),
        log_enabled=False,
        ssl_cert=settings.tls_cert,
        ssl_key=settings.tls_key,
        ssl_protocol_min=SSLProtocols.tls12,
    )
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stopping.set)
    running.runner.start()
    serving = asyncio.ensure_future(server.serve())
    await _reachable(settings, serving)
    print(f"Tillway serves {public_url(settings)}", file=sys.stderr, flush=True)
    stop = asyncio.ensure_future(stopping.wait())
    await asyncio.wait((stop, serving), return_when=asyncio.FIRST_COMPLETED)
    server.stop()
    await asyncio.wait((serving, asyncio.ensure_future(door.emptied())), timeout=settings.shutdown_seconds)
    await running.close(within_seconds=settings.shutdown_seconds)


async def _reachable(settings: Settings, serving: "asyncio.Future[None]") -> None:
    """Wait until the port answers, so that the ready line is true."""
    deadline = asyncio.get_running_loop().time() + REACHABLE_WITHIN_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        if serving.done():
            await serving
            raise RuntimeError(f"the server on {settings.host}:{settings.port} ended as it began")
        try:
            _, writer = await asyncio.open_connection(settings.host, settings.port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return
    raise RuntimeError(f"nothing listens on {settings.host}:{settings.port} after {REACHABLE_WITHIN_SECONDS:g} seconds")


def _with_port(settings: Settings) -> Settings:
    """The settings with a port that can be had: 0 becomes a free one. Raises `PortTaken`.

    The server shares its port with whoever asks (SO_REUSEPORT), so a second one on the same port would take half of the
    first one's customers and none would be told: a plain bind refuses that.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise PortTaken(f"{settings.host}:{settings.port} cannot be listened on: {error.strerror}") from None
        return msgspec.structs.replace(settings, port=probe.getsockname()[1])
