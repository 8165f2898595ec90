"""The server's thin door: granian's RSGI on one side, `Api.handle` on the other."""

import asyncio
from typing import Any

from tillway.api.app import Api, Request
from tillway.domain.refusal import Refused

BODY_BYTES_MAX = 1 << 20
BODY_SECONDS_MAX = 30.0


class Door:
    """An RSGI application: what the server calls with each request."""

    def __init__(self, api: Api) -> None:
        self.api = api

    async def __call__(self, scope: Any, protocol: Any) -> None:
        headers = scope.headers
        length = headers.get("content-length")
        if length is not None and (not length.isdigit() or int(length) > BODY_BYTES_MAX):
            self._turn_away(scope, protocol, Refused("body_too_large"))
            return
        body = b""
        if scope.method != "GET" or length not in (None, "0"):
            try:
                async with asyncio.timeout(BODY_SECONDS_MAX):
                    body = await _body(protocol, length)
            except TimeoutError:
                late = Refused("body_malformed", "The request body did not arrive within 30 seconds.")
                self._turn_away(scope, protocol, late, 408)
                return
            if len(body) > BODY_BYTES_MAX:
                self._turn_away(scope, protocol, Refused("body_too_large"))
                return
        response = await self.api.handle(
            Request(scope.method, scope.path, scope.query_string, headers, body, scope.client.rpartition(":")[0])
        )
        protocol.response_bytes(response.status, response.headers, response.body)

    def _turn_away(self, scope: Any, protocol: Any, refused: Refused, status: int | None = None) -> None:
        answer = self.api.turned_away(scope.path, refused)
        protocol.response_bytes(status or answer.status, answer.headers, answer.body)


async def _body(protocol: Any, length: str | None) -> bytes:
    if length is not None:
        whole: bytes = await protocol()
        return whole
    pieces, size = [], 0
    async for piece in protocol:
        pieces.append(piece)
        size += len(piece)
        if size > BODY_BYTES_MAX:
            break
    return b"".join(pieces)
