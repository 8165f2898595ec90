"""Requests and responses as plain values: every server translates to and from these."""

from collections.abc import Mapping

import msgspec


class Request(msgspec.Struct):
    """A request as a server hands it in. Header names are lower case; `query` is without its question mark."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = {}
    body: bytes = b""
    client_ip: str | None = None


class Response(msgspec.Struct):
    status: int
    headers: list[tuple[str, str]]
    body: bytes
