"""Setup intents and their attempts: cards kept for later."""

from typing import Any

import pytest
import stripe
from sdk_shop import RETURN_URL, Shop, card, challenge


@pytest.fixture
def customer(shop: Shop) -> str:
    return shop.v1.customers.create().id


def test_create_then_confirm(shop: Shop, customer: str) -> None:
    made = shop.v1.setup_intents.create({"customer": customer, "usage": "off_session", "metadata": {"a": "1"}})
    assert (made.status, made.usage, made.payment_method) == ("requires_payment_method", "off_session", None)
    done = shop.v1.setup_intents.confirm(made.id, {"payment_method": "pm_card_visa"})
    assert done.status == "succeeded"
    assert shop.v1.payment_methods.retrieve(str(done.payment_method)).customer == customer
    assert shop.v1.setup_intents.retrieve(made.id) == done


def test_confirm_at_once_and_pay_later(shop: Shop, customer: str) -> None:
    done = shop.v1.setup_intents.create({"customer": customer, "payment_method": "pm_card_visa", "confirm": True})
    paid = shop.pay(str(done.payment_method), customer=customer, off_session=True)
    assert paid.status == "succeeded"


def test_payment_method_data(shop: Shop, customer: str) -> None:
    made = shop.v1.setup_intents.create({"customer": customer})
    done = shop.v1.setup_intents.confirm(
        made.id, {"payment_method_data": {"type": "card", "card": card("4242424242424242")}}
    )
    assert done.status == "succeeded"


@pytest.mark.parametrize("outcome", ["pass", "fail"])
def test_challenge(shop: Shop, customer: str, outcome: str) -> None:
    waiting = shop.v1.setup_intents.create(
        {
            "customer": customer,
            "payment_method": "pm_card_authenticationRequiredOnSetup",
            "confirm": True,
            "return_url": RETURN_URL,
        }
    )
    assert waiting.status == "requires_action"
    said = challenge(shop, waiting, outcome)
    assert said["setup_intent"] == waiting.id
    assert said["setup_intent_client_secret"] == waiting.client_secret
    assert said["redirect_status"] == ("succeeded" if outcome == "pass" else "failed")
    after = shop.v1.setup_intents.retrieve(waiting.id)
    if outcome == "pass":
        assert after.status == "succeeded"
        paid = shop.pay(str(after.payment_method), customer=customer, off_session=True)
        assert paid.status == "succeeded"
    else:
        assert after.status == "requires_payment_method"
        assert after.last_setup_error is not None
        assert after.last_setup_error.code == "setup_intent_authentication_failure"


def test_declined(shop: Shop, customer: str) -> None:
    with pytest.raises(stripe.CardError) as caught:
        shop.v1.setup_intents.create(
            {"customer": customer, "payment_method": "pm_card_chargeDeclined", "confirm": True}
        )
    error: Any = caught.value
    assert error.code == "card_declined"
    setup = error.error.setup_intent
    assert (setup.status, setup.last_setup_error.code) == ("requires_payment_method", "card_declined")


def test_attempts(shop: Shop, customer: str) -> None:
    made = shop.v1.setup_intents.create({"customer": customer})
    with pytest.raises(stripe.CardError):
        shop.v1.setup_intents.confirm(made.id, {"payment_method": "pm_card_chargeDeclined"})
    done = shop.v1.setup_intents.confirm(made.id, {"payment_method": "pm_card_visa", "expand": ["latest_attempt"]})
    attempts = shop.v1.setup_attempts.list({"setup_intent": made.id}).data
    assert [one.status for one in attempts] == ["succeeded", "failed"]
    assert attempts[1].setup_error is not None and attempts[1].setup_error.code == "card_declined"
    assert isinstance(done.latest_attempt, stripe.SetupAttempt) and done.latest_attempt.id == attempts[0].id


def test_attempts_of_what(shop: Shop) -> None:
    answer = shop.http.get("/v1/setup_attempts")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "setup_intent")


def test_cancel(shop: Shop) -> None:
    made = shop.v1.setup_intents.create()
    gone = shop.v1.setup_intents.cancel(made.id, {"cancellation_reason": "abandoned"})
    assert (gone.status, gone.cancellation_reason) == ("canceled", "abandoned")
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.setup_intents.confirm(made.id, {"payment_method": "pm_card_visa"})
    assert caught.value.code == "setup_intent_unexpected_state"


def test_update(shop: Shop, customer: str) -> None:
    made = shop.v1.setup_intents.create()
    after = shop.v1.setup_intents.update(
        made.id,
        {"customer": customer, "payment_method": "pm_card_visa", "description": "Later", "metadata": {"a": "1"}},
    )
    assert (after.customer, after.status, after.description) == (customer, "requires_confirmation", "Later")


def test_by_client_secret(shop: Shop, customer: str) -> None:
    made = shop.v1.setup_intents.create({"customer": customer})
    seen = shop.public.setup_intents.retrieve(made.id, {"client_secret": str(made.client_secret)})
    assert seen.id == made.id
    answer = shop.http.post(
        f"/v1/setup_intents/{made.id}/confirm",
        headers={"Authorization": f"Bearer {shop.public_key}"},
        data={"client_secret": made.client_secret, "payment_method": "pm_card_visa", "use_stripe_sdk": "true"},
    )
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
    with pytest.raises(stripe.StripeError):
        shop.public.setup_intents.retrieve(made.id)


def test_list_by_customer(shop: Shop, customer: str) -> None:
    made = [shop.v1.setup_intents.create({"customer": customer}).id for _ in range(2)]
    assert [one.id for one in shop.v1.setup_intents.list({"customer": customer}).data] == made[::-1]


def test_confirm_without_a_method(shop: Shop) -> None:
    made = shop.v1.setup_intents.create()
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.setup_intents.confirm(made.id)
    assert caught.value.param == "payment_method"


def test_without_a_customer(shop: Shop) -> None:
    done = shop.v1.setup_intents.create({"payment_method": "pm_card_visa", "confirm": True})
    assert (done.status, done.customer) == ("succeeded", None)
