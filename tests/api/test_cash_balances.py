"""Cash balances: bank transfers of customers in test mode, which add to their stored credit."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from card_shop import CardShop, opened


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[CardShop]:
    async with opened(tmp_path) as shop:
        yield shop


async def test_a_transfer_pays(shop: CardShop) -> None:
    customer = await shop.customer()
    path = f"/v1/customers/{customer}"
    assert (await shop.ok("GET", f"{path}/cash_balance"))["available"] is None
    fund = f"/v1/test_helpers/customers/{customer}/fund_cash_balance"
    funded = await shop.ok("POST", fund, {"amount": 900, "currency": "eur", "reference": "Invoice 7"})
    assert (funded["type"], funded["net_amount"], funded["ending_balance"]) == ("funded", 900, 900)
    transfer = funded["funded"]["bank_transfer"]
    assert (transfer["type"], transfer["reference"]) == ("eu_bank_transfer", "Invoice 7")
    types = {"payment_method_types": ["customer_balance"], "payment_method_data": {"type": "customer_balance"}}
    paid = {"amount": 400, "currency": "eur", "confirm": True, "customer": customer, **types}
    assert (await shop.ok("POST", "/v1/payment_intents", paid))["status"] == "succeeded"
    cash = await shop.ok("GET", f"{path}/cash_balance")
    assert (cash["available"], cash["customer"]) == ({"eur": 500}, customer)
    listed = await shop.ok("GET", f"{path}/cash_balance_transactions")
    assert (listed["data"], listed["url"]) == ([funded], f"{path}/cash_balance_transactions")
    assert await shop.ok("GET", f"{path}/cash_balance_transactions/{funded['id']}") == funded
    (told,) = (await shop.ok("GET", "/v1/events", {"type": "customer_cash_balance_transaction.created"}))["data"]
    assert told["data"]["object"] == funded
    (told,) = (await shop.ok("GET", "/v1/events", {"type": "cash_balance.funds_available"}))["data"]
    assert told["data"]["object"]["available"] == {"eur": 900}


async def test_refusals(shop: CardShop) -> None:
    customer, other = await shop.customer(), await shop.customer()
    fund = f"/v1/test_helpers/customers/{customer}/fund_cash_balance"
    given = {"amount": 900, "currency": "eur"}
    funded = await shop.ok("POST", fund, given)
    assert (await shop.refused("POST", fund, {**given, "currency": "usd"}))[1] == "customer_currency_mismatch"
    assert (await shop.refused("POST", fund, {**given, "amount": 0}))[2] == "amount"
    assert (await shop.refused("POST", fund, given, key=shop.merchant.live_key))[:2] == (404, "route_unknown")
    foreign = f"/v1/customers/{other}/cash_balance_transactions/{funded['id']}"
    assert await shop.refused("GET", foreign) == (404, "resource_missing", "id")
    charge = await shop.ok("POST", "/v1/charges", {"amount": 700, "currency": "eur", "source": "tok_visa"})
    refund = await shop.ok("POST", "/v1/refunds", {"charge": charge["id"]})
    expired = await shop.refused("POST", f"/v1/test_helpers/refunds/{refund['id']}/expire")
    assert expired == (400, "refund_unexpected_state", None)
