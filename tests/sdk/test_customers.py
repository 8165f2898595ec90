"""Customers through the official SDK, and their cards of the old kind."""

import pytest
import stripe
from sdk_shop import Shop

ADDRESS = {"line1": "Allee 1", "postal_code": "10115", "city": "Berlin", "country": "DE"}


def test_create_and_retrieve(shop: Shop) -> None:
    made = shop.v1.customers.create(
        {
            "name": "Anna",
            "email": "anna@example.com",
            "phone": "+49 30 1234",
            "description": "First",
            "metadata": {"tier": "gold"},
            "address": ADDRESS,
            "shipping": {"name": "Anna", "address": ADDRESS},
            "preferred_locales": ["de", "en"],
            "tax_exempt": "none",
        }
    )
    assert (made.name, made.email, made.description, made.livemode) == ("Anna", "anna@example.com", "First", False)
    assert made.address is not None and made.address.city == "Berlin"
    assert made.metadata is not None and made.metadata.to_dict() == {"tier": "gold"}
    assert shop.v1.customers.retrieve(made.id) == made


def test_update(shop: Shop) -> None:
    made = shop.v1.customers.create({"name": "Anna", "email": "anna@example.com", "metadata": {"a": "1", "b": "2"}})
    after = shop.v1.customers.update(made.id, {"name": "Änne", "email": "", "metadata": {"a": "", "c": "3"}})
    assert (after.name, after.email) == ("Änne", None)
    assert after.metadata is not None and after.metadata.to_dict() == {"b": "2", "c": "3"}


def test_update_of_an_address_replaces_it(shop: Shop) -> None:
    made = shop.v1.customers.create({"address": ADDRESS})
    after = shop.v1.customers.update(made.id, {"address": {"line1": "Ring 2"}})
    assert after.address is not None
    assert (after.address.line1, after.address.city) == ("Ring 2", None)


def test_deleted_stays_as_a_stub(shop: Shop) -> None:
    made = shop.v1.customers.create({"name": "Anna"})
    gone = shop.v1.customers.delete(made.id)
    assert gone.to_dict() == {"id": made.id, "object": "customer", "deleted": True}
    assert shop.v1.customers.retrieve(made.id).to_dict() == {"id": made.id, "object": "customer", "deleted": True}
    assert made.id not in [one.id for one in shop.v1.customers.list({"limit": 5}).data]


def test_nothing_more_with_a_deleted_one(shop: Shop) -> None:
    made = shop.v1.customers.create()
    shop.v1.customers.delete(made.id)
    for call in (
        lambda: shop.v1.customers.update(made.id, {"name": "x"}),
        lambda: shop.v1.customers.delete(made.id),
        lambda: shop.pay(customer=made.id),
        lambda: shop.v1.payment_methods.attach("pm_card_visa", {"customer": made.id}),
        lambda: shop.v1.setup_intents.create({"customer": made.id}),
    ):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            call()
        assert caught.value.code == "resource_missing"


def test_deleting_detaches_the_cards(shop: Shop) -> None:
    made = shop.v1.customers.create()
    method = shop.v1.payment_methods.attach("pm_card_visa", {"customer": made.id})
    shop.v1.customers.delete(made.id)
    assert shop.v1.payment_methods.retrieve(method.id).customer is None


def test_a_payment_keeps_its_deleted_customer(shop: Shop) -> None:
    made = shop.v1.customers.create()
    paid = shop.pay(customer=made.id)
    shop.v1.customers.delete(made.id)
    seen = shop.v1.payment_intents.retrieve(paid.id, {"expand": ["customer"]}).customer
    assert isinstance(seen, stripe.Customer) and seen.deleted


def test_list_by_email(shop: Shop) -> None:
    email = f"list-{shop.account}@example.com".replace("_", "-")
    made = [shop.v1.customers.create({"email": email}).id for _ in range(3)]
    assert [one.id for one in shop.v1.customers.list({"email": email}).data] == made[::-1]
    page = shop.v1.customers.list({"email": email, "limit": 2})
    assert [one.id for one in page.auto_paging_iter()] == made[::-1]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"email": "nobody"}, "email"),
        ({"address": {"country": "XX"}}, "address[country]"),
        ({"name": "4242 4242 4242 4242"}, "name"),
        ({"tax_exempt": "maybe"}, "tax_exempt"),
        ({"metadata": {"k" * 41: "v"}}, "metadata"),
        ({"source": "tok_frobnicate"}, "source"),
        ({"payment_method": "pm_frobnicate"}, "payment_method"),
        ({"balance": "x"}, "balance"),
    ],
)
def test_wrong_parameters(shop: Shop, given: dict[str, object], param: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.customers.create(given)
    assert (caught.value.param or "").startswith(param)


def test_create_with_a_payment_method(shop: Shop) -> None:
    made = shop.v1.customers.create({"payment_method": "pm_card_visa"})
    listed = shop.v1.customers.payment_methods.list(made.id)
    assert [one.card.last4 for one in listed.data if one.card] == ["4242"]


def test_create_with_a_declined_source(shop: Shop) -> None:
    with pytest.raises(stripe.CardError) as caught:
        shop.v1.customers.create({"source": "tok_chargeDeclined"})
    assert caught.value.code == "card_declined"


# Cards of the old kind.


def test_the_first_card_is_the_default(shop: Shop) -> None:
    made = shop.v1.customers.create({"source": "tok_visa"})
    second = shop.v1.customers.payment_sources.create(made.id, {"source": "tok_mastercard"})
    seen = shop.v1.customers.retrieve(made.id, {"expand": ["default_source", "sources"]})
    default = seen.default_source
    assert isinstance(default, stripe.Card)
    assert (default.brand, default.id != second.id) == ("Visa", True)
    assert seen.sources is not None and {one.id for one in seen.sources.data} == {default.id, second.id}


def test_the_default_card_changes(shop: Shop) -> None:
    made = shop.v1.customers.create({"source": "tok_visa"})
    second = shop.v1.customers.payment_sources.create(made.id, {"source": "tok_mastercard"})
    after = shop.v1.customers.update(made.id, {"default_source": second.id})
    assert after.default_source == second.id
    charge = shop.v1.charges.create({"amount": 700, "currency": "eur", "customer": made.id})
    assert charge.payment_method == second.id


def test_charge_one_of_the_cards(shop: Shop) -> None:
    made = shop.v1.customers.create({"source": "tok_visa"})
    second = shop.v1.customers.payment_sources.create(made.id, {"source": "tok_amex"})
    charge = shop.v1.charges.create({"amount": 700, "currency": "eur", "customer": made.id, "source": second.id})
    assert charge.payment_method == second.id


def test_a_card_of_nobody_else(shop: Shop) -> None:
    anna, bert = shop.v1.customers.create({"source": "tok_visa"}), shop.v1.customers.create()
    with pytest.raises(stripe.StripeError) as caught:
        shop.v1.charges.create(
            {"amount": 700, "currency": "eur", "customer": bert.id, "source": str(anna.default_source)}
        )
    assert caught.value.http_status in (402, 404)


def test_card_update_list_and_delete(shop: Shop) -> None:
    made = shop.v1.customers.create({"source": "tok_visa"})
    id = str(made.default_source)
    sources = shop.v1.customers.payment_sources
    after = sources.update(made.id, id, {"name": "Anna", "exp_year": 2039, "address_zip": "10115"})
    assert isinstance(after, stripe.Card)
    assert (after.name, after.exp_year, after.address_zip) == ("Anna", 2039, "10115")
    assert [one.id for one in sources.list(made.id, {"object": "card"}).data] == [id]
    assert sources.retrieve(made.id, id).id == id
    assert sources.delete(made.id, id).deleted
    assert sources.list(made.id).data == []
    assert shop.v1.customers.retrieve(made.id).default_source is None
