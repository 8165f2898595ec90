"""Payment methods through the official SDK."""

import pytest
import stripe
from sdk_shop import Shop, card


def test_create(shop: Shop) -> None:
    made = shop.v1.payment_methods.create(
        {
            "type": "card",
            "card": card("4000056655665556"),
            "billing_details": {"name": "Anna", "email": "anna@example.com", "address": {"country": "DE"}},
            "metadata": {"a": "1"},
            "allow_redisplay": "always",
        }
    )
    assert made.card is not None
    assert (made.type, made.card.brand, made.card.funding, made.customer) == ("card", "visa", "debit", None)
    assert (made.billing_details.name, made.allow_redisplay) == ("Anna", "always")
    assert shop.v1.payment_methods.retrieve(made.id) == made


def test_with_the_publishable_key(shop: Shop) -> None:
    made = shop.public.payment_methods.create({"type": "card", "card": card("4242424242424242")})
    assert shop.pay(made.id).status == "succeeded"


def test_attach_detach_attach(shop: Shop) -> None:
    customer = shop.v1.customers.create()
    made = shop.v1.payment_methods.create({"type": "card", "card": card("4242424242424242")})
    assert shop.v1.payment_methods.attach(made.id, {"customer": customer.id}).customer == customer.id
    assert shop.v1.payment_methods.detach(made.id).customer is None
    with pytest.raises(stripe.InvalidRequestError):
        shop.v1.payment_methods.attach(made.id, {"customer": customer.id})
    with pytest.raises(stripe.InvalidRequestError):
        shop.pay(made.id)


def test_attach_twice(shop: Shop) -> None:
    anna, bert = (shop.v1.customers.create({"name": name}) for name in ("Anna", "Bert"))
    made = shop.v1.payment_methods.attach("pm_card_visa", {"customer": anna.id})
    with pytest.raises(stripe.InvalidRequestError):
        shop.v1.payment_methods.attach(made.id, {"customer": bert.id})


def test_each_attached_alias_is_a_method_of_its_own(shop: Shop) -> None:
    customer = shop.v1.customers.create()
    ids = {shop.v1.payment_methods.attach("pm_card_visa", {"customer": customer.id}).id for _ in range(2)}
    assert len(ids) == 2


def test_an_attached_one_pays_often(shop: Shop) -> None:
    customer = shop.v1.customers.create()
    method = shop.v1.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    for _ in range(2):
        assert shop.pay(method.id, customer=customer.id).status == "succeeded"


def test_an_attached_one_needs_its_customer(shop: Shop) -> None:
    customer = shop.v1.customers.create()
    method = shop.v1.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    with pytest.raises(stripe.InvalidRequestError):
        shop.pay(method.id)


def test_lists_of_a_customer(shop: Shop) -> None:
    customer = shop.v1.customers.create()
    ids = [
        shop.v1.payment_methods.attach(alias, {"customer": customer.id}).id
        for alias in ("pm_card_visa", "pm_card_mastercard", "pm_card_amex")
    ]
    for listed in (
        shop.v1.payment_methods.list({"customer": customer.id, "type": "card"}),
        shop.v1.customers.payment_methods.list(customer.id),
    ):
        assert [one.id for one in listed.data] == ids[::-1]
    assert shop.v1.customers.payment_methods.retrieve(customer.id, ids[0]).id == ids[0]
    page = shop.v1.customers.payment_methods.list(customer.id, {"limit": 1})
    assert [one.id for one in page.auto_paging_iter()] == ids[::-1]


def test_update(shop: Shop) -> None:
    customer = shop.v1.customers.create()
    made = shop.v1.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    after = shop.v1.payment_methods.update(
        made.id,
        {"billing_details": {"name": "Anna"}, "metadata": {"a": "1"}, "card": {"exp_month": 11, "exp_year": 2039}},
    )
    assert after.card is not None and after.metadata is not None
    assert (after.billing_details.name, after.card.exp_month, after.card.exp_year) == ("Anna", 11, 2039)
    assert after.metadata.to_dict() == {"a": "1"}


@pytest.mark.parametrize("type", ["bancontact", "klarna", "frobnicate"])
def test_types_that_no_connector_takes(shop: Shop, type: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.payment_methods.create({"type": type})
    assert caught.value.param == "type"


def test_the_default_of_invoices(shop: Shop) -> None:
    customer = shop.v1.customers.create()
    method = shop.v1.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    after = shop.v1.customers.update(
        customer.id,
        {
            "invoice_settings": {"default_payment_method": method.id},
            "expand": ["invoice_settings.default_payment_method"],
        },
    )
    assert after.invoice_settings is not None
    default = after.invoice_settings.default_payment_method
    assert isinstance(default, stripe.PaymentMethod) and default.id == method.id


def test_a_declined_payment_gives_the_method_back(shop: Shop) -> None:
    method = shop.v1.payment_methods.create({"type": "card", "card": card("4000000000000341")})
    for _ in range(2):
        assert shop.declined(method.id).code == "card_declined"
