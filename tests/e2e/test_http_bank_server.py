"""A server and a bank as two processes, and everything that can go wrong between them."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import stripe
from sdk_shop import until
from server_with_bank import ServerWithBank, eventually
from tillway_server import tillway

TIMEOUT_SECONDS = 0.6
ASK_AFTER_SECONDS = 2.0


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerWithBank]:
    place = tmp_path_factory.mktemp("town")
    built = ServerWithBank(
        place, timeout_seconds=TIMEOUT_SECONDS, ask_after_seconds=ASK_AFTER_SECONDS, debits="us_bank_account,sepa_debit"
    )
    yield built
    built.close()


FAULTS = [
    # fault, more of its rule, amount, what is answered at once
    ("lose_request", {}, 5001, "succeeded"),
    ("lose_answer", {}, 5002, "succeeded"),
    ("reset_before", {}, 5003, "succeeded"),
    ("reset_after", {}, 5004, "succeeded"),
    ("half_body", {}, 5005, "succeeded"),
    ("error_before", {}, 5006, "succeeded"),
    ("error_after", {}, 5007, "succeeded"),
    ("error_after", {"status": 504}, 5008, "succeeded"),
    ("throttle", {"ms": 1000}, 5009, "succeeded"),
    ("slow", {"ms": 300}, 5010, "succeeded"),
    ("slow", {"ms": 900}, 5011, "succeeded"),
    ("early_notice", {}, 5012, "succeeded"),
    ("duplicate_notice", {}, 5013, "succeeded"),
    # The answer is lost three times, and the bank says 429 and when to come back.
    ("lose_answer", {"times": 3}, 5014, "succeeded"),
    ("throttle", {"ms": 3000}, 5015, "processing"),
]


def test_one_failure_is_found_out_while_the_caller_waits(shop: ServerWithBank) -> None:
    """Every fault strikes one payment, all at the same time: each is answered as the table says, settled within six
    seconds, and known to the bank once."""
    shop.bank.strike(*({"fault": fault, "amount": amount, "times": 1, **more} for fault, more, amount, _ in FAULTS))
    with ThreadPoolExecutor(len(FAULTS)) as at_once:
        paid = list(at_once.map(lambda row: shop.pay(row[2]), FAULTS))
    assert [(row[0], payment.status) for row, payment in zip(FAULTS, paid, strict=True)] == [
        (row[0], row[3]) for row in FAULTS
    ]
    for payment in paid:
        assert shop.settled(payment).status == "succeeded"
        [operation] = shop.bank.operations(payment.amount).values()
        assert operation["status"] == "Accepted"


def test_captures_refunds_and_voids_suffer_the_same(shop: ServerWithBank) -> None:
    amounts = {"capture": 5101, "refund": 5102, "void": 5103}
    held = shop.pay(amounts["capture"], capture_method="manual")
    dropped = shop.pay(amounts["void"], capture_method="manual")
    paid = shop.pay(amounts["refund"])
    shop.bank.strike(
        {"fault": "lose_answer", "operation": "capture", "times": 1},
        {"fault": "half_body", "operation": "void", "times": 1},
        {"fault": "error_after", "operation": "refund", "times": 1},
    )
    with ThreadPoolExecutor(3) as at_once:
        captured = at_once.submit(shop.v1.payment_intents.capture, held.id)
        refunded = at_once.submit(shop.v1.refunds.create, {"payment_intent": paid.id})
        canceled = at_once.submit(shop.v1.payment_intents.cancel, dropped.id)
        assert captured.result().status == "succeeded"
        assert canceled.result().status == "canceled"
        assert refunded.result().status == "succeeded"
    for kind, amount in amounts.items():
        operations = [row for row in shop.bank.operations(amount).values() if row["kind"] == kind]
        assert [row["status"] for row in operations] == ["Accepted"], kind


def test_an_answer_that_stays_lost_is_asked_for_later(shop: ServerWithBank) -> None:
    """Where the questions fail too, the caller is told `processing`, and the next question finds it."""
    # Whoever else asks would take the fault: earlier tests' doubts, and the probe of an open breaker.
    until(lambda: not shop.server.call("GET", "/ops/v1/doubts")[1]["data"])
    until(lambda: {one["breaker"] for one in shop.server.call("GET", "/ops/v1/connectors")[1]["data"]} <= {"closed"})
    shop.bank.strike(
        {"fault": "lose_answer", "operation": "authorize", "times": 1},
        {"fault": "lose_request", "operation": "look_up", "times": 1},
    )
    began = time.monotonic()
    paid = shop.pay(5201)
    assert paid.status == "processing"
    assert time.monotonic() - began < 2 * TIMEOUT_SECONDS + 15
    [doubt] = [
        row for row in shop.server.call("GET", "/ops/v1/doubts?limit=100")[1]["data"] if row["subject"] == paid.id
    ]
    assert (doubt["state"], doubt["asked"], doubt["needs_attention"]) == ("unknown", 2, False)
    assert shop.settled(paid).status == "succeeded"
    assert len(shop.bank.operations(5201)) == 1


def test_what_is_pending_is_asked_after_two_seconds(shop: ServerWithBank) -> None:
    shop.bank.strike({"fault": "pend", "operation": "authorize", "times": 1})
    began = time.monotonic()
    paid = shop.pay(5591)
    assert paid.status == "processing" and time.monotonic() - began < 15
    assert shop.settled(paid).status == "succeeded"
    assert time.monotonic() - began >= ASK_AFTER_SECONDS
    [operation] = shop.bank.operations(5591).values()
    assert operation["status"] == "Accepted"


def test_a_signed_notice_settles_before_anybody_asks(shop: ServerWithBank) -> None:
    shop.bank.strike(
        {"fault": "lose_answer", "operation": "authorize", "amount": 5301, "times": 1},
        {"fault": "lose_request", "operation": "look_up", "times": 1},
    )
    paid = shop.pay(5301)
    assert paid.status == "processing"
    [operation] = shop.bank.operations(5301).values()
    forged, body = shop.notice({**operation, "status": "Declined"}, "0" * 64)
    assert forged == 400 and "X-Bank-Signature" in body["error"]["message"]
    assert shop.notice({**operation, "status": "Declined"}, "")[0] == 400
    assert shop.notice({"kind": "authorization"})[0] == 400
    assert shop.v1.payment_intents.retrieve(paid.id).status == "processing"
    for _ in range(2):
        assert shop.notice(operation) == (200, {"received": True})
        assert shop.v1.payment_intents.retrieve(paid.id).status == "succeeded"
    assert shop.notice({**operation, "reference": "nobody-of-ours"})[0] == 200
    assert shop.v1.balance_transactions.list({"limit": 100, "type": "charge"}).data[0].amount == 5301


def test_a_debit_is_settled_when_it_is_asked_after(shop: ServerWithBank) -> None:
    """Its first answer was lost: the same debit again, and never another."""
    shop.bank.strike({"fault": "lose_answer", "operation": "authorize", "amount": 5351, "times": 1})
    paid = shop.debit(5351, "DE89370400440532013000")
    assert shop.settled(paid).status == "succeeded"
    [operation] = shop.bank.operations(5351).values()
    assert (operation["kind"], operation["status"], operation["last4"]) == ("authorization", "Accepted", "3000")
    refund = shop.v1.refunds.create({"payment_intent": paid.id, "amount": 351})
    assert refund.status == "pending"
    eventually(lambda: shop.v1.refunds.retrieve(refund.id).status, lambda found: found == "succeeded")


def test_a_debit_comes_back_by_a_signed_notice(shop: ServerWithBank) -> None:
    shop.bank.strike({"fault": "lose_request", "operation": "look_up", "times": 1})
    paid = shop.debit(5352, "AT981904300002222227")
    assert paid.status == "processing"
    failed = shop.settled(paid)
    assert failed.status == "requires_payment_method" and failed.last_payment_error is not None
    assert failed.last_payment_error.code == "insufficient_funds"
    [operation] = shop.bank.operations(5352).values()
    assert operation["status"] == "InsufficientFunds"
    assert "AT981904300002222227" not in str(shop.bank.effects())


def test_a_dispute_is_opened_by_notice(shop: ServerWithBank) -> None:
    paid = shop.pay(5401, "4000000000000259")
    disputes = eventually(
        lambda: shop.v1.disputes.list({"payment_intent": paid.id}).data, lambda found: len(found) == 1, 4
    )
    assert (disputes[0].amount, disputes[0].status, disputes[0].reason) == (5401, "needs_response", "fraudulent")
    charge = shop.v1.charges.retrieve(paid.latest_charge)
    assert charge.disputed is True
    [told] = [row for row in shop.bank.effects() if row["kind"] == "dispute" and row["amount"] == 5401]
    for _ in range(2):
        assert shop.notice(told)[0] == 200
    assert len(shop.v1.disputes.list({"payment_intent": paid.id}).data) == 1


def test_a_refund_that_comes_back_is_told_by_notice(shop: ServerWithBank) -> None:
    paid = shop.pay(5501, "4000000000005126")
    refund = shop.v1.refunds.create({"payment_intent": paid.id})
    assert refund.status == "succeeded"
    failed = eventually(lambda: shop.v1.refunds.retrieve(refund.id), lambda found: found.status == "failed")
    assert failed.failure_balance_transaction is not None
    assert shop.v1.charges.retrieve(paid.latest_charge).amount_refunded == 0


@pytest.mark.parametrize(
    ("fault", "decline_code"),
    [("decline", "generic_decline"), ("no_funds", "insufficient_funds")],
    ids=["declined", "no funds"],
)
def test_declines_are_the_banks(shop: ServerWithBank, fault: str, decline_code: str) -> None:
    shop.bank.strike({"fault": fault, "operation": "authorize", "times": 1})
    with pytest.raises(stripe.CardError) as declined:
        shop.pay(5590)
    error: Any = declined.value.error
    assert (declined.value.code, error.decline_code) == ("card_declined", decline_code)


def test_what_it_cannot_do_is_said(shop: ServerWithBank) -> None:
    held = shop.pay(5601, capture_method="manual")
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.v1.payment_intents.increment_authorization(held.id, {"amount": 6000})
    assert refused.value.code == "connector_unsupported"
    assert shop.v1.payment_intents.retrieve(held.id).status == "requires_capture"


def test_a_bank_that_is_down_and_comes_back(shop: ServerWithBank) -> None:
    """Down from the beginning: declined after a few tries, and no money moved. Down in the middle: found out later."""
    before = shop.ledger()
    shop.bank.strike({"fault": "lose_answer", "operation": "authorize", "amount": 5701, "times": 1})
    with ThreadPoolExecutor(1) as aside:
        paying = aside.submit(shop.pay, 5701)
        eventually(lambda: shop.bank.operations(5701), bool)
        shop.bank.stop(9)
        began = time.monotonic()
        with pytest.raises(stripe.CardError) as declined:
            shop.pay(5702)
        interrupted = paying.result()
    assert interrupted.status == "processing"
    assert declined.value.code == "processing_error"
    assert 0.5 < time.monotonic() - began < 30
    error: Any = declined.value.error
    refused = error.payment_intent
    assert (refused.status, refused.amount_received) == ("requires_payment_method", 0)
    assert shop.ledger() == before

    shop.bank.start()
    assert shop.settled(interrupted).status == "succeeded"
    assert shop.v1.payment_intents.confirm(refused.id, {"payment_method": "pm_card_visa"}).status == "succeeded"
    assert len(shop.bank.operations(5701)) == 1
    [second] = shop.bank.operations(5702).values()
    assert second["status"] == "Accepted"


def test_what_the_bank_took_is_what_the_ledger_says(shop: ServerWithBank) -> None:
    """After everything above: money at the bank, less refunds and chargebacks, is what the ledger expects of it."""
    eventually(lambda: shop.server.call("GET", "/ops/v1/doubts")[1]["data"], lambda found: not found)
    moved = charged_back = 0
    for row in shop.bank.operations().values():
        if row["status"] != "Accepted":
            continue
        if row["kind"] == "capture" or row.get("capture", False):
            moved += row["amount"]
        if row["kind"] == "refund":
            moved -= row["amount"]
        if row["kind"] == "dispute" and row["dispute"] == "chargeback":
            charged_back += row["amount"]
    ledger = shop.ledger()
    assert (ledger["receivable:bank"], -ledger["disputes"]) == (moved, charged_back)
    assert moved > charged_back > 0


def test_live_mode(tmp_path: Path) -> None:
    """Without a connector it says what to configure; with one it takes money, and test mode sees nothing of it."""
    live = ServerWithBank(tmp_path, mode="live")
    try:
        paid = live.pay(5801, "4242424242424242")
        assert (paid.status, paid.livemode) == ("succeeded", True)
        assert live.v1.refunds.create({"payment_intent": paid.id, "amount": 801}).status == "succeeded"
        assert live.notice({}, "0" * 64)[0] == 400
        with pytest.raises(stripe.InvalidRequestError) as refused:
            live.debit(5804, "DE89370400440532013000")
        assert refused.value.code == "connector_unsupported" and not live.bank.operations(5804)
        with pytest.raises(stripe.InvalidRequestError, match="No such"):
            live.pay(5802)  # pm_card_visa is of test mode
        with pytest.raises(stripe.InvalidRequestError, match="No such"):
            live.server.client.v1.payment_intents.retrieve(paid.id)
        assert live.server.client.v1.payment_intents.list().data == []

        done = tillway("connectors", "remove", "bank", "--mode", "live", "--data-dir", live.server.data_dir)
        assert done.returncode == 0, done.stderr
        time.sleep(2.1)
        with pytest.raises(stripe.InvalidRequestError) as refused:
            live.pay(5803, "4242424242424242")
        assert refused.value.code == "live_mode_not_configured" and "tillway connectors add" in str(refused.value)
        assert live.server.client.v1.payment_intents.list().data == []
    finally:
        live.close()
