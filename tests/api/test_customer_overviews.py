"""`/ops/v1/customers`: customers in one row, with kept cards, payments and money paid."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dashboard_shop import DashboardShop

from tillway.operations import customer_overviews
from tillway.testing.in_process import InProcessApp


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[DashboardShop]:
    app = await InProcessApp.open(tmp_path)
    yield DashboardShop(app, await app.merchant())
    await app.close()


async def test_a_row_has_card_payments_and_money_paid(shop: DashboardShop) -> None:
    barbara = (await shop.post("/v1/customers", name="Barbara", email="barbara@shop.example"))["id"]
    keeps = {"customer": barbara, "setup_future_usage": "off_session"}
    paid = await shop.pay(9900, card="pm_card_mastercard", **keeps)
    await shop.pay(700, "jpy", customer=barbara)
    await shop.pay(1200, card="pm_card_visa_chargeDeclined", customer=barbara)
    await shop.post("/v1/refunds", payment_intent=paid, amount=2000)
    other = (await shop.post("/v1/customers", name="Ken"))["id"]
    listed = await shop.get("/ops/v1/customers")
    assert [one["id"] for one in listed["data"]] == [other, barbara]
    row = listed["data"][1]
    assert (row["payments"], row["has_more_payments"]) == (3, False)
    assert row["paid"] == [{"amount": 7900, "currency": "eur"}, {"amount": 700, "currency": "jpy"}]
    assert row["card"] == {"brand": "mastercard", "last4": "4444"}
    assert row["customer"]["email"] == "barbara@shop.example"
    assert (listed["data"][0]["payments"], listed["data"][0]["paid"], listed["data"][0]["card"]) == (0, [], None)
    named = await shop.get("/ops/v1/customers", **{"ids[0]": barbara})
    assert named["data"] == [row]
    one = await shop.get(f"/ops/v1/customers/{barbara}")
    assert one == row | {"versions": one["versions"]} and list(one["versions"]) == [barbara]
    first = await shop.get("/ops/v1/customers", limit=1)
    assert first["has_more"] and first["data"] == listed["data"][:1]
    rest = await shop.get("/ops/v1/customers", limit=1, starting_after=other)
    assert (rest["data"], rest["has_more"]) == ([row], False)


async def test_a_customer_with_very_many_payments_says_so(shop: DashboardShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(customer_overviews, "PAYMENTS_MAX", 2)
    ken = (await shop.post("/v1/customers", name="Ken"))["id"]
    for amount in (100, 200, 400):
        await shop.pay(amount, customer=ken)
    row = await shop.get(f"/ops/v1/customers/{ken}")
    assert (row["payments"], row["has_more_payments"]) == (2, True)
    assert row["paid"] == [{"amount": 600, "currency": "eur"}]


async def test_viewers_see_names_masked_and_others_customers_are_not_found(shop: DashboardShop) -> None:
    barbara = (await shop.post("/v1/customers", name="Barbara", email="barbara@shop.example"))["id"]
    viewer = await shop.app.operator("viewer", shop.merchant.account)
    (row,) = (await shop.app.ok(viewer, "GET", "/ops/v1/customers"))["data"]
    assert row["customer"] == {"id": barbara, "object": "customer", "name": "B***", "email": "b***@shop.example"}
    stranger = await shop.app.merchant()
    refused = await shop.app.call(stranger, "GET", "/ops/v1/customers", {"ids[0]": barbara})
    assert (refused.status, refused.json["error"]["param"]) == (400, "ids")
    assert (await shop.app.call(stranger, "GET", f"/ops/v1/customers/{barbara}")).status == 404
