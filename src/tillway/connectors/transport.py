"""The only socket to providers, and the only place that decides the meaning of its failures.

A request that surely was not seen (refused, no such host, TLS failed, no connection in time) is `spoken=False`; one
that may have been seen (no answer in time, reset, half an answer) is `spoken=True`. `converse` turns that into an
outcome.
"""

import asyncio
from collections.abc import Generator
from typing import TypeVar

import aiohttp

from tillway.connectors.port import (
    BODY_MAX,
    Conversation,
    LookUp,
    NeverSeen,
    NoticeUndecided,
    NotSent,
    Outcome,
    Request,
    Response,
    Transport,
    TransportError,
    Unknown,
    encode_body,
)

T = TypeVar("T")

REQUESTS_MAX = 20
"""Most requests in one conversation."""

CONNECTIONS_MAX = 100


async def converse(conversation: Conversation | LookUp, transport: Transport) -> Outcome | NeverSeen:
    """Carry a conversation to its end, in at most REQUESTS_MAX requests.

    If a request that moves money surely was not seen, the outcome is `NotSent`, unless an earlier one of the same
    conversation was sent; then, and if a request may have been seen, it is `Unknown`. A question that could not be sent
    has no answer, so a failed look-up is `Unknown` after any failure. An exception of the connector itself passes
    through.
    """
    money_sent = False
    answer: Response | None = None
    try:
        for _ in range(REQUESTS_MAX):
            try:
                request = next(conversation) if answer is None else conversation.send(answer)
            except StopIteration as end:
                outcome: Outcome | NeverSeen = end.value
                return outcome
            try:
                answer = await transport.send(request)
            except TransportError as error:
                if request.moves_money and not error.spoken and not money_sent:
                    return NotSent(error.reason)
                return Unknown(error.reason)
            money_sent = money_sent or request.moves_money
        return Unknown(f"the conversation did not end within {REQUESTS_MAX} requests")
    finally:
        conversation.close()


async def listen(conversation: Generator[Request, Response, T], transport: Transport) -> T:
    """Carry the conversation over a notice or a list to its end, in at most REQUESTS_MAX requests.

    Raises `NoticeRejected` if the connector does not accept the notice, and `NoticeUndecided` if the provider could not
    be asked.
    """
    answer: Response | None = None
    try:
        for _ in range(REQUESTS_MAX):
            try:
                request = next(conversation) if answer is None else conversation.send(answer)
            except StopIteration as end:
                told: T = end.value
                return told
            assert not request.moves_money, f"{request!r}: a question moves no money"
            try:
                answer = await transport.send(request)
            except TransportError as error:
                raise NoticeUndecided(error.reason) from error
        raise NoticeUndecided(f"the conversation did not end within {REQUESTS_MAX} requests")
    finally:
        conversation.close()


class SocketTransport:
    """HTTP to one provider. `timeout_seconds` bounds the whole exchange, `connect_seconds` the connection.

    Redirects are not followed: an answer that points elsewhere is not the provider's answer. `headers` go with every
    request (credentials are here, not in the connector's requests). Opens nothing before the first `send`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout_seconds: float = 30.0,
        connect_seconds: float = 5.0,
        headers: dict[str, str] | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = {"accept": "application/json", "user-agent": "Tillway", **(headers or {})}
        # The connection has its own bound, never longer: when the whole time runs out, the request was already sent.
        self._timeout = aiohttp.ClientTimeout(
            total=timeout_seconds, connect=min(connect_seconds, timeout_seconds * 0.9)
        )
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request) -> Response:
        """Send one request and return one whole answer of at most BODY_MAX bytes, or raise `TransportError`."""
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
            raise TransportError(_said(error), spoken=False) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransportError(_said(error), spoken=True) from error

    async def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()
            # aiohttp finishes closing TLS connections in the next turns of the loop.
            await asyncio.sleep(0)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
                timeout=self._timeout,
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


async def _send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send a request that moves money at most once: aiohttp repeats a PUT or DELETE by itself when a connection breaks,
    although the provider may have performed the first."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise TransportError(_said(error), spoken=True) from error


_SENT_ONCE = (_send_once,)


async def _read(answer: aiohttp.ClientResponse) -> bytes | None:
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


def _said(error: BaseException) -> str:
    """The kind of failure and the system's message: no URL, header or body, which may hold secrets."""
    reason = error.os_error.strerror if isinstance(error, aiohttp.ClientConnectorError) else None
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__
