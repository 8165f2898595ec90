"""`balance.available`: one event for all money of a merchant that becomes available at the same time."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tillway.testing.in_process import LEASE_MS, InProcessApp, Merchant

DAY = 86_400
NOON = DAY // 2


class Shop:
    """A merchant at noon, so that no test runs into midnight."""

    def __init__(self, app: InProcessApp, merchant: Merchant) -> None:
        self.app = app
        self.merchant = merchant
        app.clock.ahead_seconds = (NOON - app.clock.now_ms() // 1000) % DAY

    async def pay(self, amount: int, currency: str, method: str = "pm_card_visa", **params: Any) -> Any:
        given = {"amount": amount, "currency": currency, "confirm": True, "payment_method": method, **params}
        return await self.app.ok(
            self.merchant, "POST", "/v1/payment_intents", given | {"payment_method_types": ["card"]}
        )

    async def due(self, *, read_ahead_seconds: int = 0) -> list[str]:
        """Claim what is due, by a clock that may be ahead, and carry it out. Returns the ids of the tasks."""
        now_ms = self.app.clock.now_ms() + read_ahead_seconds * 1000
        rows = await self.app.store.claim("expiries", now_ms=now_ms, lease_ms=LEASE_MS, limit=10)
        for row in rows:
            await self.app.running.runner.carry(row)
        return [row.key.partition("/")[2] for row in rows]

    async def told(self) -> list[Any]:
        listed = await self.app.ok(self.merchant, "GET", "/v1/events", {"type": "balance.available"})
        return [event["data"]["object"] for event in listed["data"]]

    async def balance(self) -> Any:
        return await self.app.ok(self.merchant, "GET", "/v1/balance")


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    app = await InProcessApp.open(tmp_path)
    yield Shop(app, await app.merchant())
    await app.close()


def sums(funds: list[dict[str, Any]]) -> dict[str, int]:
    return {one["currency"]: one["amount"] for one in funds}


async def test_the_money_of_a_day_is_told_of_once_when_it_is_available(shop: Shop) -> None:
    await shop.pay(4200, "eur")
    held = await shop.pay(1000, "usd", capture_method="manual")
    await shop.app.ok(shop.merchant, "POST", f"/v1/payment_intents/{held['id']}/capture")
    await shop.pay(500_000, "isk")
    shop.app.clock.ahead_seconds += DAY
    await shop.pay(700, "eur")
    assert await shop.due() == [] and await shop.told() == []

    shop.app.clock.ahead_seconds += DAY
    assert len(await shop.due()) == 1
    (told,) = await shop.told()
    assert told == await shop.balance()
    assert sums(told["available"]) == {"eur": 4200 - 152, "isk": 482_500, "usd": 1000 - 59}
    assert sums(told["pending"]) == {"eur": 700 - 50, "isk": 0, "usd": 0}

    shop.app.clock.ahead_seconds += DAY
    assert len(await shop.due()) == 1
    newest, _ = await shop.told()
    assert sums(newest["available"])["eur"] == 4200 - 152 + 700 - 50 and sums(newest["pending"])["eur"] == 0
    assert await shop.due() == []


async def test_money_that_is_available_at_once_is_told_of_at_once(shop: Shop) -> None:
    await shop.pay(2000, "usd", "pm_card_bypassPending")
    assert len(await shop.due()) == 1
    (told,) = await shop.told()
    assert (sums(told["available"]), sums(told["pending"])) == ({"usd": 2000 - 88}, {"usd": 0})


async def test_a_worker_whose_clock_is_ahead_tells_nothing(shop: Shop) -> None:
    await shop.pay(4200, "eur")
    (early,) = await shop.due(read_ahead_seconds=2 * DAY)
    assert await shop.told() == []
    shop.app.clock.ahead_seconds += 3 * DAY
    assert await shop.due() == [early]
    assert len(await shop.told()) == 1
