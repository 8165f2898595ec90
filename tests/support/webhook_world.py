"""A platform inside the test's process, with a clock that can be moved, and a server that takes webhooks in."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from tillway.domain import payment_intent
from tillway.domain.account import Scope
from tillway.domain.commands import CreatePayment
from tillway.domain.event import Delivery, Event
from tillway.domain.payment_intent import Means
from tillway.domain.record import Changes, EventDraft, Moment, Record
from tillway.domain.source_api import SourceApi
from tillway.engine.caller import Caller
from tillway.engine.clock import Clock
from tillway.engine.core import Load
from tillway.engine.events import in_all_rows
from tillway.engine.webhooks.delivery import TIMEOUT_SECONDS, Webhooks
from tillway.engine.webhooks.public_hosts import Resolver
from tillway.http.messages import Request
from tillway.installation import KEY_FILE
from tillway.operations.accounts import create_account
from tillway.settings import Settings
from tillway.store.codec import decode
from tillway.store.port import Store
from tillway.testing.memory_store import MemoryStore
from tillway.vault.keyring import Keyring
from tillway.wiring import assemble, webhook_reach

LEASE_MS = 12_000

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Receiver:
    """A merchant's server on loopback. `requests` holds (path, headers, body) of all that came."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: dict[str, Answer] = {}
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append((request.path, dict(request.headers), await request.read()))
        answer = self.answers.get(request.path)
        return web.Response() if answer is None else await answer(request)

    def status(self, path: str, status: int, **headers: str) -> None:
        async def answer(request: web.BaseRequest) -> web.Response:
            return web.Response(status=status, headers=headers)

        self.answers[path] = answer

    def events(self, path: str = "/hook") -> list[dict[str, Any]]:
        return [msgspec.json.decode(body) for at, _, body in self.requests if at == path]


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = web.ServerRunner(web.Server(receiver.handle), shutdown_timeout=0.1)
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{server.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await server.cleanup()


class World:
    """One account on a running platform. `ahead_seconds` is how far its clock is ahead of the real one."""

    def __init__(self) -> None:
        self.ahead_seconds = 0
        self.clock = Clock(lambda: time.time_ns() + self.ahead_seconds * 1_000_000_000)

    async def open(
        self,
        data_dir: Path,
        store: Store,
        resolver: Resolver | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        **settings: Any,
    ) -> None:
        if not (data_dir / KEY_FILE).exists():
            Keyring.create(data_dir / KEY_FILE)
            account, keys = await create_account(store, self.clock)
            self.account = account.id
            self.test_key, _, self.live_key, _ = (key.secret for key in keys)
        self.store = store
        chosen = Settings(data_dir=data_dir, **settings)
        self.running = await assemble(chosen, store, self.clock)
        platform = self.running.platform
        await platform.webhooks.close()
        platform.webhooks = Webhooks(
            platform.engine,
            platform.engine.render,
            platform.cards.vault,
            resolver,
            timeout_seconds,
            webhook_reach(chosen),
            platform.webhooks.tries,
        )
        self.running.webhooks = platform.webhooks
        self.running.runner.workers[Delivery] = platform.webhooks.deliver

    def scope(self, *, live: bool = False) -> Scope:
        return Scope(account=self.account, mode="live" if live else "test")

    async def call(
        self, method: str, path: str, params: dict[str, Any] | None = None, *, key: str = "", **headers: str
    ) -> tuple[int, dict[str, Any]]:
        pairs = [(name, each) for name, value in (params or {}).items() for each in _each(value)]
        encoded = urlencode(pairs)
        answer = await self.running.api.handle(
            Request(
                method,
                path,
                "" if method == "POST" else encoded,
                {
                    "authorization": f"Bearer {key or self.test_key}",
                    "content-type": "application/x-www-form-urlencoded",
                    **{name.replace("_", "-"): value for name, value in headers.items()},
                },
                encoded.encode() if method == "POST" else b"",
                "127.0.0.1",
            )
        )
        return answer.status, msgspec.json.decode(answer.body)

    async def ok(self, method: str, path: str, params: dict[str, Any] | None = None, **more: str) -> dict[str, Any]:
        status, body = await self.call(method, path, params, **more)
        assert status == 200, body
        return body

    async def endpoint(self, url: str, *types: str, **params: Any) -> dict[str, Any]:
        return await self.ok(
            "POST", "/v1/webhook_endpoints", {"url": url, "enabled_events[]": types or ("*",), **params}
        )

    async def happen(self, type: str = "payment_intent.created", *, live: bool = False, **fields: Any) -> str:
        """An event of that type about a new payment intent, made as any decision makes one; its id."""
        scope = self.scope(live=live)

        async def work(load: Load, at: Moment) -> Changes:
            command = CreatePayment(amount_minor=100, currency="eur", source_api=SourceApi.v1, **fields)
            made = payment_intent.create(command, Means(), at)
            assert made.result is not None
            return Changes(result=None, records=made.records, events=(EventDraft(type=type, record=made.result),))

        await self.running.platform.engine.run(Caller.system(scope), work)
        return (await self.events(live=live))[-1].id

    async def deliver(self) -> int:
        """See every delivery that is due through, once; how many there were."""
        rows = await self.store.claim("webhooks", now_ms=self.clock.now_ms(), lease_ms=LEASE_MS, limit=1000)
        await asyncio.gather(*(self.running.platform.webhooks.deliver(row) for row in rows))
        return len(rows)

    async def records(self, prefix: str, *, live: bool = False) -> list[Record]:
        """All records of the scope with ids `<prefix>_…`, oldest first."""
        rows = await self.store.query(None, f"{self.scope(live=live).key}/{prefix}_", limit=1000, order="oldest")
        return [decode(row.key.partition("/")[2], row.body) for row in rows]

    async def events(self, *, live: bool = False) -> list[Event]:
        """All events of the scope, oldest first."""
        found = in_all_rows([*await self.records("evt", live=live), *await self.records("aud", live=live)])
        return [found[id] for id in sorted(found)]

    async def tasks(self, *, live: bool = False) -> list[Delivery]:
        return [record for record in await self.records("whd", live=live) if isinstance(record, Delivery)]


def _each(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


@contextlib.asynccontextmanager
async def opened(
    data_dir: Path,
    store: Store | None = None,
    resolver: Resolver | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    **settings: Any,
) -> AsyncIterator[World]:
    world = World()
    await world.open(data_dir, store or MemoryStore(), resolver, timeout_seconds, **settings)
    try:
        yield world
    finally:
        await world.running.close(within_seconds=1.0)
