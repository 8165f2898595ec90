"""ISK, UGX and MGA: Stripe's amounts on `/v1`; ISO 4217's minor units in records, the ledger, the bank and reports."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tillway.domain.account import AMOUNTS_MOVE_AFTER_SECONDS, SYSTEM, Scope
from tillway.domain.idempotency import IdempotencyRecord
from tillway.engine.audit.entries import Author
from tillway.engine.restores import set_form
from tillway.http.late import load_rest
from tillway.http.shapes import SHAPES
from tillway.operations.moved_amounts import (
    ON_V1,
    CannotMove,
    Sums,
    accounts_of_stored_amounts,
    find_account,
    misfits_of,
    move,
    now_of,
    sums_of,
)
from tillway.operations.reports import transactions
from tillway.store.codec import RECORD_TYPES, decode, write_of
from tillway.testing.in_process import Answer, InProcessApp, Merchant

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

    async def keyed(self, path: str, key: str, params: dict[str, Any]) -> Answer:
        answer = await self.app.call(self.merchant, "POST", path, params, idempotency_key=key)
        assert answer.status == 200, answer.body
        return answer

    async def records(self) -> dict[str, bytes]:
        """The stored records of the merchant, without tasks."""
        scope_key = Scope(account=self.merchant.account, mode="test").key
        prefixes = ("pi_", "ch_", "txn_", "je_", "bal_", "idem_")
        return {
            row.key: row.body
            for prefix in prefixes
            for row in await self.app.store.query(None, f"{scope_key}/{prefix}", limit=100)
        }

    async def at_the_bank(self) -> list[tuple[str, int]]:
        return [(one.kind, one.amount) for one in (await self.app.simulator(self.merchant)).bank.operations()]


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    app = await InProcessApp.open(tmp_path)
    yield Shop(app, await app.merchant())
    await app.close()


async def test_parts_of_three_decimals_end_in_0_as_the_whole_does(shop: Shop) -> None:
    """Card networks know two of the decimals: a bank cannot take or return 5.001 KWD."""
    given = {"payment_method": "pm_card_visa", "confirm": True, "return_url": "https://example.com/"}
    held = await shop.post("/v1/payment_intents", amount=10_000, currency="kwd", capture_method="manual", **given)
    capture = f"/v1/payment_intents/{held['id']}/capture"
    refused = await shop.refused(capture, amount_to_capture=5_001)
    assert (refused["code"], refused["param"]) == ("parameter_invalid_integer", "amount_to_capture")
    assert (await shop.post(capture, amount_to_capture=5_010))["amount_received"] == 5_010
    refused = await shop.refused("/v1/refunds", payment_intent=held["id"], amount=11)
    assert (refused["code"], refused["param"]) == ("parameter_invalid_integer", "amount")
    assert (await shop.post("/v1/refunds", payment_intent=held["id"], amount=10))["amount"] == 10
    assert (await shop.post("/v1/refunds", payment_intent=held["id"]))["amount"] == 5_000


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


async def _become_earlier(shop: Shop) -> None:
    """Let the merchant be one that an earlier version made."""
    account, version = await find_account(shop.app.store, shop.merchant.account)
    stored = msgspec.structs.replace(account, amounts_on_v1="stored", amounts_moved_at=None)
    await shop.app.store.commit([write_of(SYSTEM, stored, version)])
    shop.app.running.platform.engine.accounts.forget()


async def _move(shop: Shop, *, seconds_ago: int = 0) -> list[Sums]:
    """Move the merchant's account, in force since then. The sums before and after must be the same."""
    store, account = shop.app.store, shop.merchant.account
    last = await now_of(store)
    sums = await sums_of(store, account, last)
    await move(store, account, sums, Author("cli:test", "tillway accounts amounts"))
    moved, version = await find_account(store, account)
    assert moved.amounts_moved_at is not None
    at = moved.amounts_moved_at - AMOUNTS_MOVE_AFTER_SECONDS - seconds_ago
    await store.commit([write_of(SYSTEM, msgspec.structs.replace(moved, amounts_moved_at=at), version)])
    shop.app.running.platform.engine.accounts.forget()
    assert await sums_of(store, account, last) == sums
    return sums


async def test_an_account_of_an_earlier_version_has_them_as_stored(shop: Shop) -> None:
    await _become_earlier(shop)
    paid = await shop.pay("isk")
    assert paid["amount"] == 500000 and await shop.at_the_bank() == [("authorization", 500000)]
    scope_key = Scope(account=shop.merchant.account, mode="test").key
    [line] = await transactions(shop.app.store, scope_key, 0, shop.app.clock.now_ms() // 1000, ())
    assert line.gross_minor == 500000, "the ledger, the bank and /v1 have the stored number: decision 0017"
    assert (await shop.post("/v1/refunds", payment_intent=paid["id"], amount=150))["amount"] == 150
    (event,) = (await shop.get("/v1/events", type="payment_intent.succeeded"))["data"]
    assert event["data"]["object"]["amount"] == 500000
    reader = await shop.app.running.platform.engine.reader(Scope(account=shop.merchant.account, mode="test"))
    assert reader.in_minor_units, "webhooks have the amounts of /v1"
    assert await accounts_of_stored_amounts(shop.app.store) == [shop.merchant.account]


@pytest.mark.parametrize(("currency", "after"), [("isk", 50000000), ("ugx", 25000000), ("mga", 50)])
async def test_an_account_of_an_earlier_version_is_moved(shop: Shop, currency: str, after: int) -> None:
    """500000 stored ISK are 500,000 kr, which `/v1` then writes as 50000000. Nothing stored changes."""
    await _become_earlier(shop)
    paid = await shop.pay(currency)
    at_bank, rows = await shop.at_the_bank(), await shop.records()
    (sums,) = await _move(shop)
    assert (sums.mode, sums.currency, sums.ledger_minor) == ("test", currency, sums.reports_minor)
    assert await shop.records() == rows and await shop.at_the_bank() == at_bank
    shown = await shop.get(f"/v1/payment_intents/{paid['id']}", **{"expand[]": "latest_charge.balance_transaction"})
    charge = shown["latest_charge"]
    assert [shown["amount"], charge["amount"], charge["balance_transaction"]["amount"]] == [after] * 3
    (event,) = (await shop.get("/v1/events", type="payment_intent.succeeded"))["data"]
    assert event["data"]["object"]["amount"] == after
    refund = await shop.post("/v1/refunds", payment_intent=paid["id"], amount=after)
    assert refund["amount"] == after, "all of it, in the new number"
    assert (await shop.at_the_bank())[-1] == ("refund", WIRE[currency]), "the bank gets back what it moved"
    assert (await shop.pay(currency))["amount"] == WIRE[currency]
    assert (await shop.at_the_bank())[-1] == ("authorization", MINOR[currency])
    assert await accounts_of_stored_amounts(shop.app.store) == []
    assert b"v1_after" in b"".join(row.body for row in await shop.app.store.query(None, f"{SYSTEM}/aud_", limit=9))


@pytest.mark.parametrize("flagged", [True, False], ids=["by this version", "by an earlier version"])
async def test_repeated_requests_from_before_a_move_keep_their_answers(shop: Shop, flagged: bool) -> None:
    await _become_earlier(shop)
    params = {"amount": 500000, "currency": "isk", "payment_method": "pm_card_visa", "confirm": True}
    params["return_url"] = "https://example.com/"
    first = await shop.keyed("/v1/payment_intents", "one", params)
    held = await shop.keyed("/v1/payment_intents", "two", {"amount": 600000, "currency": "isk"})
    assert [first.json["amount"], held.json["amount"]] == [500000, 600000]
    keys = await shop.app.store.query(None, f"{Scope(account=shop.merchant.account, mode='test').key}/idem_", limit=9)
    decoded = [decode(row.key.partition("/")[2], row.body) for row in keys]
    assert all(isinstance(key, IdempotencyRecord) and key.in_minor_units for key in decoded)
    assert any(not getattr(key, "status", 0) for key in decoded), "one answer follows from its payment"
    if not flagged:
        scope_key = Scope(account=shop.merchant.account, mode="test").key
        told = [msgspec.structs.replace(key, in_minor_units=False, created=key.created - 60) for key in decoded]
        await shop.app.store.commit(
            [write_of(scope_key, key, row.version) for key, row in zip(told, keys, strict=True)]
        )
    await _move(shop, seconds_ago=0 if flagged else 30)
    for key, sent, answer in (("one", params, first), ("two", {"amount": 600000, "currency": "isk"}, held)):
        again = await shop.keyed("/v1/payment_intents", key, sent)
        assert again.headers["idempotent-replayed"] == "true" and again.body == answer.body
    assert (await shop.keyed("/v1/payment_intents", "three", params)).json["amount"] == 500000
    assert [amount for _, amount in await shop.at_the_bank()] == [500000, 5000]


async def test_a_fraction_of_an_ariary_holds_an_account_back(shop: Shop) -> None:
    await _become_earlier(shop)
    paid = await shop.pay("mga")
    assert await misfits_of(shop.app.store, shop.merchant.account) == [], "a fee may have a fraction"
    odd = await shop.post("/v1/refunds", payment_intent=paid["id"], amount=150)
    found = await misfits_of(shop.app.store, shop.merchant.account)
    assert f"{odd['id']} (test) is about 1.50 MGA" in found


async def test_a_move_waits_for_the_version_before(shop: Shop) -> None:
    await _become_earlier(shop)
    await set_form(shop.app.store, "before")
    with pytest.raises(CannotMove, match="tillway vault seal"):
        await move(shop.app.store, shop.merchant.account, [], Author("cli:test", "tillway accounts amounts"))


def test_every_type_with_an_amount_on_v1_is_looked_at() -> None:
    load_rest()
    amounts = {kind for kind in SHAPES if any(name.endswith("_minor") for name in kind.__struct_fields__)}
    stored = {kind for kind in amounts if kind in RECORD_TYPES and "currency" in kind.__struct_fields__}
    internal = {"OpenItem", "Settlement", "Close", "Order", "Product", "CashBalance"}
    assert {kind.__name__ for kind in stored - set(ON_V1)} <= internal


async def test_reports_and_pages_say_the_money(shop: Shop) -> None:
    await shop.pay("isk")
    [row] = [one for one in (await shop.get("/ops/v1/reports/transactions"))["data"] if one["currency"] == "isk"]
    assert row["gross"] == 5000, row
    waiting = await shop.pay("isk", payment_method="pm_card_authenticationRequired")
    page = waiting["next_action"]["redirect_to_url"]["url"].partition("//")[2].partition("/")[2]
    path, _, query = page.partition("?")
    assert b"5000 ISK" in (await shop.app.send("GET", f"/{path}", query=query)).body
