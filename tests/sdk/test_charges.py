"""Charges: those of payments, and the direct ones of old."""

from typing import Any

import pytest
import stripe
from sdk_shop import Shop, card


def charge(shop: Shop, **params: object) -> Any:
    """A direct charge of 20.00 USD to tok_visa."""
    return shop.v1.charges.create({"amount": 2000, "currency": "usd", "source": "tok_visa", **params})


def test_create_with_a_test_token(shop: Shop) -> None:
    made = charge(shop, description="Order 8", metadata={"order": "8"}, expand=["balance_transaction"])
    assert (made.status, made.paid, made.captured, made.amount_captured) == ("succeeded", True, True, 2000)
    assert (made.description, made.metadata.to_dict(), made.payment_intent) == ("Order 8", {"order": "8"}, None)
    moved = made.balance_transaction
    assert isinstance(moved, stripe.BalanceTransaction)
    assert (moved.amount, moved.fee, moved.net, moved.type) == (2000, 88, 1912, "charge")
    assert shop.v1.charges.retrieve(made.id).id == made.id


def test_create_with_a_token_of_ours(shop: Shop) -> None:
    token = shop.v1.tokens.create({"card": card("4242424242424242", name="Anna")})
    made = charge(shop, source=token.id)
    assert made.payment_method_details is not None and made.payment_method_details.card is not None
    assert (made.status, made.payment_method_details.card.last4) == ("succeeded", "4242")
    assert made.billing_details.name == "Anna"


def test_a_token_is_spent_by_a_charge(shop: Shop) -> None:
    token = shop.v1.tokens.create({"card": card("4242424242424242")})
    charge(shop, source=token.id)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        charge(shop, source=token.id)
    assert caught.value.code == "token_already_used"


def test_create_with_a_customers_card(shop: Shop) -> None:
    customer = shop.v1.customers.create({"source": "tok_mastercard"})
    made = charge(shop, source=None, customer=customer.id)
    assert made.customer == customer.id
    assert made.payment_method_details is not None and made.payment_method_details.card is not None
    assert made.payment_method_details.card.brand == "mastercard"


def test_a_customer_without_a_card(shop: Shop) -> None:
    customer = shop.v1.customers.create()
    with pytest.raises(stripe.CardError) as caught:
        charge(shop, source=None, customer=customer.id)
    assert caught.value.code == "missing"


def test_neither_source_nor_customer(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.charges.create({"amount": 2000, "currency": "usd"})
    assert (caught.value.code, caught.value.param) == ("parameter_missing", "source")


@pytest.mark.parametrize(
    ("source", "code", "decline_code"),
    [
        ("tok_chargeDeclined", "card_declined", "generic_decline"),
        ("tok_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("tok_chargeDeclinedExpiredCard", "expired_card", None),
    ],
)
def test_declined(shop: Shop, source: str, code: str, decline_code: str | None) -> None:
    with pytest.raises(stripe.CardError) as caught:
        charge(shop, source=source)
    error = caught.value
    assert (error.code, error.http_status) == (code, 402)
    assert error.error is not None
    if decline_code:
        assert error.error.decline_code == decline_code
    failed = shop.v1.charges.retrieve(str(error.error.charge))
    assert (failed.status, failed.failure_code) == ("failed", code)


def test_authorize_then_capture(shop: Shop) -> None:
    held = charge(shop, capture=False)
    assert (held.status, held.captured, held.balance_transaction) == ("succeeded", False, None)
    taken = shop.v1.charges.capture(held.id)
    assert (taken.captured, taken.amount_captured, taken.amount_refunded) == (True, 2000, 0)
    assert taken.balance_transaction is not None


def test_capture_a_part(shop: Shop) -> None:
    taken = shop.v1.charges.capture(charge(shop, capture=False).id, {"amount": 500, "receipt_email": "a@example.com"})
    assert (taken.amount_captured, taken.amount_refunded, taken.refunded) == (500, 1500, False)
    assert taken.receipt_email == "a@example.com"


def test_capture_too_much(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.charges.capture(charge(shop, capture=False).id, {"amount": 2001})
    assert caught.value.param == "amount"


def test_capture_twice(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.charges.capture(charge(shop).id)
    assert caught.value.code == "charge_already_captured"


def test_capture_the_charge_of_a_payment(shop: Shop) -> None:
    held = shop.authorized()
    taken = shop.v1.charges.capture(str(held.latest_charge))
    assert taken.captured
    assert shop.v1.payment_intents.retrieve(held.id).status == "succeeded"


def test_update(shop: Shop) -> None:
    made = charge(shop, metadata={"a": "1", "b": "2"})
    after = shop.v1.charges.update(
        made.id,
        {
            "description": "Nine",
            "metadata": {"a": ""},
            "receipt_email": "b@example.com",
            "fraud_details": {"user_report": "safe"},
            "shipping": {"name": "Anna", "address": {"line1": "Allee 1"}},
        },
    )
    assert (after.description, after.metadata.to_dict(), after.receipt_email) == ("Nine", {"b": "2"}, "b@example.com")
    assert after.fraud_details is not None and after.fraud_details.user_report == "safe"
    assert after.shipping is not None and after.shipping.name == "Anna"
    assert shop.v1.charges.retrieve(made.id) == after


def test_an_authorization_cannot_be_charged_a_fee_for_another(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        charge(shop, application_fee_amount=10)
    assert (caught.value.code, caught.value.param) == ("parameter_unsupported", "application_fee_amount")


def test_no_direct_charge_is_a_payment_intent(shop: Shop) -> None:
    made = charge(shop)
    newest = shop.v1.payment_intents.list({"limit": 3}).data
    assert made.id not in {payment.latest_charge for payment in newest}
    assert all(payment.id.startswith("pi_") for payment in newest)


def test_list_by_payment_and_by_customer(shop: Shop) -> None:
    customer = shop.v1.customers.create({"source": "tok_visa"})
    first = charge(shop, source=None, customer=customer.id)
    paid = shop.pay()
    assert [one.id for one in shop.v1.charges.list({"customer": customer.id}).data] == [first.id]
    assert [one.id for one in shop.v1.charges.list({"payment_intent": paid.id}).data] == [paid.latest_charge]


def test_list_by_transfer_group(shop: Shop) -> None:
    made = charge(shop, transfer_group="ORDER_95")
    assert [one.id for one in shop.v1.charges.list({"transfer_group": "ORDER_95"}).data] == [made.id]


def test_raw_card_as_source(shop: Shop) -> None:
    made = charge(shop, source={"object": "card", **card("5555555555554444")})
    assert made.payment_method_details is not None and made.payment_method_details.card is not None
    assert made.payment_method_details.card.last4 == "4444"


def test_idempotent_by_the_sdk(shop: Shop) -> None:
    options = {"idempotency_key": f"charge-{shop.account}"}
    given = {"amount": 2000, "currency": "usd", "source": "tok_visa"}
    first, second = (shop.v1.charges.create(given, options) for _ in range(2))
    assert first.id == second.id
