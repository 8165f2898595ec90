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


# Refusals that Stripe makes.

NEW = {"amount": 4300, "currency": "eur"}
PAID = {**NEW, "payment_method": "pm_card_visa", "confirm": True}
AUTOMATIC: dict[str, Any] = {"automatic_payment_methods": {"enabled": True}}
BACK = {"return_url": "https://shop.example/back"}


async def test_a_card_payment_takes_the_suffix_of_a_descriptor_alone(shop: CardShop) -> None:
    refused = (400, "parameter_unsupported", "statement_descriptor")
    words = {"statement_descriptor": "SHOP"}
    assert await shop.refused("POST", "/v1/payment_intents", {**NEW, **words}) == refused
    both = {"payment_method_types": ["sepa_debit", "card"]}
    assert await shop.refused("POST", "/v1/payment_intents", {**NEW, **words, **both}) == refused
    debit = await shop.ok("POST", "/v1/payment_intents", {**NEW, **words, "payment_method_types": ["sepa_debit"]})
    assert debit["statement_descriptor"] == "SHOP"
    assert await shop.refused("POST", f"/v1/payment_intents/{debit['id']}", both) == refused
    made = await shop.ok("POST", "/v1/payment_intents", NEW)
    assert await shop.refused("POST", f"/v1/payment_intents/{made['id']}", words) == refused
    assert (await shop.error("POST", f"/v1/payment_intents/{made['id']}", words))["message"] == (
        "The `statement_descriptor` parameter is not supported for payments whose payment method types include `card`. "
        "Use `statement_descriptor_suffix` instead."
    )
    held = await shop.ok("POST", "/v1/payment_intents", {**PAID, "capture_method": "manual"})
    assert await shop.refused("POST", f"/v1/payment_intents/{held['id']}/capture", words) == refused


async def test_the_descriptor_of_a_card_charge_is_its_suffix(shop: CardShop) -> None:
    given = {**NEW, "source": "tok_visa", "capture": False}
    made = await shop.ok("POST", "/v1/charges", {**given, "statement_descriptor": "SHOP"})
    shown = (made["statement_descriptor"], made["statement_descriptor_suffix"], made["calculated_statement_descriptor"])
    assert shown == (None, "SHOP", "SHOP")
    captured = await shop.ok("POST", f"/v1/charges/{made['id']}/capture", {"statement_descriptor": "ORDER 7"})
    assert (captured["statement_descriptor"], captured["statement_descriptor_suffix"]) == (None, "ORDER 7")
    both = {"statement_descriptor": "SHOP", "statement_descriptor_suffix": "ORDER 8"}
    assert (await shop.ok("POST", "/v1/charges", {**given, **both}))["statement_descriptor_suffix"] == "ORDER 8"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (AUTOMATIC, (400, "parameter_missing", "return_url")),
        ({"automatic_payment_methods": {"enabled": True, "allow_redirects": "always"}}, (400, None, "return_url")),
        ({"automatic_payment_methods": {"enabled": True, "allow_redirects": "never"}}, "succeeded"),
        ({"automatic_payment_methods": {"enabled": False}}, "succeeded"),
        (AUTOMATIC | BACK, "succeeded"),
        (AUTOMATIC | {"use_stripe_sdk": True}, "succeeded"),
        (AUTOMATIC | {"off_session": True}, "succeeded"),
        ({}, "succeeded"),
    ],
)
async def test_automatic_methods_need_a_page_to_return_to(shop: CardShop, more: dict[str, Any], expected: Any) -> None:
    status, answer = await shop.call("POST", "/v1/payment_intents", {**PAID, **more})
    later = await shop.ok("POST", "/v1/payment_intents", {**NEW, **{k: v for k, v in more.items() if k in AUTOMATIC}})
    confirming = {"payment_method": "pm_card_visa", **{k: v for k, v in more.items() if k not in AUTOMATIC}}
    path = f"/v1/payment_intents/{later['id']}/confirm"
    if expected == "succeeded":
        assert (status, answer["status"]) == (200, "succeeded")
        assert (await shop.ok("POST", path, confirming))["status"] == "succeeded"
    else:
        assert (status, answer["error"]["param"]) == (400, "return_url")
        assert await shop.refused("POST", path, confirming) == (400, "parameter_missing", "return_url")


@pytest.mark.parametrize("param", ["payment_method_types", "allowed_payment_method_types"])
async def test_types_that_no_connector_takes_are_refused(shop: CardShop, param: str) -> None:
    refused = (400, "connector_unsupported", param)
    made, setup = await shop.ok("POST", "/v1/payment_intents", NEW), await shop.ok("POST", "/v1/setup_intents", {})
    for type in ("klarna", "paypal", "link"):
        types = {param: ["card", type]}
        assert await shop.refused("POST", "/v1/payment_intents", {**NEW, **types}) == refused
        assert await shop.refused("POST", f"/v1/payment_intents/{made['id']}", types) == refused
        assert await shop.refused("POST", f"/v1/payment_intents/{made['id']}/confirm", types) == refused
        assert await shop.refused("POST", "/v1/setup_intents", types) == refused
        assert await shop.refused("POST", f"/v1/setup_intents/{setup['id']}", types) == refused
    types = {param: ["card", "sepa_debit", "us_bank_account", "customer_balance"]}
    assert (await shop.ok("POST", "/v1/payment_intents", {**NEW, **types}))["payment_method_types"] == types[param]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"metadata": {f"key{i}": "x" for i in range(51)}}, "metadata"),
        ({"metadata": {"k" * 41: "x"}}, "metadata"),
        ({"metadata": {"key": "x" * 501}}, "metadata[key]"),
        ({"metadata": {"a[b": "x"}}, "metadata[a[b]"),
        ({"description": "x" * 1001}, "description"),
        ({"statement_descriptor_suffix": "x" * 23}, "statement_descriptor_suffix"),
        ({"statement_descriptor_suffix": "12345"}, "statement_descriptor_suffix"),
        ({"statement_descriptor_suffix": "A * B"}, "statement_descriptor_suffix"),
    ],
)
async def test_bounds_of_metadata_and_words(shop: CardShop, given: dict[str, Any], param: str) -> None:
    error = await shop.error("POST", "/v1/payment_intents", {**NEW, **given})
    assert (error["status"], error["param"]) == (400, param)
    largest = {"k" * 40: "x" * 500} | {f"key{i}": "x" for i in range(49)}
    made = await shop.ok("POST", "/v1/payment_intents", {**NEW, "metadata": largest, "description": "x" * 1000})
    assert made["metadata"] == largest
    more = await shop.refused("POST", f"/v1/payment_intents/{made['id']}", {"metadata": {"one more": "x"}})
    assert (more[0], more[2]) == (400, "metadata")
