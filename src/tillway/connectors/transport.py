"""The only socket to providers, and the only place that tells whether a request may have been seen when it failed.

`connectors/conversation.py` turns that into an outcome.
"""

import asyncio
import socket
from base64 import b64encode
from collections.abc import Callable, Mapping

from yarl import URL

from tillway.client_connections import AddressInfo, IdleConnections, connect
from tillway.connectors.port import (
    BODY_MAX,
    Request,
    Response,
    TransportError,
    encode_body,
)
from tillway.http1 import Answer, BadAnswer, Connection, request_head

CONNECTIONS_MAX = 100

IDLE_SECONDS_MAX = 15.0
"""How long a connection is kept without a request. Many servers close theirs after a longer time."""

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

    socket_for: Callable[[AddressInfo], socket.socket] | None = None

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
        self._idle = IdleConnections()
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
        self._idle.close()
        # Closing of TLS connections ends in the next turns of the loop.
        await asyncio.sleep(0)

    async def _exchange(self, request: Request, sent: bytes, place: URL, until: float) -> Response:
        connection = self._idle.take(asyncio.get_running_loop().time() - IDLE_SECONDS_MAX)
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
        answer = Answer(request.method, BODY_MAX)
        timer = asyncio.get_running_loop().call_at(until, connection.stop_waiting, answer)
        try:
            await connection.ask(sent, answer)
            response = Response.read(answer.status, answer.content(), answer.headers)
        except BadAnswer as bad:
            raise TransportError(str(bad), spoken=True) from bad
        except TimeoutError as error:
            raise TransportError(f"no answer within {self._timeout_seconds:g} seconds", spoken=True) from error
        except OSError as error:
            raise TransportError(f"no answer: {_reason(error)}", spoken=True) from error
        finally:
            timer.cancel()
        self._idle.keep(connection)
        return response

    async def _open(self, place: URL) -> Connection:
        host = place.raw_host
        assert host is not None
        try:
            async with asyncio.timeout(self._connect_seconds):
                looked_up = asyncio.get_running_loop().getaddrinfo(host, place.port, type=socket.SOCK_STREAM)
                return await connect(await looked_up, host if place.scheme == "https" else None, self.socket_for)
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
        return request_head(lines) + (body or b"")


def _reason(error: Exception) -> str:
    """The kind of failure and the system's message: no URL, header or body, which may hold secrets."""
    told = error.strerror if isinstance(error, OSError) else None
    return told or type(error).__name__
