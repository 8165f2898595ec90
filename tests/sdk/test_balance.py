"""The balance and what moves it: every fee and net to the minor unit."""

import pytest
import stripe
from sdk_shop import Shop


def pending(shop: Shop, currency: str) -> int:
    return sum(row.amount for row in shop.v1.balance.retrieve().pending if row.currency == currency)


def available(shop: Shop, currency: str) -> int:
    return sum(row.amount for row in shop.v1.balance.retrieve().available if row.currency == currency)


FEES = """
    4200      eur  152      # 2.9 % of 42.00 is 1.218, and 0.30
    100       eur  33       # 0.029 becomes 0.03
    50        usd  31       # 1.45 cents become 1
    99999999  usd  2900030
    1050      jpy  60       # no decimals: 30.45 become 30, and 30
    123450    kwd  3610     # three decimals
"""


@pytest.mark.parametrize("row", FEES.strip().splitlines(), ids=lambda row: "-".join(row.split()[:2]))
def test_fee_and_net(shop: Shop, row: str) -> None:
    amount, currency, fee = row.split("#")[0].split()
    paid = shop.pay(amount=int(amount), currency=currency, expand=["latest_charge.balance_transaction"])
    assert isinstance(paid.latest_charge, stripe.Charge)
    moved = paid.latest_charge.balance_transaction
    assert isinstance(moved, stripe.BalanceTransaction)
    assert (moved.amount, moved.fee, moved.net) == (int(amount), int(fee), int(amount) - int(fee))
    assert [(part.amount, part.currency, part.type) for part in moved.fee_details] == [
        (int(fee), currency, "stripe_fee")
    ]
    assert (moved.status, moved.reporting_category, moved.currency) == ("pending", "charge", currency)
    assert moved.available_on > moved.created
    assert shop.v1.balance_transactions.retrieve(moved.id) == moved


def test_pending_then_refunded(own_shop: Shop) -> None:
    shop = own_shop
    before = pending(shop, "eur"), available(shop, "eur")
    paid = shop.pay()
    assert pending(shop, "eur") == before[0] + 4200 - 152
    shop.v1.refunds.create({"payment_intent": paid.id, "amount": 1000})
    assert (pending(shop, "eur"), available(shop, "eur")) == (before[0] + 4048, before[1] - 1000)


def test_money_that_needs_no_days(own_shop: Shop) -> None:
    before = available(own_shop, "sek")
    own_shop.pay("pm_card_bypassPending", currency="sek")
    assert available(own_shop, "sek") == before + 4048


def test_an_authorization_moves_nothing(own_shop: Shop) -> None:
    own_shop.authorized(currency="nok")
    assert pending(own_shop, "nok") == 0


def test_a_decline_moves_nothing(own_shop: Shop) -> None:
    own_shop.declined(currency="dkk")
    assert pending(own_shop, "dkk") == 0


def test_list_by_type_source_and_currency(own_shop: Shop) -> None:
    shop = own_shop
    paid = shop.pay(currency="pln")
    refund = shop.v1.refunds.create({"payment_intent": paid.id})
    listed = shop.v1.balance_transactions.list
    assert [row.source for row in listed({"currency": "pln"}).data] == [refund.id, paid.latest_charge]
    assert [row.type for row in listed({"source": refund.id}).data] == ["refund"]
    assert [row.source for row in listed({"type": "charge", "currency": "pln"}).data] == [paid.latest_charge]


def test_expand_the_source(shop: Shop) -> None:
    paid = shop.pay()
    rows = shop.v1.balance_transactions.list({"source": str(paid.latest_charge), "expand": ["data.source"]}).data
    assert isinstance(rows[0].source, stripe.Charge)


def test_the_ledger_agrees(own_shop: Shop) -> None:
    shop = own_shop
    paid = shop.pay(currency="czk", amount=10_000)
    shop.v1.refunds.create({"payment_intent": paid.id, "amount": 4000})
    accounts = shop.ledger()
    assert accounts["merchant/czk"] == -(10_000 - 320 - 4000)
    assert accounts["fees/czk"] == -320
    assert accounts["receivable:simulator/czk"] == 6000
    assert accounts.get("refunds/czk", 0) == 0


def test_no_entry_of_ours_is_a_balance_transaction(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.balance_transactions.retrieve("txn_frobnicate")
    assert caught.value.code == "resource_missing"
