"""Requests and responses as plain values, to and from which each server adapter translates."""

from collections.abc import Mapping

import msgspec

from tillway.domain.credentials import Grant
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller


class Request(msgspec.Struct):
    """A request from a server adapter. Header names are lower case; `query` has no question mark.

    `grant`: a page of this process asks on behalf of that operator. No server adapter sets it, and no header names a
    credential. `unread` is the size of a body that was not read, in bytes, because `Api.reads_large_body` said no.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = {}
    body: bytes = b""
    client_ip: str | None = None
    unread: int = 0
    grant: Grant | None = None


class Response(msgspec.Struct):
    """`refused` is the refusal that it tells, for the request log; None for one that was stored before. `route` is the
    pattern of its address for logs and metrics, and `caller` the party that asked, where its credential is known."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    refused: Refused | None = None
    route: str = ""
    caller: Caller | None = None


def refuse_repeated(request: Request, name: str) -> None:
    """Refuse a header that says who asks, for whom or whether again, and stands twice: a proxy before the server may
    believe the other line. Only granian tells the lines apart; others join them, and the result names nothing."""
    if is_repeated(request, name):
        header = name.title()
        raise Refused("header_repeated", f"Send {header} once.", param=header)


def is_repeated(request: Request, name: str) -> bool:
    """Whether a header stands twice."""
    get_all = getattr(request.headers, "get_all", None)
    return get_all is not None and len(get_all(name)) > 1
