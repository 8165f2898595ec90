"""External accounts through the official SDK."""

from collections.abc import Iterator
from typing import Any

import pytest
import stripe
from sdk_shop import Shop
from tillway_server import TillwayServer

US = {
    "object": "bank_account",
    "country": "US",
    "currency": "usd",
    "account_number": "000123456789",
    "routing_number": "110000000",
}


@pytest.fixture
def fresh(tillway_server: TillwayServer) -> Iterator[Shop]:
    found = Shop(tillway_server, tillway_server.new_account())
    yield found
    found.http.close()


def add(shop: Shop, given: Any, **params: Any) -> Any:
    return shop.v1.accounts.external_accounts.create(shop.account, {"external_account": given, **params})


def test_a_bank_account(fresh: Shop) -> None:
    made = add(fresh, {**US, "account_holder_name": "Zoë Ünal", "account_holder_type": "individual"})
    assert isinstance(made, stripe.BankAccount)
    assert (made.last4, made.routing_number, made.country, made.currency) == ("6789", "110000000", "US", "usd")
    assert (made.account_holder_name, made.status, made.default_for_currency) == ("Zoë Ünal", "new", True)
    twin = add(fresh, {**US, "account_number": "000-123-456-789"})
    assert (twin.fingerprint, twin.default_for_currency) == (made.fingerprint, False)
    accounts = fresh.v1.accounts.external_accounts
    assert accounts.retrieve(fresh.account, made.id) == made
    assert [one.id for one in accounts.list(fresh.account).data] == [twin.id, made.id]
    assert "000123456789" not in fresh.http.get(f"/v1/accounts/{fresh.account}/external_accounts").text


def test_the_default_of_a_currency(fresh: Shop) -> None:
    accounts = fresh.v1.accounts.external_accounts
    first, second = add(fresh, US), add(fresh, US)
    euro = add(fresh, {**US, "country": "DE", "currency": "eur", "account_number": "DE89 3704 0044 0532 0130 00"})
    assert euro.default_for_currency and euro.last4 == "3000"
    changed = accounts.update(fresh.account, second.id, {"default_for_currency": True, "metadata": {"a": "1"}})
    assert changed.metadata is not None
    assert (changed.default_for_currency, changed.metadata.to_dict()) == (True, {"a": "1"})
    assert not accounts.retrieve(fresh.account, first.id).default_for_currency
    third = add(fresh, US, default_for_currency=True)
    defaults = [one.id for one in accounts.list(fresh.account).data if one.default_for_currency]
    assert defaults == [third.id, euro.id]
    with pytest.raises(stripe.InvalidRequestError) as caught:
        accounts.delete(fresh.account, third.id)
    assert caught.value.code == "external_account_default"
    for id in (first.id, second.id, third.id):
        assert accounts.delete(fresh.account, id).deleted
    assert [one.id for one in accounts.list(fresh.account).data] == [euro.id]


def test_cards(fresh: Shop) -> None:
    number = {"object": "card", "number": "4000056655665556", "exp_month": 12, "exp_year": 2034, "currency": "usd"}
    made = add(fresh, number)
    assert isinstance(made, stripe.Card)
    assert (made.last4, made.funding, made.brand, made.currency) == ("5556", "debit", "Visa", "usd")
    token = fresh.v1.tokens.create({"card": {"number": "4000056655665556", "exp_month": 12, "exp_year": 2034}})
    again = add(fresh, token.id)
    assert (again.fingerprint, again.default_for_currency) == (made.fingerprint, False)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        add(fresh, token.id)
    assert caught.value.code == "token_already_used"
    fresh.pay("pm_card_bypassPending", currency="usd")
    paid = fresh.v1.payouts.create({"amount": 100, "currency": "usd", "method": "instant", "destination": again.id})
    assert (paid.type, paid.arrival_date) == ("card", paid.created)


def test_an_email_address(fresh: Shop) -> None:
    path = f"/v1/accounts/{fresh.account}/external_accounts"
    given = {"external_account": {"object": "email", "email": "anna@example.org", "currency": "eur"}}
    made = fresh.http.post(path, json=given).json()
    assert (made["object"], made["email"], made["default_for_currency"]) == ("email", "anna@example.org", True)
    fresh.pay("pm_card_bypassPending")
    paid = fresh.http.post("/v1/payouts", json={"amount": 100, "currency": "eur"}).json()
    assert (paid["type"], paid["destination"], paid["status"]) == ("email", made["id"], "pending")


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"routing_number": "110000001"}, "routing_number_invalid", "routing_number"),
        ({"routing_number": None}, "parameter_missing", "routing_number"),
        ({"account_number": "12"}, "account_number_invalid", "account_number"),
        ({"account_number": "DE89370400440532013001", "country": "DE"}, "account_number_invalid", "account_number"),
        ({"account_number": "DE89370400440532013000"}, "account_number_invalid", "account_number"),
        ({"account_number": None}, "parameter_missing", "account_number"),
        ({"country": None}, "parameter_missing", "country"),
        ({"number": "4242424242424242"}, "parameter_unknown", "number"),
        ({"object": "card"}, "parameter_unknown", "country"),
        ({"currency": "euro"}, "invalid_currency", "currency"),
    ],
)
def test_what_is_no_account(shop: Shop, change: dict[str, Any], code: str, param: str) -> None:
    given = {name: value for name, value in {**US, **change}.items() if value is not None}
    with pytest.raises(stripe.InvalidRequestError) as caught:
        add(shop, given)
    assert (caught.value.code, caught.value.param) == (code, f"external_account[{param}]")
    assert "000123456789" not in str(caught.value)


def test_another_merchants_account(shop: Shop, fresh: Shop) -> None:
    made = add(fresh, US)
    for owner in (shop.account, fresh.account):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            shop.v1.accounts.external_accounts.retrieve(owner, made.id)
        assert caught.value.code == "resource_missing"
