"""The time-out for request bodies: one timer for all that wait."""

import asyncio
from typing import Any

from tillway.http.messages import Response
from tillway.http.rsgi import RsgiApp


class SlowClient:
    """Sends the body after so many seconds, and keeps the status of the answer."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.status = 0

    async def __call__(self) -> bytes:
        await asyncio.sleep(self.seconds)
        return b"amount=1"

    def response_bytes(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status


class Headers(dict[str, str]):
    def get_all(self, name: str) -> list[str]:
        return [self[name]] if name in self else []


class Scope:
    method, path, query_string, client = "POST", "/v1/payment_intents", "", "127.0.0.1:1"
    headers, http_version = Headers({"content-length": "8", "host": "shop.example"}), "1.1"


class AcceptingApi:
    """Answers every request whose body arrived."""

    async def handle(self, request: Any) -> Response:
        assert request.body == b"amount=1"
        return Response(200, [], b"")

    def refuse_unread(self, path: str, refused: Any) -> Response:
        return Response(400, [], refused.message.encode())


async def test_only_a_slow_body_is_refused() -> None:
    # The bounds lie half a second apart, so that a busy machine does not merge them.
    app: Any = RsgiApp(AcceptingApi(), 1.0)  # type: ignore[arg-type]
    early = [SlowClient(0.0), SlowClient(99.0), SlowClient(0.02)]
    answers = [asyncio.ensure_future(app.serve(Scope, client)) for client in early]
    await asyncio.sleep(0.5)
    later = [SlowClient(0.6), SlowClient(99.0)]
    answers += [asyncio.ensure_future(app.serve(Scope, client)) for client in later]
    await asyncio.wait_for(asyncio.gather(*answers), 30)
    assert [client.status for client in (*early, *later)] == [200, 408, 200, 200, 408]
    afterwards = SlowClient(0.0), SlowClient(99.0)
    await asyncio.wait_for(asyncio.gather(*(app.serve(Scope, client) for client in afterwards)), 30)
    assert [client.status for client in afterwards] == [200, 408]


async def test_a_cancelled_task_is_not_late() -> None:
    app: Any = RsgiApp(AcceptingApi(), 9.0)  # type: ignore[arg-type]
    client, idle = SlowClient(9.0), []
    app.on_idle = lambda: idle.append(True)
    waiting = asyncio.ensure_future(app.serve(Scope, client))
    await asyncio.sleep(0.01)
    assert app.reads_body_of(waiting) and list(app.in_flight) == [waiting]
    waiting.cancel()
    await waiting
    assert client.status == 503 and idle == [True]
    assert not app.in_flight and not app._body_timeout._until and not app._body_timeout._late
