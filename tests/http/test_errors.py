"""The error object: Stripe's members, and a link for every code."""

from typing import Any, cast

import msgspec
import pytest

from tillway.domain.refusal import RULES, Refused
from tillway.engine.caller import Caller
from tillway.http.authentication import NOBODY
from tillway.http.errors import STRIPE_CODES, doc_url, internal_error, render_refusal
from tillway.http.render import FLOODED, KEPT_MAX, Renderer

WHERE = {"request_id": "req_1", "base_url": "http://127.0.0.1:8420"}


def test_a_decline_carries_its_charge_and_payment() -> None:
    refused = Refused("card_declined", decline_code="insufficient_funds", charge="ch_1", payment_intent={"id": "pi_1"})
    assert render_refusal(refused, **WHERE) == (
        402,
        {
            "error": {
                "type": "card_error",
                "code": "card_declined",
                "decline_code": "insufficient_funds",
                "message": "Your card was declined.",
                "doc_url": "https://docs.stripe.com/error-codes/card-declined",
                "request_log_url": "http://127.0.0.1:8420/ops/v1/requests/req_1",
                "charge": "ch_1",
                "payment_intent": {"id": "pi_1"},
            }
        },
    )


@pytest.mark.parametrize("code", sorted(RULES))
def test_every_code_can_be_rendered_and_is_explained_somewhere(code: str) -> None:
    status, body = render_refusal(Refused(code, param="a[b]"), **WHERE)
    assert 400 <= status <= 599
    assert body["error"]["type"] in {"api_error", "card_error", "idempotency_error", "invalid_request_error"}
    assert body["error"]["param"] == "a[b]"
    assert body["error"]["message"]
    assert body["error"]["doc_url"] == doc_url(code)
    assert ("docs.stripe.com" in doc_url(code)) is (code in STRIPE_CODES)


def test_what_goes_wrong_inside_is_not_told() -> None:
    status, body = internal_error(**WHERE)
    assert (status, body["error"]["type"]) == (500, "api_error")
    assert "req_1" in body["error"]["message"]


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("4242424242424242", "****"),
        ("DE89370400440532013000", "****"),
        ("de89370400440532013000", "****"),
        ("DE89370400440532013001", "DE89370400440532013001"),
        ("sk_live_" + "0Aa1" * 8, "sk_live_****"),
        ("whsec_" + "0Aa1" * 8, "whsec_****"),
        ("cus_8DmNk5ugCC4cX1P00", "cus_8DmNk5ugCC4cX1P00"),
        ("sk_test_************7uHx", "sk_test_************7uHx"),
    ],
)
def test_what_an_error_does_not_repeat(sent: str, shown: str) -> None:
    refused = Refused("resource_missing", f"No such destination: '{sent}'", param=f"metadata[{sent}]")
    _, document = render_refusal(refused, request_id="req_1", base_url="")
    assert document["error"]["message"] == f"No such destination: '{shown}'"
    assert document["error"]["param"] == f"metadata[{shown}]"


@pytest.mark.parametrize("code", sorted(code for code, rule in RULES.items() if rule.status in FLOODED))
def test_a_refusal_that_is_kept_as_bytes_is_the_same_for_every_request(code: str) -> None:
    renderer = Renderer(WHERE["base_url"], cast(Any, None))
    for message in (None, 'Invalid API Key provided: "sk\u0000_é_4242424242424242'):
        for param in (None, "a[b]"):
            refused = Refused(code, message, param=param)
            for id in ("req_1", "req_2", "req_3"):
                status, body = renderer.refusal(Caller(scope=NOBODY, scope_key=NOBODY.key, request_id=id), refused)
                expected = render_refusal(refused, request_id=id, base_url=WHERE["base_url"])
                assert (status, msgspec.json.decode(body)) == expected
    for number in range(2 * KEPT_MAX):
        renderer.refusal(Caller(scope=NOBODY, scope_key=NOBODY.key), Refused(code, str(number)))
    assert len(renderer._kept) <= KEPT_MAX
