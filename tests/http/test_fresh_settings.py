"""Settings in use are read again before they expire, and never hide a change."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tillway.domain.account import SYSTEM, Scope
from tillway.domain.api_key import ApiKey, key_id
from tillway.domain.connector_config import ConnectorConfig
from tillway.domain.refusal import Refused
from tillway.http.authentication import CACHE_SECONDS, IN_USE_SECONDS, RENEWED_MAX, Authenticator
from tillway.http.fresh_settings import FreshSettings
from tillway.operations.accounts import create_account
from tillway.store.codec import decode, encode, write_of
from tillway.store.port import ABSENT, Row, Write
from tillway.testing.in_process import InProcessApp, Merchant
from tillway.testing.memory_store import MemoryStore

PAYMENT = {"amount": "700", "currency": "eur", "payment_method": "pm_card_visa", "confirm": "true"}


class SlowAnswers:
    """Holds the answers of a store's reads back, which are then as old as the moment when they were asked for."""

    def __init__(self, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.allowed = asyncio.Event(), asyncio.Event()
        self.get_many, self.query = store.get_many, store.query
        monkeypatch.setattr(store, "get_many", self._slow(store.get_many))
        monkeypatch.setattr(store, "query", self._slow(store.query))

    def _slow(self, read: Any) -> Any:
        async def slow(*arguments: Any, **named: Any) -> Any:
            rows = await read(*arguments, **named)
            self.asked.set()
            await self.allowed.wait()
            return rows

        return slow


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[InProcessApp]:
    app = await InProcessApp.open(tmp_path)
    yield app
    await app.close()


def settings_of(app: InProcessApp) -> FreshSettings:
    return FreshSettings(app.running.api.authenticator, app.running.connections, app.running.platform.engine)


async def revoke(app: InProcessApp, merchant: Merchant) -> None:
    """Revoke the merchant's key as another process does: this one is not told."""
    row = await app.store.get(f"{SYSTEM}/{key_id(merchant.key)}")
    assert row is not None
    key = decode(key_id(merchant.key), row.body)
    assert isinstance(key, ApiKey)
    await app.store.commit([write_of(SYSTEM, msgspec.structs.replace(key, revoked_at=1), row.version)])


async def test_a_payment_needs_no_setting_that_was_read_ahead(app: InProcessApp) -> None:
    merchant = await app.merchant()
    await app.ok(merchant, "POST", "/v1/payment_intents", PAYMENT)
    read: list[str] = []
    get, query = app.store.get, app.store.query

    async def noted_get(key: str) -> Row | None:
        read.append(key)
        return await get(key)

    async def noted_query(index: str | None, partition: str, **named: Any) -> list[Row]:
        read.append(partition)
        return await query(index, partition, **named)

    app.store.get, app.store.query = noted_get, noted_query  # type: ignore[method-assign]
    await settings_of(app).renew()
    scope = f"{merchant.account.removeprefix('acct_')}t"
    assert read == [f"{SYSTEM}/con_", f"{SYSTEM}/rtg_", f"{scope}/we_"], "the key and its account come in one batch"


async def test_a_key_that_another_process_revokes_is_refused_at_once_after_a_read(app: InProcessApp) -> None:
    merchant = await app.merchant()
    await app.ok(merchant, "GET", "/v1/balance")
    await revoke(app, merchant)
    await settings_of(app).renew()
    assert (await app.call(merchant, "GET", "/v1/balance")).status == 401


async def test_a_read_that_is_older_than_a_change_brings_no_key_back(
    app: InProcessApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant = await app.merchant()
    await app.ok(merchant, "GET", "/v1/balance")
    slow = SlowAnswers(app.store, monkeypatch)
    renewal = asyncio.ensure_future(settings_of(app).renew())
    await slow.asked.wait()
    await revoke(app, merchant)
    app.running.api.authenticator.forget()
    slow.allowed.set()
    await renewal
    assert (await app.call(merchant, "GET", "/v1/balance")).status == 401


async def test_a_read_that_is_older_than_a_change_brings_no_connector_back(
    app: InProcessApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = app.running.connections
    assert await connections.default_name("test") == "simulator"
    slow = SlowAnswers(app.store, monkeypatch)
    renewal = asyncio.ensure_future(connections.renew())
    await slow.asked.wait()
    config = ConnectorConfig(id="con_test_other", created=0, name="other", kind="simulator", mode="test", default=True)
    await app.store.commit([Write(f"{SYSTEM}/{config.id}", ABSENT, encode(config))])
    connections.forget()
    # It joins the read that is under way, and then reads for itself.
    joined = asyncio.ensure_future(connections.default(Scope(account="acct_1", mode="test")))
    await asyncio.sleep(0)
    slow.allowed.set()
    await renewal
    assert (await joined).name == "other"


async def test_a_read_that_is_older_than_a_new_endpoint_does_not_hide_it(
    app: InProcessApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant, engine = await app.merchant(), app.running.platform.engine
    await app.ok(merchant, "POST", "/v1/payment_intents", PAYMENT)
    scope = f"{merchant.account.removeprefix('acct_')}t"
    with monkeypatch.context() as patched:
        slow = SlowAnswers(app.store, patched)
        renewal = asyncio.ensure_future(engine.renew_endpoints(scope))
        await slow.asked.wait()
    await app.ok(merchant, "POST", "/v1/webhook_endpoints", {"url": "http://127.0.0.1:9/hook", "enabled_events[]": "*"})
    slow.allowed.set()
    await renewal
    assert len(await engine.endpoints(scope)) == 1


async def test_the_use_of_a_key_is_told_although_it_never_expires_in_memory(app: InProcessApp) -> None:
    authenticator, merchant, told = Authenticator(app.store), await app.merchant(), []
    authenticator.on_use = lambda _, at: told.append(at)
    for now in (0.0, 1.0, 2.0, 3.0, 4.5):
        await authenticator.authenticate_header(f"Bearer {merchant.key}", now=now)
        assert await authenticator.renew(now=now) == [f"{merchant.account.removeprefix('acct_')}t"]
    assert told == [0.0, CACHE_SECONDS, 4.5]
    assert await authenticator.renew(now=4.5 + IN_USE_SECONDS) == [], "its merchant has stopped"


async def test_the_keys_in_use_are_read_in_one_batch_however_many_they_are(app: InProcessApp) -> None:
    authenticator, batches = Authenticator(app.store), []
    get_many = app.store.get_many

    async def noted(keys: Sequence[str]) -> dict[str, Row]:
        batches.append(len(keys))
        return await get_many(keys)

    app.store.get_many = noted  # type: ignore[method-assign]
    scopes = []
    for number in range(RENEWED_MAX + 4):
        account, keys = await create_account(app.store, app.clock)
        scopes.append(f"{account.id.removeprefix('acct_')}t")
        await authenticator.authenticate_header(f"Bearer {keys[0].secret}", now=float(number) / 100)
    assert await authenticator.renew(now=1.0) == scopes[: -RENEWED_MAX - 1 : -1], "those used last"
    assert batches == [2 * RENEWED_MAX]


async def test_a_key_that_is_nowhere_is_looked_for_once_in_two_seconds(app: InProcessApp) -> None:
    authenticator, asked = Authenticator(app.store), []
    get = app.store.get

    async def noted(key: str) -> Row | None:
        asked.append(key)
        return await get(key)

    app.store.get = noted  # type: ignore[method-assign]
    for now in (0.0, 0.1, 1.9, CACHE_SECONDS + 0.1):
        with pytest.raises(Refused, match="Invalid API Key provided: sk_test_"):
            await authenticator.authenticate_header("Bearer sk_test_nowhereatall", now=now)
    assert len(asked) == 2, "the key is asked for when the answer is two seconds old"
    authenticator.forget()
    with pytest.raises(Refused):
        await authenticator.authenticate_header("Bearer sk_test_nowhereatall", now=CACHE_SECONDS + 0.2)
    assert len(asked) == 3
    merchant = await app.merchant()
    grant, _ = await authenticator.authenticate_header(f"Bearer {merchant.key}", now=CACHE_SECONDS + 0.2)
    assert grant.account == merchant.account
