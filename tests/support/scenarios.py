"""A small language for scenario tables: one line a step, the last word after `->` is what is expected.

    create   10.00 eur manual      -> requires_payment_method
    confirm                        -> processing
    settle   succeeded             -> requires_capture
    capture  11.00                 -> !capture_amount_too_large

A step that is refused is written `!code`; a refusal that is committed (a decline) as `!code status`. Amounts are major
units of a currency with two decimals, for the eye alone. The machine keeps every record as a store would, and after
every step holds the ledger to the payment: debits equal credits, and what was taken is what the merchant is owed.
"""

from dataclasses import dataclass, field
from typing import Any

from moments import moment_at

from tillway.domain import payment_intent, refund
from tillway.domain.attempt import Attempt
from tillway.domain.charge import Charge
from tillway.domain.commands import Cancel, Capture, Confirm, CreatePayment, CreateRefund, Increment, UpdatePayment
from tillway.domain.ledger import Entry, Fee
from tillway.domain.outcome import ActionRequired, Declined, NotSent, Outcome, Pending, Succeeded, Unknown
from tillway.domain.payment_intent import Means, PaymentIntent, Terms
from tillway.domain.payment_method import CardFacts, PaymentMethod
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refund import Refund
from tillway.domain.refusal import Refused
from tillway.domain.source_api import SourceApi

OUTCOMES: dict[str, Outcome] = {
    "succeeded": Succeeded(bank_id="bank_1"),
    "declined": Declined(),
    "insufficient": Declined(decline_code="insufficient_funds"),
    "pending": Pending(),
    "unknown": Unknown("no answer"),
    "not_sent": NotSent("refused"),
    "action": ActionRequired("https://issuer.example/challenge"),
}
TERMS = Terms(
    connector="simulator", fee=Fee(rate_bps=290, fixed_minor=30), settlement_days=2, challenge_base="https://3ds/"
)


@dataclass
class Machine:
    """What a store would hold, and the steps that change it."""

    card: dict[str, Any] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    clock_ms: int = 1_800_000_000_000
    count: int = 0

    def run(self, table: str) -> "Machine":
        for number, line in enumerate(table.strip().splitlines(), 1):
            step, _, expected = line.partition("->")
            words = step.split()
            if not words:
                continue
            try:
                said = self.step(words[0], words[1:])
            except Refused as refused:
                said = f"!{refused.code}"
            assert said == expected.strip(), f"line {number}: {line.strip()!r} came to {said!r}"
            self.check()
        return self

    def step(self, verb: str, words: list[str]) -> str:
        at = self.moment()
        match verb:
            case "create":
                new = CreatePayment(
                    amount_minor=minor(words[0]),
                    currency=words[1],
                    capture_method="manual" if "manual" in words else "automatic",
                    off_session="off_session" in words,
                    source_api=SourceApi.v1,
                )
                return self.keep(payment_intent.create(new, Means(), at))
            case "update":
                return self.keep(payment_intent.update(self.payment, UpdatePayment(amount_minor=minor(words[0]))))
            case "confirm":
                method = self.records.setdefault("pm_1", PaymentMethod(id="pm_1", created=0, card=self.facts()))
                assert isinstance(method, PaymentMethod)
                means = Means(method=method)
                return self.keep(payment_intent.confirm(self.payment, Confirm(), means, TERMS, at))
            case "challenge":
                kept = self.records["pm_1"]
                assert isinstance(kept, PaymentMethod)
                passed = words[0] == "pass"
                return self.keep(
                    payment_intent.finish_challenge(self.payment, Means(method=kept), TERMS, at, passed=passed)
                )
            case "settle":
                return self.settle(words[0], at)
            case "capture":
                amount = minor(words[0]) if words else None
                taking = Capture(amount_minor=amount, final="part" not in words)
                return self.keep(payment_intent.capture(self.payment, self.charge, taking, at))
            case "increment":
                larger = Increment(amount_minor=minor(words[0]))
                return self.keep(payment_intent.increment(self.payment, self.charge, larger, at))
            case "cancel":
                charge = self.charge if self.payment.latest_charge else None
                return self.keep(payment_intent.cancel(self.payment, charge, Cancel(reason="abandoned"), at))
            case "refund":
                amount = minor(words[0]) if words else None
                return self.keep(refund.create(self.charge, CreateRefund(amount_minor=amount), at))
            case "fail_refund":
                owed = self.newest(Refund)
                return self.keep(refund.fail(owed, self.charge, Declined(), at))
            case _:
                raise AssertionError(f"no step {verb!r}")

    def settle(self, word: str, at: Moment) -> str:
        attempt = self.newest(Attempt)
        subject = self.records[attempt.subject]
        outcome = OUTCOMES[word]
        if isinstance(subject, Refund):
            return self.keep(refund.settle(subject, self.charge, attempt, outcome, at))
        method = self.records.get(attempt.method or "")
        charge = self.records.get(self.payment.latest_charge or "") if attempt.kind != "authorize" else None
        assert charge is None or isinstance(charge, Charge)
        assert method is None or isinstance(method, PaymentMethod)
        changes = payment_intent.settle(self.payment, attempt, outcome, TERMS, at, charge=charge, method=method)
        return self.keep(changes)

    def keep(self, changes: Changes) -> str:
        for record in (*changes.records, *changes.tasks):
            self.records[record.id] = record
        for id in changes.deletes:
            self.records.pop(id, None)
        self.events += [event.type for event in changes.events]
        status: str = changes.result.status
        return f"!{changes.refusal.code} {status}" if changes.refusal is not None else status

    def check(self) -> None:
        """Money three ways: the ledger adds up, the balance is what was taken, and no more goes back than came."""
        entries = [record for record in self.records.values() if isinstance(record, Entry)]
        owed = -sum(p.amount_minor for entry in entries for p in entry.postings if p.account == "merchant")
        gross = sum(charge.captured_minor - charge.refunded_minor for charge in self.all(Charge))
        fees = -sum(p.amount_minor for entry in entries for p in entry.postings if p.account == "fees")
        assert owed == gross - fees, (owed, gross, fees)
        for charge in self.all(Charge):
            assert 0 <= charge.refunded_minor <= charge.captured_minor <= charge.amount_minor
            assert charge.captured_minor + charge.released_minor <= charge.amount_minor
        for payment in self.all(PaymentIntent):
            assert (payment.attempt is not None) == any(a.subject == payment.id for a in self.all(Attempt))

    def moment(self) -> Moment:
        self.clock_ms += 1000

        def suffix() -> str:
            self.count += 1
            return f"{self.count:017d}"

        return moment_at(self.clock_ms, suffix)

    def facts(self) -> CardFacts:
        return CardFacts(**{"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2040, **self.card})

    @property
    def payment(self) -> PaymentIntent:
        return self.newest(PaymentIntent)

    @property
    def charge(self) -> Charge:
        return self.newest(Charge)

    def all(self, kind: type[Any]) -> list[Any]:
        return [record for record in self.records.values() if isinstance(record, kind)]

    def newest(self, kind: type[Any]) -> Any:
        return max(self.all(kind), key=lambda record: record.id)


def minor(text: str) -> int:
    whole, _, cents = text.partition(".")
    return int(whole) * 100 + int(cents.ljust(2, "0") or 0)
