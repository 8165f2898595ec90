"""3-D Secure: the SDK confirms, a browser goes to the challenge page and comes back."""

import httpx
import pytest
import stripe
from sdk_shop import RETURN_URL, Shop, card, challenge

REQUIRED = ["pm_card_authenticationRequired", "pm_card_authenticationRequiredOnSetup", "pm_card_threeDSecure2Required"]


@pytest.mark.parametrize("method", REQUIRED)
def test_required_and_passed(shop: Shop, method: str) -> None:
    waiting = shop.pay(method)
    assert (waiting.status, waiting.amount_received) == ("requires_action", 0)
    assert waiting.next_action is not None and waiting.next_action.type == "redirect_to_url"
    said = challenge(shop, waiting, "pass")
    assert said == {
        "order": "7",
        "payment_intent": waiting.id,
        "payment_intent_client_secret": waiting.client_secret,
        "redirect_status": "succeeded",
    }
    paid = shop.v1.payment_intents.retrieve(waiting.id, {"expand": ["latest_charge"]})
    charge = paid.latest_charge
    assert (paid.status, paid.next_action, paid.amount_received) == ("succeeded", None, 4200)
    assert charge.payment_method_details.card.three_d_secure.result == "authenticated"


def test_required_and_failed(shop: Shop) -> None:
    waiting = shop.pay("pm_card_authenticationRequired")
    assert challenge(shop, waiting, "fail")["redirect_status"] == "failed"
    after = shop.v1.payment_intents.retrieve(waiting.id)
    assert (after.status, after.payment_method) == ("requires_payment_method", None)
    assert after.last_payment_error is not None
    assert after.last_payment_error.code == "payment_intent_authentication_failure"
    paid = shop.v1.payment_intents.confirm(after.id, {"payment_method": "pm_card_visa"})
    assert paid.status == "succeeded"


def test_passed_and_then_declined(shop: Shop) -> None:
    waiting = shop.pay("pm_card_threeDSecureRequiredChargeDeclined")
    assert challenge(shop, waiting, "pass")["redirect_status"] == "failed"
    after = shop.v1.payment_intents.retrieve(waiting.id)
    assert after.last_payment_error is not None and after.last_payment_error.code == "card_declined"


def test_a_challenge_is_answered_once(shop: Shop) -> None:
    waiting = shop.pay("pm_card_authenticationRequired")
    challenge(shop, waiting, "pass")
    assert waiting.next_action is not None and waiting.next_action.redirect_to_url is not None
    url = str(waiting.next_action.redirect_to_url.url)
    assert "This authentication is over" in httpx.get(url).text
    again = httpx.post(url, data={"outcome": "fail"})
    assert "redirect_status=succeeded" in again.headers["location"]
    assert shop.v1.payment_intents.retrieve(waiting.id).status == "succeeded"


def test_the_page_needs_its_secret(shop: Shop) -> None:
    waiting = shop.pay("pm_card_authenticationRequired")
    assert waiting.next_action is not None and waiting.next_action.redirect_to_url is not None
    url = str(waiting.next_action.redirect_to_url.url)
    assert httpx.get(url[:-1] + ("a" if url[-1] != "a" else "b")).status_code == 404
    assert httpx.post(url[:-1] + ("a" if url[-1] != "a" else "b"), data={"outcome": "pass"}).status_code == 404
    assert shop.v1.payment_intents.retrieve(waiting.id).status == "requires_action"


def test_a_page_without_a_way_back(shop: Shop) -> None:
    made = shop.v1.payment_intents.create({"amount": 900, "currency": "eur"})
    waiting = shop.v1.payment_intents.confirm(made.id, {"payment_method": "pm_card_authenticationRequired"})
    assert waiting.next_action is not None and waiting.next_action.redirect_to_url is not None
    done = httpx.post(str(waiting.next_action.redirect_to_url.url), data={"outcome": "pass"})
    assert done.status_code == 200 and "went through" in done.text


def test_authorize_then_challenge_then_capture(shop: Shop) -> None:
    waiting = shop.authorized(method="pm_card_authenticationRequired")
    challenge(shop, waiting, "pass")
    assert shop.v1.payment_intents.retrieve(waiting.id).status == "requires_capture"
    assert shop.v1.payment_intents.capture(waiting.id).status == "succeeded"


def test_optional_is_not_asked_for(shop: Shop) -> None:
    assert shop.pay("pm_card_threeDSecureOptional").status == "succeeded"


def test_optional_and_asked_for_by_the_merchant(shop: Shop) -> None:
    options = {"card": {"request_three_d_secure": "any"}}
    waiting = shop.pay("pm_card_threeDSecureOptional", payment_method_options=options)
    assert waiting.status == "requires_action"
    assert challenge(shop, waiting, "pass")["redirect_status"] == "succeeded"


def test_a_card_without_it(shop: Shop) -> None:
    options = {"card": {"request_three_d_secure": "any"}}
    assert shop.pay("pm_card_amex_threeDSecureNotSupported", payment_method_options=options).status == "succeeded"


def test_passed_without_a_challenge(shop: Shop) -> None:
    paid = shop.pay(
        None, payment_method_data={"type": "card", "card": card("4000000032200000")}, expand=["latest_charge"]
    )
    charge = paid.latest_charge
    assert (paid.status, charge.payment_method_details.card.three_d_secure.authentication_flow) == (
        "succeeded",
        "frictionless",
    )


def test_the_directory_fails(shop: Shop) -> None:
    error = shop.declined("pm_card_threeDSecureRequiredProcessingError")
    assert error.code == "payment_intent_authentication_failure"


def test_nobody_is_there_to_authenticate(shop: Shop) -> None:
    error = shop.declined("pm_card_authenticationRequired", off_session=True)
    assert error.error is not None
    assert (error.code, error.error.decline_code) == ("authentication_required", "authentication_required")
    assert error.error.payment_intent.status == "requires_payment_method"
    assert error.error.payment_method.id


def test_error_on_requires_action(shop: Shop) -> None:
    error = shop.declined("pm_card_authenticationRequired", error_on_requires_action=True)
    assert error.code == "payment_intent_action_required"


def test_a_card_that_was_set_up_pays_off_session(shop: Shop) -> None:
    customer = shop.v1.customers.create()
    first = shop.pay("pm_card_authenticationRequiredOnSetup", customer=customer.id, setup_future_usage="off_session")
    challenge(shop, first, "pass")
    kept = shop.v1.payment_intents.retrieve(first.id).payment_method
    again = shop.pay(str(kept), customer=customer.id, off_session=True)
    assert again.status == "succeeded"


def test_use_stripe_sdk(shop: Shop) -> None:
    waiting = shop.pay("pm_card_authenticationRequired", use_stripe_sdk=True)
    assert waiting.next_action is not None and waiting.next_action.type == "use_stripe_sdk"


def test_cancel_instead(shop: Shop) -> None:
    waiting = shop.pay("pm_card_authenticationRequired")
    gone = shop.v1.payment_intents.cancel(waiting.id)
    assert (gone.status, gone.next_action) == ("canceled", None)


def test_another_card_instead(shop: Shop) -> None:
    waiting = shop.pay("pm_card_authenticationRequired")
    paid = shop.v1.payment_intents.confirm(waiting.id, {"payment_method": "pm_card_visa", "return_url": RETURN_URL})
    assert paid.status == "succeeded"


def test_the_merchant_confirms_each_step(shop: Shop) -> None:
    waiting = shop.pay("pm_card_authenticationRequired", confirmation_method="manual")
    assert challenge(shop, waiting, "pass")["redirect_status"] == "succeeded"
    after = shop.v1.payment_intents.retrieve(waiting.id)
    assert (after.status, after.amount_received) == ("requires_confirmation", 0)
    with pytest.raises(stripe.InvalidRequestError, match="publishable key"):
        shop.public.payment_intents.confirm(after.id, {"client_secret": after.client_secret})
    assert shop.v1.payment_intents.confirm(after.id).status == "succeeded"


@pytest.mark.parametrize(
    "change", [{"amount": 9900}, {"currency": "usd"}, {"payment_method": "pm_card_threeDSecureRequired"}]
)
def test_another_payment_is_authenticated_anew(shop: Shop, change: dict[str, object]) -> None:
    waiting = shop.pay("pm_card_authenticationRequired", confirmation_method="manual")
    challenge(shop, waiting, "pass")
    shop.v1.payment_intents.update(waiting.id, change)
    assert shop.v1.payment_intents.confirm(waiting.id, {"return_url": RETURN_URL}).status == "requires_action"
