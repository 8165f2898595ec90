"""The facts that are kept of an endpoint between deliveries are never older than the store and the time allow."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from webhook_world import World, opened

from tillway.domain.account import SYSTEM, Account
from tillway.engine.webhooks.destinations import OPEN_SECONDS, Destination
from tillway.store.codec import decode, write_of

URL = "http://127.0.0.1:1/"


class Shop:
    """A world with one endpoint."""

    def __init__(self, world: World, endpoint: str) -> None:
        self.world = world
        self.id = endpoint
        self.engine = world.running.platform.engine
        self.destinations = world.running.platform.webhooks._destinations

    def now(self) -> int:
        return self.world.clock.now_ms() // 1000

    def known(self) -> Destination | None:
        return self.destinations.known(self.world.scope().key, self.id, self.now())

    async def find(self) -> Destination:
        found = await self.destinations.find(self.engine.load(self.world.scope().key), self.id, self.now())
        assert found is not None
        return found


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened(tmp_path) as world:
        yield Shop(world, (await world.endpoint(URL))["id"])


async def test_a_destination_is_known_until_the_endpoints_are_read_again(shop: Shop) -> None:
    assert shop.known() is None
    found = await shop.find()
    assert shop.known() is found and found.endpoint.url == URL
    shop.world.ahead_seconds += 3
    assert shop.known() is None
    again = await shop.find()
    assert again is not found and again.opened is found.opened, "its secret is still open"
    shop.world.ahead_seconds += OPEN_SECONDS
    assert (await shop.find()).opened is not found.opened


async def test_a_change_of_the_endpoint_counts_at_once(shop: Shop) -> None:
    await shop.find()
    await shop.world.ok("POST", f"/v1/webhook_endpoints/{shop.id}", {"url": f"{URL}other"})
    assert shop.known() is None and (await shop.find()).endpoint.url == f"{URL}other"
    await shop.world.ok("POST", f"/v1/webhook_endpoints/{shop.id}", {"disabled": "true"})
    assert shop.known() is None
    load = shop.engine.load(shop.world.scope().key)
    assert await shop.destinations.find(load, shop.id, shop.now()) is None


async def test_a_destination_ends_with_each_secret_and_with_the_old_amounts(shop: Shop) -> None:
    await shop.world.ok("POST", f"/ops/v1/webhook_endpoints/{shop.id}/roll_secret", {"expires_in": 5})
    both = await shop.find()
    assert both.opened is not None and len(both.opened.sealed) == 2 and both.until == both.endpoint.older[0].until
    one = await shop.destinations.find(shop.engine.load(shop.world.scope().key), shop.id, both.until)
    assert one is not None and one.opened is not None and one.opened.sealed == both.opened.sealed[:1]

    row = await shop.world.store.get(f"{SYSTEM}/{shop.world.account}")
    assert row is not None
    account = decode(shop.world.account, row.body)
    assert isinstance(account, Account)
    moved = msgspec.structs.replace(account, amounts_on_v1="stripe", amounts_moved_at=shop.now() + 2)
    await shop.world.store.commit([write_of(SYSTEM, moved, row.version)])
    shop.engine.accounts.forget()
    before = await shop.find()
    assert before.reader.in_minor_units and before.until == moved.amounts_moved_at
    shop.world.ahead_seconds += 2
    assert shop.known() is None and not (await shop.find()).reader.in_minor_units
