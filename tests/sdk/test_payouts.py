"""Payouts through the official SDK."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import stripe
from sdk_shop import Shop, until
from tillway_server import TillwayServer

IBAN = "DE89370400440532013000"
RETURNED = "DE40370400440532013009"
NO_ACCOUNT = "DE62370400440532013001"
LATER = "DE67370400440532013008"


@pytest.fixture(scope="module")
def rich(tillway_server: TillwayServer) -> Iterator[Shop]:
    """A merchant with an external account and 388.00 EUR that are available."""
    found = Shop(tillway_server, tillway_server.new_account())
    bank(found, IBAN)
    found.pay("pm_card_bypassPending", amount=40_000)
    yield found
    found.http.close()


def bank(shop: Shop, iban: str, **fields: Any) -> str:
    given = {"object": "bank_account", "country": "DE", "currency": "eur", "account_number": iban, **fields}
    return shop.v1.accounts.external_accounts.create(shop.account, {"external_account": given}).id


def balance(shop: Shop) -> int:
    return sum(row.amount for row in shop.v1.balance.retrieve().available if row.currency == "eur")


def pay_out(shop: Shop, amount: int = 1000, **params: Any) -> Any:
    return shop.v1.payouts.create({"amount": amount, "currency": "eur", **params})


def test_pending_at_once_and_cancelled_in_time(rich: Shop) -> None:
    before = balance(rich)
    made = pay_out(
        rich, description="May", metadata={"week": "7"}, statement_descriptor="Chairs", expand=["destination"]
    )
    assert (made.status, made.amount, made.currency, made.method) == ("pending", 1000, "eur", "standard")
    assert (made.description, made.statement_descriptor, made.automatic) == ("May", "Chairs", False)
    assert isinstance(made.destination, stripe.BankAccount) and made.destination.last4 == "3000"
    assert made.arrival_date > made.created and time.gmtime(made.arrival_date).tm_wday < 5
    assert balance(rich) == before - 1000
    changed = rich.v1.payouts.update(made.id, {"metadata": {"month": "May"}})
    assert changed.metadata is not None and changed.metadata.to_dict() == {"week": "7", "month": "May"}
    gone = rich.v1.payouts.cancel(made.id, {"expand": ["failure_balance_transaction"]})
    assert (gone.status, gone.failure_code) == ("canceled", None)
    moved = gone.failure_balance_transaction
    assert isinstance(moved, stripe.BalanceTransaction)
    assert (moved.type, moved.amount, moved.source) == ("payout_cancel", 1000, made.id)
    assert balance(rich) == before
    with pytest.raises(stripe.InvalidRequestError, match="status of canceled") as caught:
        rich.v1.payouts.cancel(made.id)
    assert caught.value.code == "payout_unexpected_state"


def test_paid_failed_and_returned(own_shop: Shop) -> None:
    shop = own_shop
    bank(shop, IBAN)
    shop.pay("pm_card_bypassPending", amount=40_000)
    before = balance(shop)
    paid, failed, returned, slow = (
        pay_out(shop, destination=bank(shop, iban)).id for iban in (IBAN, NO_ACCOUNT, RETURNED, LATER)
    )
    card = shop.v1.accounts.external_accounts.create(shop.account, {"external_account": "tok_visa_debit"}).id
    with pytest.raises(stripe.InvalidRequestError, match="takes usd"):
        pay_out(shop, destination=card)
    assert balance(shop) == before - 4000

    def status(id: str) -> str:
        return shop.v1.payouts.retrieve(id).status

    until(lambda: status(slow) == "in_transit" or status(slow) == "paid")
    until(lambda: (status(paid), status(failed), status(returned)) == ("paid", "failed", "failed"))
    assert balance(shop) == before - 2000

    told = shop.v1.payouts.retrieve(paid)
    assert (told.failure_code, told.failure_balance_transaction) == (None, None)
    assert told.trace_id is not None and told.trace_id.status == "supported"
    lost = shop.v1.payouts.retrieve(failed, {"expand": ["balance_transaction", "failure_balance_transaction"]})
    assert (lost.failure_code, bool(lost.failure_message)) == ("no_account", True)
    for moved, type, amount in (
        (lost.balance_transaction, "payout", -1000),
        (lost.failure_balance_transaction, "payout_failure", 1000),
    ):
        assert isinstance(moved, stripe.BalanceTransaction)
        assert (moved.type, moved.amount, moved.fee, moved.source) == (type, amount, 0, failed)
    assert shop.v1.payouts.retrieve(returned).failure_code == "account_closed"
    told_of = shop.v1.events.list({"type": "payout.*", "limit": 100}).data
    kinds = [event.type for event in told_of if event.data.object["id"] == returned]
    assert kinds == ["payout.updated", "payout.failed", "payout.updated", "payout.paid", "payout.created"]
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.payouts.reverse(paid)
    assert caught.value.code == "connector_unsupported"


def test_more_than_is_available(rich: Shop) -> None:
    rich.pay(amount=90_000)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        pay_out(rich, balance(rich) + 1)
    assert (caught.value.code, caught.value.param) == ("balance_insufficient", "amount")
    with pytest.raises(stripe.InvalidRequestError) as caught:
        rich.v1.payouts.create({"amount": 1, "currency": "usd"})
    assert (caught.value.code, caught.value.param) == ("balance_insufficient", "amount")


def test_of_many_at_once_none_overdraws(tillway_server: TillwayServer) -> None:
    shop = Shop(tillway_server, tillway_server.new_account())
    bank(shop, IBAN)
    shop.pay("pm_card_bypassPending", amount=10_000)
    assert balance(shop) == 9680

    def one(_: int) -> str:
        try:
            return pay_out(shop, 3000).id
        except stripe.InvalidRequestError as refused:
            return str(refused.code)

    with ThreadPoolExecutor(20) as pool:
        came = list(pool.map(one, range(20)))
    assert len([id for id in came if id.startswith("po_")]) == 3
    assert came.count("balance_insufficient") == 17
    assert balance(shop) == 680
    shop.http.close()


def test_many_at_once_that_are_all_affordable(tillway_server: TillwayServer) -> None:
    shop = Shop(tillway_server, tillway_server.new_account())
    bank(shop, IBAN)
    shop.pay("pm_card_bypassPending", amount=10_000)
    with ThreadPoolExecutor(32) as pool:
        made = list(pool.map(lambda _: pay_out(shop, 100).id, range(64)))
    assert len(set(made)) == 64
    assert balance(shop) == 9680 - 6400
    shop.http.close()


def test_a_key_pays_out_once(rich: Shop) -> None:
    before = balance(rich)
    options: stripe.RequestOptions = {"idempotency_key": "payout-1"}
    first, again = (rich.v1.payouts.create({"amount": 700, "currency": "eur"}, options=options) for _ in range(2))
    assert first.id == again.id
    assert balance(rich) == before - 700


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"amount": 100}, "parameter_missing", "currency"),
        ({"currency": "eur"}, "parameter_missing", "amount"),
        ({"amount": 0, "currency": "eur"}, "amount_too_small", "amount"),
        ({"amount": 100, "currency": "eur", "destination": "ba_frobnicate"}, "resource_missing", "destination"),
        ({"amount": 100, "currency": "eur", "method": "instant"}, "instant_payouts_unsupported", "method"),
        ({"amount": 100, "currency": "eur", "source_type": "fpx"}, "parameter_invalid_enum", "source_type"),
        ({"amount": 100, "currency": "eur", "payout_method": "x"}, "parameter_unsupported", "payout_method"),
    ],
)
def test_what_cannot_be_paid_out(rich: Shop, params: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        rich.v1.payouts.create(params)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_list(rich: Shop) -> None:
    account = bank(rich, IBAN)
    first, second = (pay_out(rich, 100, destination=account).id for _ in range(2))
    rich.v1.payouts.cancel(second)
    listed = rich.v1.payouts.list
    assert [one.id for one in listed({"limit": 2}).data] == [second, first]
    assert [one.id for one in listed({"destination": account}).data] == [second, first]
    assert [one.id for one in listed({"destination": account, "status": "canceled"}).data] == [second]
    later = {"gt": int(time.time()) + 7 * 86_400}
    assert listed({"destination": account, "arrival_date": later}).data == []
    moved = rich.v1.balance_transactions.list({"source": second}).data
    assert [one.type for one in moved] == ["payout_cancel", "payout"]
