"""The merchant's webhook endpoint in the crash harness: it takes every event, and counts."""

import socket
from collections import Counter

import msgspec
from aiohttp import web

EVENTS = ("payment_intent.succeeded", "charge.refunded", "payout.paid", "order.placed")
"""The types that the merchant subscribes to: not all, because every delivery is a request to the harness itself."""


class Hook:
    """Listens on its own port. `received` counts deliveries, by the event's id."""

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        self._runner: web.AppRunner | None = None
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/events"

    async def open(self) -> None:
        app = web.Application()
        app.router.add_post("/events", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        self._socket.close()

    async def _take(self, request: web.Request) -> web.Response:
        self.received[msgspec.json.decode(await request.read())["id"]] += 1
        return web.Response()
