"""Disputes of the simulated bank on demand: opened, moved, ended and contradicted, and answered by the merchant."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tillway.testing.in_process import InProcessApp, Merchant


class Shop:
    def __init__(self, app: InProcessApp, merchant: Merchant) -> None:
        self.app, self.merchant = app, merchant

    async def charge(self) -> str:
        params = {"amount": 4200, "currency": "eur", "confirm": True, "payment_method": "pm_card_visa"}
        paid = await self.app.ok(self.merchant, "POST", "/v1/payment_intents", params | {"return_url": "https://a.de"})
        return str(paid["latest_charge"])

    async def tell(self, **params: Any) -> Any:
        return await self.app.ok(self.merchant, "POST", "/ops/v1/simulator/disputes", params)

    async def refused(self, **params: Any) -> tuple[int, str]:
        answer = await self.app.call(self.merchant, "POST", "/ops/v1/simulator/disputes", params)
        return answer.status, answer.json["error"]["param"]

    async def run_due(self) -> None:
        """Send the replies that are due, and hear the notices that follow."""
        for row in await self.app.store.claim("expiries", now_ms=self.app.clock.now_ms(), lease_ms=60_000, limit=10):
            await self.app.running.runner.carry(row)
        await self.app.wait(0)

    async def open_items(self) -> Any:
        return (await self.app.ok(self.merchant, "GET", "/ops/v1/open_items"))["data"]


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    app = await InProcessApp.open(tmp_path)
    yield Shop(app, await app.merchant())
    await app.close()


async def test_an_inquiry_becomes_a_chargeback_and_is_lost(shop: Shop) -> None:
    charge = await shop.charge()
    asked = await shop.tell(charge=charge, stage="inquiry", reason="duplicate", amount=4000)
    assert (asked["status"], asked["reason"], asked["amount"]) == ("warning_needs_response", "duplicate", 4000)
    moved = await shop.tell(dispute=asked["id"], stage="chargeback", network_reason_code="12.6.1")
    assert (moved["id"], moved["status"]) == (asked["id"], "needs_response")
    assert [row["net"] for row in moved["balance_transactions"]] == [-5500]
    other = await shop.tell(charge=charge, amount=200)
    assert other["id"] != asked["id"]
    assert (await shop.tell(dispute=asked["id"], status="Lost"))["status"] == "lost"
    assert await shop.open_items() == []
    assert (await shop.tell(dispute=asked["id"], status="Won"))["status"] == "lost"
    [item] = await shop.open_items()
    assert (item["ours"], item["theirs"], item["subject"]) == ("lost", "won", asked["id"])


async def test_the_bank_takes_evidence_and_acceptance(shop: Shop) -> None:
    charge = await shop.charge()
    first, second = await shop.tell(charge=charge, amount=1000), await shop.tell(charge=charge, amount=2000)
    path = f"/v1/disputes/{first['id']}"
    await shop.app.ok(shop.merchant, "POST", path, {"evidence": {"uncategorized_text": "It was delivered."}})
    assert (await shop.app.ok(shop.merchant, "POST", f"/v1/disputes/{second['id']}/close"))["status"] == "lost"
    bank = (await shop.app.simulator(shop.merchant)).bank

    def taken() -> list[tuple[str, str | None]]:
        return sorted((one.kind, one.text) for one in bank.operations() if one.kind in ("evidence", "accept"))

    await shop.run_due()
    assert taken() == [("accept", None), ("evidence", "uncategorized_text: It was delivered.")]
    assert sorted(one.verdict for one in bank.operations() if one.kind == "dispute") == ["Accepted", "Opened"]
    assert (await shop.tell(dispute=first["id"], status="Won"))["status"] == "won"


async def test_what_cannot_be_disputed(shop: Shop) -> None:
    assert await shop.refused() == (400, "charge")
    charge = await shop.charge()
    assert await shop.refused(charge=charge, stage="warning") == (400, "stage")
    too_much = {"charge": charge, "amount": 4201}
    answer = await shop.app.call(shop.merchant, "POST", "/ops/v1/simulator/disputes", too_much)
    assert answer.status == 400 and "more than was paid" in answer.json["error"]["message"]
