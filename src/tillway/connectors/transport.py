"""The only socket to providers, and the only place that tells whether a request may have been seen when it failed.

`connectors/conversation.py` turns that into an outcome. aiohttp is imported with the first transport: a server that has
no provider, as with the simulator, starts in two thirds of the time.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tillway.connectors.port import (
    BODY_MAX,
    Request,
    Response,
    TransportError,
    encode_body,
)

if TYPE_CHECKING:
    import aiohttp

CONNECTIONS_MAX = 100


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
        import aiohttp

        assert aiohttp, "the import takes a fifth of a second, for which no request has to wait"
        self._base_url = base_url.rstrip("/")
        self._headers = {"accept": "application/json", "user-agent": "Tillway", **(headers or {})}
        # The connection has its own bound, never longer: when the whole time runs out, the request was already sent.
        self._timeout_seconds = timeout_seconds
        self._connect_seconds = min(connect_seconds, timeout_seconds * 0.9)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request) -> Response:
        """Send one request and return one whole answer of at most BODY_MAX bytes, or raise `TransportError`."""
        import aiohttp

        session = self._open()
        body, content_type = encode_body(request)
        headers = dict(request.headers)
        if content_type is not None:
            headers["content-type"] = content_type
        try:
            async with session.request(
                request.method,
                self._base_url + request.path,
                data=body,
                headers=headers,
                allow_redirects=False,
                middlewares=_SENT_ONCE if request.moves_money else (),
            ) as answer:
                content = await _read(answer)
                if content is None:
                    raise TransportError(f"the answer is larger than {BODY_MAX} bytes", spoken=True)
                return Response.read(
                    answer.status, content, {name.lower(): value for name, value in answer.headers.items()}
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise TransportError(_describe_error(error), spoken=False) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransportError(_describe_error(error), spoken=True) from error

    async def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()
            # aiohttp finishes closing TLS connections in the next turns of the loop.
            await asyncio.sleep(0)

    def _open(self) -> "aiohttp.ClientSession":
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, socket_factory=self.socket_for),
                timeout=aiohttp.ClientTimeout(total=self._timeout_seconds, connect=self._connect_seconds),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


async def _send_once(
    request: "aiohttp.ClientRequest", handler: "aiohttp.ClientHandlerType"
) -> "aiohttp.ClientResponse":
    """Send a request that moves money at most once: aiohttp repeats a PUT or DELETE by itself when a connection breaks,
    although the provider may have performed the first."""
    import aiohttp

    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise TransportError(_describe_error(error), spoken=True) from error


_SENT_ONCE = (_send_once,)


async def _read(answer: "aiohttp.ClientResponse") -> bytes | None:
    """The whole body, or None if it is larger than BODY_MAX; the connection is then not used again."""
    pieces: list[bytes] = []
    length = 0
    while piece := await answer.content.readany():
        length += len(piece)
        if length > BODY_MAX:
            answer.close()
            return None
        pieces.append(piece)
    return b"".join(pieces)


def _describe_error(error: BaseException) -> str:
    """The kind of failure and the system's message: no URL, header or body, which may hold secrets."""
    import aiohttp

    reason = error.os_error.strerror if isinstance(error, aiohttp.ClientConnectorError) else None
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__
