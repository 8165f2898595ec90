"""The server: one process, one event loop, granian's embedded RSGI server around the API."""

import asyncio
import signal
import socket
import sys

import uvloop
from granian.constants import HTTPModes
from granian.http import HTTP1Settings
from granian.server.embed import Server

from tillway.api.rsgi import Door
from tillway.settings import Settings
from tillway.wiring import assemble, public_url

BACKLOG = 1024


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is in flight and return."""
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    if settings.port == 0:
        settings = _with_free_port(settings)
    running = await assemble(settings)
    server = Server(
        Door(running.api),
        address=settings.host,
        port=settings.port,
        http=HTTPModes.http1 if settings.tls_cert is None else HTTPModes.auto,
        websockets=False,
        backlog=BACKLOG,
        http1_settings=HTTP1Settings(header_read_timeout=settings.header_seconds * 1000),
        log_enabled=False,
        ssl_cert=settings.tls_cert,
        ssl_key=settings.tls_key,
    )
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stopping.set)
    running.runner.start()
    serving = asyncio.ensure_future(server.serve())
    await _reachable(settings, serving)
    print(f"Tillway serves {public_url(settings)}", file=sys.stderr, flush=True)
    await asyncio.wait((asyncio.ensure_future(stopping.wait()), serving), return_when=asyncio.FIRST_COMPLETED)
    server.stop()
    await asyncio.wait((serving,), timeout=settings.shutdown_seconds)
    await running.close(within_seconds=settings.shutdown_seconds)


async def _reachable(settings: Settings, serving: "asyncio.Future[None]") -> None:
    """Wait until the port answers, so that the ready line is true."""
    for _ in range(200):
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
    raise RuntimeError(f"nothing listens on {settings.host}:{settings.port} after 10 seconds; is the port taken?")


def _with_free_port(settings: Settings) -> Settings:
    import msgspec

    with socket.socket() as probe:
        probe.bind((settings.host, 0))
        return msgspec.structs.replace(settings, port=probe.getsockname()[1])
