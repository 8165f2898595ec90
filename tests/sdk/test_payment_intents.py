"""Payments through the official SDK."""

import re
from typing import Any

import pytest
import stripe
from sdk_shop import RETURN_URL, Shop, card


def test_create_then_confirm(shop: Shop) -> None:
    made = shop.v1.payment_intents.create({"amount": 4200, "currency": "eur"})
    assert (made.status, made.amount, made.currency, made.amount_received) == (
        "requires_payment_method",
        4200,
        "eur",
        0,
    )
    assert re.fullmatch(rf"{made.id}_secret_\w+", made.client_secret or "")
    paid = shop.v1.payment_intents.confirm(made.id, {"payment_method": "pm_card_visa", "return_url": RETURN_URL})
    assert (paid.status, paid.amount_received, paid.latest_charge) == ("succeeded", 4200, paid.latest_charge)
    assert paid.payment_method is not None


def test_create_with_a_method_waits_for_confirmation(shop: Shop) -> None:
    made = shop.v1.payment_intents.create({"amount": 500, "currency": "usd", "payment_method": "pm_card_visa"})
    assert made.status == "requires_confirmation"
    assert shop.v1.payment_intents.confirm(made.id).status == "succeeded"


def test_create_and_confirm_at_once(shop: Shop) -> None:
    paid = shop.pay(description="Order 7", metadata={"order": "7"}, receipt_email="anna@example.com")
    assert (paid.status, paid.description, paid.receipt_email) == ("succeeded", "Order 7", "anna@example.com")
    assert paid.metadata.to_dict() == {"order": "7"}


def test_retrieve_is_what_was_answered(shop: Shop) -> None:
    paid = shop.pay()
    assert shop.v1.payment_intents.retrieve(paid.id) == paid


def test_payment_method_data(shop: Shop) -> None:
    paid = shop.pay(
        None,
        payment_method_data={
            "type": "card",
            "card": card("4242424242424242"),
            "billing_details": {"name": "Anna", "address": {"postal_code": "10115", "line1": "Allee 1"}},
        },
        expand=["payment_method", "latest_charge"],
    )
    assert paid.status == "succeeded"
    method = paid.payment_method
    assert isinstance(method, stripe.PaymentMethod) and method.card is not None
    assert (method.card.brand, method.card.last4, method.card.exp_year) == ("visa", "4242", 2034)
    assert method.billing_details.name == "Anna"
    charge = paid.latest_charge
    checks = charge.payment_method_details.card.checks
    assert (checks.cvc_check, checks.address_postal_code_check, checks.address_line1_check) == ("pass", "pass", "pass")


def test_a_token_in_payment_method_data(shop: Shop) -> None:
    paid = shop.pay(None, payment_method_data={"type": "card", "card": {"token": "tok_visa"}})
    assert paid.status == "succeeded"


def test_a_method_used_once_cannot_be_used_again(shop: Shop) -> None:
    paid = shop.pay()
    with pytest.raises(stripe.InvalidRequestError, match="attach"):
        shop.pay(str(paid.payment_method))


def test_a_second_confirmation_is_refused(shop: Shop) -> None:
    paid = shop.pay()
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.payment_intents.confirm(paid.id)
    assert caught.value.code == "payment_intent_unexpected_state"
    error: Any = caught.value.error
    assert error.payment_intent.id == paid.id


def test_confirmation_needs_a_method(shop: Shop) -> None:
    made = shop.v1.payment_intents.create({"amount": 500, "currency": "usd"})
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.payment_intents.confirm(made.id)
    assert caught.value.code == "payment_intent_unexpected_state"


# Manual capture.


def test_capture_all(shop: Shop) -> None:
    held = shop.authorized()
    assert (held.status, held.amount_capturable, held.amount_received) == ("requires_capture", 4200, 0)
    taken = shop.v1.payment_intents.capture(held.id, {"expand": ["latest_charge.balance_transaction"]})
    assert (taken.status, taken.amount_capturable, taken.amount_received) == ("succeeded", 0, 4200)
    charge = taken.latest_charge
    assert isinstance(charge, stripe.Charge) and charge.captured and charge.amount_captured == 4200
    assert isinstance(charge.balance_transaction, stripe.BalanceTransaction)


def test_capture_a_part_releases_the_rest(shop: Shop) -> None:
    held = shop.authorized()
    taken = shop.v1.payment_intents.capture(held.id, {"amount_to_capture": 1000, "expand": ["latest_charge"]})
    assert (taken.status, taken.amount, taken.amount_received) == ("succeeded", 4200, 1000)
    charge = taken.latest_charge
    assert isinstance(charge, stripe.Charge)
    assert (charge.amount, charge.amount_captured, charge.amount_refunded, charge.refunded) == (4200, 1000, 3200, False)


def test_capture_too_much(shop: Shop) -> None:
    held = shop.authorized()
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.payment_intents.capture(held.id, {"amount_to_capture": 4201})
    assert caught.value.param == "amount_to_capture"
    assert shop.v1.payment_intents.capture(held.id).status == "succeeded"


def test_capture_twice(shop: Shop) -> None:
    held = shop.authorized()
    shop.v1.payment_intents.capture(held.id)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.payment_intents.capture(held.id)
    assert caught.value.code == "payment_intent_unexpected_state"


def test_capture_what_is_captured_already(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="requires_capture"):
        shop.v1.payment_intents.capture(shop.pay().id)


def test_several_captures(shop: Shop) -> None:
    held = shop.authorized()
    first = shop.v1.payment_intents.capture(held.id, {"amount_to_capture": 1000, "final_capture": False})
    rest = held.amount - 1000
    assert (first.status, first.amount_received, first.amount_capturable) == ("requires_capture", 1000, rest)
    last = shop.v1.payment_intents.capture(held.id, {"amount_to_capture": 500})
    assert (last.status, last.amount_received, last.amount_capturable) == ("succeeded", 1500, 0)
    assert shop.v1.refunds.create({"payment_intent": held.id}).amount == 1500


def test_capture_with_words(shop: Shop) -> None:
    held = shop.authorized()
    taken = shop.v1.payment_intents.capture(
        held.id, {"metadata": {"shipped": "yes"}, "statement_descriptor_suffix": "SHIP"}
    )
    assert (taken.metadata.to_dict(), taken.statement_descriptor_suffix) == ({"shipped": "yes"}, "SHIP")


# Cancelling.


def test_cancel_before_a_method(shop: Shop) -> None:
    made = shop.v1.payment_intents.create({"amount": 500, "currency": "usd"})
    gone = shop.v1.payment_intents.cancel(made.id, {"cancellation_reason": "abandoned"})
    assert (gone.status, gone.cancellation_reason) == ("canceled", "abandoned")
    assert gone.canceled_at is not None and gone.canceled_at >= gone.created


def test_cancel_releases_what_was_authorized(shop: Shop) -> None:
    gone = shop.v1.payment_intents.cancel(shop.authorized().id, {"expand": ["latest_charge"]})
    charge = gone.latest_charge
    assert isinstance(charge, stripe.Charge)
    assert (gone.status, gone.amount_capturable) == ("canceled", 0)
    assert (charge.amount_refunded, charge.refunded, charge.captured) == (4200, True, False)


@pytest.mark.parametrize("twice", ["succeeded", "canceled"])
def test_cancel_what_is_over(shop: Shop, twice: str) -> None:
    done = shop.pay() if twice == "succeeded" else shop.v1.payment_intents.cancel(shop.authorized().id)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.payment_intents.cancel(done.id)
    assert caught.value.code == "payment_intent_unexpected_state"
    assert f"status of {twice}" in str(caught.value)


# Incremental authorization.


def test_increment(shop: Shop) -> None:
    held = shop.authorized()
    larger = shop.v1.payment_intents.increment_authorization(held.id, {"amount": 5000, "description": "More"})
    assert (larger.amount, larger.amount_capturable, larger.description) == (5000, 5000, "More")
    assert shop.v1.payment_intents.capture(held.id).amount_received == 5000


@pytest.mark.parametrize("amount", [4200, 100])
def test_increment_only_upwards(shop: Shop, amount: int) -> None:
    held = shop.authorized()
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.payment_intents.increment_authorization(held.id, {"amount": amount})
    assert caught.value.param == "amount"


# Updating.


def test_update(shop: Shop) -> None:
    made = shop.v1.payment_intents.create({"amount": 500, "currency": "usd", "metadata": {"a": "1", "b": "2"}})
    after = shop.v1.payment_intents.update(
        made.id,
        {
            "amount": 700,
            "currency": "eur",
            "description": "Seven",
            "metadata": {"a": "", "c": "3"},
            "shipping": {"name": "Anna", "address": {"line1": "Allee 1", "country": "DE"}},
            "payment_method": "pm_card_mastercard",
        },
    )
    assert (after.amount, after.currency, after.description, after.status) == (
        700,
        "eur",
        "Seven",
        "requires_confirmation",
    )
    assert after.metadata.to_dict() == {"b": "2", "c": "3"}
    assert after.shipping is not None and after.shipping.address is not None and after.shipping.address.country == "DE"


def test_update_unsets(shop: Shop) -> None:
    made = shop.v1.payment_intents.create(
        {"amount": 500, "currency": "usd", "description": "x", "metadata": {"a": "1"}, "receipt_email": "a@example.com"}
    )
    after = shop.v1.payment_intents.update(made.id, {"description": "", "metadata": "", "receipt_email": ""})
    assert (after.description, after.metadata.to_dict(), after.receipt_email) == (None, {}, None)


def test_the_amount_stands_once_it_is_paid(shop: Shop) -> None:
    paid = shop.pay()
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.payment_intents.update(paid.id, {"amount": 1})
    assert caught.value.code == "payment_intent_unexpected_state"
    assert shop.v1.payment_intents.update(paid.id, {"metadata": {"late": "yes"}}).metadata.to_dict() == {"late": "yes"}


# What else a payment carries.


def test_automatic_payment_methods(shop: Shop) -> None:
    made = shop.v1.payment_intents.create(
        {"amount": 500, "currency": "usd", "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"}}
    )
    methods = made.automatic_payment_methods
    assert methods is not None and (methods.enabled, methods.allow_redirects) == (True, "never")


def test_statement_descriptor_on_the_charge(shop: Shop) -> None:
    paid = shop.pay(statement_descriptor_suffix="ORDER 7", expand=["latest_charge"])
    charge = paid.latest_charge
    assert charge.statement_descriptor_suffix == "ORDER 7"
    assert "ORDER 7" in (charge.calculated_statement_descriptor or "")


def test_setup_future_usage_keeps_the_card(shop: Shop) -> None:
    customer = shop.v1.customers.create({"email": "keep@example.com"})
    paid = shop.pay(customer=customer.id, setup_future_usage="off_session", expand=["payment_method"])
    method = paid.payment_method
    assert isinstance(method, stripe.PaymentMethod) and method.customer == customer.id
    again = shop.pay(method.id, customer=customer.id, off_session=True)
    assert again.status == "succeeded"


def test_off_session_without_confirm(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.payment_intents.create({"amount": 500, "currency": "usd", "off_session": True})
    assert caught.value.param == "off_session"


def test_a_method_of_another_customer(shop: Shop) -> None:
    anna, bert = (shop.v1.customers.create({"name": name}) for name in ("Anna", "Bert"))
    method = shop.v1.payment_methods.attach("pm_card_visa", {"customer": anna.id})
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.pay(method.id, customer=bert.id)
    assert caught.value.param == "payment_method"


# With the publishable key, as Stripe.js does.


def test_retrieve_by_client_secret(shop: Shop) -> None:
    made = shop.v1.payment_intents.create({"amount": 500, "currency": "usd", "metadata": {"private": "1"}})
    seen = shop.public.payment_intents.retrieve(made.id, {"client_secret": made.client_secret})
    assert (seen.id, seen.status, "metadata" in seen.to_dict()) == (made.id, "requires_payment_method", False)


def test_expanding_shows_a_page_nothing_of_the_merchants(shop: Shop) -> None:
    customer = shop.v1.customers.create({"description": "private", "metadata": {"rank": "private"}})
    card = shop.v1.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    shop.v1.payment_methods.update(card.id, {"metadata": {"rank": "private"}})
    made = shop.pay(payment_method=card.id, customer=customer.id, metadata={"rank": "private"})
    fields = ["payment_method.customer", "latest_charge.customer", "latest_charge.balance_transaction"]
    seen = shop.public.payment_intents.retrieve(made.id, {"client_secret": made.client_secret, "expand": fields})
    assert seen.payment_method.id == card.id and seen.latest_charge.paid
    assert not any(word in str(seen) for word in ("private", customer.id, "fee_details"))
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.public.payment_intents.confirm(made.id, {"client_secret": made.client_secret})
    said = str(refused.value.json_body)
    assert made.id in said and "private" not in said


def test_confirm_by_client_secret(shop: Shop) -> None:
    made = shop.v1.payment_intents.create({"amount": 500, "currency": "usd"})
    answer = shop.http.post(
        f"/v1/payment_intents/{made.id}/confirm",
        headers={"Authorization": f"Bearer {shop.public_key}"},
        data={
            "client_secret": made.client_secret,
            "payment_method_data[type]": "card",
            "payment_method_data[card][number]": "4242424242424242",
            "payment_method_data[card][exp_month]": "12",
            "payment_method_data[card][exp_year]": "34",
            "payment_method_data[card][cvc]": "123",
            "payment_method_data[guid]": "NA",
            "payment_method_data[payment_user_agent]": "stripe.js/x",
            "expected_payment_method_type": "card",
            "use_stripe_sdk": "true",
            "key": shop.public_key,
        },
    )
    assert (answer.status_code, answer.json().get("status")) == (200, "succeeded"), answer.text


@pytest.mark.parametrize("secret", [None, "pi_x_secret_wrong"])
def test_a_publishable_key_needs_the_right_secret(shop: Shop, secret: str | None) -> None:
    made = shop.v1.payment_intents.create({"amount": 500, "currency": "usd"})
    with pytest.raises((stripe.InvalidRequestError, stripe.AuthenticationError)) as caught:
        shop.public.payment_intents.retrieve(made.id, {"client_secret": secret} if secret else {})
    assert caught.value.http_status is not None and 400 <= caught.value.http_status < 500


def test_a_publishable_key_makes_no_payments(shop: Shop) -> None:
    with pytest.raises(stripe.AuthenticationError) as caught:
        shop.public.payment_intents.create({"amount": 500, "currency": "usd"})
    assert caught.value.error is not None and caught.value.error.code == "secret_key_required"


# Expanding.


def test_expand_nested(shop: Shop) -> None:
    paid = shop.pay(expand=["latest_charge.balance_transaction", "payment_method", "customer"])
    charge = paid.latest_charge
    assert isinstance(charge.balance_transaction, stripe.BalanceTransaction)
    assert isinstance(paid.payment_method, stripe.PaymentMethod)
    assert paid.customer is None


def test_expand_in_a_list(shop: Shop) -> None:
    shop.pay()
    found = shop.v1.payment_intents.list({"limit": 1, "expand": ["data.latest_charge.refunds"]})
    charge = found.data[0].latest_charge
    assert isinstance(charge, stripe.Charge) and charge.refunds is not None and charge.refunds.data == []


@pytest.mark.parametrize("path", ["frobnicate", "amount", "latest_charge.frobnicate", "metadata"])
def test_expand_what_cannot_be_expanded(shop: Shop, path: str) -> None:
    before = [shop.v1.payment_intents.list({"limit": 1}).data, shop.v1.charges.list({"limit": 1}).data]
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        shop.pay(expand=[path])
    after = [shop.v1.payment_intents.list({"limit": 1}).data, shop.v1.charges.list({"limit": 1}).data]
    assert [one.id for found in after for one in found] == [one.id for found in before for one in found]


# Options of cards.


def test_manual_capture_of_cards_only(shop: Shop) -> None:
    held = shop.pay(payment_method_options={"card": {"capture_method": "manual"}})
    assert (held.status, held.capture_method, held.amount_capturable) == ("requires_capture", "automatic", 4200)
    assert shop.v1.payment_intents.capture(held.id).status == "succeeded"


def test_future_usage_of_cards_only(shop: Shop) -> None:
    customer = shop.v1.customers.create()
    options = {"card": {"setup_future_usage": "off_session"}}
    paid = shop.pay(customer=customer.id, payment_method_options=options, expand=["payment_method"])
    assert isinstance(paid.payment_method, stripe.PaymentMethod) and paid.payment_method.customer == customer.id


def test_no_future_usage_of_cards(shop: Shop) -> None:
    customer = shop.v1.customers.create()
    options = {"card": {"setup_future_usage": "none"}}
    paid = shop.pay(
        customer=customer.id,
        setup_future_usage="off_session",
        payment_method_options=options,
        expand=["payment_method"],
    )
    assert isinstance(paid.payment_method, stripe.PaymentMethod) and paid.payment_method.customer is None


@pytest.mark.parametrize("option", ["installments", "mandate_options", "cvc_token", "moto"])
def test_an_option_that_would_change_nothing_is_refused(shop: Shop, option: str) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="does not support") as caught:
        shop.pay(payment_method_options={"card": {option: {"enabled": "true"} if option == "installments" else "x"}})
    assert caught.value.param == f"payment_method_options[card][{option}]"


def test_excluded_types(shop: Shop) -> None:
    made = shop.v1.payment_intents.create({"amount": 500, "currency": "eur", "excluded_payment_method_types": ["card"]})
    assert made.excluded_payment_method_types == ["card"]
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.payment_intents.confirm(made.id, {"payment_method": "pm_card_visa"})
    assert caught.value.param == "payment_method"
