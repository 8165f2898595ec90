"""The payment's state machine, as tables."""

import pytest
from scenarios import Machine

from tillway.domain.attempt import SENDS_MAX, Attempt
from tillway.domain.charge import Charge
from tillway.domain.ledger import Entry

TABLES = {
    "automatic capture": """
        create   42.00 eur           -> requires_payment_method
        confirm                      -> processing
        settle   succeeded           -> succeeded
        confirm                      -> !payment_intent_unexpected_state
        cancel                       -> !payment_intent_unexpected_state
        capture                      -> !payment_intent_unexpected_state
    """,
    "manual capture, whole": """
        create   42.00 eur manual    -> requires_payment_method
        confirm                      -> processing
        settle   succeeded           -> requires_capture
        update   43.00               -> !payment_intent_unexpected_state
        capture                      -> processing
        settle   succeeded           -> succeeded
    """,
    "manual capture, part": """
        create   42.00 eur manual    -> requires_payment_method
        confirm                      -> processing
        settle   succeeded           -> requires_capture
        capture  42.01               -> !capture_amount_too_large
        capture  40.00               -> processing
        capture  2.00                -> !lock_timeout
        settle   succeeded           -> succeeded
        capture  2.00                -> !payment_intent_unexpected_state
    """,
    "several captures": """
        create   42.00 eur manual    -> requires_payment_method
        confirm                      -> processing
        settle   succeeded           -> requires_capture
        capture  10.00 part          -> processing
        settle   declined            -> !card_declined requires_capture
        capture  10.00 part          -> processing
        settle   succeeded           -> requires_capture
        increment 50.00              -> !payment_intent_unexpected_state
        capture  32.01 part          -> !capture_amount_too_large
        refund   10.01               -> !refund_amount_too_large
        refund   5.00                -> pending
        settle   succeeded           -> succeeded
        capture  12.00 part          -> processing
        settle   succeeded           -> requires_capture
        capture                      -> processing
        settle   succeeded           -> succeeded
        capture  0.01                -> !payment_intent_unexpected_state
        refund   37.01               -> !refund_amount_too_large
        refund                       -> pending
    """,
    "the whole rest ends the captures": """
        create   42.00 eur manual    -> requires_payment_method
        confirm                      -> processing
        settle   succeeded           -> requires_capture
        capture  10.00 part          -> processing
        settle   succeeded           -> requires_capture
        capture  32.00 part          -> processing
        settle   succeeded           -> succeeded
    """,
    "a cancellation releases what is left after a capture": """
        create   42.00 eur manual    -> requires_payment_method
        confirm                      -> processing
        settle   succeeded           -> requires_capture
        capture  10.00 part          -> processing
        settle   succeeded           -> requires_capture
        cancel                       -> processing
        settle   succeeded           -> succeeded
        cancel                       -> !payment_intent_unexpected_state
        refund   10.01               -> !refund_amount_too_large
        refund   10.00               -> pending
    """,
    "a capture that the provider refuses leaves the authorization": """
        create   42.00 eur manual    -> requires_payment_method
        confirm                      -> processing
        settle   succeeded           -> requires_capture
        capture                      -> processing
        settle   declined            -> !card_declined requires_capture
        capture                      -> processing
        settle   succeeded           -> succeeded
    """,
    "cancelled before and after the authorization": """
        create   42.00 eur manual    -> requires_payment_method
        cancel                       -> canceled
        confirm                      -> !payment_intent_unexpected_state
        create   43.00 eur manual    -> requires_payment_method
        confirm                      -> processing
        cancel                       -> !lock_timeout
        settle   succeeded           -> requires_capture
        cancel                       -> processing
        settle   succeeded           -> canceled
        cancel                       -> !payment_intent_unexpected_state
    """,
    "declined, and paid at the second try": """
        create   42.00 eur           -> requires_payment_method
        confirm                      -> processing
        settle   insufficient        -> !card_declined requires_payment_method
        confirm                      -> processing
        settle   succeeded           -> succeeded
    """,
    "nobody knows, and nobody guesses": """
        create   42.00 eur           -> requires_payment_method
        confirm                      -> processing
        settle   unknown             -> processing
        confirm                      -> !lock_timeout
        cancel                       -> !lock_timeout
        settle   unknown             -> processing
        settle   pending             -> processing
        settle   succeeded           -> succeeded
    """,
    "increments": """
        create   42.00 eur manual    -> requires_payment_method
        confirm                      -> processing
        settle   succeeded           -> requires_capture
        increment 42.00              -> !amount_too_small
        increment 50.00              -> processing
        settle   declined            -> !card_declined requires_capture
        increment 50.00              -> processing
        settle   succeeded           -> requires_capture
        capture  50.00               -> processing
        settle   succeeded           -> succeeded
    """,
    "the provider asks for the customer": """
        create   42.00 eur           -> requires_payment_method
        confirm                      -> processing
        settle   action              -> requires_action
        confirm                      -> !payment_intent_unexpected_state
        settle   action              -> requires_action
        settle   unknown             -> requires_action
        settle   pending             -> processing
        settle   succeeded           -> succeeded
    """,
    "the customer does not pass at the provider": """
        create   42.00 eur           -> requires_payment_method
        confirm                      -> processing
        settle   action              -> requires_action
        settle   declined            -> !card_declined requires_payment_method
    """,
    "refunds, never more than was taken": """
        create   60.00 eur           -> requires_payment_method
        confirm                      -> processing
        settle   succeeded           -> succeeded
        refund   40.00               -> pending
        refund   30.00               -> !refund_amount_too_large
        settle   succeeded           -> succeeded
        refund   20.00               -> pending
        settle   declined            -> failed
        refund                       -> pending
        refund                       -> !charge_already_refunded
        settle   unknown             -> pending
        settle   succeeded           -> succeeded
        refund   0.01                -> !charge_already_refunded
        fail_refund                  -> failed
        fail_refund                  -> failed
        refund   20.00               -> pending
    """,
    "nothing to refund before the capture": """
        create   60.00 eur manual    -> requires_payment_method
        confirm                      -> processing
        settle   succeeded           -> requires_capture
        refund                       -> !charge_not_refundable
        capture  10.00               -> processing
        settle   succeeded           -> succeeded
        refund   10.01               -> !refund_amount_too_large
        refund                       -> pending
        settle   succeeded           -> succeeded
    """,
}


@pytest.mark.parametrize("name", TABLES)
def test_scenario(name: str) -> None:
    Machine().run(TABLES[name])


CHALLENGES = {
    "required": """
        create   42.00 eur           -> requires_payment_method
        confirm                      -> requires_action
        challenge fail               -> !payment_intent_authentication_failure requires_payment_method
        confirm                      -> requires_action
        challenge pass               -> processing
        settle   succeeded           -> succeeded
        challenge pass               -> !payment_intent_unexpected_state
    """,
    "required off session": """
        create   42.00 eur off_session -> requires_payment_method
        confirm                      -> !authentication_required requires_payment_method
    """,
}


@pytest.mark.parametrize("name", CHALLENGES)
def test_challenge(name: str) -> None:
    Machine(card={"three_d_secure": "required"}).run(CHALLENGES[name])


def test_an_attempt_that_is_never_sent_is_given_up_as_a_decline() -> None:
    machine = Machine().run("create 1.00 eur -> requires_payment_method\nconfirm -> processing")
    for _ in range(SENDS_MAX - 1):
        machine.run("settle not_sent -> processing")
    machine.run("settle not_sent -> !processing_error requires_payment_method")
    assert machine.all(Attempt) == []


def test_settling_twice_takes_once() -> None:
    machine = Machine().run("create 42.00 eur -> requires_payment_method\nconfirm -> processing")
    attempt = machine.newest(Attempt)
    machine.run("settle succeeded -> succeeded")
    machine.records[attempt.id] = attempt
    machine.run("settle succeeded -> succeeded")
    assert len(machine.all(Charge)) == 1 and len(machine.all(Entry)) == 1
    assert machine.all(Attempt) == []


def test_the_fee_and_the_postings_of_a_charge() -> None:
    machine = Machine().run(TABLES["automatic capture"])
    entry = machine.newest(Entry)
    assert (entry.amount_minor, entry.fee_minor, entry.net_minor) == (4200, 152, 4048)
    assert {posting.account: posting.amount_minor for posting in entry.postings} == {
        "receivable:simulator": 4200,
        "merchant": -4048,
        "fees": -152,
    }


def test_what_a_partial_capture_releases_is_no_refund() -> None:
    machine = Machine().run(TABLES["manual capture, part"])
    charge = machine.charge
    assert (charge.captured_minor, charge.released_minor, charge.refunded_minor) == (4000, 200, 0)


EVENTS = {
    "automatic capture": ["payment_intent.created", "charge.succeeded", "payment_intent.succeeded"],
    "manual capture, whole": [
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.amount_capturable_updated",
        "charge.captured",
        "payment_intent.succeeded",
    ],
    "declined, and paid at the second try": [
        "payment_intent.created",
        "charge.failed",
        "payment_intent.payment_failed",
        "charge.succeeded",
        "payment_intent.succeeded",
    ],
}


@pytest.mark.parametrize("name", EVENTS)
def test_events(name: str) -> None:
    assert Machine().run(TABLES[name]).events == EVENTS[name]
