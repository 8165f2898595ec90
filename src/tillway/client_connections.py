"""Connections of our clients to other servers: how one is opened, and those that are idle."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import aiohappyeyeballs

from tillway.http1 import Connection

NEXT_ADDRESS_SECONDS = 0.25
"""How long one address of a name has, before the next is tried beside it (RFC 8305, section 5)."""

AddressInfo = tuple[Any, ...]
"""An address as `getaddrinfo` tells it."""


async def connect(
    addresses: Sequence[AddressInfo],
    tls_name: str | None,
    socket_for: Callable[[AddressInfo], socket.socket] | None = None,
) -> Connection:
    """Connect to the first of these addresses that takes the connection; by TLS, with a certificate for `tls_name`, if
    that is given.

    `socket_for` makes the socket to an address, or raises `OSError` for one that it refuses; without it, every address
    will do. The socket goes to the address that it was made for: no name is looked up. Raises `OSError`.
    """
    connected = await aiohappyeyeballs.start_connection(
        addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1, socket_factory=socket_for
    )
    try:
        _, connection = await asyncio.get_running_loop().create_connection(
            Connection, sock=connected, ssl=client_tls() if tls_name is not None else None, server_hostname=tls_name
        )
    except BaseException:
        connected.close()
        raise
    return connection


@cache
def client_tls() -> ssl.SSLContext:
    """Certificates are verified with the system's authorities."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class IdleConnections:
    """Connections to one server without a request; the one that was used last stands last."""

    def __init__(self) -> None:
        self.kept: list[Connection] = []

    def take(self, since: float) -> Connection | None:
        """The connection that was used last, if the server may still have it open. Close those without a request since
        before then (the loop's time)."""
        idle = self.kept
        self.drop(since)
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                return connection
        return None

    def keep(self, connection: Connection) -> None:
        """Keep a connection for the next request, or close it if it cannot carry one."""
        if connection.is_usable:
            connection.idle_since = asyncio.get_running_loop().time()
            self.kept.append(connection)
        else:
            connection.close()

    def drop(self, since: float) -> None:
        """Close the connections that had no request since before then (the loop's time), and those that broke."""
        idle = self.kept
        while idle and (idle[0].idle_since < since or not idle[0].is_usable):
            idle.pop(0).close()

    def close(self) -> None:
        while self.kept:
            self.kept.pop().close()
