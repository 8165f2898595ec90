"""A connector that cannot be set up: nothing new goes through it, what waits for it waits, and it comes back alone."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tillway.connectors import registry
from tillway.domain.account import SYSTEM, Scope
from tillway.domain.connector_config import ConnectorConfig
from tillway.engine.clock import Clock
from tillway.engine.connections import ConfiguredConnections
from tillway.store.codec import encode
from tillway.store.port import ABSENT, Row, Unavailable, Write
from tillway.testing.in_process import InProcessApp
from tillway.testing.memory_store import MemoryStore
from tillway.vault.envelope import EnvelopeVault
from tillway.vault.keyring import Keyring


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[InProcessApp]:
    app = await InProcessApp.open(tmp_path)
    yield app
    await app.close()


async def test_a_secret_that_is_gone_is_no_mistake_of_ours(
    app: InProcessApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "secret"
    settings = {"base_url": "http://127.0.0.1:1", "api_key": f"file:{secret}"}
    config = ConnectorConfig(
        id="con_test_bank", created=0, name="bank", kind="http_bank", mode="test", settings=settings, default=True
    )
    await app.store.commit([Write(f"{SYSTEM}/{config.id}", ABSENT, encode(config))])
    merchant = await app.merchant()
    pay = {"amount": 700, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
    refused = await app.call(merchant, "POST", "/v1/payment_intents", pay)
    assert (refused.status, refused.json["error"]["code"]) == (503, "busy")
    assert "'bank' cannot be set up" in refused.json["error"]["message"]
    assert (await app.ok(merchant, "GET", "/v1/payment_intents"))["data"] == []
    assert any(getattr(record, "why", "").startswith("api_key:") for record in caplog.records)
    secret.write_text("s3cret")
    # The bank itself is not there: but it is asked.
    asked = await app.call(merchant, "POST", "/v1/payment_intents", pay)
    assert (asked.status, asked.json["error"]["code"]) == (402, "processing_error")
    assert "s3cret" not in caplog.text


class SlowStore(MemoryStore):
    """Does not answer a listing before it is allowed to; the first `failures` of them never."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.allowed = asyncio.Event()
        self.asked = 0
        self._failures = failures

    async def query(self, *arguments: Any, **named: Any) -> list[Row]:
        self.asked += 1
        number = self.asked
        await self.allowed.wait()
        if number <= self._failures:
            raise Unavailable("away")
        return await super().query(*arguments, **named)


SCOPE = Scope(account="acct_1", mode="test")


async def connections_on(store: SlowStore, directory: Path) -> ConfiguredConnections:
    config = ConnectorConfig(
        id="con_test_bank",
        created=0,
        name="bank",
        kind="http_bank",
        mode="test",
        settings={"base_url": "http://127.0.0.1:1"},
        default=True,
    )
    await store.commit([Write(f"{SYSTEM}/{config.id}", ABSENT, encode(config))])
    keys = Keyring.create(directory / "keys.json")
    return ConfiguredConnections(store, Clock(), registry.build, EnvelopeVault(keys, keys.fingerprint_key))


async def test_a_payment_that_comes_with_the_first_waits_for_the_configuration(tmp_path: Path) -> None:
    """It went to the simulator, which approves of everything, and no bank ever heard of it."""
    store = SlowStore()
    connections = await connections_on(store, tmp_path)
    several = [asyncio.create_task(connections.default(SCOPE)) for _ in range(3)]
    await asyncio.sleep(0)
    late = asyncio.create_task(connections.default(SCOPE))
    await asyncio.sleep(0)
    assert not late.done()
    store.allowed.set()
    assert {connection.name for connection in await asyncio.gather(*several, late)} == {"bank"}
    assert store.asked == 2  # The connectors, and the routing documents.
    await connections.close()


async def test_a_configuration_that_could_not_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    store = SlowStore(failures=1)
    connections = await connections_on(store, tmp_path)
    store.allowed.set()
    with pytest.raises(Unavailable):
        await connections.default(SCOPE)
    assert (await connections.default(SCOPE)).name == "bank"
    await connections.close()
