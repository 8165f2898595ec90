"""Whose money it is, and money in doubt, with several connectors."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from routed_shop import RoutedShop, routed_shop

from tillway.testing.far_side import answer


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[RoutedShop]:
    async with routed_shop(tmp_path) as shop:
        yield shop


async def test_a_payout_draws_on_the_money_of_its_connector(shop: RoutedShop) -> None:
    merchant, app = shop.merchant, shop.app
    await shop.put({"rules": [{"name": "b", "when": {"amount_gte": 5000}, "use": ["b"]}], "otherwise": ["a"]})
    await shop.pay(3000)
    await shop.pay(9000)
    app.clock.ahead_seconds += 8 * 86_400
    account = {"object": "bank_account", "country": "DE", "currency": "eur", "account_number": "DE89370400440532013000"}
    path = f"/v1/accounts/{merchant.account}/external_accounts"
    await app.ok(merchant, "POST", path, {"external_account": account})
    told = (await app.ok(merchant, "GET", "/ops/v1/balances"))["data"][0]
    sums = {row["connector"]: (row["receivable"], row["can_pay_out"]) for row in told["providers"]}
    assert (told["currency"], told["bank"], sums) == ("eur", 0, {"a": (3000, 3000), "b": (9000, 9000)})
    refused = await app.call(merchant, "POST", "/v1/payouts", {"amount": 3001, "currency": "eur"})
    error = refused.json["error"]
    assert (refused.status, error["code"], error["param"]) == (400, "balance_insufficient", "amount")
    assert "can pay out 30.00 EUR of these 30.01 EUR" in error["message"]
    await app.ok(merchant, "POST", "/v1/payouts", {"amount": 2000, "currency": "eur"})
    again = await app.call(merchant, "POST", "/v1/payouts", {"amount": 1001, "currency": "eur"})
    assert "can pay out 10.00 EUR of these 10.01 EUR" in again.json["error"]["message"], "what is on its way counts"
    more = await app.call(merchant, "POST", "/v1/payouts", {"amount": 5000, "currency": "eur"})
    assert "can pay out 10.00 EUR of these 50.00 EUR" in more.json["error"]["message"]
    await app.ok(merchant, "POST", "/v1/payouts", {"amount": 1000, "currency": "eur"})
    await app.wait(60)
    told = (await app.ok(merchant, "GET", "/ops/v1/balances"))["data"][0]
    assert {row["connector"]: row["receivable"] for row in told["providers"]} == {"a": 0, "b": 9000}


async def test_the_simulators_money_counts_as_settled(shop: RoutedShop) -> None:
    merchant, app = shop.merchant, shop.app
    await shop.put({"otherwise": ["simulator"]})
    await shop.pay(3000, "4000000000000077")
    account = {"object": "bank_account", "country": "DE", "currency": "eur", "account_number": "DE89370400440532013000"}
    path = f"/v1/accounts/{merchant.account}/external_accounts"
    await app.ok(merchant, "POST", path, {"external_account": account})
    for amount in (1000, 1500):
        paid = await app.ok(merchant, "POST", "/v1/payouts", {"amount": amount, "currency": "eur"})
        await app.wait(60)
        assert (await app.ok(merchant, "GET", f"/v1/payouts/{paid['id']}"))["status"] == "paid"
    told = (await app.ok(merchant, "GET", "/ops/v1/balances"))["data"][0]
    assert {row["connector"]: row["can_pay_out"] for row in told["providers"]} == {"a": 500, "simulator": 500}


async def test_a_doubt_tells_what_was_sent_and_what_the_provider_says(shop: RoutedShop) -> None:
    merchant, app = shop.merchant, shop.app
    shop.answers = {"a": lambda request: answer(500, {})}
    payment = (await shop.pay(1234)).json
    row = (await app.ok(merchant, "GET", "/ops/v1/doubts"))["data"][0]
    assert (row["subject"], row["amount"], row["connector"]) == (payment["id"], 1234, "a")
    assert row["sent"]["card"] == {"brand": "visa", "number": "****4242"}
    assert row["sent"]["operation"] == "authorize" and "4242424242424242" not in str(row)
    assert row["next_step"]["action"] == "ask_provider" and row["next_step"]["at"] >= row["created"]
    shown = await app.ok(merchant, "GET", f"/ops/v1/doubts/{row['id']}")
    assert shown["provider_says"] == {
        "outcome": "never_seen",
        "reason": "it knows no operation of this reference",
        "asked_now": True,
    }
    path = f"/ops/v1/doubts/{row['id']}/resolve"
    orders = len(shop.orders)
    decided = {"outcome": "failed", "reason": "Confirmed by telephone."}
    missing = await app.call(merchant.operator_key, "POST", path, {"outcome": "failed"})
    assert (missing.status, missing.json["error"]["param"]) == (400, "reason")
    await app.ok(merchant.operator_key, "POST", path, decided)
    twice = await app.call(merchant.operator_key, "POST", path, decided)
    assert twice.status in (400, 404)
    await app.wait(3600)
    assert len(shop.orders) == orders, "what failed is never sent again"
    after = await app.ok(merchant, "GET", f"/v1/payment_intents/{payment['id']}")
    assert after["status"] == "requires_payment_method"
    assert (await app.ok(merchant, "GET", "/ops/v1/doubts"))["data"] == []
