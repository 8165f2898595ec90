"""Origins of shops' pages (RFC 6454): those in which the card frame of a publishable key shows itself."""

import re

from tillway.domain.api_key import ApiKey

ORIGINS_MAX = 50
"""Most origins of one key: all of them stand in one header."""

LOOPBACK_HOSTS = ("localhost", "127.0.0.1")
"""The hosts of a developer's own machine, as a policy can name them. CSP 3 has no form for an IPv6 address."""

_LOOPBACK = tuple(f"{scheme}://{host}:*" for scheme in ("http", "https") for host in LOOPBACK_HOSTS)
_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[^/?#@:\[\]]+|\[[^\]]*\])(:(?P<port>[0-9]{1,5}))?(?P<more>[/?#].*)?"
)
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class OriginUnfit(ValueError):
    """The text is no origin that a key can have; the message says why and what to write."""


def parse_origin(text: str, *, livemode: bool) -> str:
    """Return the origin as browsers write it: `https://shop.example`, `http://localhost:8000`.

    In live mode a page must be served by https, or by this machine. Raises `OriginUnfit`.
    """
    shown = text[:100]
    found = _ORIGIN.fullmatch(text.strip().lower())
    port = int(found["port"]) if found is not None and found["port"] else None
    if found is None or (port is not None and not 0 < port < 65_536):
        raise OriginUnfit(f"{shown!r} is not an origin. Write it as https://shop.example")
    scheme, host = found["scheme"], found["host"]
    if found["more"] not in (None, "/"):
        raise OriginUnfit(f"{shown!r} has more than an origin. Leave out all that follows the host and port.")
    if _HOST.fullmatch(host) is None:
        raise OriginUnfit(
            f"{shown!r} names no host that a browser's policy can name. Write it without a wildcard, a name beyond "
            "ASCII in its xn-- form, and no IPv6 address."
        )
    if livemode and scheme == "http" and host not in LOOPBACK_HOSTS:
        raise OriginUnfit(f"{shown!r} is not served by https. A live key takes cards on https pages only.")
    return f"{scheme}://{host}" + (f":{port}" if port not in (None, _DEFAULT_PORTS[scheme]) else "")


def allows_loopback(key: ApiKey) -> bool:
    """Whether pages of a developer's own machine may show the frame unasked: those of a test key."""
    return key.mode == "test"


def frame_sources(key: ApiKey) -> tuple[str, ...]:
    """Return the origins that may show the card frame of `key`, as sources of `frame-ancestors` (CSP 3, 2.3.1)."""
    return (*key.origins, *(_LOOPBACK if allows_loopback(key) else ()))
