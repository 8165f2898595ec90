"""Customer sessions: a page shows and removes saved payment methods, as far as its components allow."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from card_shop import CardShop, opened

PATH = "/v1/customer_sessions"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[CardShop]:
    async with opened(tmp_path) as shop:
        yield shop


async def session(shop: CardShop, customer: str, **features: Any) -> dict[str, str]:
    """The parameter with the client secret of a session for a payment element with these features."""
    components = {"payment_element": {"enabled": "true", "features": features}}
    made = await shop.ok("POST", PATH, {"customer": customer, "components": components})
    return {"customer_session_client_secret": made["client_secret"]}


async def customer_with_cards(shop: CardShop, *redisplays: str) -> tuple[str, list[str]]:
    customer = (await shop.ok("POST", "/v1/customers", {}))["id"]
    methods = []
    for redisplay in redisplays:
        id = (await shop.ok("POST", "/v1/payment_methods/pm_card_visa/attach", {"customer": customer}))["id"]
        await shop.ok("POST", f"/v1/payment_methods/{id}", {"allow_redisplay": redisplay})
        methods.append(id)
    return customer, methods


async def test_a_session_shows_what_its_components_do(shop: CardShop) -> None:
    customer, _ = await customer_with_cards(shop)
    components = {"payment_element": {"enabled": "true"}, "buy_button": {"enabled": "false"}}
    made = await shop.ok("POST", PATH, {"customer": customer, "components": components, "expand": ["customer"]})
    assert (made["object"], made["customer"]["id"], made["livemode"]) == ("customer_session", customer, False)
    assert made["expires_at"] == made["created"] + 1800
    assert made["components"]["buy_button"] == {"enabled": False}
    assert made["components"]["customer_sheet"] == {"enabled": False, "features": None}
    assert made["components"]["payment_element"]["features"] == {
        "payment_method_allow_redisplay_filters": ["always"],
        "payment_method_redisplay": "disabled",
        "payment_method_redisplay_limit": 3,
        "payment_method_remove": "disabled",
        "payment_method_save": "disabled",
        "payment_method_save_usage": None,
    }


async def test_a_page_shows_and_removes_saved_methods(shop: CardShop) -> None:
    customer, (hidden, shown) = await customer_with_cards(shop, "limited", "always")
    public = {"key": shop.merchant.public_key}
    opens = await session(shop, customer, payment_method_redisplay="enabled", payment_method_remove="enabled")
    listed = await shop.ok("GET", "/v1/payment_methods", opens, **public)
    assert [one["id"] for one in listed["data"]] == [shown]
    assert "customer" not in listed["data"][0] and "metadata" not in listed["data"][0]
    removed = await shop.refused("POST", f"/v1/payment_methods/{hidden}/detach", opens, **public)
    assert removed == (404, "resource_missing", "payment_method")
    await shop.ok("POST", f"/v1/payment_methods/{shown}/detach", opens, **public)
    assert (await shop.ok("GET", f"/v1/payment_methods/{shown}"))["customer"] is None


async def test_a_session_opens_no_more_than_it_says(shop: CardShop) -> None:
    customer, (own,) = await customer_with_cards(shop, "always")
    other, (theirs,) = await customer_with_cards(shop, "always")
    public = {"key": shop.merchant.public_key}
    detach = f"/v1/payment_methods/{own}/detach"
    blind = await session(shop, customer)
    assert (await shop.ok("GET", "/v1/payment_methods", blind, **public))["data"] == []
    looks = await session(shop, customer, payment_method_redisplay="enabled")
    kept = await shop.refused("POST", detach, looks, **public)
    assert kept == (400, "payment_method_unexpected_state", "payment_method")
    foreign = await shop.refused("POST", f"/v1/payment_methods/{theirs}/detach", looks, **public)
    assert foreign == (404, "resource_missing", "payment_method")
    assert (await shop.refused("GET", "/v1/payment_methods", {**looks, "customer": other}, **public))[0] == 400
    wrong = {"customer_session_client_secret": looks["customer_session_client_secret"][:-1] + "x"}
    for given, code in ((wrong, "client_secret_invalid"), ({}, "secret_key_required")):
        assert (await shop.refused("GET", "/v1/payment_methods", given, **public))[:2] == (401, code)
        assert (await shop.refused("POST", detach, given, **public))[:2] == (401, code)
    stranger = {"key": (await shop.app.merchant()).public_key}
    assert (await shop.refused("GET", "/v1/payment_methods", looks, **stranger))[:2] == (401, "client_secret_invalid")
    await shop.app.wait(1801)
    assert (await shop.refused("GET", "/v1/payment_methods", looks, **public))[:2] == (401, "client_secret_invalid")


async def test_a_session_needs_a_customer_and_a_component(shop: CardShop) -> None:
    customer, _ = await customer_with_cards(shop)
    element = {"payment_element": {"enabled": "true"}}
    limit = {"payment_element": {"enabled": "true", "features": {"payment_method_redisplay_limit": 11}}}
    idle = {"customer_sheet": {"enabled": "false", "features": {"payment_method_remove": "enabled"}}, **element}
    for params, expected in (
        ({"customer": customer}, ("parameter_missing", "components")),
        ({"components": element}, ("parameter_missing", "customer")),
        ({"customer": "cus_none", "components": element}, ("resource_missing", "customer")),
        (
            {"customer": customer, "components": {"buy_button": {"enabled": "false"}}},
            ("parameter_invalid_object", "components"),
        ),
        (
            {"customer": customer, "components": limit},
            (
                "parameter_invalid_integer",
                "components[payment_element][fe…ayment_method_redisplay_limit]",
            ),
        ),
        (
            {"customer": customer, "components": idle},
            ("parameter_invalid_object", "components[customer_sheet][features]"),
        ),
    ):
        assert await shop.refused("POST", PATH, params) == (400, *expected), params
