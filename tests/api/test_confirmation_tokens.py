"""Confirmation tokens: made by a payer's browser or a test, spent on one confirmation."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from card_shop import VISA, CardShop, opened

NEW = {"amount": 4200, "currency": "eur"}
BACK = "https://shop.example/back"
SHIPPING = {"name": "Ada", "address": {"line1": "1 Main Street"}}


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[CardShop]:
    async with opened(tmp_path) as shop:
        yield shop


async def token(shop: CardShop, **params: Any) -> Any:
    return await shop.ok("POST", "/v1/test_helpers/confirmation_tokens", {"payment_method": "pm_card_visa", **params})


async def test_a_token_shows_the_payment_method(shop: CardShop) -> None:
    data = {"type": "card", "card": VISA, "billing_details": {"name": "Ada"}}
    made = await shop.ok(
        "POST",
        "/v1/confirmation_tokens",
        {"payment_method_data": data, "return_url": BACK, "shipping": SHIPPING},
        key=shop.merchant.public_key,
    )
    read = await shop.ok("GET", f"/v1/confirmation_tokens/{made['id']}")
    preview = read["payment_method_preview"]
    assert (preview["type"], preview["card"]["last4"], preview["billing_details"]["name"]) == ("card", "4242", "Ada")
    assert (read["object"], read["return_url"], read["shipping"]["name"]) == ("confirmation_token", BACK, "Ada")
    assert read["expires_at"] == read["created"] + 12 * 3600
    assert (read["payment_intent"], read["setup_intent"], read["mandate_data"]) == (None, None, None)
    assert VISA["number"] not in str(read)


async def test_a_token_confirms_one_payment(shop: CardShop) -> None:
    made = await token(shop, return_url=BACK, shipping=SHIPPING)
    given = {**NEW, "confirm": True, "automatic_payment_methods": {"enabled": True}, "confirmation_token": made["id"]}
    paid = await shop.ok("POST", "/v1/payment_intents", given)
    assert (paid["status"], paid["shipping"]["name"]) == ("succeeded", "Ada")
    spent = await shop.ok("GET", f"/v1/confirmation_tokens/{made['id']}")
    assert spent["payment_intent"] == paid["id"]
    again = await shop.refused("POST", "/v1/payment_intents", given)
    assert again == (400, "token_already_used", "confirmation_token")


async def test_a_token_confirms_a_payment_that_was_made_before(shop: CardShop) -> None:
    payment = await shop.ok("POST", "/v1/payment_intents", NEW)
    made = await token(shop, setup_future_usage="off_session", shipping=SHIPPING)
    own = {"name": "Grace", "address": {"line1": "2 Main Street"}}
    given = {"confirmation_token": made["id"], "shipping": own}
    paid = await shop.ok("POST", f"/v1/payment_intents/{payment['id']}/confirm", given)
    assert (paid["status"], paid["setup_future_usage"]) == ("succeeded", "off_session")
    assert paid["shipping"]["name"] == "Grace", "the values of the request win"


async def test_a_decline_spends_the_token(shop: CardShop) -> None:
    made = await token(shop, payment_method="pm_card_chargeDeclined")
    given = {**NEW, "confirm": True, "confirmation_token": made["id"]}
    assert (await shop.refused("POST", "/v1/payment_intents", given))[:2] == (402, "card_declined")
    assert (await shop.refused("POST", "/v1/payment_intents", given))[1] == "token_already_used"


async def test_a_token_confirms_a_setup(shop: CardShop) -> None:
    customer = await shop.customer()
    first, second = await token(shop), await token(shop)
    done = await shop.ok(
        "POST", "/v1/setup_intents", {"customer": customer, "confirm": True, "confirmation_token": first["id"]}
    )
    assert (done["status"], done["payment_method"] is not None) == ("succeeded", True)
    assert (await shop.ok("GET", f"/v1/confirmation_tokens/{first['id']}"))["setup_intent"] == done["id"]
    waiting = await shop.ok("POST", "/v1/setup_intents", {"customer": customer})
    path = f"/v1/setup_intents/{waiting['id']}/confirm"
    assert (await shop.ok("POST", path, {"confirmation_token": second["id"]}))["status"] == "succeeded"


async def test_a_token_carries_the_mandate(shop: CardShop) -> None:
    acceptance = {"type": "online", "online": {"ip_address": "127.0.0.1", "user_agent": "Browser"}}
    made = await token(
        shop, payment_method="pm_usBankAccount_success", mandate_data={"customer_acceptance": acceptance}
    )
    assert made["mandate_data"]["customer_acceptance"] == acceptance
    given = {"amount": 4200, "currency": "usd", "payment_method_types": ["us_bank_account"], "confirm": True}
    paid = await shop.ok("POST", "/v1/payment_intents", {**given, "confirmation_token": made["id"]})
    assert paid["status"] == "processing"


async def test_refusals(shop: CardShop) -> None:
    made = await token(shop)
    confirming = {**NEW, "confirm": True, "confirmation_token": made["id"]}
    unconfirmed = await shop.refused("POST", "/v1/payment_intents", {**NEW, "confirmation_token": made["id"]})
    assert unconfirmed == (400, "parameter_invalid_string", "confirmation_token")
    missing = await shop.refused("POST", "/v1/payment_intents", {**confirming, "confirmation_token": "ctoken_none"})
    assert missing == (400, "resource_missing", "confirmation_token")
    foreign = await shop.foreign_key()
    assert (await shop.refused("GET", f"/v1/confirmation_tokens/{made['id']}", key=foreign))[0] == 404
    stolen = await shop.refused("POST", "/v1/payment_intents", confirming, key=foreign)
    assert stolen == (400, "resource_missing", "confirmation_token")
    without = await shop.refused("POST", "/v1/test_helpers/confirmation_tokens")
    assert without == (400, "parameter_missing", "payment_method_data")
    live = await shop.refused("POST", "/v1/test_helpers/confirmation_tokens", key=shop.merchant.live_key)
    assert live[:2] == (404, "route_unknown")
    await shop.app.wait(12 * 3600 + 1)
    late = await shop.refused("POST", "/v1/payment_intents", confirming)
    assert late == (400, "token_expired", "confirmation_token")
