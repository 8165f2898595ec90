"""Ephemeral keys: an app looks after its own customer's means of payment, for an hour and in its own version."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from card_shop import CardShop, opened

from tillway.domain.ephemeral_key import LIFETIME_SECONDS

VERSIONED = {"stripe-version": "2020-03-02"}


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[CardShop]:
    async with opened(tmp_path) as shop:
        yield shop


async def key_of(shop: CardShop, customer: str, **more: Any) -> Any:
    return await shop.ok("POST", "/v1/ephemeral_keys", {"customer": customer, **more}, **VERSIONED)


async def customer_of(shop: CardShop, *methods: str) -> tuple[str, list[str]]:
    customer = (await shop.ok("POST", "/v1/customers", {"email": "ada@example.com"}))["id"]
    attached = [
        (await shop.ok("POST", f"/v1/payment_methods/{method}/attach", {"customer": customer}))["id"]
        for method in methods
    ]
    return customer, attached


async def test_an_app_looks_after_its_customers_cards(shop: CardShop) -> None:
    customer, (visa, master) = await customer_of(shop, "pm_card_visa", "pm_card_mastercard")
    made = await key_of(shop, customer)
    assert made["associated_objects"] == [{"id": customer, "type": "customer"}]
    assert (made["object"], made["expires"] - made["created"]) == ("ephemeral_key", LIFETIME_SECONDS)
    own = {"key": made["secret"]}
    for path in (f"/v1/customers/{customer}", f"/v1/payment_methods/{visa}"):
        await shop.ok("POST", path, {"metadata": {"rank": "the merchant's"}})
        shown = await shop.ok("GET", path, {"expand": ["customer"]} if "methods" in path else {}, **own)
        assert shown["id"] in path and "the merchant's" not in str(shown)

    read = await shop.ok("GET", f"/v1/customers/{customer}", **own)
    assert read["sources"]["data"] == [], "the shapes of the key's version, with no header sent"
    listed = await shop.ok("GET", "/v1/payment_methods", {"customer": customer, "type": "card"}, **own)
    assert [one["id"] for one in listed["data"]] == [master, visa]
    assert (await shop.ok("GET", "/v1/payment_methods", {}, **own))["data"] == listed["data"], "its customer's alone"
    assert (await shop.ok("POST", f"/v1/payment_methods/{visa}/detach", {}, **own))["customer"] is None
    card = (await shop.ok("POST", f"/v1/customers/{customer}/sources", {"source": "tok_amex"}, **own))["id"]
    changed = {"default_source": card, "shipping": {"name": "Ada", "address": {"line1": "1 Main Street"}}}
    assert (await shop.ok("POST", f"/v1/customers/{customer}", changed, **own))["default_source"] == card


async def test_an_app_reaches_nothing_else(shop: CardShop) -> None:
    customer, _ = await customer_of(shop)
    other, (theirs,) = await customer_of(shop, "pm_card_visa")
    own = {"key": (await key_of(shop, customer))["secret"]}
    attach = f"/v1/payment_methods/{theirs}/attach"
    for method, path, params, expected in (
        ("GET", f"/v1/customers/{other}", {}, (404, "resource_missing", "customer")),
        ("POST", f"/v1/customers/{other}/sources", {"source": "tok_visa"}, (404, "resource_missing", "customer")),
        ("GET", f"/v1/payment_methods/{theirs}", {}, (404, "resource_missing", "payment_method")),
        ("POST", f"/v1/payment_methods/{theirs}/detach", {}, (404, "resource_missing", "payment_method")),
        ("GET", "/v1/payment_methods", {"customer": other}, (400, "resource_missing", "customer")),
        ("POST", attach, {"customer": other}, (400, "resource_missing", "customer")),
        ("POST", f"/v1/customers/{customer}", {"metadata": {"vip": "1"}}, (403, "ephemeral_key_forbidden", "metadata")),
        ("DELETE", f"/v1/customers/{customer}", {}, (403, "ephemeral_key_forbidden", None)),
        ("GET", "/v1/customers", {}, (403, "ephemeral_key_forbidden", None)),
        ("POST", "/v1/payment_intents", {"amount": 100, "currency": "eur"}, (403, "ephemeral_key_forbidden", None)),
        ("POST", "/v1/ephemeral_keys", {"customer": customer}, (403, "ephemeral_key_forbidden", None)),
        ("GET", "/ops/v1/keys", {}, (403, "ephemeral_key_forbidden", None)),
    ):
        assert await shop.refused(method, path, params, **own) == expected, (method, path)
    assert (await shop.ok("GET", f"/v1/payment_methods/{theirs}"))["customer"] == other


async def test_a_key_ends_with_its_hour_or_before(shop: CardShop) -> None:
    customer, _ = await customer_of(shop)
    first, second = await key_of(shop, customer), await key_of(shop, customer)
    path = f"/v1/customers/{customer}"
    await shop.ok("GET", path, key=first["secret"])
    ended = await shop.ok("DELETE", f"/v1/ephemeral_keys/{first['id']}")
    assert (ended["id"], "secret" in ended) == (first["id"], False)
    assert (await shop.refused("GET", path, key=first["secret"]))[:2] == (401, "api_key_invalid")
    assert (await shop.refused("DELETE", f"/v1/ephemeral_keys/{first['id']}"))[:2] == (404, "resource_missing")
    await shop.ok("GET", path, key=second["secret"])


async def test_a_key_needs_a_version_and_a_customer(shop: CardShop) -> None:
    customer, _ = await customer_of(shop)
    params = {"customer": customer}
    assert await shop.refused("POST", "/v1/ephemeral_keys", params) == (400, "parameter_missing", "Stripe-Version")
    for params, expected in (
        ({}, (400, "parameter_missing", "customer")),
        ({"customer": "cus_none"}, (400, "resource_missing", "customer")),
        ({"customer": customer, "issuing_card": "ic_1"}, (400, "parameter_unsupported", "issuing_card")),
    ):
        assert await shop.refused("POST", "/v1/ephemeral_keys", params, **VERSIONED) == expected


async def test_the_secret_of_a_repeated_request_is_stored_nowhere_in_clear(shop: CardShop) -> None:
    customer, _ = await customer_of(shop)
    headers = {**VERSIONED, "idempotency-key": "app-1"}
    first, again = [await shop.ok("POST", "/v1/ephemeral_keys", {"customer": customer}, **headers) for _ in range(2)]
    assert first == again
    assert not [key for key, write in shop.app.store.keep().items() if first["secret"].encode() in (write.body or b"")]


async def test_a_key_does_no_more_than_the_one_that_made_it(shop: CardShop) -> None:
    customer, _ = await customer_of(shop, "pm_card_visa")
    params = {"scopes": ["customers:read", "customers:write"]}
    restricted = (await shop.ok("POST", "/ops/v1/keys", params, key=shop.merchant.admin_key))["secret"]
    made = await shop.ok("POST", "/v1/ephemeral_keys", {"customer": customer}, key=restricted, **VERSIONED)
    await shop.ok("GET", f"/v1/customers/{customer}", key=made["secret"])
    listing = await shop.refused("GET", f"/v1/customers/{customer}/payment_methods", key=made["secret"])
    assert listing[:2] == (403, "insufficient_scope")
    keys = (await shop.ok("GET", "/ops/v1/keys", key=shop.merchant.admin_key))["data"]
    id = next(key["id"] for key in keys if key["scopes"] is not None)
    await shop.ok("POST", f"/ops/v1/keys/{id}/revoke", {}, key=shop.merchant.admin_key)
    ended = await shop.refused("GET", f"/v1/customers/{customer}", key=made["secret"])
    assert ended[:2] == (401, "api_key_invalid"), "it ends with the key that made it"
