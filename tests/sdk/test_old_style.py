"""The SDK as it was used for years: one key for the whole process, methods on the resources."""

from collections.abc import Iterator

import pytest
import stripe
from sdk_shop import Shop


@pytest.fixture(autouse=True)
def one_key_for_all(shop: Shop) -> Iterator[None]:
    before = stripe.api_key, stripe.api_base, stripe.max_network_retries
    stripe.api_key, stripe.api_base, stripe.max_network_retries = shop.key, shop.url, 0
    yield
    stripe.api_key, stripe.api_base, stripe.max_network_retries = before


def test_payment_intent() -> None:
    made = stripe.PaymentIntent.create(amount=900, currency="eur", capture_method="manual")
    made = stripe.PaymentIntent.modify(made.id, description="Nine")
    made = stripe.PaymentIntent.confirm(made.id, payment_method="pm_card_visa")
    assert made.status == "requires_capture"
    assert made.capture(amount_to_capture=800).amount_received == 800
    assert stripe.PaymentIntent.retrieve(made.id).description == "Nine"


def test_charge_and_refund() -> None:
    charge = stripe.Charge.create(amount=900, currency="eur", source="tok_visa")
    refund = stripe.Refund.create(charge=charge.id, amount=100)
    assert charge.refresh().amount_refunded == refund.amount == 100


def test_customer() -> None:
    customer = stripe.Customer.create(email="old@example.com", source="tok_visa")
    assert stripe.Charge.create(amount=900, currency="eur", customer=customer.id).customer == customer.id
    assert customer.delete().deleted


def test_pages() -> None:
    made = stripe.PaymentIntent.create(amount=901, currency="eur")
    first = next(iter(stripe.PaymentIntent.list(limit=1).auto_paging_iter()))
    assert first.id == made.id
    assert stripe.PaymentIntent.search(query="amount:901").data[0].id == made.id


def test_errors() -> None:
    with pytest.raises(stripe.CardError):
        stripe.Charge.create(amount=900, currency="eur", source="tok_chargeDeclined")
    with pytest.raises(stripe.InvalidRequestError):
        stripe.PaymentIntent.retrieve("pi_frobnicate")


def test_keys_of_one_request(shop: Shop) -> None:
    made = stripe.PaymentIntent.create(
        amount=900, currency="eur", idempotency_key=f"old-{shop.account}", api_key=shop.key, stripe_version="2020-08-27"
    )
    assert made.last_response is not None
    assert made.last_response.headers["stripe-version"] == "2020-08-27"


@pytest.mark.filterwarnings("ignore:Use 'content=")  # The SDK's own way with httpx.
async def test_the_asynchronous_methods() -> None:
    made = await stripe.PaymentIntent.create_async(amount=900, currency="eur")
    assert (await stripe.PaymentIntent.retrieve_async(made.id)).id == made.id
