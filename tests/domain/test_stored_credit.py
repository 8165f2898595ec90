"""Stored credit as tables: given, spent, taken back, returned, and never below zero."""

from itertools import count
from typing import Any

import pytest
from moments import moment_at
from scenarios import minor

from tillway.domain import customer as customers
from tillway.domain import payment_intent, refund, stored_credit
from tillway.domain.charge import Charge
from tillway.domain.commands import AdjustCredit, Confirm, CreatePayment, CreateRefund
from tillway.domain.customer import Customer
from tillway.domain.ledger import Entry, Fee
from tillway.domain.money import AMOUNT_MAX, minor_to_major
from tillway.domain.payment_intent import Means, PaymentIntent, Terms
from tillway.domain.payment_method import PaymentMethod, attach
from tillway.domain.record import Changes
from tillway.domain.refusal import Refused
from tillway.domain.source_api import SourceApi
from tillway.domain.stored_credit import CREDIT_MAX, CustomerBalanceTransaction

_numbers = count()
AT = moment_at(1_800_000_000_000, lambda: f"{next(_numbers):017d}")
TERMS = Terms(connector="simulator", fee=Fee(), settlement_days=2)

TABLES = {
    "given, spent and returned": """
        give      10.00 usd  -> 10.00
        pay        4.00 usd  -> 6.00
        refund     1.50      -> 7.50
        refund     3.00      -> !refund_amount_too_large
        refund               -> 10.00
        refund               -> !charge_already_refunded
        take      10.00 usd  -> 0.00
    """,
    "never below zero": """
        pay        0.01 usd  -> !insufficient_funds
        give       1.00 usd  -> 1.00
        pay        1.01 usd  -> !insufficient_funds
        take       1.01 usd  -> !customer_credit_insufficient
        pay        1.00 usd  -> 0.00
        pay        0.01 usd  -> !insufficient_funds
        take       0.01 usd  -> !customer_credit_insufficient
    """,
    "the first use fixes the currency": """
        give       1.00 usd  -> 1.00
        give       1.00 eur  -> !customer_currency_mismatch
        pay        1.00 eur  -> !customer_currency_mismatch
        take       1.00 usd  -> 0.00
        give       1.00 eur  -> !customer_currency_mismatch
    """,
    "a decline fixes no currency": """
        pay        1.00 eur  -> !insufficient_funds
        give       1.00 usd  -> 1.00
    """,
    "bounds": """
        give       0 usd     -> !amount_too_small
        give       999999.99 usd  -> 999999.99
        give       1000000.00 usd -> !amount_too_large
    """,
    "a customer with credit stays": """
        give       1.00 usd  -> 1.00
        delete               -> !customer_has_credit
        pay        1.00 usd  -> 0.00
        delete               -> 0.00
        refund               -> !charge_not_refundable
        give       1.00 usd  -> !resource_missing
        pay        1.00 usd  -> !payment_intent_incompatible_payment_method
    """,
}


class CustomerCredit:
    """A customer, and what a store would hold about their credit."""

    def __init__(self, **payment: Any) -> None:
        self.customer = Customer(id="cus_1", created=0)
        self.charge: Charge | None = None
        self.given = payment
        self.entries: list[Entry] = []
        self.movements: list[CustomerBalanceTransaction] = []
        self.events: list[str] = []

    def step(self, words: list[str]) -> str:
        verb, amount = words[0], minor(words[1]) if len(words) > 1 else None
        match verb:
            case "give" | "take":
                assert amount is not None
                moved = -amount if verb == "give" else amount
                self.keep(stored_credit.adjust(self.customer, AdjustCredit(amount_minor=moved, currency=words[2]), AT))
            case "pay":
                changes = self.pay(amount or 0, words[2])
                if changes.refusal is not None:
                    return f"!{changes.refusal.code}"
            case "refund":
                assert self.charge is not None
                self.keep(refund.create(self.charge, CreateRefund(amount_minor=amount), AT, customer=self.customer))
            case "delete":
                self.keep(customers.delete(self.customer))
            case _:
                raise AssertionError(f"no step {verb!r}")
        return minor_to_major(-self.customer.balance_minor, "usd")

    def pay(self, amount_minor: int, currency: str) -> Changes:
        given = {"customer": "cus_1", "method_types": ("customer_balance",), **self.given}
        command = CreatePayment(amount_minor=amount_minor, currency=currency, source_api=SourceApi.v1, **given)
        method = PaymentMethod(id="pm_1", created=0, type="customer_balance")
        means = Means(method=method, customer=self.customer)
        payment = payment_intent.create(command, means, AT).result
        assert isinstance(payment, PaymentIntent)
        return self.keep(payment_intent.confirm(payment, Confirm(), means, TERMS, AT))

    def keep(self, changes: Changes) -> Changes:
        assert not changes.tasks, "no provider is asked about credit"
        for record in changes.records:
            match record:
                case Customer():
                    self.customer = record
                case Charge():
                    self.charge = record
                case Entry():
                    self.entries.append(record)
                case CustomerBalanceTransaction():
                    self.movements.append(record)
        self.events += [event.type for event in changes.events]
        return changes

    def check(self) -> None:
        """The balance is what its movements and the ledger say; the merchant's own is not touched."""
        accounts: dict[str, int] = {}
        for entry in self.entries:
            assert entry.type is None, "no balance transaction of the merchant's"
            for posting in entry.postings:
                accounts[posting.account] = accounts.get(posting.account, 0) + posting.amount_minor
        balance = self.customer.balance_minor
        assert -CREDIT_MAX <= balance <= 0
        assert balance == sum(movement.amount_minor for movement in self.movements)
        assert accounts.get("credits", 0) == balance == -accounts.get("credit_funding", 0)
        assert accounts.keys() <= {"credits", "credit_funding"}
        assert not self.movements or self.movements[-1].ending_balance_minor == balance


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_tables(table: str) -> None:
    credit = CustomerCredit()
    for line in table.strip().splitlines():
        step, _, expected = line.partition("->")
        try:
            said = credit.step(step.split())
        except Refused as refused:
            said = f"!{refused.code}"
        assert said == expected.strip(), line
        credit.check()


def test_what_a_payment_leaves() -> None:
    credit = CustomerCredit()
    credit.step(["give", "10", "usd"])
    credit.events.clear()
    paid = credit.pay(400, "usd")
    payment, charge = paid.result, credit.charge
    assert isinstance(payment, PaymentIntent) and charge is not None
    assert (payment.status, payment.received_minor, payment.latest_charge) == ("succeeded", 400, charge.id)
    assert (charge.status, charge.captured_minor, charge.method_type) == ("succeeded", 400, "customer_balance")
    assert (charge.entry, charge.connector, charge.reference) == (None, "", "")
    assert credit.movements[-1].type == "applied_to_invoice" and credit.movements[-1].source == charge.id
    assert credit.events == [
        "customer.updated",
        "charge.succeeded",
        "payment_intent.succeeded",
    ]


def test_a_decline_leaves_the_customer_alone_and_a_failed_charge() -> None:
    credit = CustomerCredit()
    declined = credit.pay(400, "usd")
    payment, charge = declined.result, credit.charge
    assert isinstance(payment, PaymentIntent) and charge is not None
    assert payment.status == "requires_payment_method" and payment.last_error is not None
    assert (charge.status, charge.failure_code) == ("failed", "insufficient_funds")
    assert not [record for record in declined.records if isinstance(record, Customer)]
    assert credit.events == ["charge.failed", "payment_intent.payment_failed"]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"capture_method": "manual"}, "capture_method"),
        ({"setup_future_usage": "off_session"}, "setup_future_usage"),
        ({"customer": None}, "customer"),
    ],
)
def test_what_credit_cannot_do(given: dict[str, Any], param: str) -> None:
    credit = CustomerCredit(**given)
    credit.step(["give", "10", "usd"])
    with pytest.raises(Refused) as refused:
        credit.pay(400, "usd")
    assert (refused.value.code, refused.value.param) == ("payment_intent_incompatible_payment_method", param)


def test_a_payment_that_takes_cards_alone_takes_no_credit() -> None:
    credit = CustomerCredit(method_types=("card",))
    credit.step(["give", "10", "usd"])
    with pytest.raises(Refused) as refused:
        credit.pay(400, "usd")
    assert refused.value.code == "payment_method_unexpected_state"


def test_there_is_an_end_to_credit() -> None:
    customer = Customer(id="cus_1", created=0, balance_minor=-(CREDIT_MAX - 1), currency="usd")
    with pytest.raises(Refused) as refused:
        stored_credit.adjust(customer, AdjustCredit(amount_minor=-2, currency="usd"), AT)
    assert refused.value.code == "amount_too_large"
    with pytest.raises(Refused):
        stored_credit.adjust(customer, AdjustCredit(amount_minor=AMOUNT_MAX + 1, currency="usd"), AT)


def test_a_way_to_pay_with_credit_is_nobodys() -> None:
    with pytest.raises(Refused) as refused:
        attach(PaymentMethod(id="pm_1", created=0, type="customer_balance"), Customer(id="cus_1", created=0))
    assert refused.value.code == "payment_method_unexpected_state"
