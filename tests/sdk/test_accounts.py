"""The merchant's own account, and the bank accounts that it has in test mode, through the official SDK."""

from collections.abc import Iterator

import pytest
import stripe
from sdk_shop import Shop, until
from tillway_server import TillwayServer

DE = {"object": "bank_account", "country": "DE", "currency": "eur", "account_number": "DE89370400440532013000"}


@pytest.fixture
def fresh(tillway_server: TillwayServer) -> Iterator[Shop]:
    found = Shop(tillway_server, tillway_server.new_account())
    yield found
    found.http.close()


def test_the_own_account(fresh: Shop) -> None:
    own = fresh.v1.accounts.retrieve_current()
    assert isinstance(own, stripe.Account)
    assert (own.id, own.country, own.default_currency, own.type) == (fresh.account, "US", "usd", "standard")
    assert (own.charges_enabled, own.payouts_enabled, own.details_submitted) == (True, True, True)
    assert own.settings is not None and own.settings.payouts is not None
    assert own.settings.payouts.schedule.interval == "manual"
    assert fresh.v1.accounts.retrieve(fresh.account) == own
    assert fresh.v1.accounts.list().data == []
    with pytest.raises(stripe.PermissionError) as caught:
        fresh.v1.accounts.retrieve("acct_0000000000000001")
    assert caught.value.http_status == 403 and "own account" in str(caught.value)
    live = fresh.http.get("/v1/account", headers={"Authorization": f"Bearer {fresh.live_key}"}).json()
    assert (live["id"], live["charges_enabled"], live["external_accounts"]["data"]) == (fresh.account, False, [])


def test_a_fresh_account_can_pay_out(fresh: Shop) -> None:
    path = f"/v1/accounts/{fresh.account}/external_accounts"
    own = fresh.v1.accounts.retrieve_current()
    assert own.external_accounts is not None
    (dollars,) = own.external_accounts.data
    assert (dollars.currency, dollars.last4, dollars.default_for_currency) == ("usd", "6789", True)
    assert own.external_accounts.url == path
    fresh.pay("pm_card_bypassPending", amount=5000, currency="usd")
    fresh.pay("pm_card_bypassPending", amount=5000, currency="eur")
    accounts = fresh.v1.accounts.external_accounts
    listed = accounts.list(fresh.account).data
    assert [one.currency for one in listed] == ["usd", "eur"] and listed[0] == dollars
    assert accounts.retrieve(fresh.account, listed[1].id) == listed[1]
    first_page = accounts.list(fresh.account, {"limit": 1})
    assert (first_page.data, first_page.has_more) == ([dollars], True)
    paid = fresh.v1.payouts.create({"amount": 1000, "currency": "usd", "expand": ["destination"]})
    assert isinstance(paid.destination, stripe.BankAccount) and paid.destination.id == dollars.id
    named = fresh.v1.payouts.create({"amount": 1000, "currency": "eur", "destination": listed[1].id})
    assert named.destination == listed[1].id
    again = fresh.v1.payouts.create({"amount": 1000, "currency": "usd"})
    assert again.destination == dollars.id
    assert {one.id for one in accounts.list(fresh.account).data} == {one.id for one in listed}
    until(lambda: {fresh.v1.payouts.retrieve(one.id).status for one in (paid, named, again)} == {"paid"})


def test_an_account_of_the_merchants_takes_its_place(fresh: Shop) -> None:
    accounts = fresh.v1.accounts.external_accounts
    fresh.pay("pm_card_bypassPending", amount=5000)
    provided = next(one for one in accounts.list(fresh.account).data if one.currency == "eur")
    with pytest.raises(stripe.InvalidRequestError) as caught:
        accounts.delete(fresh.account, provided.id)
    assert caught.value.code == "external_account_default"
    noted = accounts.update(fresh.account, provided.id, {"metadata": {"a": "1"}})
    assert noted.metadata is not None and noted.metadata.to_dict() == {"a": "1"}
    assert accounts.retrieve(fresh.account, provided.id) == noted
    made = accounts.create(fresh.account, {"external_account": DE})
    assert made.default_for_currency
    assert not accounts.retrieve(fresh.account, provided.id).default_for_currency
    assert fresh.v1.payouts.create({"amount": 1000, "currency": "eur"}).destination == made.id
    assert accounts.delete(fresh.account, provided.id).deleted
