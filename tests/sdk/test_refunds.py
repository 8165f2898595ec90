"""Refunds through the official SDK."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import stripe
from sdk_shop import Shop, until


def test_refund_all_by_payment(shop: Shop) -> None:
    paid = shop.pay()
    made = shop.v1.refunds.create({"payment_intent": paid.id, "reason": "requested_by_customer"})
    assert (made.status, made.amount, made.currency, made.reason) == ("succeeded", 4200, "eur", "requested_by_customer")
    assert (made.charge, made.payment_intent) == (paid.latest_charge, paid.id)
    charge = shop.v1.charges.retrieve(str(paid.latest_charge), {"expand": ["refunds"]})
    assert (charge.refunded, charge.amount_refunded) == (True, 4200)
    assert charge.refunds is not None and [one.id for one in charge.refunds.data] == [made.id]
    assert shop.v1.payment_intents.retrieve(paid.id).status == "succeeded"


def test_refund_parts_by_charge(shop: Shop) -> None:
    paid = shop.pay()
    charge = str(paid.latest_charge)
    for amount, left in ((1000, 3200), (3000, 200)):
        assert shop.v1.refunds.create({"charge": charge, "amount": amount}).amount == amount
        seen = shop.v1.charges.retrieve(charge)
        assert (seen.amount_refunded, seen.refunded) == (4200 - left, False)
    assert shop.v1.refunds.create({"charge": charge}).amount == 200
    assert shop.v1.charges.retrieve(charge).refunded


def test_the_balance_transaction_of_a_refund(shop: Shop) -> None:
    made = shop.v1.refunds.create({"payment_intent": shop.pay().id, "expand": ["balance_transaction", "charge"]})
    moved = made.balance_transaction
    assert isinstance(moved, stripe.BalanceTransaction) and isinstance(made.charge, stripe.Charge)
    assert (moved.amount, moved.fee, moved.net, moved.type, moved.source) == (-4200, 0, -4200, "refund", made.id)


def test_too_much(shop: Shop) -> None:
    paid = shop.pay()
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.refunds.create({"payment_intent": paid.id, "amount": 4201})
    assert caught.value.param == "amount"
    assert shop.v1.charges.retrieve(str(paid.latest_charge)).amount_refunded == 0


def test_too_much_after_a_part(shop: Shop) -> None:
    paid = shop.pay()
    shop.v1.refunds.create({"payment_intent": paid.id, "amount": 4000})
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded amount") as caught:
        shop.v1.refunds.create({"payment_intent": paid.id, "amount": 201})
    assert caught.value.param == "amount"


def test_all_is_refunded_already(shop: Shop) -> None:
    paid = shop.pay()
    shop.v1.refunds.create({"payment_intent": paid.id})
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.refunds.create({"payment_intent": paid.id})
    assert caught.value.code == "charge_already_refunded"


@pytest.mark.parametrize("status", ["requires_capture", "requires_payment_method", "failed"])
def test_nothing_to_refund(shop: Shop, status: str) -> None:
    if status == "requires_capture":
        payment = shop.authorized().id
    elif status == "failed":
        error = shop.declined().error
        assert error is not None
        payment = error.payment_intent.id
    else:
        payment = shop.v1.payment_intents.create({"amount": 500, "currency": "eur"}).id
    with pytest.raises(stripe.InvalidRequestError):
        shop.v1.refunds.create({"payment_intent": payment})


def test_what_was_captured_bounds_what_is_refunded(shop: Shop) -> None:
    held = shop.authorized()
    shop.v1.payment_intents.capture(held.id, {"amount_to_capture": 1000})
    with pytest.raises(stripe.InvalidRequestError):
        shop.v1.refunds.create({"payment_intent": held.id, "amount": 1001})
    assert shop.v1.refunds.create({"payment_intent": held.id}).amount == 1000


@pytest.mark.parametrize("given", [{}, {"charge": "ch_frobnicate"}, {"payment_intent": "pi_frobnicate"}])
def test_of_what(shop: Shop, given: dict[str, str]) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.refunds.create(given)
    assert caught.value.param == (next(iter(given)) if given else "charge")


def test_charge_and_payment_that_do_not_belong_together(shop: Shop) -> None:
    one, other = shop.pay(), shop.pay()
    with pytest.raises(stripe.InvalidRequestError):
        shop.v1.refunds.create({"charge": str(one.latest_charge), "payment_intent": other.id})


def test_two_that_race_for_the_whole(shop: Shop) -> None:
    """However they interleave, one wins and the other is told why."""
    paid = shop.pay()

    def refund(_: int) -> str:
        try:
            return str(shop.client_with(shop.key).v1.refunds.create({"payment_intent": paid.id}).status)
        except stripe.InvalidRequestError as error:
            return str(error.code)

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(refund, range(2))) == ["charge_already_refunded", "succeeded"]
    assert shop.v1.charges.retrieve(str(paid.latest_charge)).amount_refunded == 4200
    assert len(shop.v1.refunds.list({"payment_intent": paid.id}).data) == 1


def test_five_that_race_for_parts(shop: Shop) -> None:
    paid = shop.pay(amount=1000)

    def refund(_: int) -> int:
        try:
            return shop.client_with(shop.key).v1.refunds.create({"payment_intent": paid.id, "amount": 400}).amount
        except stripe.InvalidRequestError:
            return 0

    with ThreadPoolExecutor(5) as pool:
        assert sorted(pool.map(refund, range(5))) == [0, 0, 0, 400, 400]
    assert shop.v1.charges.retrieve(str(paid.latest_charge)).amount_refunded == 800


def test_update(shop: Shop) -> None:
    made = shop.v1.refunds.create({"payment_intent": shop.pay().id, "metadata": {"a": "1"}})
    after = shop.v1.refunds.update(made.id, {"metadata": {"a": "", "b": "2"}})
    assert after.metadata is not None and after.metadata.to_dict() == {"b": "2"}
    assert shop.v1.refunds.retrieve(made.id) == after


def test_cancel_is_for_refunds_that_wait_for_the_customer(shop: Shop) -> None:
    made = shop.v1.refunds.create({"payment_intent": shop.pay().id})
    with pytest.raises(stripe.InvalidRequestError, match="cannot be canceled"):
        shop.v1.refunds.cancel(made.id)


def test_list_by_charge_and_by_payment(shop: Shop) -> None:
    paid = shop.pay()
    made = [shop.v1.refunds.create({"payment_intent": paid.id, "amount": 100}).id for _ in range(3)]
    for filter in ({"charge": str(paid.latest_charge)}, {"payment_intent": paid.id}):
        assert [one.id for one in shop.v1.refunds.list(filter).data] == made[::-1]
    assert [one.id for one in shop.v1.refunds.list({"charge": str(paid.latest_charge), "limit": 2}).data] == made[:0:-1]


def test_a_refund_that_fails_later(shop: Shop) -> None:
    paid = shop.pay("pm_card_refundFail")
    made = shop.v1.refunds.create({"payment_intent": paid.id})
    assert made.status == "succeeded"
    until(lambda: shop.v1.refunds.retrieve(made.id).status == "failed")
    failed = shop.v1.refunds.retrieve(made.id, {"expand": ["failure_balance_transaction"]})
    assert failed.failure_reason
    returned = failed.failure_balance_transaction
    assert isinstance(returned, stripe.BalanceTransaction)
    assert (returned.amount, returned.type) == (4200, "refund_failure")
    charge = shop.v1.charges.retrieve(str(paid.latest_charge))
    assert (charge.amount_refunded, charge.refunded) == (0, False)


def test_a_refund_that_is_pending_first(shop: Shop) -> None:
    paid = shop.pay("pm_card_pendingRefund")
    made = shop.v1.refunds.create({"payment_intent": paid.id})
    assert made.status == "pending"
    until(lambda: shop.v1.refunds.retrieve(made.id).status == "succeeded")
    assert shop.v1.charges.retrieve(str(paid.latest_charge)).refunded


def test_the_old_address(shop: Shop) -> None:
    paid = shop.pay()
    made = shop.http.post(f"/v1/charges/{paid.latest_charge}/refunds", data={"amount": "10"}).json()
    assert (made["amount"], made["status"]) == (10, "succeeded")
    listed = shop.http.get(f"/v1/charges/{paid.latest_charge}/refunds").json()
    assert [one["id"] for one in listed["data"]] == [made["id"]]
