"""`/ops/v1/event_overviews`: deliveries that were taken, wait or were given up, and the object of each event."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dashboard_shop import DashboardShop

from tillway.testing.in_process import InProcessApp

PATH = "/ops/v1/event_overviews"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[DashboardShop]:
    app = await InProcessApp.open(tmp_path)
    yield DashboardShop(app, await app.merchant())
    await app.close()


async def test_an_event_tells_its_deliveries_and_the_payment_of_its_object(shop: DashboardShop) -> None:
    for url in ("https://shop.example/a", "https://shop.example/b"):
        await shop.post("/v1/webhook_endpoints", url=url, enabled_events=["*"])
    id = await shop.pay(11900, description="A cast-iron pot")
    await shop.post("/v1/refunds", payment_intent=id, amount=2000)
    events = {one["type"]: one for one in (await shop.get("/v1/events"))["data"]}
    wanted = [events[type]["id"] for type in ("refund.created", "charge.succeeded", "payment_intent.created")]
    told = (await shop.get(PATH, events=[*wanted, "evt_0000000000000000"]))["data"]
    assert [one["id"] for one in told] == wanted, "events of others, and those that are not there, are left out"
    assert {(one["deliveries"], one["pending"], one["given_up"]) for one in told} == {(2, 2, 0)}
    assert {one["description"] for one in told} == {"A cast-iron pot"}
    assert [one["amount"] for one in told] == [2000, 11900, 11900]
    assert told[2]["subject"] == id and told[2]["type"] == "payment_intent.created"


async def test_another_merchant_has_none_of_them(shop: DashboardShop) -> None:
    await shop.pay()
    event = (await shop.get("/v1/events"))["data"][0]["id"]
    other = DashboardShop(shop.app, await shop.app.merchant())
    assert (await other.get(PATH, events=[event]))["data"] == []
    refused = await shop.app.call(shop.merchant, "GET", PATH, {})
    assert refused.status == 400 and refused.json["error"]["param"] == "events"
