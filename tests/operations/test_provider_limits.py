"""A provider takes only some currencies, amounts and recipients, and forgets references."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from paypal_shop import PayPalShop, open_paypal_shop

from tillway.connectors.paypal import DEDUPLICATES_SECONDS
from tillway.testing.in_process import Answer

CARD = {"type": "card", "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": "123"}}


class Shop(PayPalShop):
    """A merchant whose payments go through PayPal."""

    async def pay(self, amount: int, currency: str, **params: Any) -> Answer:
        given = {"amount": amount, "currency": currency, "confirm": True, "payment_method_data": CARD, **params}
        return await self.call("/v1/payment_intents", {"return_url": "https://shop.example/", **given})

    def money_moved(self) -> int:
        return len(list(self.far.bank.operations()))


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_paypal_shop(tmp_path, Shop, timeout_seconds="0.4") as shop:
        yield shop


def refusal(answer: Answer) -> tuple[int, str, str]:
    error = answer.json["error"]
    return answer.status, error["code"], error["param"]


async def test_a_payment_is_taken(shop: Shop) -> None:
    paid = (await shop.pay(4200, "eur")).json
    assert paid["status"] == "succeeded" and shop.money_moved() == 1


async def test_a_currency_that_it_lacks_is_refused_before_money_moves(shop: Shop) -> None:
    refused = await shop.pay(4200, "kes")
    assert refusal(refused) == (400, "invalid_currency", "currency") and "'pp'" in refused.json["error"]["message"]
    assert shop.money_moved() == 0


async def test_decimals_that_it_refuses_are_refused_in_each_operation(shop: Shop) -> None:
    assert refusal(await shop.pay(420_050, "huf")) == (400, "parameter_invalid_integer", "amount")
    held = (await shop.pay(420_000, "huf", capture_method="manual")).json
    capture = f"/v1/payment_intents/{held['id']}/capture"
    wrong = await shop.call(capture, {"amount_to_capture": 419_950})
    assert refusal(wrong) == (400, "parameter_invalid_integer", "amount_to_capture")
    assert (await shop.call(capture, {"amount_to_capture": 419_900})).json["status"] == "succeeded"
    refund = {"payment_intent": held["id"], "amount": 150}
    assert refusal(await shop.call("/v1/refunds", refund)) == (400, "parameter_invalid_integer", "amount")
    assert (await shop.call("/v1/refunds", {**refund, "amount": 100})).json["status"] == "succeeded"
    assert [done.amount for done in shop.far.bank.operations()] == [420_000, 419_900, 100]


async def test_a_recipient_that_it_does_not_pay_is_refused(shop: Shop) -> None:
    assert (await shop.pay(420_000, "eur")).status == 200
    account = {"object": "bank_account", "country": "DE", "currency": "eur", "account_number": "DE89370400440532013000"}
    path = f"/v1/accounts/{shop.merchant.account}/external_accounts"
    assert (await shop.call(path, {"external_account": account})).status == 200
    shop.app.clock.ahead_seconds += 3 * 24 * 3600
    refused = await shop.call("/v1/payouts", {"amount": 1000, "currency": "eur"})
    assert refusal(refused) == (400, "connector_unsupported", "destination")
    assert "email" in refused.json["error"]["message"]


async def test_a_reference_that_may_be_forgotten_is_not_sent_again(shop: Shop) -> None:
    """The first request was lost. Within the time, a repeat performs it; later, a person has to decide."""
    for late, moved in ((60, 1), (int(DEDUPLICATES_SECONDS) + 60, 0)):
        before = shop.money_moved()
        await shop.far.strike({"fault": "lose_request", "times": 20})
        paying = (await shop.pay(4200, "eur")).json
        assert paying["status"] == "processing", json.dumps(paying)
        await shop.far.strike()
        shop.app.clock.ahead_seconds += late
        [row] = await shop.app.store.claim("attempts", now_ms=shop.app.clock.now_ms(), lease_ms=60_000, limit=10)
        await shop.app.running.runner.carry(row)
        now = (await shop.app.call(shop.merchant.key, "GET", f"/v1/payment_intents/{paying['id']}", {})).json
        assert now["status"] == ("succeeded" if moved else "processing")
        assert shop.money_moved() - before == moved
