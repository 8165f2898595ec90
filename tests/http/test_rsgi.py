"""The door's patience with a body that does not come: one timer for everybody who waits."""

import asyncio
from typing import Any

import pytest

from tillway.http.messages import Response
from tillway.http.rsgi import Door, Patience


class Slow:
    """A client who sends the body after so many seconds, and keeps the status of the answer."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.status = 0

    async def __call__(self) -> bytes:
        await asyncio.sleep(self.seconds)
        return b"amount=1"

    def response_bytes(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status


class Scope:
    method, path, query_string, client = "POST", "/v1/payment_intents", "", "127.0.0.1:1"
    headers = {"content-length": "8"}


class Agreeable:
    """In the place of the API: it has no part in this."""

    async def handle(self, request: Any) -> Response:
        assert request.body == b"amount=1"
        return Response(200, [], b"")

    def turned_away(self, path: str, refused: Any) -> Response:
        return Response(400, [], refused.message.encode())


async def test_who_is_too_slow_is_turned_away_and_nobody_else() -> None:
    door: Any = Door(Agreeable(), 0.1)  # type: ignore[arg-type]
    early = [Slow(0.0), Slow(9.0), Slow(0.02)]
    answers = [asyncio.ensure_future(door(Scope, client)) for client in early]
    await asyncio.sleep(0.06)
    later = [Slow(0.06), Slow(9.0)]
    answers += [asyncio.ensure_future(door(Scope, client)) for client in later]
    await asyncio.wait_for(asyncio.gather(*answers), 5)
    assert [client.status for client in (*early, *later)] == [200, 408, 200, 200, 408]
    afterwards = Slow(0.0), Slow(9.0)
    await asyncio.wait_for(asyncio.gather(*(door(Scope, client) for client in afterwards)), 5)
    assert [client.status for client in afterwards] == [200, 408]


async def test_who_is_cancelled_by_somebody_else_is_not_late() -> None:
    patience = Patience(0.05)
    waiting = asyncio.ensure_future(patience(asyncio.sleep(9)))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not patience._until and not patience._late
