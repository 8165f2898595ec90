from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from card_shop import VISA, CardShop, card, opened


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[CardShop]:
    async with opened(tmp_path) as shop:
        yield shop


async def test_a_method_is_made_shown_changed_and_listed(shop: CardShop) -> None:
    given = {
        "type": "card",
        "card": VISA,
        "billing_details": {"name": "Jenny", "email": "jenny@shop.example", "address": {"country": "de"}},
        "metadata": {"order": "7"},
        "allow_redisplay": "always",
    }
    made = await shop.ok("POST", "/v1/payment_methods", given)
    assert (made["type"], made["card"]["last4"], made["customer"]) == ("card", "4242", None)
    assert (made["billing_details"]["name"], made["billing_details"]["address"]["country"]) == ("Jenny", "DE")
    path = f"/v1/payment_methods/{made['id']}"
    assert await shop.ok("GET", path) == made

    changes = {
        "billing_details": {"name": "", "phone": "0431"},
        "metadata": {"order": "", "a": "b"},
        "card": {"exp_year": 2041},
    }
    changed = await shop.ok("POST", path, changes)
    assert (changed["billing_details"]["name"], changed["billing_details"]["phone"]) == (None, "0431")
    assert changed["billing_details"]["email"] == "jenny@shop.example"
    assert (changed["metadata"], changed["card"]["exp_year"], changed["card"]["exp_month"]) == ({"a": "b"}, 2041, 12)
    assert (await shop.ok("POST", path, {"metadata": ""}))["metadata"] == {}
    assert (await shop.ok("GET", "/v1/payment_methods", {"type": "card"}))["data"][0]["id"] == made["id"]
    assert (await shop.types()).count("payment_method.updated") == 2


async def test_stripe_js_makes_methods_with_the_publishable_key(shop: CardShop) -> None:
    of_the_browser = {
        "guid": "1",
        "muid": "2",
        "sid": "3",
        "payment_user_agent": "stripe.js",
        "time_on_page": "5",
        "pasted_fields": "number",
        "client_attribution_metadata": {"merchant_integration_source": "elements"},
        "key": shop.merchant.public_key,
        "_stripe_version": "2026-10-28.endive",
        "radar_options": {"hcaptcha_token": "x"},
    }
    given = {"type": "card", "card": VISA, **of_the_browser}
    made = await shop.ok("POST", "/v1/payment_methods", given, key=shop.merchant.public_key)
    assert made["id"].startswith("pm_") and "metadata" not in made
    read = await shop.refused("GET", f"/v1/payment_methods/{made['id']}", key=shop.merchant.public_key)
    assert read[1] == "secret_key_required"


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"card": VISA}, (400, "parameter_missing", "type")),
        ({"type": "card"}, (400, "parameter_missing", "card")),
        ({"type": "card", "card": {"number": VISA["number"]}}, (400, "parameter_missing", "card[exp_month]")),
        ({"type": "card", "card": card("4242424242424241")}, (402, "incorrect_number", "card[number]")),
        ({"type": "card", "card": {"token": "tok_none"}}, (400, "resource_missing", "card[token]")),
        ({"type": "cheque"}, (400, "parameter_invalid_enum", "type")),
        ({"type": "ideal"}, (400, "parameter_unsupported", "type")),
        ({"type": "us_bank_account"}, (400, "parameter_missing", "us_bank_account[account_number]")),
        ({"type": "sepa_debit"}, (400, "parameter_missing", "sepa_debit[iban]")),
        ({"type": "card", "card": VISA, "customer": "cus_1"}, (400, "parameter_unsupported", "customer")),
        ({"type": "card", "card": VISA, "expires": 1}, (400, "parameter_unknown", "expires")),
        ({"type": "card", "card": VISA, "metadata": {"pan": VISA["number"]}}, (400, "card_number_in_free_text", "x")),
        ({"type": "card", "card": VISA, "billing_details": {"email": "x"}}, (400, "email_invalid", "x")),
    ],
)
async def test_what_makes_no_method(shop: CardShop, params: dict[str, Any], expected: tuple[int, str, str]) -> None:
    status, code, param = await shop.refused("POST", "/v1/payment_methods", params)
    assert (status, code) == expected[:2]
    assert expected[2] in ("x", param)
    assert await shop.ids("pm", "vlt", "cvc") == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"card": {"exp_month": 13}}, (402, "invalid_expiry_month", "card[exp_month]")),
        ({"card": {"exp_year": 2019}}, (402, "invalid_expiry_year", "card[exp_year]")),
        ({"card": {"exp_year": 19}}, (402, "invalid_expiry_year", "card[exp_year]")),
        ({"card": {"exp_month": 1, "exp_year": "next"}}, (400, "parameter_invalid_integer", "card[exp_year]")),
        ({"card": {"number": VISA["number"]}}, (400, "parameter_unknown", "card[number]")),
        ({"type": "card"}, (400, "parameter_unknown", "type")),
        ({"metadata": {"k": "x" * 501}}, (400, "parameter_invalid_string", "metadata[k]")),
    ],
)
async def test_what_cannot_be_changed(shop: CardShop, change: dict[str, Any], expected: tuple[int, str, str]) -> None:
    assert await shop.refused("POST", f"/v1/payment_methods/{await shop.method()}", change) == expected


async def test_equal_numbers_have_equal_fingerprints(shop: CardShop) -> None:
    async def fingerprint(path: str, params: dict[str, Any] | None = None, key: str = "") -> str:
        found: str = (await shop.ok("POST", path, params, key=key))["card"]["fingerprint"]
        return found

    customer = await shop.customer()
    visa = await fingerprint("/v1/payment_methods", {"type": "card", "card": VISA})
    assert visa == await fingerprint("/v1/payment_methods", {"type": "card", "card": card(VISA["number"], exp_month=1)})
    assert visa == await fingerprint("/v1/payment_methods/pm_card_visa/attach", {"customer": customer})
    assert visa == await fingerprint("/v1/tokens", {"card": VISA})
    assert visa != await fingerprint("/v1/payment_methods", {"type": "card", "card": card("5555555555554444")})
    assert visa != await fingerprint(
        "/v1/payment_methods", {"type": "card", "card": VISA}, key=await shop.foreign_key()
    )


async def test_an_alias_becomes_a_new_method_each_time(shop: CardShop) -> None:
    customer = await shop.customer()
    first, second = await shop.attached(customer), await shop.attached(customer)
    assert first != second and "pm_card_visa" not in (first, second)
    page = await shop.ok("GET", f"/v1/customers/{customer}/payment_methods")
    assert page["url"] == f"/v1/customers/{customer}/payment_methods"
    assert [method["id"] for method in page["data"]] == [second, first]
    assert (await shop.ok("GET", f"/v1/customers/{customer}/payment_methods/{first}"))["customer"] == customer
    expanded = await shop.ok("GET", f"/v1/payment_methods/{first}", {"expand": ["customer"]})
    assert expanded["customer"]["id"] == customer


@pytest.mark.parametrize(
    ("number", "alias", "code", "decline_code"),
    [
        ("4000000000000002", "chargeDeclined", "card_declined", "generic_decline"),
        ("4000000000009995", "chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("4000000000009987", "visa_chargeDeclinedLostCard", "card_declined", "lost_card"),
        ("4000000000009979", "visa_chargeDeclinedStolenCard", "card_declined", "stolen_card"),
        ("4000000000000069", "chargeDeclinedExpiredCard", "expired_card", None),
        ("4000000000000127", "chargeDeclinedIncorrectCvc", "incorrect_cvc", None),
        ("4000000000000119", "chargeDeclinedProcessingError", "processing_error", None),
        ("4000000000006975", "visa_chargeDeclinedVelocityLimitExceeded", "card_declined", "card_velocity_exceeded"),
    ],
)
async def test_a_card_that_declines_is_not_attached(
    shop: CardShop, number: str, alias: str, code: str, decline_code: str | None
) -> None:
    customer = await shop.customer()
    for id in (await shop.method(number), f"pm_card_{alias}"):
        error = await shop.error("POST", f"/v1/payment_methods/{id}/attach", {"customer": customer})
        assert (error["status"], error["type"], error["code"]) == (402, "card_error", code)
        assert error.get("decline_code") == decline_code
    assert (await shop.ok("GET", f"/v1/customers/{customer}/payment_methods"))["data"] == []
    assert "payment_method.attached" not in await shop.types()


async def test_a_decline_spends_the_idempotency_key_and_a_mistake_does_not(shop: CardShop) -> None:
    customer = await shop.customer()
    declined = "/v1/payment_methods/pm_card_chargeDeclined/attach"
    first = await shop.app.call(shop.merchant, "POST", declined, {"customer": customer}, idempotency_key="a")
    again = await shop.app.call(shop.merchant, "POST", declined, {"customer": customer}, idempotency_key="a")
    assert (first.status, first.body) == (again.status, again.body)
    assert "idempotent-replayed" not in first.headers and again.headers["idempotent-replayed"] == "true"
    path = "/v1/payment_methods/pm_card_visa/attach"
    assert (await shop.refused("POST", path, {"customer": "cus_none"}, idempotency_key="b"))[0] == 400
    await shop.ok("POST", path, {"customer": customer}, idempotency_key="b")


async def test_attaching(shop: CardShop) -> None:
    customer, other, method = await shop.customer(), await shop.customer(), await shop.method()
    path = f"/v1/payment_methods/{method}/attach"
    assert await shop.refused("POST", path) == (400, "parameter_missing", "customer")
    assert await shop.refused("POST", path, {"customer": "cus_none"}) == (400, "resource_missing", "customer")
    attached = await shop.ok("POST", path, {"customer": customer})
    assert attached["customer"] == customer
    assert await shop.ok("POST", path, {"customer": customer}) == attached
    taken = await shop.refused("POST", path, {"customer": other})
    assert taken == (400, "payment_method_unexpected_state", "payment_method")
    assert (await shop.types()).count("payment_method.attached") == 1


async def test_a_method_that_paid_without_a_customer_is_used_up(shop: CardShop) -> None:
    method = await shop.method()
    payment = {"amount": 100, "currency": "eur", "payment_method": method, "confirm": True}
    await shop.ok("POST", "/v1/payment_intents", payment)
    refused = await shop.refused("POST", f"/v1/payment_methods/{method}/attach", {"customer": await shop.customer()})
    assert refused == (400, "payment_method_unexpected_state", "payment_method")


async def test_detaching_is_for_good_and_takes_the_card_along(shop: CardShop) -> None:
    customer, method = await shop.customer(), await shop.method()
    path = f"/v1/payment_methods/{method}"
    loose = await shop.refused("POST", f"{path}/detach")
    assert loose == (400, "payment_method_unexpected_state", "payment_method")
    await shop.ok("POST", f"{path}/attach", {"customer": customer})
    default = {"invoice_settings": {"default_payment_method": method, "footer": "thank you"}}
    await shop.ok("POST", f"/v1/customers/{customer}", default)
    assert len(await shop.ids("vlt", "cvc")) == 2

    assert (await shop.ok("POST", f"{path}/detach"))["customer"] is None
    assert await shop.ids("vlt", "cvc") == []
    settings = (await shop.ok("GET", f"/v1/customers/{customer}"))["invoice_settings"]
    assert (settings["default_payment_method"], settings["footer"]) == (None, "thank you")
    assert (await shop.ok("GET", f"/v1/customers/{customer}/payment_methods"))["data"] == []
    assert (await shop.types())[-2:] == ["payment_method.detached", "customer.updated"]
    gone = (400, "payment_method_unexpected_state", "payment_method")
    assert await shop.refused("POST", f"{path}/detach") == gone
    assert await shop.refused("POST", f"{path}/attach", {"customer": customer}) == gone
    assert await shop.refused("POST", path, {"metadata": {"a": "b"}}) == gone
    payment = {"amount": 100, "currency": "eur", "payment_method": method, "confirm": True}
    assert await shop.refused("POST", "/v1/payment_intents", payment) == gone


async def test_listing(shop: CardShop) -> None:
    customer = await shop.customer()
    made = [await shop.attached(customer) for _ in range(5)]
    path = f"/v1/customers/{customer}/payment_methods"

    async def page(**params: Any) -> tuple[list[str], bool]:
        found = await shop.ok("GET", path, params)
        return [method["id"] for method in found["data"]], found["has_more"]

    newest = made[::-1]
    assert await page() == (newest, False)
    assert await page(limit=2) == (newest[:2], True)
    assert await page(limit=2, starting_after=newest[1]) == (newest[2:4], True)
    assert await page(limit=2, starting_after=newest[3]) == (newest[4:], False)
    assert await page(limit=2, ending_before=newest[3]) == (newest[1:3], True)
    assert await page(type="card", limit=1) == (newest[:1], True)
    assert await page(type="sepa_debit") == ([], False)
    assert await page(allow_redisplay="always") == ([], False)
    by_query = await shop.ok("GET", "/v1/payment_methods", {"customer": customer, "type": "card"})
    assert [method["id"] for method in by_query["data"]] == newest


@pytest.mark.parametrize(
    ("method", "path", "params", "expected"),
    [
        ("GET", "/v1/payment_methods/ID", {}, "payment_method"),
        ("POST", "/v1/payment_methods/ID", {"metadata": {"a": "b"}}, "payment_method"),
        ("POST", "/v1/payment_methods/ID/attach", {"customer": "THEIRS"}, "payment_method"),
        ("POST", "/v1/payment_methods/ID/detach", {}, "payment_method"),
        ("GET", "/v1/customers/THEIRS/payment_methods/ID", {}, "payment_method"),
        ("POST", "/v1/payment_intents", {"amount": 100, "currency": "eur", "payment_method": "ID"}, "payment_method"),
        ("GET", "/v1/payment_methods", {"customer": "CUSTOMER"}, "customer"),
        ("GET", "/v1/payment_methods", {"starting_after": "ID"}, "starting_after"),
        ("GET", "/v1/customers/CUSTOMER/payment_methods", {}, "customer"),
        ("GET", "/v1/customers/CUSTOMER/payment_methods/ID", {}, "customer"),
        ("POST", "/v1/payment_methods/pm_card_visa/attach", {"customer": "CUSTOMER"}, "customer"),
    ],
)
async def test_another_merchants_is_like_nobodys(
    shop: CardShop, method: str, path: str, params: dict[str, Any], expected: str
) -> None:
    customer = await shop.customer()
    attached = await shop.attached(customer)
    key = await shop.foreign_key()
    theirs = (await shop.ok("POST", "/v1/customers", key=key))["id"]

    async def answer(id: str, owner: str) -> dict[str, Any]:
        def filled(text: Any) -> Any:
            return text.replace("ID", id).replace("CUSTOMER", owner).replace("THEIRS", theirs) if text != 100 else 100

        given = {name: value if isinstance(value, dict) else filled(value) for name, value in params.items()}
        error = await shop.error(method, filled(path), given, key=key)
        del error["request_log_url"]
        return {name: str(value).replace(id, "…").replace(owner, "…") for name, value in error.items()}

    found = await answer(attached, customer)
    status = "400" if expected in params else "404"
    assert (found["status"], found["code"], found["param"]) == (status, "resource_missing", expected)
    assert found == await answer("pm_nobodys", "cus_nobodys")
