"""The movements that a payout took, and its line in the statements of the daily close."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dashboard_visitor import Visitor, text
from routed_shop import RoutedShop, routed_shop

from tillway.connectors.port import Request
from tillway.testing.far_side import answer

AVAILABLE = "4000000000000077"
"""The card whose payments are available at once."""


async def settled(shop: RoutedShop, id: str, status: str) -> None:
    for _ in range(30):
        if (await shop.app.ok(shop.merchant, "GET", f"/v1/payouts/{id}"))["status"] == status:
            return
        await shop.app.wait(1)
    raise AssertionError(f"{id} is not {status}")


async def pay_out(shop: RoutedShop, amount: int, status: str = "paid") -> str:
    made = await shop.app.ok(shop.merchant, "POST", "/v1/payouts", {"amount": amount, "currency": "eur"})
    await settled(shop, made["id"], status)
    id: str = made["id"]
    return id


async def bank_account(shop: RoutedShop) -> None:
    account = {"object": "bank_account", "country": "DE", "currency": "eur", "account_number": "DE89370400440532013000"}
    path = f"/v1/accounts/{shop.merchant.account}/external_accounts"
    await shop.app.ok(shop.merchant, "POST", path, {"external_account": account})


async def contents(shop: RoutedShop, id: str) -> Any:
    return await shop.app.ok(shop.merchant, "GET", f"/ops/v1/payouts/{id}/contents")


def told_of(found: Any) -> tuple[dict[str, int], int]:
    """The counts, and the sum of the lines."""
    lines = sum(one["net"] for one in found["transactions"]) + found["contents"]["from_before"]
    assert lines == found["amount"] == found["contents"]["moved"] + found["contents"]["from_before"]
    return found["contents"]["counts"], found["contents"]["from_before"]


async def test_the_lines_of_each_payout_add_up_to_its_amount(tmp_path: Path) -> None:
    async with routed_shop(tmp_path) as shop:
        await bank_account(shop)
        for amount in (9000, 5000):
            await shop.pay(amount, AVAILABLE)
        await shop.pay(7000)  # It stays pending.
        await shop.pay(8000, AVAILABLE, currency="usd")
        first = await pay_out(shop, 6000)
        third = (await shop.pay(3000, AVAILABLE)).json
        await shop.app.ok(shop.merchant, "POST", "/v1/refunds", {"payment_intent": third["id"], "amount": 1000})
        second = await pay_out(shop, 8000)
        counts, from_before = told_of(await contents(shop, first))
        assert counts == {"charge": 2} and from_before < 0, "some of it stays in the balance"
        counts, from_before = told_of(found := await contents(shop, second))
        assert counts == {"charge": 1, "refund": 1} and from_before > 0
        assert found["contents"]["since"] == first
        listed = (await shop.app.ok(shop.merchant, "GET", "/ops/v1/payouts/contents"))["data"]
        assert [(one["payout"], one["contents"]) for one in listed] == [
            (id, (await contents(shop, id))["contents"]) for id in (second, first)
        ]
        after = {"limit": 1, "starting_after": second}
        older = await shop.app.ok(shop.merchant, "GET", "/ops/v1/payouts/contents", after)
        assert ([one["payout"] for one in older["data"]], older["has_more"]) == ([first], False)


async def test_a_statement_lower_by_040_is_flagged_and_booked(tmp_path: Path) -> None:
    async with routed_shop(tmp_path) as shop:
        await bank_account(shop)
        await shop.pay(9000, AVAILABLE)
        payout = await pay_out(shop, 5000)
        state = (await contents(shop, payout))["statement"]
        assert state["state"] == "not_closed"
        day = datetime.fromtimestamp(state["paid_at"], UTC).date().isoformat()
        await shop.app.wait(86_400)
        admin = await Visitor.signed_in(shop.app, "operator", shop.merchant.account, name="Mara Brandt")
        await close(shop, day, f"{day},-49.60,EUR,{payout}")
        differs = (await contents(shop, payout))["statement"]
        assert (differs["state"], differs["amount"], differs["excess"]) == ("differs", 4960, 40)
        assert "0.40 less" in text(await admin.get("/dashboard/balance"))
        place = f"/dashboard/payouts/{payout}"
        page = await admin.get(place)
        words = text(page)
        assert "Sent by Tillway 50.00 EUR" in words
        at = datetime.fromisoformat(day)
        assert re.search(rf"On the statement, {at.day} {at:%B}( {at.year})? 49.60 EUR", words)
        assert "Difference \N{MINUS SIGN}0.40 EUR" in words
        refused = await admin.submit(page, f"{place}/book", {"reason": ""})
        assert refused.status == 422 and "Say why" in text(refused)
        for _ in range(2):
            assert (await admin.submit(page, f"{place}/book", {"reason": "Transfer fee"})).status == 303
        assert "Booked: “Transfer fee”" in text(await admin.get(place))
        ledger = await shop.app.ok(shop.merchant, "GET", "/ops/v1/ledger")
        assert ledger["balanced"] and [
            one["balance"] for one in ledger["accounts"] if one["account"] == "differences"
        ] == [-40], "once"
        viewer = await Visitor.signed_in(shop.app, "viewer", shop.merchant.account, name="Viewer")
        assert "Book as bank fee" not in text(await viewer.get(place))


async def close(shop: RoutedShop, day: str, *lines: str) -> None:
    content = "\n".join(["date,amount,currency,reference", *lines])
    operator = await shop.app.operator("operator", shop.merchant.account)
    statements = [{"place": "a", "name": "a.csv", "content": content}]
    await shop.app.ok(operator, "POST", "/ops/v1/closes", {"day": day, "statements": statements})


async def test_a_payout_in_the_statement_matches_and_one_that_failed_has_none(tmp_path: Path) -> None:
    async with routed_shop(tmp_path) as shop:
        await bank_account(shop)
        await shop.pay(9000, AVAILABLE)
        payout = await pay_out(shop, 5000)
        refused = {"status": "Declined", "decline_code": "account_closed"}
        shop.answers["a"] = lambda request: answer(200, {**refused, **_named(request)})
        state = (await contents(shop, payout))["statement"]
        day = datetime.fromtimestamp(state["paid_at"], UTC).date().isoformat()
        await shop.app.wait(86_400)
        await close(shop, day, f"{day},-1.00,EUR,another")
        assert (await contents(shop, payout))["statement"]["state"] == "missing"
        await close(shop, day, f"{day},-50.00,EUR,{payout}")
        assert (await contents(shop, payout))["statement"]["state"] == "matches"


def _named(request: Request) -> dict[str, Any]:
    return {name: request.fields.get(name) for name in ("reference", "amount", "currency")} | {"kind": "payout"}
