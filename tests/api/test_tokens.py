from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from card_shop import VISA, CardShop, card, opened


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[CardShop]:
    async with opened(tmp_path) as shop:
        yield shop


async def test_a_token_shows_its_card_and_not_its_number(shop: CardShop) -> None:
    given = {
        **VISA,
        "name": "Jenny Rosen",
        "address_line1": "Long Street 1",
        "address_city": "Kiel",
        "address_zip": "24103",
        "address_country": "DE",
        "currency": "eur",
    }
    token = await shop.ok("POST", "/v1/tokens", {"card": given})
    assert (token["object"], token["type"], token["used"], token["livemode"]) == ("token", "card", False, False)
    assert token["client_ip"] == "127.0.0.1"
    shown = token["card"]
    assert shown["id"].startswith("card_") and shown["object"] == "card" and "customer" not in shown
    assert (shown["brand"], shown["last4"], shown["exp_month"], shown["exp_year"]) == ("Visa", "4242", 12, 2040)
    assert (shown["name"], shown["address_line1"], shown["address_city"]) == ("Jenny Rosen", "Long Street 1", "Kiel")
    assert (shown["address_zip"], shown["address_country"], shown["address_state"]) == ("24103", "DE", None)
    assert (shown["cvc_check"], shown["address_line1_check"], shown["address_zip_check"]) == ("pass", "pass", "pass")
    assert await shop.ok("GET", f"/v1/tokens/{token['id']}") == token


async def test_stripe_js_makes_tokens_with_the_publishable_key(shop: CardShop) -> None:
    of_the_browser = {
        "guid": "9d3f4a0c",
        "muid": "a1",
        "sid": "b2",
        "payment_user_agent": "stripe.js/1; stripe-js-v3/1",
        "time_on_page": "21034",
        "referrer": "https://shop.example",
        "pasted_fields": "number",
        "client_attribution_metadata": {"client_session_id": "c3"},
        "_stripe_version": "2026-10-28.endive",
        "key": shop.merchant.public_key,
    }
    token = await shop.ok("POST", "/v1/tokens", {"card": VISA, **of_the_browser}, key=shop.merchant.public_key)
    charge = await shop.ok("POST", "/v1/charges", {"amount": 100, "currency": "eur", "source": token["id"]})
    assert charge["payment_method"] == token["card"]["id"]
    assert charge["payment_method_details"]["card"]["last4"] == "4242"
    with_public = await shop.refused("GET", f"/v1/tokens/{token['id']}", key=shop.merchant.public_key)
    assert with_public[1] == "secret_key_required"


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, (400, "parameter_missing", "card")),
        ({"card": {"number": VISA["number"]}}, (400, "parameter_missing", "card[exp_month]")),
        ({"card": {"exp_month": 12, "exp_year": 2040}}, (400, "parameter_missing", "card[number]")),
        ({"card": "card_123"}, (400, "parameter_invalid_object", "card")),
        ({"card": card("4242424242424241")}, (402, "incorrect_number", "card[number]")),
        ({"card": card("4242 4242 x")}, (402, "invalid_number", "card[number]")),
        ({"card": card(VISA["number"], exp_month=13)}, (402, "invalid_expiry_month", "card[exp_month]")),
        ({"card": card(VISA["number"], exp_year=2019)}, (402, "invalid_expiry_year", "card[exp_year]")),
        ({"card": card(VISA["number"], cvc="12")}, (402, "invalid_cvc", "card[cvc]")),
        ({"card": card(VISA["number"], colour="red")}, (400, "parameter_unknown", "card[colour]")),
        ({"card": {**VISA, "name": VISA["number"]}}, (400, "card_number_in_free_text", "card[name]")),
        ({"crad": VISA}, (400, "parameter_unknown", "crad")),
        ({"pii": {"id_number": "000"}}, (400, "parameter_unsupported", "pii")),
        ({"account": {"tos_shown_and_accepted": True}}, (400, "parameter_unsupported", "account")),
        ({"bank_account": {"country": "US"}}, (400, "parameter_unsupported", "bank_account")),
        ({"cvc_update": {"cvc": "123"}}, (400, "parameter_unsupported", "cvc_update")),
        ({"person": {"first_name": "J"}}, (400, "parameter_unsupported", "person")),
    ],
)
async def test_what_makes_no_token(shop: CardShop, params: dict[str, Any], expected: tuple[int, str, str]) -> None:
    error = await shop.error("POST", "/v1/tokens", params)
    assert (error["status"], error["code"], error["param"]) == expected
    assert "4242424242" not in str(error)
    assert await shop.ids("tok", "vlt", "cvc") == []


USES: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/charges", {"amount": 100, "currency": "eur", "source": "TOKEN"}, "source"),
    ("/v1/customers", {"source": "TOKEN"}, "source"),
    ("/v1/customers/CUSTOMER", {"source": "TOKEN"}, "source"),
    ("/v1/customers/CUSTOMER/sources", {"source": "TOKEN"}, "source"),
    ("/v1/payment_methods", {"type": "card", "card": {"token": "TOKEN"}}, "source"),
    (
        "/v1/payment_intents",
        {"amount": 100, "currency": "eur", "payment_method_data": {"type": "card", "card": {"token": "TOKEN"}}},
        "source",
    ),
]
"""Every place that takes a token."""


def _filled(given: Any, token: str, customer: str) -> Any:
    if isinstance(given, dict):
        return {name: _filled(value, token, customer) for name, value in given.items()}
    return given.replace("TOKEN", token).replace("CUSTOMER", customer) if isinstance(given, str) else given


@pytest.mark.parametrize(("path", "params", "param"), USES)
async def test_a_token_serves_once(shop: CardShop, path: str, params: dict[str, Any], param: str) -> None:
    token, customer = await shop.token(), await shop.customer()
    path = _filled(path, token, customer)
    await shop.ok("POST", path, _filled(params, token, customer))
    assert (await shop.ok("GET", f"/v1/tokens/{token}"))["used"] is True
    for again, others, _ in USES:
        refused = await shop.refused("POST", _filled(again, token, customer), _filled(others, token, customer))
        assert refused == (400, "token_already_used", param)


@pytest.mark.parametrize(("path", "params", "param"), USES)
async def test_a_test_token_serves_as_often_as_one_likes(
    shop: CardShop, path: str, params: dict[str, Any], param: str
) -> None:
    customer = await shop.customer()
    for _ in range(2):
        await shop.ok("POST", _filled(path, "tok_visa", customer), _filled(params, "tok_visa", customer))


@pytest.mark.parametrize(("path", "params", "param"), USES)
async def test_a_token_lasts_15_minutes(shop: CardShop, path: str, params: dict[str, Any], param: str) -> None:
    token, customer = await shop.token(), await shop.customer()
    await shop.app.wait(15 * 60)
    refused = await shop.refused("POST", _filled(path, token, customer), _filled(params, token, customer))
    assert refused == (400, "token_expired", param)


async def test_a_card_that_nobody_wanted_is_forgotten(shop: CardShop) -> None:
    unused, used = await shop.token(), await shop.token()
    customer = await shop.customer(source=used)
    assert len(await shop.ids("vlt")) == 2 and len(await shop.ids("cvc")) == 2
    await shop.app.wait(15 * 60)
    await shop.app.store.purge_expired(now=shop.app.clock.now_ms() // 1000, limit=100)
    assert len(await shop.ids("vlt")) == 1 and await shop.ids("cvc") == []
    assert (await shop.ok("GET", f"/v1/tokens/{unused}"))["used"] is False
    charge = await shop.ok("POST", "/v1/charges", {"amount": 100, "currency": "eur", "customer": customer})
    assert charge["status"] == "succeeded"


@pytest.mark.parametrize(
    ("alias", "brand", "last4"), [("tok_visa", "Visa", "4242"), ("tok_mastercard", "MasterCard", "4444")]
)
async def test_test_tokens_can_be_looked_at(shop: CardShop, alias: str, brand: str, last4: str) -> None:
    token = await shop.ok("GET", f"/v1/tokens/{alias}")
    assert (token["id"], token["used"], token["card"]["brand"], token["card"]["last4"]) == (alias, False, brand, last4)


async def test_whose_token_it_is_makes_no_difference_to_strangers(shop: CardShop) -> None:
    token = await shop.token()
    live = shop.merchant.live_key
    answers = [
        await shop.error("GET", f"/v1/tokens/{id}", key=key)
        for id, key in (
            (token, await shop.foreign_key()),
            (token, live),
            ("tok_nobody", ""),
            ("tok_visa", live),
            ("pm_card_visa", ""),
            ("cus_1", ""),
        )
    ]
    assert {(one["status"], one["code"], one["param"]) for one in answers} == {(404, "resource_missing", "token")}
    assert answers[0]["message"] == f"No such token: '{token}'"
    stolen = {"amount": 100, "currency": "eur", "source": token}
    assert await shop.refused("POST", "/v1/charges", stolen, key=await shop.foreign_key()) == (
        400,
        "resource_missing",
        "source",
    )
