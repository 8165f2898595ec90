from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from card_shop import VISA, CardShop, card, opened

RETURN = "https://shop.example/back"
CHALLENGED = "pm_card_authenticationRequiredOnSetup"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[CardShop]:
    async with opened(tmp_path) as shop:
        yield shop


async def _setup(shop: CardShop, method: str = "pm_card_visa", **params: Any) -> Any:
    return await shop.ok(
        "POST", "/v1/setup_intents", {"payment_method": method, "confirm": True, "return_url": RETURN, **params}
    )


async def test_a_setup_step_by_step(shop: CardShop) -> None:
    customer = await shop.customer()
    made = await shop.ok(
        "POST",
        "/v1/setup_intents",
        {"customer": customer, "automatic_payment_methods": {"enabled": True}, "metadata": {"order": "7"}},
    )
    path = f"/v1/setup_intents/{made['id']}"
    assert (made["status"], made["usage"], made["payment_method"]) == ("requires_payment_method", "off_session", None)
    assert made["client_secret"].startswith(f"{made['id']}_secret_") and made["latest_attempt"] is None
    assert made["automatic_payment_methods"] == {"enabled": True}
    early = await shop.error("POST", f"{path}/confirm")
    assert (early["code"], early["param"]) == ("setup_intent_unexpected_state", "payment_method")
    assert early["setup_intent"]["id"] == made["id"]

    with_card = await shop.ok("POST", path, {"payment_method": "pm_card_visa", "metadata": {"order": "", "a": "b"}})
    assert (with_card["status"], with_card["metadata"]) == ("requires_confirmation", {"a": "b"})
    assert await shop.refused("POST", f"{path}/confirm") == (400, "parameter_missing", "return_url")
    done = await shop.ok(
        "POST", f"{path}/confirm", {"return_url": RETURN, "expand": ["latest_attempt", "payment_method"]}
    )
    assert (done["status"], done["next_action"], done["last_setup_error"]) == ("succeeded", None, None)
    assert done["payment_method"]["customer"] == customer
    assert (done["latest_attempt"]["status"], done["latest_attempt"]["setup_intent"]) == ("succeeded", made["id"])
    read = await shop.ok("GET", path)
    assert (read["latest_attempt"], read["status"]) == (done["latest_attempt"]["id"], "succeeded")

    unexpected = (400, "setup_intent_unexpected_state", None)
    assert await shop.refused("POST", f"{path}/confirm", {"payment_method": "pm_card_visa"}) == unexpected
    assert await shop.refused("POST", f"{path}/cancel") == unexpected
    assert await shop.refused("POST", path, {"customer": customer}) == unexpected
    assert (await shop.ok("POST", path, {"description": "done"}))["description"] == "done"
    assert await shop.types() == [
        "customer.created",
        "setup_intent.created",
        "payment_method.attached",
        "setup_intent.succeeded",
    ]


async def test_a_card_that_was_set_up_pays_while_its_holder_is_away(shop: CardShop) -> None:
    customer = await shop.customer()
    waiting = await _setup(shop, CHALLENGED, customer=customer)
    assert waiting["status"] == "requires_action"
    action = waiting["next_action"]
    assert (action["type"], action["redirect_to_url"]["return_url"]) == ("redirect_to_url", RETURN)
    assert f"/3ds/{shop.merchant.account.removeprefix('acct_')}t/{waiting['id']}?" in action["redirect_to_url"]["url"]
    method = waiting["payment_method"]
    assert (await shop.ok("GET", f"/v1/payment_methods/{method}"))["customer"] is None

    assert (await shop.challenge(waiting, passed=True)).status == "succeeded"
    assert (await shop.ok("GET", f"/v1/payment_methods/{method}"))["customer"] == customer
    payment = {"amount": 100, "currency": "eur", "customer": customer, "confirm": True}
    away = await shop.ok("POST", "/v1/payment_intents", {**payment, "payment_method": method, "off_session": True})
    assert away["status"] == "succeeded"
    present = await shop.ok("POST", "/v1/payment_intents", {**payment, "payment_method": method, "return_url": RETURN})
    assert present["status"] == "requires_action"

    never_set_up = await shop.attached(customer, CHALLENGED)
    error = await shop.error(
        "POST", "/v1/payment_intents", {**payment, "payment_method": never_set_up, "off_session": True}
    )
    assert (error["status"], error["code"]) == (402, "authentication_required")


async def test_a_challenge_that_fails_can_be_followed_by_another_card(shop: CardShop) -> None:
    customer = await shop.customer()
    waiting = await _setup(shop, CHALLENGED, customer=customer)
    assert (await shop.challenge(waiting, passed=False)).status == "requires_payment_method"
    path = f"/v1/setup_intents/{waiting['id']}"
    failed = await shop.ok("GET", path)
    assert (failed["payment_method"], failed["next_action"]) == (None, None)
    error = failed["last_setup_error"]
    assert error["code"] == "setup_intent_authentication_failure"
    assert error["payment_method"]["id"] == waiting["payment_method"]
    # Going back to the page changes nothing.
    assert (await shop.challenge(waiting, passed=True)).status == "requires_payment_method"

    done = await shop.ok("POST", f"{path}/confirm", {"payment_method": "pm_card_visa"})
    assert (done["status"], done["last_setup_error"]) == ("succeeded", None)
    attempts = await shop.ok("GET", "/v1/setup_attempts", {"setup_intent": waiting["id"]})
    assert [attempt["status"] for attempt in attempts["data"]] == ["succeeded", "failed"]
    assert attempts["data"][1]["setup_error"]["code"] == "setup_intent_authentication_failure"
    assert "setup_intent.setup_failed" in await shop.types()


@pytest.mark.parametrize(
    ("method", "params", "status"),
    [
        ("pm_card_visa", {}, "succeeded"),
        ("pm_card_amex", {"payment_method_options": {"card": {"request_three_d_secure": "any"}}}, "succeeded"),
        ("pm_card_threeDSecureOptional", {}, "succeeded"),
        (
            "pm_card_threeDSecureOptional",
            {"payment_method_options": {"card": {"request_three_d_secure": "any"}}},
            "requires_action",
        ),
        ("pm_card_authenticationRequired", {}, "requires_action"),
        ("pm_card_authenticationRequiredOnSetup", {}, "requires_action"),
        ("pm_card_threeDSecure2Required", {}, "requires_action"),
        ("pm_card_authenticationRequiredSetupForOffSession", {}, "succeeded"),
        ("pm_card_authenticationRequiredSetupForOffSession", {"usage": "on_session"}, "requires_action"),
        ("pm_card_authenticationRequiredChargeDeclinedInsufficientFunds", {}, "requires_action"),
        ("pm_card_chargeDeclined", {}, "card_declined"),
        ("pm_card_chargeDeclinedInsufficientFunds", {}, "card_declined"),
        ("pm_card_chargeDeclinedExpiredCard", {}, "expired_card"),
        ("pm_card_chargeCustomerFail", {}, "succeeded"),
        ("pm_card_threeDSecureRequiredProcessingError", {}, "setup_intent_authentication_failure"),
        ("tok_visa", {}, "succeeded"),
    ],
)
async def test_what_each_card_does(shop: CardShop, method: str, params: dict[str, Any], status: str) -> None:
    given = {"payment_method": method, "confirm": True, "return_url": RETURN, **params}
    answered, document = await shop.call("POST", "/v1/setup_intents", given)
    if answered == 200:
        assert document["status"] == status
        return
    error = document["error"]
    assert (answered, error["type"], error["code"]) == (402, "card_error", status)
    setup = error["setup_intent"]
    assert (setup["status"], setup["payment_method"]) == ("requires_payment_method", None)
    assert setup["last_setup_error"]["code"] == status
    assert await shop.ok("GET", f"/v1/setup_intents/{setup['id']}") == setup


async def test_a_frictionless_card_is_authenticated_at_once(shop: CardShop) -> None:
    method = await shop.method("4000000032200000")
    done = await _setup(shop, method, expand=["latest_attempt"])
    secure = done["latest_attempt"]["payment_method_details"]["card"]["three_d_secure"]
    assert (done["status"], secure["result"], secure["authentication_flow"]) == (
        "succeeded",
        "authenticated",
        "frictionless",
    )


async def test_the_security_code_goes_with_the_attempt(shop: CardShop) -> None:
    for number, status in (("4242424242424242", "succeeded"), ("4000002500003155", "requires_action")):
        done = await shop.ok(
            "POST",
            "/v1/setup_intents",
            {
                "payment_method_data": {"type": "card", "card": card(number)},
                "confirm": True,
                "return_url": RETURN,
                "customer": await shop.customer(),
            },
        )
        assert done["status"] == status
    assert len(await shop.ids("cvc")) == 1
    await shop.challenge(done, passed=True)
    assert await shop.ids("cvc") == [] and len(await shop.ids("vlt")) == 2


async def test_stripe_js_confirms_with_the_client_secret(shop: CardShop) -> None:
    made = await shop.ok("POST", "/v1/setup_intents")
    path, public = f"/v1/setup_intents/{made['id']}", shop.merchant.public_key
    secret = {"client_secret": made["client_secret"]}
    assert (await shop.ok("GET", path, secret, key=public))["id"] == made["id"]
    assert await shop.refused("GET", path, key=public) == (400, "parameter_missing", "client_secret")
    wrong = {"client_secret": f"{made['id']}_secret_wrong"}
    for key in (public, ""):
        assert await shop.refused("GET", path, wrong, key=key) == (401, "client_secret_invalid", "client_secret")
        assert (await shop.refused("POST", f"{path}/confirm", wrong, key=key))[1] == "client_secret_invalid"
    assert (await shop.refused("POST", path, secret, key=public))[1] == "secret_key_required"
    confirmed = await shop.ok(
        "POST",
        f"{path}/confirm",
        {
            **secret,
            "payment_method_data": {
                "type": "card",
                "card": VISA,
                "guid": "1",
                "muid": "2",
                "sid": "3",
                "pasted_fields": "number",
                "payment_user_agent": "stripe.js",
                "time_on_page": "5",
                "client_attribution_metadata": {"a": "b"},
            },
            "expected_payment_method_type": "card",
            "use_stripe_sdk": True,
            "key": public,
            "_stripe_version": "2026-10-28.endive",
            "client_attribution_metadata": {"a": "b"},
        },
        key=public,
    )
    assert confirmed["status"] == "succeeded" and "metadata" not in confirmed


async def test_the_sdk_of_a_browser_gets_its_own_next_action(shop: CardShop) -> None:
    waiting = await _setup(shop, CHALLENGED, use_stripe_sdk=True)
    assert waiting["next_action"]["type"] == "use_stripe_sdk"


async def test_a_second_confirmation_gives_up_the_first(shop: CardShop) -> None:
    waiting = await _setup(shop, CHALLENGED)
    path = f"/v1/setup_intents/{waiting['id']}"
    again = await shop.ok("POST", f"{path}/confirm", {"payment_method": CHALLENGED})
    attempts = await shop.ok("GET", "/v1/setup_attempts", {"setup_intent": waiting["id"], "limit": 10})
    assert [attempt["status"] for attempt in attempts["data"]] == ["requires_action", "abandoned"]
    canceled = await shop.ok("POST", f"{path}/cancel", {"cancellation_reason": "abandoned"})
    assert (canceled["status"], canceled["cancellation_reason"]) == ("canceled", "abandoned")
    attempts = await shop.ok("GET", "/v1/setup_attempts", {"setup_intent": waiting["id"]})
    assert {attempt["status"] for attempt in attempts["data"]} == {"abandoned"}
    assert (await shop.challenge(again, passed=True)).status == "canceled"
    assert (await shop.types())[-1] == "setup_intent.canceled"


async def test_a_decline_spends_the_idempotency_key(shop: CardShop) -> None:
    given = {"payment_method": "pm_card_chargeDeclined", "confirm": True}
    first = await shop.app.call(shop.merchant, "POST", "/v1/setup_intents", given, idempotency_key="a")
    again = await shop.app.call(shop.merchant, "POST", "/v1/setup_intents", given, idempotency_key="a")
    assert (first.status, first.body) == (again.status, again.body) == (402, first.body)
    assert len(await shop.ids("seti")) == 1


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"colour": "red"}, (400, "parameter_unknown", "colour")),
        ({"usage": "sometimes"}, (400, "parameter_invalid_enum", "usage")),
        ({"customer": "cus_none"}, (400, "resource_missing", "customer")),
        ({"payment_method": "pm_none"}, (400, "resource_missing", "payment_method")),
        ({"payment_method": "tok_none"}, (400, "resource_missing", "payment_method")),
        ({"confirm": True}, (400, "setup_intent_unexpected_state", "payment_method")),
        ({"return_url": RETURN}, (400, "parameter_invalid_string", "return_url")),
        ({"confirm": True, "return_url": "javascript:1"}, (400, "url_invalid", "return_url")),
        ({"single_use": {"amount": 1, "currency": "eur"}}, (400, "parameter_unsupported", "single_use")),
        ({"confirmation_token": "ctoken_1"}, (400, "parameter_invalid_string", "confirmation_token")),
        ({"on_behalf_of": "acct_1"}, (400, "parameter_unsupported", "on_behalf_of")),
        ({"attach_to_self": True}, (400, "parameter_unsupported", "attach_to_self")),
        ({"flow_directions": ["inbound"]}, (400, "parameter_unsupported", "flow_directions")),
        (
            {"automatic_payment_methods": {"enabled": True}, "payment_method_types": ["card"]},
            (400, "parameters_exclusive", "payment_method_types"),
        ),
        (
            {"payment_method": "pm_card_visa", "payment_method_data": {"type": "card", "card": VISA}},
            (400, "parameters_exclusive", "payment_method_data"),
        ),
        (
            {"payment_method": "pm_card_visa", "confirm": True, "payment_method_types": ["sepa_debit"]},
            (400, "payment_method_unexpected_state", "payment_method"),
        ),
        (
            {"payment_method_data": {"type": "card", "card": card("4242424242424241")}},
            (402, "incorrect_number", "payment_method_data[card][number]"),
        ),
    ],
)
async def test_what_makes_no_setup(shop: CardShop, params: dict[str, Any], expected: tuple[int, str, str]) -> None:
    assert await shop.refused("POST", "/v1/setup_intents", params) == expected
    assert await shop.ids("seti", "setatt", "pm", "vlt") == []


async def test_a_card_of_another_customer_is_not_set_up(shop: CardShop) -> None:
    owner, other = await shop.customer(), await shop.customer()
    method = await shop.attached(owner)
    for customer in ({}, {"customer": other}):
        for confirm in ({"confirm": True}, {}):
            given = {"payment_method": method, **confirm, **customer}
            refused = await shop.refused("POST", "/v1/setup_intents", given)
            assert refused == (400, "payment_method_unexpected_state", "payment_method")
        made = await shop.ok("POST", "/v1/setup_intents", customer)
        refused = await shop.refused("POST", f"/v1/setup_intents/{made['id']}", {"payment_method": method})
        assert refused == (400, "payment_method_unexpected_state", "payment_method")
    kept = await shop.ok("POST", "/v1/setup_intents", {"payment_method": method, "customer": owner})
    refused = await shop.refused("POST", f"/v1/setup_intents/{kept['id']}", {"customer": other})
    assert refused == (400, "payment_method_unexpected_state", "payment_method")
    assert (await _setup(shop, method, customer=owner))["status"] == "succeeded"


async def test_a_detached_card_is_not_set_up(shop: CardShop) -> None:
    customer = await shop.customer()
    method = await shop.attached(customer)
    await shop.ok("POST", f"/v1/payment_methods/{method}/detach")
    for given in ({}, {"customer": customer}, {"confirm": True}):
        refused = await shop.refused("POST", "/v1/setup_intents", {"payment_method": method, **given})
        assert refused == (400, "payment_method_unexpected_state", "payment_method")


async def test_a_customer_who_has_gone_gets_no_card(shop: CardShop) -> None:
    customer = await shop.customer()
    made = await shop.ok("POST", "/v1/setup_intents", {"customer": customer, "payment_method": "pm_card_visa"})
    await shop.ok("DELETE", f"/v1/customers/{customer}")
    refused = await shop.refused("POST", f"/v1/setup_intents/{made['id']}/confirm")
    assert refused == (400, "resource_missing", "customer")


async def test_listing(shop: CardShop) -> None:
    customer = await shop.customer()
    first = await _setup(shop, customer=customer)
    second = await _setup(shop)
    third = await shop.ok("POST", "/v1/setup_intents", {"customer": customer})

    async def page(**params: Any) -> list[str]:
        return [setup["id"] for setup in (await shop.ok("GET", "/v1/setup_intents", params))["data"]]

    now = shop.app.clock.now_ms() // 1000
    assert await page() == [third["id"], second["id"], first["id"]]
    assert await page(limit=1, starting_after=third["id"]) == [second["id"]]
    assert await page(customer=customer) == [third["id"], first["id"]]
    assert await page(payment_method=second["payment_method"]) == [second["id"]]
    assert await page(created={"gt": now + 60}) == []
    assert await page(created={"lte": now + 60}, customer=customer, limit=1) == [third["id"]]

    attempts = await shop.ok("GET", "/v1/setup_attempts", {"setup_intent": first["id"], "created": {"lte": now + 60}})
    assert (attempts["url"], len(attempts["data"])) == ("/v1/setup_attempts", 1)
    assert attempts["data"][0]["payment_method"] == first["payment_method"]
    assert await shop.refused("GET", "/v1/setup_attempts") == (400, "parameter_missing", "setup_intent")


@pytest.mark.parametrize(
    ("method", "path", "params", "param"),
    [
        ("GET", "/v1/setup_intents/ID", {}, "intent"),
        ("POST", "/v1/setup_intents/ID", {"description": "x"}, "intent"),
        ("POST", "/v1/setup_intents/ID/confirm", {"payment_method": "pm_card_visa"}, "intent"),
        ("POST", "/v1/setup_intents/ID/cancel", {}, "intent"),
        ("GET", "/v1/setup_attempts", {"setup_intent": "ID"}, "setup_intent"),
        ("GET", "/v1/setup_intents", {"starting_after": "ID"}, "starting_after"),
    ],
)
async def test_another_merchants_is_like_nobodys(
    shop: CardShop, method: str, path: str, params: dict[str, str], param: str
) -> None:
    made = await shop.ok("POST", "/v1/setup_intents")

    async def answer(id: str, key: str) -> dict[str, Any]:
        given = {name: value.replace("ID", id) for name, value in params.items()}
        error = await shop.error(method, path.replace("ID", id), given, key=key)
        del error["request_log_url"]
        return {name: str(value).replace(id, "…") for name, value in error.items()}

    found = await answer(made["id"], await shop.foreign_key())
    status = "400" if param in params else "404"
    assert (found["status"], found["code"], found["param"]) == (status, "resource_missing", param)
    assert found == await answer("seti_nobodys", await shop.foreign_key())
    assert found == await answer(made["id"], shop.merchant.live_key)
