"""Setups as tables: one line a step, the last word after `->` is what is expected.

A step that is refused is written `!code`; a refusal that is committed, with the status that it leaves.
"""

from itertools import count
from typing import Any

import msgspec
import pytest
from moments import moment_at

from tillway.domain import setup_intent as domain
from tillway.domain.commands import CancelSetup, ConfirmSetup, CreateSetup, UpdateSetup
from tillway.domain.customer import Customer
from tillway.domain.payment_method import CardFacts, PaymentMethod
from tillway.domain.record import Changes, Record
from tillway.domain.refusal import Refused
from tillway.domain.setup_intent import Means, SetupAttempt, SetupIntent

NOW = 1_800_000_000
FACTS = CardFacts(brand="visa", last4="4242", exp_month=12, exp_year=2040, vault="vlt_1", cvc="cvc_1")


class Machine:
    """What a store would hold, and the steps that change it."""

    def __init__(self, card: dict[str, Any], customer: str | None) -> None:
        numbers = count(1)
        self.at = moment_at(NOW * 1000, lambda: f"{next(numbers):017d}")
        self.records: dict[str, Record] = {
            "pm_1": PaymentMethod(id="pm_1", created=NOW, card=msgspec.structs.replace(FACTS, **card)),
            "cus_1": Customer(id="cus_1", created=NOW),
        }
        self.deletes: list[str] = []
        self.events: list[str] = []
        self.keep(domain.create(CreateSetup(customer=customer), Means(), self.at))

    def run(self, table: str) -> None:
        for line in table.strip().splitlines():
            step, _, expected = line.partition("->")
            try:
                said = self.step(*step.split())
            except Refused as refused:
                said = f"!{refused.code}"
            assert said == expected.strip(), f"{line.strip()!r} came to {said!r}"

    def step(self, verb: str, word: str = "") -> str:
        match verb:
            case "update":
                if word == "method":
                    method = self.records["pm_1"]
                    assert isinstance(method, PaymentMethod)
                    return self.keep(domain.update(self.setup, UpdateSetup(method="pm_1"), method))
                command = UpdateSetup(method=None) if word == "unset" else UpdateSetup(description=word)
                return self.keep(domain.update(self.setup, command))
            case "confirm":
                chosen = self.records["pm_1"] if word else self.records.get(self.setup.method or "")
                assert chosen is None or isinstance(chosen, PaymentMethod)
                means = Means(method=chosen, customer=self.customer, latest=self.latest)
                return self.keep(
                    domain.confirm(self.setup, ConfirmSetup(), means, self.at, challenge_base="https://3ds/")
                )
            case "challenge":
                assert self.latest is not None
                passed = word == "pass"
                means = Means(method=self.method, customer=self.customer, latest=self.latest)
                return self.keep(domain.finish_challenge(self.setup, means, passed=passed))
            case "cancel":
                return self.keep(domain.cancel(self.setup, CancelSetup(reason="abandoned"), self.latest))
            case "delete_customer":
                self.records["cus_1"] = Customer(id="cus_1", created=NOW, deleted=True)
                return "gone"
            case "set_aside":
                self.records["pm_1"] = msgspec.structs.replace(self.method, customer="cus_2")
                return "gone"
            case "attempts":
                return " ".join(attempt.status for attempt in self.attempts)
            case "method":
                kept = self.method
                return f"{kept.customer or 'nobody'} {'set_up' if kept.set_up else 'as_it_was'}"
            case _:
                raise AssertionError(f"no step {verb!r}")

    def keep(self, changes: Changes) -> str:
        for record in changes.records:
            self.records[record.id] = record
        self.deletes += changes.deletes
        self.events += [event.type for event in changes.events]
        status: str = changes.result.status
        return f"!{changes.refusal.code} {status}" if changes.refusal is not None else status

    @property
    def setup(self) -> SetupIntent:
        return next(record for record in self.records.values() if isinstance(record, SetupIntent))

    @property
    def attempts(self) -> list[SetupAttempt]:
        return [record for record in self.records.values() if isinstance(record, SetupAttempt)]

    @property
    def latest(self) -> SetupAttempt | None:
        found = self.records.get(self.setup.latest_attempt or "")
        assert found is None or isinstance(found, SetupAttempt)
        return found

    @property
    def method(self) -> PaymentMethod:
        found = self.records["pm_1"]
        assert isinstance(found, PaymentMethod)
        return found

    @property
    def customer(self) -> Customer | None:
        found = self.records.get(self.setup.customer or "")
        assert found is None or isinstance(found, Customer)
        return found


REQUIRED = {"three_d_secure": "required"}

SCENARIOS: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "plain": (
        {},
        "cus_1",
        """
        confirm                -> !setup_intent_unexpected_state
        update method          -> requires_confirmation
        update unset           -> requires_payment_method
        confirm pm_1           -> succeeded
        method                 -> cus_1 set_up
        confirm pm_1           -> !setup_intent_unexpected_state
        update method          -> !setup_intent_unexpected_state
        update words           -> succeeded
        cancel                 -> !setup_intent_unexpected_state
        attempts               -> succeeded
        """,
    ),
    "for nobody": ({}, None, "confirm pm_1 -> succeeded\n method -> nobody set_up"),
    "canceled": (
        {},
        None,
        """
        cancel                 -> canceled
        cancel                 -> !setup_intent_unexpected_state
        confirm pm_1           -> !setup_intent_unexpected_state
        method                 -> nobody as_it_was
        """,
    ),
    "declined": (
        {"attach_decline": ("card_declined", "lost_card")},
        "cus_1",
        """
        confirm pm_1           -> !card_declined requires_payment_method
        attempts               -> failed
        confirm                -> !setup_intent_unexpected_state
        method                 -> nobody as_it_was
        cancel                 -> canceled
        """,
    ),
    "challenge passed": (
        REQUIRED,
        "cus_1",
        """
        confirm pm_1           -> requires_action
        attempts               -> requires_action
        method                 -> nobody as_it_was
        challenge pass         -> succeeded
        attempts               -> succeeded
        method                 -> cus_1 set_up
        challenge pass         -> !setup_intent_unexpected_state
        """,
    ),
    "challenge failed, then passed": (
        REQUIRED,
        "cus_1",
        """
        confirm pm_1           -> requires_action
        challenge fail         -> !setup_intent_authentication_failure requires_payment_method
        challenge pass         -> !setup_intent_unexpected_state
        confirm pm_1           -> requires_action
        attempts               -> failed requires_action
        challenge pass         -> succeeded
        attempts               -> failed succeeded
        """,
    ),
    "confirmed twice": (
        REQUIRED,
        None,
        """
        confirm pm_1           -> requires_action
        confirm pm_1           -> requires_action
        attempts               -> abandoned requires_action
        cancel                 -> canceled
        attempts               -> abandoned abandoned
        """,
    ),
    "the customer went meanwhile": (
        REQUIRED,
        "cus_1",
        """
        confirm pm_1           -> requires_action
        delete_customer        -> gone
        challenge pass         -> !resource_missing
        challenge fail         -> !setup_intent_authentication_failure requires_payment_method
        confirm pm_1           -> !resource_missing
        method                 -> nobody as_it_was
        """,
    ),
    "another took the card meanwhile": (
        REQUIRED,
        "cus_1",
        """
        confirm pm_1           -> requires_action
        set_aside              -> gone
        challenge pass         -> !payment_method_unexpected_state
        """,
    ),
    "frictionless": (
        {**REQUIRED, "authentication": "frictionless"},
        None,
        "confirm pm_1 -> succeeded",
    ),
    "directory error": (
        {**REQUIRED, "authentication": "error"},
        None,
        "confirm pm_1 -> !setup_intent_authentication_failure requires_payment_method",
    ),
    "required until set up": ({"three_d_secure": "required_unless_set_up"}, None, "confirm pm_1 -> requires_action"),
    "set up by the issuer": ({"three_d_secure": "required_on_session"}, None, "confirm pm_1 -> succeeded"),
    "optional": ({"three_d_secure": "optional"}, None, "confirm pm_1 -> succeeded"),
    "no 3-D Secure": ({"three_d_secure": "not_supported"}, None, "confirm pm_1 -> succeeded"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios(name: str) -> None:
    card, customer, table = SCENARIOS[name]
    Machine(card, customer).run(table)


@pytest.mark.parametrize("card", [{}, {"attach_decline": ("card_declined", None)}])
def test_the_security_code_goes_with_the_first_attempt(card: dict[str, Any]) -> None:
    machine = Machine(card, None)
    machine.step("confirm", "pm_1")
    assert machine.deletes == ["cvc_1"]
    assert machine.method.card is not None
    assert (machine.method.card.cvc, machine.method.card.vault) == (None, "vlt_1")


def test_an_attempt_does_not_know_where_the_card_lies() -> None:
    machine = Machine({"attach_decline": ("card_declined", None)}, None)
    machine.step("confirm", "pm_1")
    (attempt,) = machine.attempts
    assert attempt.error is not None and machine.setup.last_error is not None
    for seen in (attempt.method, attempt.error.method, machine.setup.last_error.method):
        assert seen is not None and seen.card is not None
        assert (seen.card.vault, seen.card.cvc, seen.card.last4) == (None, None, "4242")


def test_events() -> None:
    machine = Machine(REQUIRED, "cus_1")
    for step in ("confirm pm_1", "challenge fail", "confirm pm_1", "challenge pass"):
        machine.step(*step.split())
    assert machine.events == [
        "setup_intent.created",
        "setup_intent.requires_action",
        "setup_intent.setup_failed",
        "setup_intent.requires_action",
        "payment_method.attached",
        "setup_intent.succeeded",
    ]
