"""A live payment that asks for 3-D Secure: refused where the connector cannot do it, never paid without."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from live_bank import CARD, LiveMerchant, live_merchant


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[LiveMerchant]:
    async with live_merchant(tmp_path) as made:
        yield made


@pytest.mark.parametrize("asked", ["any", "challenge"])
async def test_what_the_connector_cannot_do_is_refused(live: LiveMerchant, asked: str) -> None:
    options = {"card": {"request_three_d_secure": asked}}
    refused = await live.pay(payment_method_options=options)
    error = refused.json["error"]
    assert (refused.status, error["code"]) == (400, "connector_unsupported")
    assert error["param"] == "payment_method_options[card][request_three_d_secure]" and asked in error["message"]
    made = (await live.pay(confirm=False, return_url=None, payment_method_options=options)).json
    path = f"/v1/payment_intents/{made['id']}/confirm"
    assert (await live.call(path, {})).json["error"]["code"] == "connector_unsupported"
    assert live.orders == []
    paid = await live.call(path, {"payment_method_options": {"card": {"request_three_d_secure": "automatic"}}})
    assert paid.json["status"] == "succeeded" and len(live.orders) == 1


@pytest.mark.parametrize("asked", ["any", "challenge"])
async def test_a_setup_that_asks_for_it_is_refused(live: LiveMerchant, asked: str) -> None:
    options = {"payment_method_options": {"card": {"request_three_d_secure": asked}}}
    method = (await live.call("/v1/payment_methods", {"type": "card", "card": CARD})).json["id"]
    made = (await live.call("/v1/setup_intents", options)).json
    for path, params in (
        ("/v1/setup_intents", {**options, "payment_method": method, "confirm": True}),
        (f"/v1/setup_intents/{made['id']}/confirm", {"payment_method": method}),
    ):
        error = (await live.call(path, params)).json["error"]
        assert error["code"] == "connector_unsupported" and asked in error["message"]
        assert error["param"] == "payment_method_options[card][request_three_d_secure]"
    saved = await live.call("/v1/setup_intents", {"payment_method": method, "confirm": True})
    assert saved.json["status"] == "succeeded"


@pytest.mark.parametrize("redirects", ["yes", "no"])
async def test_a_verifier_must_be_able_to_send_the_cardholder_on(tmp_path: Path, redirects: str) -> None:
    """A bank that asks the issuer about a card without redirects would drop the request for 3-D Secure."""
    options = {"payment_method_options": {"card": {"request_three_d_secure": "challenge"}}}
    async with live_merchant(tmp_path, verifications="yes", redirects=redirects) as live:
        method = (await live.call("/v1/payment_methods", {"type": "card", "card": CARD})).json["id"]
        given = {"payment_method": method, "confirm": True, "return_url": "https://example.com/"}
        asked = await live.call("/v1/setup_intents", {**given, **options})
        if redirects == "yes":
            assert (asked.status, live.orders[0]["three_d_secure"]) == (200, "challenge")
            return
        assert (asked.status, asked.json["error"]["code"]) == (400, "connector_unsupported")
        assert "'bank'" in asked.json["error"]["message"] and live.orders == []
        assert (await live.call("/v1/setup_intents", given)).json["status"] == "succeeded"


async def test_test_mode_is_authenticated_by_the_simulated_issuer(live: LiveMerchant) -> None:
    card = {"type": "card", "card": {**CARD, "number": "4000000000003220"}}
    given = {"amount": 4200, "currency": "eur", "confirm": True, "return_url": "https://example.com/"}
    options = {"card": {"request_three_d_secure": "any"}}
    params = {**given, "payment_method_data": card, "payment_method_options": options}
    paid = await live.app.ok(live.merchant, "POST", "/v1/payment_intents", params)
    assert paid["status"] == "requires_action"
