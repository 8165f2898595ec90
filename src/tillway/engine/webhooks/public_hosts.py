"""The allowed hosts of webhooks: those of the public internet, and of the private networks that the operator allows.

An address is checked when an endpoint is created and again for each socket. The second check uses the address that the
socket connects to, so a name that resolves differently a moment later does not help an attacker.
"""

import ipaddress
import socket
from typing import Any, Protocol

import msgspec

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_TEREDO = ipaddress.IPv6Network("2001::/32")

_REFUSED: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = (
    ipaddress.IPv4Network("0.0.0.0/8"),
    ipaddress.IPv4Network("100.64.0.0/10"),  # Carrier-grade NAT (RFC 6598), and a cloud's metadata in it.
    ipaddress.IPv4Network("168.63.129.16/32"),  # A public address by number, but a cloud's host agent by use.
    ipaddress.IPv4Network("192.0.0.0/24"),
    ipaddress.IPv4Network("192.88.99.0/24"),
    ipaddress.IPv6Network("64:ff9b:1::/48"),
    _TEREDO,
)
"""Further ranges besides those that the registries call private:
https://www.iana.org/assignments/iana-ipv4-special-registry and -ipv6-."""


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Resolver(Protocol):
    """Finds the addresses of a host, by default the system's: `sessions.SystemResolver`."""

    async def resolve(self, host: str, port: int) -> list[tuple[Any, ...]]:
        """The addresses of a name for connections of TCP, as `getaddrinfo` tells them. Raises OSError."""

    async def close(self) -> None: ...


class HostRefused(OSError):
    """A webhook would have gone to an address that is not public, and that the operator has not allowed."""


class Reach(msgspec.Struct, frozen=True):
    """Where webhooks may go: to the public internet and to `networks`; `anywhere`: to every address."""

    networks: tuple[Network, ...] = ()
    anywhere: bool = False

    def allows(self, address: str) -> bool:
        """Whether webhooks may go to `address`, an IPv4 or IPv6 address."""
        return self.anywhere or is_public(address) or self._names(address)

    def may_allow(self, host: str) -> bool:
        """Whether `host` is an address that this reach allows, or a name that may lead to one: it is not looked up."""
        try:
            return self.allows(str(ipaddress.ip_address(host.partition("%")[0])))
        except ValueError:
            return self.anywhere or bool(self.networks) or not _is_local(host.rstrip(".").lower())

    def _names(self, text: str) -> bool:
        try:
            address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.networks if network.version == address.version)


PUBLIC = Reach()
ANYWHERE = Reach(anywhere=True)


def is_public(text: str) -> bool:
    """Whether `text`, an IPv4 or IPv6 address, belongs to the public internet. False if it is not an address.

    An IPv6 address that stands for an IPv4 one (mapped, NAT64, 6to4) is public if that is.
    """
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address in _NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        elif address in _SIX_TO_FOUR and address.sixtofour is not None:
            address = address.sixtofour
    if address.is_multicast or address.is_reserved or getattr(address, "is_site_local", False):
        return False
    return address.is_global and not any(
        address in network for network in _REFUSED if network.version == address.version
    )


def guarded_socket(info: tuple[Any, ...], reach: Reach = PUBLIC) -> socket.socket:
    """A socket for the address in `info` (from `getaddrinfo`). Raises `HostRefused` if `reach` does not allow that."""
    family, kind, protocol, _, address = info
    if not reach.allows(address[0]):
        raise HostRefused(f"{address[0]} is not a public address")
    return socket.socket(family, kind, protocol)


async def check_host(host: str, port: int, resolver: Resolver, reach: Reach = PUBLIC) -> None:
    """Raises `HostRefused` if `host`, an address or a name, is or resolves to an address that `reach` does not allow.

    A name that does not resolve passes: each delivery checks again.
    """
    name = host.rstrip(".").lower()
    if _is_local(name) and not reach.networks:
        raise HostRefused(f"{name} is a name of this host or this network")
    try:
        addresses = [str(ipaddress.ip_address(name.partition("%")[0]))]
    except ValueError:
        try:
            addresses = [info[4][0] for info in await resolver.resolve(host, port)]
        except (OSError, UnicodeError):
            return
    for address in addresses:
        if not reach.allows(address):
            told = host if address == name else f"{host} is {address}, which"
            raise HostRefused(f"{told} is not a public address")


def _is_local(name: str) -> bool:
    return name == "localhost" or name.endswith((".localhost", ".local", ".internal"))
