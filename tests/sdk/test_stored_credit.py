"""Stored credit through the official SDK: given, spent, refunded, taken back, raced for."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import stripe
from sdk_shop import Shop

FROM_CREDIT: dict[str, Any] = {
    "allowed_payment_method_types": ["customer_balance"],
    "payment_method_data": {"type": "customer_balance"},
}


def customer_with(shop: Shop, credit: int, currency: str = "eur") -> str:
    customer = shop.v1.customers.create().id
    shop.v1.customers.balance_transactions.create(customer, {"amount": -credit, "currency": currency})
    return customer


def balance(shop: Shop, customer: str) -> int:
    return shop.v1.customers.retrieve(customer).balance or 0


def test_movements(shop: Shop) -> None:
    customer = shop.v1.customers.create().id
    movements = shop.v1.customers.balance_transactions
    given = movements.create(
        customer, {"amount": -5000, "currency": "eur", "description": "Sorry", "metadata": {"case": "7"}}
    )
    assert (given.object, given.amount, given.ending_balance) == ("customer_balance_transaction", -5000, -5000)
    assert (given.type, given.customer, given.currency, given.invoice) == ("adjustment", customer, "eur", None)
    taken = movements.create(customer, {"amount": 800, "currency": "eur"})
    assert taken.ending_balance == -4200
    assert [one.id for one in movements.list(customer).data] == [taken.id, given.id]
    page = movements.list(customer, {"limit": 1})
    assert [one.id for one in page.auto_paging_iter()] == [taken.id, given.id]
    assert movements.retrieve(customer, given.id) == given
    changed = movements.update(customer, given.id, {"description": "Very sorry", "metadata": {"case": ""}})
    assert (changed.description, changed.amount) == ("Very sorry", -5000)
    assert changed.metadata is not None and changed.metadata.to_dict() == {}
    seen = shop.v1.customers.retrieve(customer)
    assert (seen.balance, seen.currency) == (-4200, "eur")
    expanded = movements.retrieve(customer, given.id, {"expand": ["customer"]}).customer
    assert isinstance(expanded, stripe.Customer) and expanded.balance == -4200


def test_pay_and_refund(own_shop: Shop) -> None:
    shop = own_shop
    customer = customer_with(shop, 5000)
    paid = shop.pay(None, customer=customer, **FROM_CREDIT)
    assert (paid.status, paid.amount_received) == ("succeeded", 4200)
    charge = shop.v1.charges.retrieve(str(paid.latest_charge))
    assert (charge.paid, charge.captured, charge.balance_transaction) == (True, True, None)
    assert charge.payment_method_details is not None and charge.payment_method_details.type == "customer_balance"
    spent = shop.v1.customers.balance_transactions.list(customer).data[0]
    assert (spent.type, spent.amount, spent.ending_balance) == ("applied_to_invoice", 4200, -800)
    assert balance(shop, customer) == -800
    refund = shop.v1.refunds.create({"payment_intent": paid.id, "amount": 1200})
    assert (refund.status, refund.balance_transaction) == ("succeeded", None)
    returned = shop.v1.customers.balance_transactions.list(customer).data[0]
    assert (returned.type, returned.amount) == ("unapplied_from_invoice", -1200)
    assert shop.v1.charges.retrieve(charge.id).amount_refunded == 1200
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.refunds.create({"payment_intent": paid.id, "amount": 3001})
    assert caught.value.code == "refund_amount_too_large"
    assert balance(shop, customer) == -2000
    types = [event.type for event in shop.v1.events.list({"limit": 10}).data]
    assert {"customer.updated", "charge.succeeded", "payment_intent.succeeded", "charge.refunded"} <= set(types)
    # The merchant is owed nothing by it, and the ledger says what customers have.
    assert shop.ledger() == {"credits/eur": -2000, "credit_funding/eur": 2000}
    assert [funds.amount for funds in shop.v1.balance.retrieve().pending] == [0]
    assert shop.v1.balance_transactions.list().data == []


def test_a_method_made_before(shop: Shop) -> None:
    customer = customer_with(shop, 5000)
    method = shop.v1.payment_methods.create({"type": "customer_balance"})
    paid = shop.pay(method.id, customer=customer, allowed_payment_method_types=["card", "customer_balance"])
    assert paid.status == "succeeded" and balance(shop, customer) == -800
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.payment_methods.attach(method.id, {"customer": customer})
    assert caught.value.code == "payment_method_unexpected_state"


def test_too_little_is_a_decline(shop: Shop) -> None:
    customer = customer_with(shop, 4199)
    error = shop.declined(None, customer=customer, **FROM_CREDIT)
    assert (error.code, error.http_status) == ("insufficient_funds", 402)
    payment = shop.v1.payment_intents.list({"customer": customer}).data[0]
    assert payment.status == "requires_payment_method" and payment.last_payment_error is not None
    assert payment.last_payment_error.code == "insufficient_funds"
    charge = shop.v1.charges.retrieve(str(payment.latest_charge))
    assert (charge.status, charge.failure_code) == ("failed", "insufficient_funds")
    assert balance(shop, customer) == -4199
    shop.v1.customers.balance_transactions.create(customer, {"amount": -1, "currency": "eur"})
    again = shop.v1.payment_intents.confirm(payment.id, {"payment_method_data": {"type": "customer_balance"}})
    assert again.status == "succeeded" and balance(shop, customer) == 0


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        ({"amount": 501, "currency": "eur"}, "customer_credit_insufficient", "amount"),
        ({"amount": -500, "currency": "usd"}, "customer_currency_mismatch", "currency"),
        ({"amount": 0, "currency": "eur"}, "amount_too_small", "amount"),
        ({"amount": -100_000_000, "currency": "eur"}, "amount_too_large", "amount"),
        ({"amount": "4.20", "currency": "eur"}, "parameter_invalid_integer", "amount"),
        ({"amount": -500}, "parameter_missing", "currency"),
    ],
)
def test_refused_movements(shop: Shop, given: dict[str, Any], code: str, param: str) -> None:
    customer = customer_with(shop, 500)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.customers.balance_transactions.create(customer, given)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert balance(shop, customer) == -500


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        ({"currency": "usd"}, "customer_currency_mismatch", "currency"),
        ({"capture_method": "manual"}, "payment_intent_incompatible_payment_method", "capture_method"),
        ({"setup_future_usage": "off_session"}, "payment_intent_incompatible_payment_method", "setup_future_usage"),
        ({"customer": None}, "payment_intent_incompatible_payment_method", "customer"),
        ({"allowed_payment_method_types": ["card"]}, "payment_method_unexpected_state", "payment_method"),
    ],
)
def test_refused_payments(shop: Shop, given: dict[str, Any], code: str, param: str) -> None:
    customer = customer_with(shop, 5000)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.pay(None, **{"customer": customer, **FROM_CREDIT, **given})
    assert (caught.value.code, caught.value.param) == (code, param)
    assert balance(shop, customer) == -5000


def test_credit_of_somebody_else(shop: Shop) -> None:
    anna, bert = customer_with(shop, 500), customer_with(shop, 500)
    movement = shop.v1.customers.balance_transactions.list(anna).data[0].id
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.customers.balance_transactions.retrieve(bert, movement)
    assert caught.value.code == "resource_missing"


def test_a_customer_with_credit_stays(shop: Shop) -> None:
    customer = customer_with(shop, 500)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.customers.delete(customer)
    assert caught.value.code == "customer_has_credit"
    shop.v1.customers.balance_transactions.create(customer, {"amount": 500, "currency": "eur"})
    assert shop.v1.customers.delete(customer).deleted


def test_nothing_is_set_up_for_credit(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.setup_intents.create({"confirm": True, "return_url": "https://shop.example", **FROM_CREDIT})
    assert caught.value.code == "payment_method_unexpected_state"


def test_twenty_payments_race_for_the_credit_of_three(own_shop: Shop) -> None:
    customer = customer_with(own_shop, 3 * 4200 + 4199, "usd")

    def pay(_: int) -> str:
        try:
            return own_shop.pay(None, currency="usd", customer=customer, **FROM_CREDIT).status
        except stripe.CardError as declined:
            return str(declined.code)

    with ThreadPoolExecutor(20) as pool:
        came = sorted(pool.map(pay, range(20)))
    assert came == ["insufficient_funds"] * 17 + ["succeeded"] * 3
    assert balance(own_shop, customer) == -4199 == own_shop.ledger()["credits/usd"]
    assert len(own_shop.v1.customers.balance_transactions.list(customer).data) == 4


def test_adjustments_that_race_never_leave_a_debt(own_shop: Shop) -> None:
    customer = customer_with(own_shop, 1000, "gbp")

    def take(_: int) -> bool:
        try:
            own_shop.v1.customers.balance_transactions.create(customer, {"amount": 400, "currency": "gbp"})
        except stripe.InvalidRequestError as refused:
            assert refused.code == "customer_credit_insufficient"
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(8))) == 2
    assert balance(own_shop, customer) == -200
