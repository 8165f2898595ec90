"""Bounds of the open connections: from one address, and in all.

A connection with a caller that does not read is closed first, then the idlest.

granian accepts no more than its bound in all, and would then let every caller wait until one closes. It knows neither
addresses nor how long a connection was idle; the operating system knows both (TCP_INFO of Linux). So the server's own
descriptors are looked through, and those beyond a bound are shut down: granian sees the end of the connection.
"""

import asyncio
import contextlib
import logging
import os
import resource
import socket
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

import msgspec

from tillway.http.client_address import Network, counted_address, is_within

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How often the connections are counted, and while some had to be closed, a tenth of it."""

IDLE_LEAST_MS = 1000
"""A connection on which something was sent or received since is not closed: its request may be next to be worked on."""

FREE_SHARE = 0.2
"""The share of the bound in all that is kept free, so that the next caller (`/healthz`, say) is accepted at once."""

TELL_SECONDS = 10.0
"""The least time between two log lines about closed connections."""

_INFO = struct.Struct("=44xI4xI88xI")
"""Of the kernel's `struct tcp_info`: the milliseconds since bytes were sent and received, and how many are unsent."""

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: drop bytes that were not sent. A caller that reads nothing would keep them in memory."""


class Bounds(msgspec.Struct, frozen=True):
    """The most connections in all and from one address (IPv6: one /64; 0: no bound, as from an `exempt` one)."""

    in_all: int
    per_address: int
    exempt: tuple[Network, ...] = ()


class _Open(msgspec.Struct, frozen=True):
    descriptor: int
    peer: str
    """Address and port, as granian writes them."""
    address: str
    idle_ms: int
    is_stuck: bool
    """Whether the caller leaves an answer unread, so that bytes wait to be sent."""


class OpenConnections:
    """The connections of this process to its listening `port`. `answering` tells the peers that wait for an answer."""

    def __init__(
        self, port: int, bounds: Bounds, answering: Callable[[], Iterable[str]], tells_addresses: bool = True
    ) -> None:
        self._tells_addresses = tells_addresses
        self._port = port
        self._bounds = bounds
        self._answering = answering
        self._target = bounds.in_all - int(bounds.in_all * FREE_SHARE)
        self._seen: dict[str, float] = {}
        """When each open connection was first seen. Before that it may have waited to be accepted, with its request."""
        self._told_at = -TELL_SECONDS
        self._untold: dict[str, int] = {}

    async def watch(self) -> None:
        """Keep the bounds until this task is cancelled. Does nothing where the system cannot tell idle connections."""
        if not hasattr(socket, "TCP_INFO"):
            return
        loop = asyncio.get_running_loop()
        few = min(self._target, self._bounds.per_address or self._target)
        pause = LOOK_SECONDS
        while True:
            due = loop.time() + pause
            await asyncio.sleep(pause)
            # A request may wait as long as the loop is late, once in granian and once in the loop.
            used_within_ms = IDLE_LEAST_MS + int(2000 * (loop.time() - due))
            descriptors = await loop.run_in_executor(None, _descriptors)
            pause = LOOK_SECONDS
            if len(descriptors) > few:
                answering = set(self._answering())
                closed = await loop.run_in_executor(None, self._close_excess, descriptors, answering, used_within_ms)
                if closed:
                    pause = LOOK_SECONDS / 10
                self._tell(closed, loop.time())
            else:
                self._seen.clear()

    def _close_excess(self, descriptors: list[int], answering: set[str], used_within_ms: int) -> Counter[str]:
        """Close the connections beyond a bound, and return how many, by address."""
        now = time.monotonic()
        found = [one for one in map(self._look, descriptors) if one is not None]
        self._seen = {one.peer: self._seen.get(one.peer, now) for one in found}
        # A request in work is never closed for another connection: its caller would not learn whether it was done.
        long_ago = now - used_within_ms / 1000
        idle = [
            one
            for one in found
            if one.idle_ms >= used_within_ms and self._seen[one.peer] <= long_ago and one.peer not in answering
        ]
        idle.sort(key=lambda one: (not one.is_stuck, -one.idle_ms))
        counts: dict[str, int] = defaultdict(int)
        for one in found:
            counts[one.address] += 1
        bound, left = self._bounds.per_address, len(found)
        exempt = {address for address in counts if is_within(address, self._bounds.exempt)}
        closed: Counter[str] = Counter()
        kept: list[_Open] = []
        for one in idle:
            if bound and counts[one.address] > bound and one.address not in exempt:
                counts[one.address] -= 1
                closed[one.address] += self._close(one)
            else:
                kept.append(one)
        left -= closed.total()
        for one in kept[: max(0, left - self._target)]:
            closed[one.address] += self._close(one)
        return +closed

    def _look(self, descriptor: int) -> _Open | None:
        """Return the connection of a descriptor; None if it is something else, or was closed meanwhile."""
        try:
            with _view(descriptor) as connection:
                return self._read(connection, descriptor)
        except OSError:
            return None

    def _read(self, connection: socket.socket, descriptor: int) -> _Open | None:
        own = connection.getsockname()
        if not isinstance(own, tuple) or own[1] != self._port:
            return None
        host, port = connection.getpeername()[:2]
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size).ljust(_INFO.size, b"\0")
        sent_ms, received_ms, unsent = _INFO.unpack(info)
        shown = f"[{host}]" if ":" in host else host
        idle_ms = min(sent_ms, received_ms)
        return _Open(descriptor, f"{shown}:{port}", counted_address(host), idle_ms, unsent > 0)

    def _close(self, one: _Open) -> int:
        """Shut the connection down, and return how many that were: 0 if it was closed or used meanwhile.

        granian may close it, and the system give its number away, between the last look and the shutdown: then another
        connection is cut off, as happens in networks. A duplicate would prevent that, but may not be closed if it turns
        out to be one of a database: SQLite's locks would go with it.
        """
        try:
            with _view(one.descriptor) as connection:
                again = self._read(connection, one.descriptor)
                if again is None or again.peer != one.peer or again.idle_ms < one.idle_ms:
                    return 0
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return 0
        return 1

    def _tell(self, closed: Counter[str], now: float) -> None:
        for address, count in closed.items():
            self._untold[address] = self._untold.get(address, 0) + count
        if self._untold and now - self._told_at >= TELL_SECONDS:
            facts: dict[str, str | int] = {"closed": sum(self._untold.values()), "addresses": len(self._untold)}
            if self._tells_addresses:
                facts["most_from"] = max(self._untold, key=self._untold.__getitem__)
            log.warning("too many connections, the idlest were closed", extra=facts)
            self._untold = {}
            self._told_at = now


@contextlib.contextmanager
def _view(descriptor: int) -> Iterator[socket.socket]:
    """The socket of a descriptor, which stays open afterwards. Raises OSError if it is none."""
    # The family decides only how much room an address gets.
    view = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, descriptor)
    try:
        yield view
    finally:
        view.detach()


def _descriptors() -> list[int]:
    """The open descriptors of this process."""
    try:
        return [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        # None is left to read the list with, so that nearly all are in use.
        return list(range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
