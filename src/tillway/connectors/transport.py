"""The only socket to providers, and the only place that tells whether a request may have been seen when it failed.

`connectors/conversation.py` turns that into an outcome.
"""

import asyncio
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import aiohappyeyeballs
from yarl import URL

from tillway.connectors.http1 import Answer, BadAnswer, Connection
from tillway.connectors.port import (
    BODY_MAX,
    Request,
    Response,
    TransportError,
    encode_body,
)

CONNECTIONS_MAX = 100

IDLE_SECONDS_MAX = 15.0
"""How long a connection is kept without a request. Many servers close theirs after a longer time."""

NEXT_ADDRESS_SECONDS = 0.25
"""How long one address of a name has, before the next is tried beside it (RFC 8305, section 5)."""

_PLACES_MAX = 64
"""Paths that a transport keeps parsed."""

_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS", "TRACE")
"""Methods whose requests say nothing of a body that they do not have (RFC 9110, section 8.6)."""


class SocketTransport:
    """HTTP to one provider. `timeout_seconds` bounds the whole exchange, `connect_seconds` the connection.

    Redirects are not followed: an answer that points elsewhere is not the provider's answer. `headers` go with every
    request (credentials are here, not in the connector's requests). Opens nothing before the first `send`.

    `socket_for` makes the socket to an address (as `getaddrinfo` tells it), or raises `OSError` for one that it
    refuses; without it, every address will do.
    """

    socket_for: Callable[[tuple[Any, ...]], socket.socket] | None = None

    def __init__(
        self,
        base_url: str,
        *,
        timeout_seconds: float = 30.0,
        connect_seconds: float = 5.0,
        headers: dict[str, str] | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        defaults = {"accept": "application/json", "accept-encoding": "gzip, deflate", "user-agent": "Tillway"}
        self._headers = {**defaults, **{name.lower(): value for name, value in (headers or {}).items()}}
        self._timeout_seconds = timeout_seconds
        # The connection has its own bound, never longer: when the whole time runs out, the request was already sent.
        self._connect_seconds = min(connect_seconds, timeout_seconds * 0.9)
        self._places: dict[str, URL] = {}
        """The URLs of paths that were asked for."""
        self._idle: list[Connection] = []
        """Connections without a request; the one that was used last stands last."""
        self._free = asyncio.Semaphore(CONNECTIONS_MAX)

    async def send(self, request: Request) -> Response:
        """Send one request and return one whole answer of at most BODY_MAX bytes, or raise `TransportError`."""
        until = asyncio.get_running_loop().time() + self._timeout_seconds
        try:
            place = self._place(request.path)
            sent = self._written(request, place)
        except ValueError as error:
            raise TransportError(f"the request cannot be sent: {error}", spoken=False) from error
        if self._free.locked():
            try:
                async with asyncio.timeout(self._connect_seconds):
                    await self._free.acquire()
            except TimeoutError as error:
                raise self._no_connection() from error
        else:
            await self._free.acquire()
        try:
            return await self._exchange(request, sent, place, until)
        finally:
            self._free.release()

    async def close(self) -> None:
        while self._idle:
            self._idle.pop().close()
        # Closing of TLS connections ends in the next turns of the loop.
        await asyncio.sleep(0)

    async def _exchange(self, request: Request, sent: bytes, place: URL, until: float) -> Response:
        connection = self._take()
        if connection is not None:
            try:
                return await self._ask(connection, request, sent, until)
            except TransportError:
                # The provider has closed the idle connection. A request that moves money is never sent twice.
                if request.moves_money or connection.got_bytes or request.method not in _WITHOUT_BODY:
                    raise
                if asyncio.get_running_loop().time() >= until:
                    raise
        return await self._ask(await self._open(place), request, sent, until)

    async def _ask(self, connection: Connection, request: Request, sent: bytes, until: float) -> Response:
        loop = asyncio.get_running_loop()
        timer = loop.call_at(until, connection.fail, TimeoutError())
        try:
            answer = await connection.ask(sent, Answer(request.method, BODY_MAX))
            response = Response.read(answer.status, answer.content(), answer.headers)
        except BadAnswer as bad:
            raise TransportError(str(bad), spoken=True) from bad
        except TimeoutError as error:
            raise TransportError(f"no answer within {self._timeout_seconds:g} seconds", spoken=True) from error
        except OSError as error:
            raise TransportError(f"no answer: {_reason(error)}", spoken=True) from error
        finally:
            timer.cancel()
        if connection.is_usable:
            connection.idle_since = loop.time()
            self._idle.append(connection)
        else:
            connection.close()
        return response

    def _take(self) -> Connection | None:
        """The idle connection that was used last, if the provider may still have it open."""
        idle, since = self._idle, asyncio.get_running_loop().time() - IDLE_SECONDS_MAX
        while idle and (idle[0].idle_since < since or not idle[0].is_usable):
            idle.pop(0).close()
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                return connection
        return None

    async def _open(self, place: URL) -> Connection:
        loop = asyncio.get_running_loop()
        host, port, tls = place.raw_host, place.port, _tls() if place.scheme == "https" else None
        try:
            async with asyncio.timeout(self._connect_seconds):
                addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                connected = await aiohappyeyeballs.start_connection(
                    addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1, socket_factory=self.socket_for
                )
                try:
                    _, connection = await loop.create_connection(
                        Connection, sock=connected, ssl=tls, server_hostname=host if tls is not None else None
                    )
                except BaseException:
                    connected.close()
                    raise
                return connection
        except TimeoutError as error:
            raise self._no_connection() from error
        except (OSError, UnicodeError) as error:
            raise TransportError(f"cannot connect: {_reason(error)}", spoken=False) from error

    def _no_connection(self) -> TransportError:
        return TransportError(f"no connection within {self._connect_seconds:g} seconds", spoken=False)

    def _place(self, path: str) -> URL:
        """The URL of that path. Raises ValueError."""
        place = self._places.get(path)
        if place is None:
            assert path[:1] in ("", "/", "?"), "a path cannot change the host"
            if len(self._places) >= _PLACES_MAX:
                self._places.clear()
            place = self._places[path] = URL(self._base_url + path)
        return place

    def _written(self, request: Request, place: URL) -> bytes:
        """The bytes of a request, head and body in one piece. Raises ValueError for a header that has a line break."""
        body, content_type = encode_body(request)
        headers: Mapping[str, str] = {"host": place.host_port_subcomponent or "", **self._headers, **request.headers}
        if place.user is not None:
            name_and_password = f"{place.user}:{place.password or ''}".encode()
            headers = {"authorization": f"Basic {b64encode(name_and_password).decode()}", **headers}
        lines = [f"{request.method} {place.raw_path_qs} HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
        if content_type is not None:
            lines.append(f"content-type: {content_type}")
        if body is not None or request.method not in _WITHOUT_BODY:
            lines.append(f"content-length: {len(body or b'')}")
        head = "\r\n".join((*lines, "\r\n"))
        if head.count("\r") != len(lines) + 1 or head.count("\n") != len(lines) + 1 or "\0" in head:
            raise ValueError("a header has a line break")
        return head.encode() + (body or b"")


@cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _reason(error: Exception) -> str:
    """The kind of failure and the system's message: no URL, header or body, which may hold secrets."""
    told = error.strerror if isinstance(error, OSError) else None
    return told or type(error).__name__
