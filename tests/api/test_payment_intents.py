"""Every parameter of a payment reaches its record, in each call that takes it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from card_shop import CardShop, opened

WORDS: dict[str, Any] = {
    "amount": 4300,
    "currency": "eur",
    "capture_method": "manual",
    "description": "Order 7",
    "metadata": {"order": "7"},
    "receipt_email": "ada@shop.example",
    "setup_future_usage": "off_session",
    "shipping": {"name": "Ada", "address": {"line1": "1 Main Street"}},
    "statement_descriptor": "SHOP",
    "statement_descriptor_suffix": "ORDER 7",
    "transfer_group": "group_7",
    "payment_method_options": {"card": {"request_three_d_secure": "any"}},
    "excluded_payment_method_types": ["sepa_debit"],
}
UNSETTABLE = (
    "description",
    "receipt_email",
    "setup_future_usage",
    "shipping",
    "statement_descriptor",
    "statement_descriptor_suffix",
    "transfer_group",
    "excluded_payment_method_types",
)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[CardShop]:
    async with opened(tmp_path) as shop:
        yield shop


def _check(payment: Any, expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        if isinstance(value, dict) and name != "metadata":
            (inner,) = [key for key in value if key != "address"][:1]
            shown = payment[name][inner]
            asked = value[inner]
            assert shown == asked or asked.items() <= shown.items(), name
        else:
            assert payment[name] == value, name


async def test_creation_takes_every_word(shop: CardShop) -> None:
    customer = await shop.customer()
    made = await shop.ok(
        "POST",
        "/v1/payment_intents",
        {**WORDS, "customer": customer, "payment_method": "pm_card_visa", "confirmation_method": "manual"},
    )
    _check(made, {**WORDS, "customer": customer, "confirmation_method": "manual", "status": "requires_confirmation"})


async def test_an_update_takes_every_word_and_unsets_those_that_it_may(shop: CardShop) -> None:
    made = await shop.ok("POST", "/v1/payment_intents", {"amount": 4200, "currency": "usd", "metadata": {"old": "1"}})
    path = f"/v1/payment_intents/{made['id']}"
    customer = await shop.customer()
    updated = await shop.ok("POST", path, {**WORDS, "customer": customer, "payment_method": "pm_card_visa"})
    _check(updated, {**WORDS, "metadata": {"old": "1", "order": "7"}, "customer": customer})
    assert updated["status"] == "requires_confirmation" and updated["payment_method"] is not None

    unset = await shop.ok("POST", path, {**dict.fromkeys((*UNSETTABLE, "customer", "payment_method", "metadata"), "")})
    _check(unset, {**dict.fromkeys((*UNSETTABLE, "customer", "payment_method")), "metadata": {}})
    _check(unset, {name: WORDS[name] for name in ("amount", "currency", "capture_method", "payment_method_options")})
    assert unset["status"] == "requires_payment_method"


async def test_a_confirmation_changes_the_payment_first(shop: CardShop) -> None:
    made = await shop.ok("POST", "/v1/payment_intents", {"amount": 4300, "currency": "eur"})
    path = f"/v1/payment_intents/{made['id']}/confirm"
    wrong = await shop.error("POST", path, {"payment_method": "pm_card_visa", "amount_to_confirm": 4299})
    assert (wrong["code"], wrong["param"]) == ("parameter_invalid_integer", "amount_to_confirm")
    words = {name: WORDS[name] for name in ("capture_method", "metadata", "receipt_email", "shipping")}
    taken = await shop.ok("POST", path, {**words, "payment_method": "pm_card_visa", "amount_to_confirm": 4300})
    _check(taken, {**words, "status": "requires_capture", "amount_capturable": 4300})


async def test_a_capture_and_an_increment_change_the_words_that_they_take(shop: CardShop) -> None:
    made = await shop.ok(
        "POST",
        "/v1/payment_intents",
        {
            "amount": 4300,
            "currency": "eur",
            "capture_method": "manual",
            "payment_method": "pm_card_visa",
            "confirm": True,
        },
    )
    path = f"/v1/payment_intents/{made['id']}"
    larger = {"description": "Order 7, larger", "metadata": {"step": "increment"}, "statement_descriptor": "SHOP"}
    incremented = await shop.ok("POST", f"{path}/increment_authorization", {"amount": 5000, **larger})
    _check(incremented, {**larger, "amount": 5000, "amount_capturable": 5000})
    words = {"metadata": {"step": "capture"}, "statement_descriptor_suffix": "ORDER 7"}
    captured = await shop.ok("POST", f"{path}/capture", {"amount_to_capture": 4000, **words})
    _check(captured, {**words, "amount_received": 4000, "status": "succeeded", "description": "Order 7, larger"})
    again = await shop.refused("POST", f"{path}/capture", {"final_capture": False})
    assert again == (400, "payment_intent_unexpected_state", None)
