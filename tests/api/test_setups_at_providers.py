"""A setup in live mode: the provider verifies the card, and payments at another one name the network's id of it."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from provider_shop import ProviderShop, provider_shop

from tillway.connectors.port import ActionRequired
from tillway.domain.setup_intent import SetupIntent
from tillway.testing.connector_contract import CHALLENGED, REFUSED

GOOD = "4242424242424242"


@pytest.fixture(params=["stripe", "adyen"])
async def shop(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[ProviderShop]:
    async with provider_shop(tmp_path, default=request.param) as shop:
        yield shop


def _card(number: str) -> dict[str, Any]:
    return {"type": "card", "card": {"number": number, "exp_month": 12, "exp_year": 2040, "cvc": "123"}}


def _given(number: str, **params: Any) -> dict[str, Any]:
    return {
        "confirm": True,
        "payment_method_data": _card(number),
        "return_url": "https://shop.example/back",
        "expand": ["latest_attempt"],
        **params,
    }


async def _types(shop: ProviderShop) -> list[str]:
    told = (await shop.get("/v1/events", {"limit": 100}))["data"]
    return [event["type"] for event in reversed(told) if event["type"].startswith("setup_intent.")]


async def test_a_card_is_verified_and_kept(shop: ProviderShop) -> None:
    customer = (await shop.post("/v1/customers", {}))["id"]
    given = _given(GOOD, customer=customer)
    for _ in range(2):
        sent = await shop.call("/v1/setup_intents", given, idempotency_key="one")
        assert sent.status == 200 and sent.json["status"] == "succeeded", sent.body
    setup = sent.json
    assert (setup["latest_attempt"]["status"], setup["next_action"]) == ("succeeded", None)
    method = await shop.get(f"/v1/payment_methods/{setup['payment_method']}")
    assert (method["customer"], method["card"]["checks"]["cvc_check"]) == (customer, "pass")
    assert await _types(shop) == ["setup_intent.created", "setup_intent.succeeded"]
    told = [thing for id, thing in shop.stripe.objects.items() if id.startswith("seti_")]
    told += [request.fields for request in shop.adyen.requests if request.path.endswith("/payments")]
    assert len(told) == 1, "the card was verified once"


async def test_a_refused_card_is_not_kept(shop: ProviderShop) -> None:
    customer = (await shop.post("/v1/customers", {}))["id"]
    refused = await shop.call("/v1/setup_intents", _given(REFUSED.number, customer=customer))
    error = refused.json["error"]
    assert (refused.status, error["code"], error["decline_code"]) == (402, "card_declined", "generic_decline")
    setup = error["setup_intent"]
    assert (setup["status"], setup["last_setup_error"]["code"]) == ("requires_payment_method", "card_declined")
    assert (await shop.get("/v1/payment_methods", {"customer": customer}))["data"] == []
    assert await _types(shop) == ["setup_intent.created", "setup_intent.setup_failed"]
    paid = await shop.call(f"/v1/setup_intents/{setup['id']}/confirm", {"payment_method_data": _card(GOOD)})
    assert paid.json["status"] == "succeeded", "another card can be set up"


async def _come_back(shop: ProviderShop, setup: Any, *, passed: bool) -> str:
    """The cardholder decides at the provider's page and returns; where they are sent then."""
    page = setup["next_action"]["redirect_to_url"]["url"]
    stripes = [id for id in shop.stripe.objects if id.startswith("seti_")]
    back = f"/returns/{shop.merchant.account.removeprefix('acct_')}l/{setup['id']}"
    far: Any = shop.stripe if stripes else shop.adyen
    told = await far.customer(ActionRequired(page, stripes[0] if stripes else None), passed=passed)
    secret = shop.app.running.platform.engine.client_secrets
    query = f"secret={secret.return_secret(SetupIntent(id=setup['id'], created=0))}"
    answer = await shop.app.send("GET", back, query=query + (f"&redirectResult={told}" if told else ""))
    assert answer.status == 303, answer.body
    return str(answer.headers["location"])


@pytest.mark.parametrize("passed", [True, False])
async def test_the_cardholder_authenticates_at_the_issuers_page(shop: ProviderShop, passed: bool) -> None:
    waiting = await shop.post("/v1/setup_intents", _given(CHALLENGED.number))
    assert waiting["status"] == waiting["latest_attempt"]["status"] == "requires_action"
    assert re.match("https://(hooks.stripe|checkout.adyen).com/", waiting["next_action"]["redirect_to_url"]["url"])
    path = f"/v1/setup_intents/{waiting['id']}"
    busy = await shop.call(f"{path}/confirm", {"payment_method_data": _card(GOOD)})
    assert (busy.status, busy.json["error"]["code"]) == (400, "setup_intent_unexpected_state")
    location = await _come_back(shop, waiting, passed=passed)
    assert f"redirect_status={'succeeded' if passed else 'failed'}" in location
    ended = await shop.get(path, {"expand[]": "latest_attempt"})
    if passed:
        assert (ended["status"], ended["latest_attempt"]["status"]) == ("succeeded", "succeeded")
    else:
        assert (ended["status"], ended["latest_attempt"]["status"]) == ("requires_payment_method", "failed")


async def test_the_page_of_a_return_asks_nothing(shop: ProviderShop) -> None:
    """A setup that still waits showed the buttons of test mode to the cardholder."""
    waiting = await shop.post("/v1/setup_intents", _given(CHALLENGED.number, return_url=None))
    secret = shop.app.running.platform.engine.client_secrets.return_secret(SetupIntent(id=waiting["id"], created=0))
    back = f"/returns/{shop.merchant.account.removeprefix('acct_')}l/{waiting['id']}"
    answer = await shop.app.send("GET", back, query=f"secret={secret}")
    assert answer.status == 200 and b"<button" not in answer.body and b"Test mode" not in answer.body
    assert b"This authentication is not finished" in answer.body


async def test_a_waiting_setup_is_cancelled_at_the_provider(shop: ProviderShop) -> None:
    waiting = await shop.post("/v1/setup_intents", _given(CHALLENGED.number))
    given = {"cancellation_reason": "abandoned", "expand": ["latest_attempt"]}
    ended = await shop.post(f"/v1/setup_intents/{waiting['id']}/cancel", given)
    assert (ended["status"], ended["cancellation_reason"]) == ("canceled", "abandoned")
    assert ended["latest_attempt"]["status"] == "abandoned"
    assert (await _types(shop))[-1] == "setup_intent.canceled"


async def test_a_card_that_was_set_up_at_adyen_is_charged_at_stripe(tmp_path: Path) -> None:
    async with provider_shop(tmp_path, default="adyen") as shop:
        customer = (await shop.post("/v1/customers", {}))["id"]
        setup = await shop.post("/v1/setup_intents", _given(GOOD, customer=customer))
        [verified] = [request.fields for request in shop.adyen.requests if request.path.endswith("/payments")]
        assert verified["amount"] == {"currency": "EUR", "value": 0}
        assert verified["recurringProcessingModel"] == "UnscheduledCardOnFile"
        await shop.make_default("stripe")
        paid = await shop.post(
            "/v1/payment_intents",
            {
                "amount": 4200,
                "currency": "eur",
                "confirm": True,
                "off_session": True,
                "customer": customer,
                "payment_method": setup["payment_method"],
            },
        )
        assert paid["status"] == "succeeded"
        exempted = "payment_method_options[card][mit_exemption][network_transaction_id]"
        [named] = [form[exempted] for form in shop.stripe.forms if exempted in form]
        assert named == f"net-{verified['reference']}"


async def test_tries_are_bounded_as_those_of_payments(shop: ProviderShop) -> None:
    for _ in range(15):
        assert (await shop.call("/v1/setup_intents", _given(REFUSED.number))).json["error"]["code"] == "card_declined"
    bounded = await shop.call("/v1/setup_intents", _given(REFUSED.number))
    assert (bounded.status, bounded.json["error"]["code"]) == (402, "card_decline_rate_limit_exceeded")


@pytest.mark.parametrize("fault", ["lose_answer", "reset_after"])
async def test_a_lost_answer_is_asked_about_and_the_card_is_verified_once(shop: ProviderShop, fault: str) -> None:
    for far in (shop.stripe, shop.adyen):
        await far.strike({"fault": fault, "operation": "authorize", "times": 1})
    setup = await shop.post("/v1/setup_intents", _given(GOOD))
    await shop.app.wait(60)
    setup = await shop.get(f"/v1/setup_intents/{setup['id']}")
    assert setup["status"] == "succeeded"
    assert len([id for id in shop.stripe.objects if id.startswith("seti_")]) <= 1
    keys = {request.headers["idempotency-key"] for request in shop.adyen.requests}
    assert len(keys) <= 1, "a repeat has the same key"
