"""The outcome of an operation that settled without a charge, refund or payout of its own.

A capture, void or increment changes its charge, a verification its setup, and an authorization that was ended before
its provider decided has no charge. Their attempts are deleted when they settle. This record keeps the outcome by the
reference, so that a provider's later word can be compared with it. It also leads to the charge of a further
authorization of a payment, whose reference the payment forgets after some more.
"""

from typing import Literal

from tillway.domain.attempt import Attempt
from tillway.domain.outcome import OperationKind, Outcome, Succeeded
from tillway.domain.record import Moment, Record


class SettledOperation(Record, frozen=True, kw_only=True):
    """`subject` is the charge, payment or setup that it was about. `amount_minor` is its amount in minor units of
    `currency`; `parent`, `parent_bank_id`, `capture`, `final` and `captured_minor` are those of its attempt."""

    kind: OperationKind
    subject: str
    status: Literal["succeeded", "failed", "canceled"]
    amount_minor: int
    currency: str
    connector: str
    parent: str | None = None
    parent_bank_id: str | None = None
    capture: bool = False
    final: bool = True
    captured_minor: int = 0


def settled_id(tail: str) -> str:
    """The id of the settled operation with that tail of its reference."""
    return f"sop_{tail}"


def settled_operation(attempt: Attempt, outcome: Outcome, at: Moment, *, subject: str) -> SettledOperation:
    """The record of an attempt that ends with this outcome."""
    canceled = attempt.withdrawn == "canceled"
    return SettledOperation(
        id=settled_id(attempt.name.removeprefix("att_")),
        created=at.created,
        kind=attempt.kind,
        subject=subject,
        status="succeeded" if isinstance(outcome, Succeeded) else "canceled" if canceled else "failed",
        amount_minor=attempt.amount_minor,
        currency=attempt.currency,
        connector=attempt.connector,
        parent=attempt.parent,
        parent_bank_id=attempt.parent_bank_id,
        capture=attempt.capture,
        final=attempt.final,
        captured_minor=attempt.captured_minor,
    )
