"""Cash balances: bank transfers of customers in test mode, which add to their stored credit."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from card_shop import CardShop, opened

from tillway.installation import KEY_FILE
from tillway.settings import Settings
from tillway.store.port import Write
from tillway.testing.in_process import InProcessApp, MovedClock, ReadableStore
from tillway.vault.keyring import Keyring
from tillway.wiring import assemble


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


AWAITED = {
    "amount": 1000,
    "currency": "eur",
    "confirm": True,
    "payment_method_types": ["customer_balance"],
    "payment_method_data": {"type": "customer_balance"},
    "payment_method_options": {
        "customer_balance": {"funding_type": "bank_transfer", "bank_transfer": {"type": "eu_bank_account"}}
    },
}
"""The type is a word of the fixtures of Stripe's command line."""


async def test_a_payment_waits_for_transfers(shop: CardShop) -> None:
    customer = await shop.customer()
    fund = f"/v1/test_helpers/customers/{customer}/fund_cash_balance"
    first, second = [
        await shop.ok("POST", "/v1/payment_intents", {**AWAITED, "customer": customer, "amount": amount})
        for amount in (1000, 300)
    ]
    action = first["next_action"]["display_bank_transfer_instructions"]
    assert (first["status"], action["type"], action["amount_remaining"]) == (
        "requires_action",
        "eu_bank_transfer",
        1000,
    )
    await shop.ok("POST", fund, {"amount": 400, "currency": "eur"})
    path = f"/v1/payment_intents/{first['id']}"
    waiting = await shop.ok("GET", path)
    assert waiting["next_action"]["display_bank_transfer_instructions"]["amount_remaining"] == 600
    assert (await shop.ok("GET", f"/v1/payment_intents/{second['id']}"))["status"] == "requires_action"
    (told,) = (await shop.ok("GET", "/v1/events", {"type": "payment_intent.partially_funded"}))["data"]
    assert told["data"]["object"]["id"] == first["id"]
    await shop.ok("POST", fund, {"amount": 1000, "currency": "eur"})
    for payment, amount in ((first, 1000), (second, 300)):
        paid = await shop.ok("GET", f"/v1/payment_intents/{payment['id']}")
        assert (paid["status"], paid["amount_received"], paid["next_action"]) == ("succeeded", amount, None)
    cash = await shop.ok("GET", f"/v1/customers/{customer}/cash_balance")
    assert cash["available"] == {"eur": 100}, "no transfer is spent twice, and none is lost"


class InterruptedStore(ReadableStore):
    """A store in which `meanwhile` happens once, between the decision about a payment and its commit."""

    meanwhile: Callable[[], Awaitable[Any]] | None = None

    async def commit(self, writes: Sequence[Write]) -> None:
        if self.meanwhile is not None and any("/pi_" in write.key for write in writes):
            work, self.meanwhile = self.meanwhile, None
            await work()
        await super().commit(writes)


async def test_a_transfer_that_comes_while_a_payment_begins_to_wait_pays_it(tmp_path: Path) -> None:
    Keyring.create(tmp_path / KEY_FILE)
    store, clock = InterruptedStore(), MovedClock()
    app = InProcessApp(await assemble(Settings(data_dir=tmp_path), store, clock), store, clock)
    shop = CardShop(app, await app.merchant())
    customer = await shop.customer()
    fund = f"/v1/test_helpers/customers/{customer}/fund_cash_balance"
    store.meanwhile = partial(shop.ok, "POST", fund, {"amount": 1000, "currency": "eur"})
    paid = await shop.ok("POST", "/v1/payment_intents", {**AWAITED, "customer": customer})
    assert paid["status"] == "succeeded" and store.meanwhile is None
    assert (await shop.ok("GET", f"/v1/customers/{customer}/cash_balance"))["available"] == {"eur": 0}
    await app.close()


async def test_credit_is_applied_by_hand_and_only_where_it_is_awaited(shop: CardShop) -> None:
    customer = await shop.customer()
    waiting = await shop.ok("POST", "/v1/payment_intents", {**AWAITED, "customer": customer})
    path = f"/v1/payment_intents/{waiting['id']}"
    apply = f"{path}/apply_customer_balance"
    unpaid = await shop.ok("POST", apply)
    assert unpaid["status"] == "requires_action"
    given = {"amount": -1500, "currency": "eur"}
    await shop.ok("POST", f"/v1/customers/{customer}/balance_transactions", given)
    error = await shop.error("POST", apply, {"amount": 400})
    assert error["param"] == "amount" and "10.00 EUR" in error["message"], "in major units: ISK differ on the wire"
    assert (await shop.refused("POST", apply, {"currency": "usd"}))[2] == "currency"
    assert (await shop.ok("POST", apply, {"amount": 1000, "currency": "eur"}))["status"] == "succeeded"
    assert (await shop.refused("POST", apply))[:2] == (400, "payment_intent_unexpected_state")

    other = await shop.ok("POST", "/v1/payment_intents", {**AWAITED, "customer": customer, "amount": 900})
    assert other["next_action"]["display_bank_transfer_instructions"]["amount_remaining"] == 400
    address = f"/3ds/{shop.merchant.account.removeprefix('acct_')}t/{other['id']}"
    secret = other["client_secret"].partition("_secret_")[2]
    passed = await shop.app.send("POST", address, query=f"secret={secret}", body=b"outcome=pass")
    assert passed.status == 400, "there is no challenge to pass"
    cancelled = await shop.ok("POST", f"/v1/payment_intents/{other['id']}/cancel")
    assert cancelled["status"] == "canceled"
    assert (await shop.ok("GET", f"/v1/customers/{customer}"))["balance"] == -500, "a part is never taken"


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
