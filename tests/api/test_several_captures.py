"""Several captures of one authorization, over the API: sums, fees, events, refunds, the rest, and connectors without
them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from card_shop import CardShop
from paypal_shop import PayPalShop, open_paypal_shop
from routed_shop import RoutedShop, routed_shop

from tillway.testing.in_process import InProcessApp


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[CardShop]:
    app = await InProcessApp.open(tmp_path)
    yield CardShop(app, await app.merchant())
    await app.close()


HELD: dict[str, Any] = {
    "amount": 10_000,
    "currency": "eur",
    "capture_method": "manual",
    "payment_method": "pm_card_visa",
    "confirm": True,
}


async def held(shop: CardShop) -> str:
    return str((await shop.ok("POST", "/v1/payment_intents", HELD))["id"])


async def take(shop: CardShop, id: str, amount: int | None, *, final: bool = False) -> Any:
    params = {"amount_to_capture": amount, "final_capture": final}
    return await shop.ok("POST", f"/v1/payment_intents/{id}/capture", params)


async def charge_of(shop: CardShop, id: str) -> Any:
    return (await shop.ok("GET", "/v1/charges", {"payment_intent": id}))["data"][0]


async def test_each_capture_moves_its_part(shop: CardShop) -> None:
    id = await held(shop)
    first = await take(shop, id, 3000)
    assert (first["status"], first["amount_received"], first["amount_capturable"]) == ("requires_capture", 3000, 7000)
    charge = await charge_of(shop, id)
    assert (charge["captured"], charge["amount_captured"], charge["amount_refunded"]) == (False, 3000, 0)
    second = await take(shop, id, 2000)
    assert (second["status"], second["amount_received"], second["amount_capturable"]) == (
        "requires_capture",
        5000,
        5000,
    )
    last = await take(shop, id, 1000, final=True)
    assert (last["status"], last["amount_received"], last["amount_capturable"]) == ("succeeded", 6000, 0)
    charge = await charge_of(shop, id)
    sums = (charge["captured"], charge["amount_captured"], charge["amount_refunded"], charge["refunded"])
    assert sums == (True, 6000, 4000, False), "the rest is released, as after one capture of a part"
    moved = (await shop.ok("GET", "/v1/balance_transactions", {"source": charge["id"]}))["data"]
    assert [(row["amount"], row["fee"]) for row in moved] == [(1000, 29), (2000, 58), (3000, 117)]
    assert charge["balance_transaction"] == moved[-1]["id"]
    ledger = await shop.ok("GET", "/ops/v1/ledger")
    assert ledger["balanced"]
    assert {row["account"]: row["balance"] for row in ledger["accounts"]}["receivable:simulator"] == 6000
    events = (await shop.ok("GET", "/v1/events", {"limit": 100}))["data"]
    told = [event["type"] for event in reversed(events) if "capt" in event["type"] or event["type"] == "charge.updated"]
    updates = ["charge.updated", "payment_intent.amount_capturable_updated"]
    assert told == ["payment_intent.amount_capturable_updated", *updates, *updates, "charge.captured"]


async def test_a_refund_takes_from_all_captures(shop: CardShop) -> None:
    id = await held(shop)
    await take(shop, id, 3000)
    refunded = await shop.ok("POST", "/v1/refunds", {"payment_intent": id, "amount": 1000})
    assert refunded["status"] == "succeeded", "also before the last capture"
    await take(shop, id, 2000)
    too_much = await shop.refused("POST", "/v1/refunds", {"payment_intent": id, "amount": 4001})
    assert too_much == (400, "refund_amount_too_large", "amount")
    await take(shop, id, None, final=True)
    assert (await shop.ok("POST", "/v1/refunds", {"payment_intent": id}))["amount"] == 9000
    charge = await charge_of(shop, id)
    assert (charge["amount_captured"], charge["amount_refunded"], charge["refunded"]) == (10_000, 10_000, True)


async def test_a_cancellation_after_a_capture_releases_the_rest(shop: CardShop) -> None:
    id = await held(shop)
    await take(shop, id, 3000)
    ended = await shop.ok("POST", f"/v1/payment_intents/{id}/cancel")
    assert (ended["status"], ended["amount_received"], ended["amount_capturable"]) == ("succeeded", 3000, 0)
    charge = await charge_of(shop, id)
    assert (charge["captured"], charge["amount_captured"], charge["amount_refunded"]) == (True, 3000, 7000)
    late = await shop.refused("POST", f"/v1/payment_intents/{id}/capture", {"amount_to_capture": 1})
    assert late == (400, "payment_intent_unexpected_state", None)
    assert (await shop.ok("POST", "/v1/refunds", {"payment_intent": id}))["amount"] == 3000


async def test_a_rest_that_nobody_captures_is_released_in_time(shop: CardShop) -> None:
    id = await held(shop)
    await take(shop, id, 3000)
    shop.app.clock.ahead_seconds += 8 * 86_400
    rows = await shop.app.store.claim("expiries", now_ms=shop.app.clock.now_ms(), lease_ms=60_000, limit=10)
    for row in rows:
        await shop.app.running.runner.carry(row)
    await shop.app.wait(0)
    ended = await shop.ok("GET", f"/v1/payment_intents/{id}")
    assert (ended["status"], ended["amount_received"], ended["cancellation_reason"]) == ("succeeded", 3000, None)


async def test_the_rest_ends_the_captures_and_more_is_refused(shop: CardShop) -> None:
    id = await held(shop)
    await take(shop, id, 3000)
    path = f"/v1/payment_intents/{id}"
    more = await shop.refused("POST", f"{path}/capture", {"amount_to_capture": 7001, "final_capture": False})
    assert more == (400, "capture_amount_too_large", "amount_to_capture")
    larger = await shop.refused("POST", f"{path}/increment_authorization", {"amount": 20_000})
    assert larger == (400, "payment_intent_unexpected_state", None)
    assert (await take(shop, id, 7000))["status"] == "succeeded"


@pytest.fixture
async def routed(tmp_path: Path) -> AsyncIterator[RoutedShop]:
    async with routed_shop(tmp_path) as shop:
        yield shop


async def test_a_connector_without_several_captures_is_named(routed: RoutedShop) -> None:
    payment = (await routed.pay(1000, capture_method="manual")).json
    path = f"/v1/payment_intents/{payment['id']}/capture"
    refused = await routed.app.call(routed.merchant, "POST", path, {"amount_to_capture": 1, "final_capture": False})
    error = refused.json["error"]
    assert (refused.status, error["code"], error["param"]) == (400, "connector_unsupported", "final_capture")
    assert "'a' captures a payment only once" in error["message"]
    captured = await routed.app.ok(routed.merchant, "POST", path, {"amount_to_capture": 1})
    assert captured["status"] == "succeeded"


async def test_through_paypal_a_refund_takes_from_one_capture_after_the_other(tmp_path: Path) -> None:
    card = {"type": "card", "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": "123"}}
    given = {"amount": 4200, "currency": "eur", "confirm": True, "capture_method": "manual"}
    async with open_paypal_shop(tmp_path, PayPalShop) as shop:
        back = {"return_url": "https://shop.example/"}
        payment = await shop.post("/v1/payment_intents", {**given, **back, "payment_method_data": card})
        capture = f"/v1/payment_intents/{payment['id']}/capture"
        first = await shop.post(capture, {"amount_to_capture": 1000, "final_capture": False})
        assert (first["status"], first["amount_received"]) == ("requires_capture", 1000)
        assert (await shop.post(capture, {"amount_to_capture": 2000}))["amount_received"] == 3000
        refund = await shop.post("/v1/refunds", {"payment_intent": payment["id"], "amount": 2500})
        assert (refund["status"], refund["amount"]) == ("succeeded", 2500)
        moved = [(done.kind, done.amount) for done in shop.far.bank.operations()]
        assert moved == [
            ("authorization", 4200),
            ("capture", 1000),
            ("capture", 2000),
            ("refund", 1000),
            ("refund", 1500),
        ]
