"""The address of a caller behind proxies, from `X-Forwarded-For`."""

import ipaddress

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HOPS_MAX = 20
"""The most entries of X-Forwarded-For that are read; a chain of proxies is shorter."""


def client_address(peer: str, forwarded_for: str | None, trusted: tuple[Network, ...]) -> str:
    """Return the caller's address.

    `peer` is the address of the connection. Only a trusted proxy is believed: each appends the address it was called
    from, so X-Forwarded-For is read from right to left up to the first address that is not a trusted proxy's. All
    before that was written by the caller. An entry that is not an address ends the reading at the proxy that sent it.
    """
    if not trusted or not forwarded_for or not is_within(peer, trusted):
        return peer
    address = peer
    for entry in reversed(forwarded_for[-2000:].split(",")[-HOPS_MAX:]):
        hop = _without_port(entry.strip())
        if _parse(hop) is None:
            return address
        address = plain_address(hop)
        if not is_within(hop, trusted):
            return address
    return address


def plain_address(shown: str) -> str:
    """Return an address without brackets and zone; an IPv4 address in IPv6's form (`[::ffff:192.0.2.1]`) as IPv4."""
    parsed = _parse(shown)
    return shown if parsed is None else str(parsed)


def counted_address(address: str) -> str:
    """Return the address to count: for IPv6 its /64 network, because a client usually has all 2^64 addresses of it.

    An IPv4 address in IPv6's form (`::ffff:192.0.2.1`, on a socket for both) is the IPv4 address.
    """
    if ":" not in address:
        return address
    parsed = _parse(address)
    if parsed is None or parsed.version == 4:
        return address if parsed is None else str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def is_within(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address, or a network as `counted_address` returns it, lies in one of the networks."""
    if not networks:
        return False
    parsed = _parse(address.removesuffix("/64"))
    return parsed is not None and any(parsed in network for network in networks if network.version == parsed.version)


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address


def _without_port(entry: str) -> str:
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry
