"""Sockets to merchants' endpoints: connections that are used again, of each mode its own, and the look-up of names.

Only the first delivery, or the first check of an endpoint's address, imports this file.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import aiohappyeyeballs
import msgspec
from yarl import URL

from tillway import __version__
from tillway.client_connections import AddressInfo, IdleConnections, connect
from tillway.domain.account import Mode
from tillway.engine.webhooks.public_hosts import HostRefused, Reach, Resolver, guarded_socket
from tillway.http1 import BadAnswer, Beginning, Connection, EndedEarly, request_head

ANSWER_MAX = 4096
"""Bytes of an answer's body that are read: for the delivery log, and to use the connection again."""

KEEP_ALIVE_SECONDS = 3.0
"""Shorter than servers keep idle connections open (Node.js: 5), so that few deliveries meet a closing one."""

USER_AGENT = f"Tillway/{__version__} (webhooks)"

LOOK_UPS_MAX = 16
"""Names that are looked up at a time."""

LOOKED_UP_SECONDS = 10.0
"""How long the addresses of a name are used again."""

LOOKED_UP_MAX: Final = 1_000
PLACES_MAX: Final = 256
"""Names with kept addresses, and URLs with kept parts, at a time."""


class Reply(msgspec.Struct, frozen=True):
    """The endpoint's answer: its status, and the beginning of its body. Without a status there was no answer, and
    `why` says the reason."""

    status: int | None = None
    why: str = ""
    content_type: str = ""
    body: bytes = b""


Key = tuple[Mode, str, int, bool]
"""Requests that may share a connection have this in common: the mode, the host, the port, and whether it is TLS."""


class Place(msgspec.Struct, frozen=True):
    """Where a URL leads, and the lines that begin every request to it."""

    host: str
    port: int
    is_tls: bool
    lines: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Place":
        """Raises ValueError for a URL without a host, or of another protocol."""
        url = URL(text)
        host, port = url.raw_host, url.port
        if not host or not port or url.scheme not in ("http", "https"):
            raise ValueError("the URL names no server of HTTP")
        if host.endswith(".."):
            host = f"{host.rstrip('.')}."
        lines = (
            f"POST {url.raw_path_qs} HTTP/1.1",
            f"Host: {url.host_port_subcomponent}",
            "Accept: */*",
            "Accept-Encoding: identity",
            f"User-Agent: {USER_AGENT}",
        )
        return cls(host, port, url.scheme == "https", lines)


class Sessions:
    """Connections to endpoints, those of a mode apart, so that none opened under test mode's rules serves a live
    event. No POST is sent a second time, and no redirect is followed."""

    def __init__(self, reach: Mapping[Mode, Reach], resolver: Resolver | None = None) -> None:
        self.resolver = resolver or SystemResolver()
        self._names = Names(self.resolver)
        self._socket_for = {
            mode: None if allowed.anywhere else partial(guarded_socket, reach=allowed)
            for mode, allowed in reach.items()
        }
        self._places: dict[str, Place] = {}
        self._idle: dict[Key, IdleConnections] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def post(self, mode: Mode, url: str, body: bytes, headers: dict[str, str], within_seconds: float) -> Reply:
        """POST, and return the answer, or the reason why there was none."""
        if within_seconds <= 0:
            return _late(within_seconds)
        loop = asyncio.get_running_loop()
        now = loop.time()
        until = now + within_seconds
        try:
            place = self._place(url)
            lines = [f"{name}: {value}" for name, value in headers.items()]
            request = request_head((*place.lines, *lines, f"Content-Length: {len(body)}")) + body
        except ValueError as error:
            return Reply(why=f"not sent: {error}")
        key = mode, place.host, place.port, place.is_tls
        idle = self._idle.get(key)
        connection = idle.take(now - KEEP_ALIVE_SECONDS) if idle is not None else None
        try:
            if connection is None:
                async with asyncio.timeout_at(until):
                    connection = await self._open(mode, place)
        except OSError as error:
            return _late(within_seconds) if _is_late(error) else Reply(why=_why_not_open(error))
        answer = Beginning("POST", ANSWER_MAX)
        timer = loop.call_at(until, connection.stop_waiting, answer)
        try:
            await connection.ask(request, answer)
        except (OSError, EndedEarly) as error:
            return _late(within_seconds) if _is_late(error) else Reply(why=f"no answer: {ENDED}")
        except BadAnswer:
            return Reply(why="no answer: the answer is not HTTP")
        finally:
            timer.cancel()
        self._keep(key, connection)
        content_type = answer.headers.get("content-type", "")[:200]
        if not content_type.isascii():
            # Bytes that are no UTF-8 cannot be stored.
            content_type = content_type.encode(errors="surrogateescape").decode(errors="replace")
        return Reply(answer.status, content_type=content_type, body=answer.content())

    def _place(self, url: str) -> Place:
        place = self._places.get(url)
        if place is None:
            if len(self._places) >= PLACES_MAX:
                self._places.clear()
            place = self._places[url] = Place.of(url)
        return place

    async def _open(self, mode: Mode, place: Place) -> Connection:
        addresses = await self._names.addresses(place.host, place.port)
        # A certificate has the name without the dot that ends a whole one.
        tls_name = place.host.rstrip(".") if place.is_tls else None
        while True:
            try:
                return await connect(addresses, tls_name, self._socket_for[mode])
            except OSError:
                # TLS may fail with one of the addresses only.
                aiohappyeyeballs.pop_addr_infos_interleave(addresses)
                if not addresses:
                    raise

    def _keep(self, key: Key, connection: Connection) -> None:
        if self._is_closed or not connection.is_usable:
            connection.close()
            return
        idle = self._idle.get(key)
        if idle is None:
            idle = self._idle[key] = IdleConnections()
        idle.keep(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(KEEP_ALIVE_SECONDS, self._close_old)

    def _close_old(self) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time() - KEEP_ALIVE_SECONDS
        for key, idle in [*self._idle.items()]:
            idle.drop(since)
            if not idle.kept:
                del self._idle[key]
        self._sweep = loop.call_later(KEEP_ALIVE_SECONDS, self._close_old) if self._idle else None

    async def close(self) -> None:
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for idle in self._idle.values():
            idle.close()
        self._idle.clear()
        await self.resolver.close()
        # Closing of TLS connections ends in the next turns of the loop.
        await asyncio.sleep(0)


class Names:
    """Addresses of hosts. A name is looked up once for all that ask for it at the same time, and its addresses are used
    again for LOOKED_UP_SECONDS, another one first each time."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._kept: dict[tuple[str, int], tuple[asyncio.Future[list[AddressInfo]], float]] = {}

    async def addresses(self, host: str, port: int) -> list[AddressInfo]:
        """The addresses of a name, or `host` itself if it is one. Raises `NameUnknown`."""
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            found = await self._look_up(host, port)
            addresses = found.copy()
            found.append(found.pop(0))
            return addresses
        if address.version == 6:
            return [(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0))]
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]

    async def _look_up(self, host: str, port: int) -> list[AddressInfo]:
        key, now = (host, port), asyncio.get_running_loop().time()
        look_up, until = self._kept.get(key, (None, 0.0))
        if look_up is None or (until < now and look_up.done()):
            if len(self._kept) >= LOOKED_UP_MAX:
                del self._kept[next(iter(self._kept))]
            look_up = asyncio.ensure_future(self._resolver.resolve(host, port))
            look_up.add_done_callback(partial(self._forget_failure, key))
            self._kept[key] = look_up, now + LOOKED_UP_SECONDS
        try:
            # One that stops waiting must not end the look-up for the others.
            found = await asyncio.shield(look_up)
        except (OSError, UnicodeError) as error:
            raise NameUnknown(*error.args) from error
        if not found:
            raise NameUnknown
        return found

    def _forget_failure(self, key: tuple[str, int], look_up: asyncio.Future[list[AddressInfo]]) -> None:
        if look_up.cancelled() or look_up.exception() is not None:
            self._kept.pop(key, None)


class NameUnknown(OSError):
    """The name of a host has no address."""


class SystemResolver:
    """The system's resolver in separate threads: a slow name server of a merchant's host must not delay the look-ups of
    providers, which share the loop's threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOK_UPS_MAX, thread_name_prefix="tillway-names")

    async def resolve(self, host: str, port: int) -> list[AddressInfo]:
        look_up = partial(socket.getaddrinfo, host, port, 0, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        return [*await asyncio.get_running_loop().run_in_executor(self._threads, look_up)]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _late(within_seconds: float) -> Reply:
    return Reply(why=f"no answer within {within_seconds:.3g} s")


def _is_late(error: Exception) -> bool:
    """Whether the time of an exchange ran out. A time-out of the system's own has a number."""
    return isinstance(error, TimeoutError) and error.errno is None


REASONS: Final[tuple[tuple[type[OSError], str], ...]] = (
    (NameUnknown, "the host's name has no address"),
    (ssl.SSLCertVerificationError, "the host's certificate is not trusted"),
    (ssl.SSLError, "TLS with the host failed"),
    (OSError, "no connection to the host"),
)
"""Failures to open a connection in words, the narrower ones first."""

ENDED: Final = "the connection ended before an answer"


def _why_not_open(error: OSError) -> str:
    """The kind of failure in words: no URL and no header, which may hold secrets."""
    if isinstance(error, HostRefused):
        return f"not sent: {error}"
    return f"no answer: {next(said for kind, said in REASONS if isinstance(error, kind))}"
