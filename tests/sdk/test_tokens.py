"""Tokens: made in a browser with the publishable key, used once."""

import pytest
import stripe
from sdk_shop import Shop, card


def test_create_and_retrieve(shop: Shop) -> None:
    made = shop.v1.tokens.create({"card": card("4242424242424242", name="Anna", address_zip="10115")})
    assert (made.type, made.used, made.livemode) == ("card", False, False)
    assert made.card is not None
    seen = made.card
    assert (seen.brand, seen.last4, seen.name, seen.funding) == ("Visa", "4242", "Anna", "credit")
    assert (seen.address_zip, seen.fingerprint is not None) == ("10115", True)
    assert shop.v1.tokens.retrieve(made.id) == made


def test_with_the_publishable_key(shop: Shop) -> None:
    made = shop.public.tokens.create({"card": card("5555555555554444")})
    assert shop.v1.charges.create({"amount": 700, "currency": "eur", "source": made.id}).paid
    assert shop.v1.tokens.retrieve(made.id).used


def test_the_same_card_has_the_same_fingerprint(shop: Shop, own_shop: Shop) -> None:
    first, second = (shop.v1.tokens.create({"card": card("4242424242424242")}).card for _ in range(2))
    other = own_shop.v1.tokens.create({"card": card("4242424242424242")}).card
    assert first is not None and second is not None and other is not None
    assert first.fingerprint == second.fingerprint
    assert other.fingerprint is not None


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("number", "4242424242424241", "incorrect_number"),
        ("exp_month", 13, "invalid_expiry_month"),
        ("exp_year", 1999, "invalid_expiry_year"),
        ("cvc", "9", "invalid_cvc"),
    ],
)
def test_card_data_that_cannot_be(shop: Shop, field: str, value: object, code: str) -> None:
    given = {**card("4242424242424242"), field: value}
    with pytest.raises(stripe.CardError) as caught:
        shop.v1.tokens.create({"card": given})
    assert (caught.value.code, caught.value.param) == (code, f"card[{field}]")


@pytest.mark.parametrize("field", ["number", "exp_month", "exp_year"])
def test_card_data_that_is_missing(shop: Shop, field: str) -> None:
    given = {name: value for name, value in card("4242424242424242").items() if name != field}
    with pytest.raises(stripe.StripeError) as caught:
        shop.v1.tokens.create({"card": given})
    assert getattr(caught.value, "param", None) == f"card[{field}]"


@pytest.mark.parametrize("given", [{}, {"pii": {"id_number": "1"}}, {"bank_account": {"country": "DE"}}])
def test_tokens_of_other_things(shop: Shop, given: dict[str, object]) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        shop.v1.tokens.create(given)


def test_a_declined_card_makes_a_token(shop: Shop) -> None:
    made = shop.v1.tokens.create({"card": card("4000000000000002")})
    with pytest.raises(stripe.CardError):
        shop.v1.charges.create({"amount": 700, "currency": "eur", "source": made.id})


def test_a_token_becomes_a_payment_method(shop: Shop) -> None:
    made = shop.v1.tokens.create({"card": card("4242424242424242")})
    method = shop.v1.payment_methods.create({"type": "card", "card": {"token": made.id}})
    assert method.card is not None and method.card.last4 == "4242"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.payment_methods.create({"type": "card", "card": {"token": made.id}})
    assert caught.value.code == "token_already_used"
