"""Sockets to merchants' endpoints, by aiohttp: a session for each mode, and the look-up of names.

Only the first delivery, or the first check of an endpoint's address, imports this file: aiohttp is a third of all that
the start of a server would import.
"""

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from tillway import __version__
from tillway.domain.account import Mode
from tillway.engine.webhooks.public_hosts import HostRefused, Reach, guarded_socket

ANSWER_MAX = 4096
"""Bytes of an answer's body that are read: for the delivery log, and to use the connection again."""

ANSWER_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 3.0
"""Shorter than servers keep idle connections open (Node.js: 5), so that few deliveries meet a closing one."""

USER_AGENT = f"Tillway/{__version__} (webhooks)"

LOOK_UPS_MAX = 16
"""Names that are looked up at a time."""


class Reply(msgspec.Struct, frozen=True):
    """The endpoint's answer: its status, and the beginning of its body. Without a status there was no answer, and
    `why` says the reason."""

    status: int | None = None
    why: str = ""
    content_type: str = ""
    body: bytes = b""


class Sessions:
    """One pool of connections a mode, so that no connection opened under test mode's rules serves a live event."""

    def __init__(self, reach: Mapping[Mode, Reach], resolver: AbstractResolver | None = None) -> None:
        self.resolver = resolver or SystemResolver()
        self._reach = reach
        self._opened: dict[Mode, aiohttp.ClientSession] = {}

    async def post(self, mode: Mode, url: str, body: bytes, headers: dict[str, str], within_seconds: float) -> Reply:
        """POST, and return the answer, or the reason why there was none."""
        try:
            async with (
                asyncio.timeout(within_seconds),
                self._session(mode).post(url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                # Most answers are whole by now, and a timer takes as long as the reading.
                content = answer.content
                is_whole = content.is_eof() and content.exception() is None
                read = content.read_nowait(ANSWER_MAX) if is_whole else await _beginning_of(content)
                return Reply(answer.status, content_type=answer.headers.get("content-type", "")[:200], body=read)
        except TimeoutError:
            return Reply(why=f"no answer within {within_seconds:.3g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            refused = _refusal_in(error)
            why = f"not sent: {refused}" if refused is not None else f"no answer: {_reason(error)}"
            return Reply(why=why)

    def _session(self, mode: Mode) -> aiohttp.ClientSession:
        session = self._opened.get(mode)
        if session is None:
            reach = self._reach[mode]
            session = self._opened[mode] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,  # The limiters and the runner bound the requests in flight.
                    keepalive_timeout=KEEP_ALIVE_SECONDS,
                    resolver=self.resolver,
                    socket_factory=None if reach.anywhere else partial(guarded_socket, reach=reach),
                ),
                timeout=aiohttp.ClientTimeout(total=None),
                headers={"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": USER_AGENT},
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=ANSWER_MAX,
            )
        return session

    # The end of a task.

    async def close(self) -> None:
        opened, self._opened = self._opened, {}
        for session in opened.values():
            await session.close()
        await self.resolver.close()
        # aiohttp finishes closing TLS connections in the next turns of the loop.
        await asyncio.sleep(0)


class SystemResolver(AbstractResolver):
    """The system's resolver in separate threads: a slow name server of a merchant's host must not delay the look-ups of
    providers, which share the loop's threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOK_UPS_MAX, thread_name_prefix="tillway-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        look_up = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


async def _beginning_of(content: aiohttp.StreamReader) -> bytes:
    """The first part of an answer's body that comes, at most ANSWER_MAX bytes; empty if none comes."""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with asyncio.timeout(ANSWER_SECONDS):
            return await content.read(ANSWER_MAX)
    return b""


def _refusal_in(error: BaseException) -> HostRefused | None:
    """The guard's message, if it caused an error of the connection."""
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return inner if isinstance(inner, HostRefused) else None


REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (aiohttp.ClientConnectorDNSError, "the host's name has no address"),
    (aiohttp.ClientConnectorCertificateError, "the host's certificate is not trusted"),
    (aiohttp.ClientSSLError, "TLS with the host failed"),
    (aiohttp.ClientConnectorError, "no connection to the host"),
    (aiohttp.ServerDisconnectedError, "the connection ended before an answer"),
    (aiohttp.ClientOSError, "the connection ended before an answer"),
    (aiohttp.ClientResponseError, "the answer is not HTTP"),
)
"""Errors of a request in words, the narrower ones first."""


def _reason(error: Exception) -> str:
    """The kind of failure in words: no URL, header or body, which may hold secrets."""
    return next((said for kind, said in REASONS if isinstance(error, kind)), type(error).__name__)
