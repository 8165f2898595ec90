"""ISK, UGX and MGA: Stripe's amounts on `/v1`; ISO 4217's minor units in records, the ledger, the bank and reports."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tillway.domain.account import SYSTEM, Account, Scope
from tillway.operations.accounts import accounts_of_stored_amounts
from tillway.operations.reports import transactions
from tillway.settings import Settings
from tillway.store.codec import decode, write_of
from tillway.testing.in_process import Answer, InProcessApp, Merchant
from tillway.wiring import assemble

WIRE = {"isk": 500000, "ugx": 250000, "mga": 5000}
MINOR = {"isk": 5000, "ugx": 2500, "mga": 500000}


class Shop:
    def __init__(self, app: InProcessApp, merchant: Merchant) -> None:
        self.app, self.merchant = app, merchant

    async def post(self, path: str, **params: Any) -> Any:
        return await self.app.ok(self.merchant, "POST", path, params)

    async def get(self, path: str, **params: Any) -> Any:
        return await self.app.ok(self.merchant, "GET", path, params)

    async def pay(self, currency: str, **params: Any) -> Any:
        given = {"payment_method": "pm_card_visa", "confirm": True, "return_url": "https://example.com/"}
        return await self.post("/v1/payment_intents", amount=WIRE[currency], currency=currency, **given | params)

    async def refused(self, path: str, **params: Any) -> Any:
        answer: Answer = await self.app.call(self.merchant, "POST", path, params)
        assert answer.status == 400, answer.body
        return answer.json["error"]

    async def at_the_bank(self) -> list[tuple[str, int]]:
        return [(one.kind, one.amount) for one in (await self.app.simulator(self.merchant)).bank.operations()]


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    app = await InProcessApp.open(tmp_path)
    yield Shop(app, await app.merchant())
    await app.close()


@pytest.mark.parametrize("currency", WIRE)
async def test_refusals_name_the_money(shop: Shop, currency: str) -> None:
    """A number of minor units would be another amount on `/v1`."""
    wire, money = WIRE[currency], {"isk": "5000 ISK", "ugx": "2500 UGX", "mga": "5000.00 MGA"}[currency]
    paid = await shop.pay(currency)
    refused = await shop.refused("/v1/refunds", payment_intent=paid["id"], amount=wire * 2)
    assert refused["code"] == "refund_amount_too_large" and f"on charge ({money})" in refused["message"]
    held = await shop.pay(currency, capture_method="manual")
    refused = await shop.refused(f"/v1/payment_intents/{held['id']}/capture", amount_to_capture=wire * 2)
    assert refused["code"] == "capture_amount_too_large" and f"capturable ({money})" in refused["message"]


@pytest.mark.parametrize("currency", WIRE)
async def test_a_payment(shop: Shop, currency: str) -> None:
    wire, minor = WIRE[currency], MINOR[currency]
    paid = await shop.pay(currency, expand=["latest_charge.balance_transaction"])
    charge = paid["latest_charge"]
    assert [paid["amount"], paid["amount_received"], charge["amount"], charge["amount_captured"]] == [wire] * 4
    card = charge["payment_method_details"]["card"]
    assert card["amount_authorized"] == card["overcapture"]["maximum_amount_capturable"] == wire
    booked = charge["balance_transaction"]
    assert (booked["amount"], booked["net"]) == (wire, wire - booked["fee"])
    assert booked["fee_details"][0]["amount"] == booked["fee"]
    assert await shop.at_the_bank() == [("authorization", minor)]
    ledger = (await shop.get("/ops/v1/ledger"))["accounts"]
    assert [row["balance"] for row in ledger if row["account"] == "receivable:simulator"] == [minor]
    [funds] = (await shop.get("/v1/balance"))["pending"]
    assert funds["amount"] == funds["source_types"]["card"] == booked["net"]
    events = (await shop.get("/v1/events", type="payment_intent.succeeded"))["data"]
    assert [event["data"]["object"]["amount"] for event in events] == [wire]
    found = await shop.get("/v1/payment_intents/search", query=f"amount:{wire}")
    assert [one["id"] for one in found["data"]] == [paid["id"]]

    refund = await shop.post("/v1/refunds", payment_intent=paid["id"], amount=1000)
    assert refund["amount"] == 1000
    rest = await shop.post(f"/v1/charges/{charge['id']}/refunds", amount=500)
    assert rest["amount"] == 500
    assert (await shop.get(f"/v1/charges/{charge['id']}"))["amount_refunded"] == 1500
    refunds = [amount * wire // minor for kind, amount in await shop.at_the_bank() if kind == "refund"]
    assert refunds == [1000, 500]


async def test_every_amount_that_a_caller_sends(shop: Shop) -> None:
    held = await shop.pay("isk", capture_method="manual")
    assert held["amount_capturable"] == 500000
    more = await shop.post(f"/v1/payment_intents/{held['id']}/increment_authorization", amount=600000)
    assert more["amount"] == 600000
    part = await shop.post(f"/v1/payment_intents/{held['id']}/capture", amount_to_capture=100000)
    assert part["amount_received"] == 100000
    direct = await shop.post("/v1/charges", amount=200000, currency="isk", source="tok_visa", capture=False)
    taken = await shop.post(f"/v1/charges/{direct['id']}/capture", amount=100000)
    assert taken["amount_captured"] == 100000
    made = await shop.pay("ugx", confirm=None, return_url=None)
    assert (await shop.post(f"/v1/payment_intents/{made['id']}", amount=300000))["amount"] == 300000
    paid = await shop.post(
        f"/v1/payment_intents/{made['id']}/confirm", amount_to_confirm=300000, return_url="https://example.com/"
    )
    assert paid["amount_received"] == 300000
    dispute = await shop.post("/ops/v1/simulator/disputes", charge=paid["latest_charge"], amount=200000)
    assert dispute["amount"] == 200000 and dispute["balance_transactions"][0]["amount"] == -200000
    customer = await shop.post("/v1/customers")
    path = f"/v1/customers/{customer['id']}"
    moved = await shop.post(f"{path}/balance_transactions", amount=-30000, currency="isk")
    assert (moved["amount"], moved["ending_balance"]) == (-30000, -30000)
    assert (await shop.get(path))["balance"] == -30000
    assert ("capture", 1000) in await shop.at_the_bank() and ("authorization", 3000) in await shop.at_the_bank()


@pytest.mark.parametrize("currency", ["isk", "ugx"])
async def test_no_fractions(shop: Shop, currency: str) -> None:
    card = {"currency": currency, "payment_method": "pm_card_visa", "confirm": True}
    error = await shop.refused("/v1/payment_intents", amount=550, **card)
    assert (error["code"], error["param"]) == ("parameter_invalid_integer", "amount") and "100" in error["message"]
    paid = await shop.pay(currency)
    for path, params in (
        ("/v1/refunds", {"payment_intent": paid["id"]}),
        (f"/v1/charges/{paid['latest_charge']}/refunds", {}),
        ("/v1/payouts", {"currency": currency}),
    ):
        assert (await shop.refused(path, amount=150, **params))["param"] == "amount"
    too_large = await shop.refused("/v1/payment_intents", amount=100_000_000, **card)
    assert too_large["code"] == "amount_too_large" and "99999999" in too_large["message"]


async def test_an_account_of_an_earlier_version_has_them_as_stored(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path)
    merchant = await app.merchant()
    row = await app.store.get(f"{SYSTEM}/{merchant.account}")
    assert row is not None
    account = decode(merchant.account, row.body)
    assert isinstance(account, Account)
    await app.store.commit([write_of(SYSTEM, msgspec.structs.replace(account, amounts_on_v1="stored"), row.version)])
    again = InProcessApp(await assemble(Settings(data_dir=tmp_path), app.store, app.clock), app.store, app.clock)
    shop = Shop(again, merchant)
    paid = await shop.pay("isk")
    assert paid["amount"] == 500000 and await shop.at_the_bank() == [("authorization", 500000)]
    scope_key = Scope(account=merchant.account, mode="test").key
    [line] = await transactions(app.store, scope_key, 0, app.clock.now_ms() // 1000, ())
    assert line.gross_minor == 500000, "the ledger, the bank and /v1 have the stored number: decision 0017"
    assert (await shop.post("/v1/refunds", payment_intent=paid["id"], amount=150))["amount"] == 150
    assert await accounts_of_stored_amounts(app.store) == {merchant.account}
    await again.close()


async def test_reports_and_pages_say_the_money(shop: Shop) -> None:
    await shop.pay("isk")
    [row] = [one for one in (await shop.get("/ops/v1/reports/transactions"))["data"] if one["currency"] == "isk"]
    assert row["gross"] == 5000, row
    waiting = await shop.pay("isk", payment_method="pm_card_authenticationRequired")
    page = waiting["next_action"]["redirect_to_url"]["url"].partition("//")[2].partition("/")[2]
    path, _, query = page.partition("?")
    assert b"5000 ISK" in (await shop.app.send("GET", f"/{path}", query=query)).body
