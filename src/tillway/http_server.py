"""The HTTP server: granian's embedded one on a listening socket of our own.

The socket gives every connection a time-out for its answers, which granian lacks. It stays open while granian's worker,
which has read the certificates, is replaced by one that reads them again.
"""

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes, SSLProtocols
from granian.http import HTTP1Settings
from granian.server.embed import Server

BACKLOG = 1024
"""Connections that wait to be accepted."""

HEADERS_BYTES_MAX = 1 << 16
"""The most bytes that a connection holds of a request's headers, or of a body before it is read."""


def listen(address: str, port: int) -> socket.socket:
    """Listen on a port that other processes may listen on too, by SO_REUSEPORT. Raises OSError."""
    listening = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            listening.setsockopt(socket.SOL_SOCKET, option, 1)
        listening.bind((address, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def set_up_listening(listening: socket.socket, write_seconds: int) -> None:
    """Have a connection closed whose caller leaves bytes of an answer unread for `write_seconds`.

    A connection inherits TCP_USER_TIMEOUT from the socket that accepts it (Linux, tcp(7)). Raises OSError.
    """
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, write_seconds * 1000)


class HttpServer:
    """Serves `app` on `listening` in the running event loop, HTTP/1.1 alone: only its time-outs are set here."""

    def __init__(
        self,
        app: Any,
        listening: socket.socket,
        *,
        connections_max: int,
        header_seconds: int,
        tls: tuple[Path, Path] | None,
    ) -> None:
        self._listening = listening
        address, port = listening.getsockname()[:2]
        certificate, key = tls or (None, None)
        self._server = _OnOurSocket(
            app,
            address=address,
            port=port,
            http=HTTPModes.http1,
            websockets=True,
            backlog=BACKLOG,
            backpressure=connections_max,
            # Counts from the connection or from the last answer, so this is the idle time-out too.
            http1_settings=HTTP1Settings(header_read_timeout=header_seconds * 1000, max_buffer_size=HEADERS_BYTES_MAX),
            log_enabled=False,
            ssl_cert=certificate,
            ssl_key=key,
            ssl_protocol_min=SSLProtocols.tls12,
        )
        self._server.listening = listening

    async def serve(self) -> None:
        """Serve until `stop`."""
        await self._server.serve()

    def stop(self) -> None:
        """Accept no more connections, and let `serve` return when those that wait for an answer have it."""
        self._listening.close()
        Server.stop(self._server)

    async def renew(self) -> None:
        """Read the certificates again, for new connections.

        The others close after the answer that they wait for. One in its TLS handshake closes at once: its
        caller has sent no request yet, and connects again. Returns when all are closed. The caller checks the
        certificates first: a worker that cannot read them ends the process.
        """
        if self._listening.fileno() >= 0:
            await self._server.respawn()


class HttpServers:
    """Several servers as one: of the API, and of the dashboard at its own address."""

    def __init__(self, servers: list[HttpServer]) -> None:
        self._servers = servers

    async def serve(self) -> None:
        """Serve until `stop`, or until one of them ends."""
        serving = [asyncio.ensure_future(server.serve()) for server in self._servers]
        await asyncio.wait(serving, return_when=asyncio.FIRST_COMPLETED)
        self.stop()
        await asyncio.gather(*serving)

    def stop(self) -> None:
        """Accept no more connections, and let `serve` return when those that wait for an answer have it."""
        while self._servers:
            self._servers.pop().stop()

    async def renew(self) -> None:
        """Read the certificates again, for new connections."""
        for server in tuple(self._servers):
            await server.renew()


class OneSide:
    """An RSGI application of which one address shows a part: the dashboard's pages, or all else."""

    def __init__(self, app: Any, prefix: str, *, shows_pages: bool) -> None:
        self._app = app
        self._prefix = prefix
        self._shows_pages = shows_pages

    async def __call__(self, scope: Any, protocol: Any) -> None:
        is_page = scope.path == self._prefix or scope.path.startswith(f"{self._prefix}/")
        if is_page is self._shows_pages:
            await self._app(scope, protocol)
        elif scope.proto == "ws":
            protocol.close(403)
        else:
            protocol.response_str(404, [("content-type", "text/plain; charset=utf-8")], "Nothing is served here.\n")


class _OnOurSocket(Server):
    listening: socket.socket

    async def respawn(self) -> None:
        if self.wrks:
            await Server._respawn_workers(self, [0], Server._spawn_rsgi_worker, self.target)

    def _init_shared_socket(self) -> None:
        """Granian would make a socket of its own here."""

    def _spawn_worker(self, *arguments: Any, **named: Any) -> Any:
        # A worker closes its descriptor when it ends.
        descriptor = os.dup(self.listening.fileno())
        holder: Any = SocketHolder
        with_backlog = sys.platform.startswith(("linux", "freebsd"))
        self._shd = holder(descriptor, False, BACKLOG) if with_backlog else holder(descriptor, False)
        return Server._spawn_worker(self, *arguments, **named)
