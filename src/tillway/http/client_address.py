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
    if not trusted or not forwarded_for or not _is_trusted(peer, trusted):
        return peer
    address = peer
    for entry in reversed(forwarded_for[-2000:].split(",")[-HOPS_MAX:]):
        hop = _without_port(entry.strip())
        if not _is_address(hop):
            return address
        address = hop
        if not _is_trusted(hop, trusted):
            return address
    return address


def _without_port(entry: str) -> str:
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_trusted(text: str, trusted: tuple[Network, ...]) -> bool:
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(
            text.strip("[]").partition("%")[0]
        )
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in trusted if network.version == address.version)
