"""Refunds: money on its way back. Never more than the captured amount, even with concurrent requests."""

from typing import Literal, assert_never

import msgspec

from tillway.domain import stored_credit
from tillway.domain.amount_limits import check_part
from tillway.domain.attempt import AskLater, Attempt, GiveUp, Retry, next_step
from tillway.domain.charge import Charge
from tillway.domain.commands import CreateRefund, UpdateRefund
from tillway.domain.customer import Customer
from tillway.domain.ledger import Entry, balance_entry, transfer_entry
from tillway.domain.method_types import METHOD_TYPES
from tillway.domain.money import spell
from tillway.domain.outcome import ActionRequired, Declined, NotSent, Outcome, Pending, Succeeded, Unknown
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import Changes, EventDraft, Moment, Record, changed, merged_metadata
from tillway.domain.refusal import Refused
from tillway.domain.source_api import SourceApi

Status = Literal["pending", "succeeded", "failed", "canceled"]


class Refund(Record, frozen=True, kw_only=True):
    """A refund of `amount_minor` minor units. Its attempt has the id's own suffix, and `reference` where a key gave it
    one."""

    amount_minor: int
    currency: str
    charge: str
    payment: str
    status: Status = "pending"
    reason: str | None = None
    metadata: dict[str, str] = {}
    customer: str | None = None
    method: str | None = None
    method_type: str = "card"
    entry: str | None = None
    failure_entry: str | None = None
    failure_reason: str | None = None
    returned: bool = False
    """Whether it had succeeded before it failed."""
    attempt: str | None = None
    connector: str = ""
    instructions_email: str | None = None
    reference: str = ""
    source_api: SourceApi = SourceApi.v1


def create(
    charge: Charge,
    command: CreateRefund,
    at: Moment,
    *,
    idem: str | None = None,
    customer: Customer | None = None,
) -> Changes[Refund]:
    """Take the amount off the charge and off the balance, and start sending it back.

    If the stored credit of `customer` paid the charge, this decision returns the amount to it. Refused if the charge
    has less than the amount left.
    """
    amount = _refundable(charge, command.amount_minor)
    if command.source_api is SourceApi.v1:
        check_part(amount, charge.refundable_minor, charge.currency)
    type = METHOD_TYPES[charge.method_type]
    if type.performed_by == "platform":
        return _to_credit(charge, customer, amount, command, at)
    # From here the refund must be tried.
    suffix = at.new_suffix()
    entry = _entry(f"re_{suffix}", charge, amount, at)
    attempt = Attempt(
        id=f"att_{suffix}",
        created=at.created,
        kind="refund",
        subject=f"re_{suffix}",
        amount_minor=amount,
        currency=charge.currency,
        connector=charge.connector,
        parent=charge.reference,
        parent_bank_id=charge.bank_id,
        idem=idem,
        patience_seconds=type.patience_seconds,
        reference=at.new_reference(),
    )
    refund = msgspec.structs.replace(
        _refund(f"re_{suffix}", charge, command, at, amount),
        entry=entry.id,
        attempt=attempt.id,
        reference=attempt.reference,
    )
    after = msgspec.structs.replace(charge, refunded_minor=charge.refunded_minor + amount, last_refund=refund.id)
    return Changes(
        result=refund,
        records=(refund, after, entry),
        tasks=(attempt,),
        events=(
            EventDraft(type="refund.created", record=refund),
            EventDraft(type="charge.refunded", record=after, previous=charge),
        ),
    )


def _refund(id: str, charge: Charge, command: CreateRefund, at: Moment, amount_minor: int) -> Refund:
    """The record of a refund of the charge, without entry and attempt."""
    return Refund(
        id=id,
        created=at.created,
        amount_minor=amount_minor,
        currency=charge.currency,
        charge=charge.id,
        payment=charge.payment,
        reason=command.reason,
        metadata=merged_metadata({}, command.metadata),
        customer=charge.customer,
        method=charge.method,
        method_type=charge.method_type,
        connector=charge.connector,
        instructions_email=command.instructions_email,
        source_api=command.source_api,
    )


def releases(charge: Charge) -> bool:
    """Whether a refund of the charge would release an authorization, because no money was captured yet."""
    return charge.status == "succeeded" and not charge.captured_minor and not charge.refunded


def release(charge: Charge, command: CreateRefund, at: Moment) -> Changes[Refund]:
    """Begin the refund of a charge that `releases`: its payment's void releases all of it, and moves no account.

    Refused for a part of the amount.
    """
    if command.amount_minor not in (None, charge.amount_minor):
        raise Refused(
            "charge_not_refundable",
            f"Charge {charge.id} has not been captured, so only all of it can be released. To take less, capture less.",
            param="amount",
        )
    refund = _refund(at.new_id("re"), charge, command, at, charge.amount_minor)
    after = msgspec.structs.replace(charge, last_refund=refund.id)
    return Changes(result=refund, records=(refund, after), events=(EventDraft(type="refund.created", record=refund),))


def settle_release(refund: Refund, *, status: Literal["succeeded", "failed"]) -> Changes[Refund]:
    """End a refund that `release` has begun: the void succeeded or was refused."""
    if refund.status != "pending":
        return Changes(result=refund)
    reason = "unknown" if status == "failed" else None
    after = msgspec.structs.replace(refund, status=status, failure_reason=reason)
    failed = (EventDraft(type="refund.failed", record=after),) if status == "failed" else ()
    return Changes(
        result=after,
        records=(after,),
        events=(*failed, EventDraft(type="refund.updated", record=after, previous=refund)),
    )


def charge_of(payment: PaymentIntent, named: str | None) -> str:
    """The id of the charge for a refund of `payment`. Refused if the payment has none, and if the caller also `named`
    another charge."""
    if payment.latest_charge is None or named not in (None, payment.latest_charge):
        raise Refused(
            "charge_not_refundable",
            f"This PaymentIntent ({payment.id}) does not have a successful charge to refund.",
            param="payment_intent",
        )
    return payment.latest_charge


def _entry(id: str, charge: Charge, amount_minor: int, at: Moment) -> Entry:
    """The ledger entry that takes the refund `id` off the merchant's balance."""
    return balance_entry(
        type=METHOD_TYPES[charge.method_type].refund_entry_type,
        source=id,
        amount_minor=-amount_minor,
        currency=charge.currency,
        against="refunds",
        description=f"REFUND FOR CHARGE ({charge.description})" if charge.description else "REFUND FOR CHARGE",
        reporting_category="refund",
        at=at,
    )


def _refundable(charge: Charge, amount_minor: int | None) -> int:
    """Minor units to refund. Raises `Refused`."""
    if charge.status != "succeeded" or not charge.captured_minor:
        raise Refused(
            "charge_not_refundable",
            f"Charge {charge.id} has not been captured, so there is nothing to refund. Cancel its payment instead, "
            "or name the charge, which releases it."
            if charge.status == "succeeded" and not charge.refunded
            else f"Charge {charge.id} has been released, so there is nothing to refund."
            if charge.status == "succeeded"
            else f"Charge {charge.id} did not succeed, so there is nothing to refund.",
            param="charge",
        )
    if charge.charged_back:
        raise Refused(
            "charge_disputed", f"Charge {charge.id} has been charged back; cannot issue a refund.", param="charge"
        )
    if charge.refundable_minor == 0:
        raise Refused("charge_already_refunded", f"Charge {charge.id} has already been refunded.", param="charge")
    amount = charge.refundable_minor if amount_minor is None else amount_minor
    if amount > charge.refundable_minor:
        raise Refused(
            "refund_amount_too_large",
            f"Refund amount ({spell(amount, charge.currency)}) is greater than unrefunded amount on charge "
            f"({spell(charge.refundable_minor, charge.currency)}).",
            param="amount",
        )
    return amount


def _to_credit(
    charge: Charge, customer: Customer | None, amount_minor: int, command: CreateRefund, at: Moment
) -> Changes[Refund]:
    assert customer is not None, "a charge that stored credit paid has its customer, or the stub that is left of them"
    refund = Refund(
        id=at.new_id("re"),
        created=at.created,
        amount_minor=amount_minor,
        currency=charge.currency,
        charge=charge.id,
        payment=charge.payment,
        status="succeeded",
        reason=command.reason,
        metadata=merged_metadata({}, command.metadata),
        customer=charge.customer,
        method=charge.method,
        method_type=charge.method_type,
        instructions_email=command.instructions_email,
        source_api=command.source_api,
    )
    returned = stored_credit.return_to(customer, amount_minor, charge.currency, source=refund.id, at=at)
    after = msgspec.structs.replace(charge, refunded_minor=charge.refunded_minor + amount_minor, last_refund=refund.id)
    return returned.then(
        Changes(
            result=refund,
            records=(refund, after),
            events=(
                EventDraft(type="refund.created", record=refund),
                EventDraft(type="charge.refunded", record=after, previous=charge),
            ),
        )
    )


def settle(
    refund: Refund, charge: Charge, attempt: Attempt, outcome: Outcome, at: Moment, *, first_ask_seconds: float = 5.0
) -> Changes[Refund]:
    """Book the provider's outcome; a second time it changes nothing."""
    if refund.attempt != attempt.id:
        return Changes(result=refund, deletes=(attempt.id,))
    match outcome:
        case Succeeded():
            return _book_paid(refund, attempt, at)
        case Declined():
            changes = fail(refund, charge, outcome, at)
            return msgspec.structs.replace(changes, deletes=(attempt.id,))
        case NotSent() | Pending() | Unknown():
            match next_step(attempt, outcome, at, first_ask_seconds=first_ask_seconds):
                case GiveUp(declined=declined):
                    changes = fail(refund, charge, declined, at)
                    return msgspec.structs.replace(changes, deletes=(attempt.id,))
                case Retry(attempt=again) | AskLater(attempt=again):
                    return Changes(result=refund, tasks=(again,))
        case ActionRequired():
            raise AssertionError("a refund cannot need an action of the customer")
        case _:
            assert_never(outcome)


def _book_paid(refund: Refund, attempt: Attempt, at: Moment) -> Changes[Refund]:
    after = msgspec.structs.replace(refund, status="succeeded", attempt=None)
    paid = transfer_entry(
        source=refund.id,
        debit="refunds",
        credit=f"receivable:{refund.connector}",
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        at=at,
    )
    return Changes(
        result=after,
        records=(after, paid),
        deletes=(attempt.id,),
        events=(EventDraft(type="refund.updated", record=after, previous=refund),),
    )


def fail(refund: Refund, charge: Charge, outcome: Declined, at: Moment) -> Changes[Refund]:
    """Return the money to the balance, so that it can be refunded again. Also for a refund that had succeeded
    before."""
    if refund.status in ("failed", "canceled"):
        return Changes(result=refund)
    returned = balance_entry(
        type="refund_failure",
        source=refund.id,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        against=f"receivable:{refund.connector}" if refund.status == "succeeded" else "refunds",
        description="REFUND FAILURE",
        reporting_category="refund_failure",
        at=at,
    )
    after = msgspec.structs.replace(
        refund,
        status="failed",
        attempt=None,
        failure_reason=_failure_reason(outcome),
        failure_entry=returned.id,
        returned=refund.status == "succeeded",
    )
    restored = msgspec.structs.replace(charge, refunded_minor=charge.refunded_minor - refund.amount_minor)
    return Changes(
        result=after,
        records=(after, restored, returned),
        events=(
            EventDraft(type="refund.failed", record=after),
            EventDraft(type="refund.updated", record=after, previous=refund),
            EventDraft(type="charge.refund.updated", record=after, previous=refund),
        ),
    )


def _failure_reason(outcome: Declined) -> str:
    """Stripe's values for it: `expired_or_canceled_card`, `lost_or_stolen_card`, `declined` or `unknown`."""
    if outcome.decline_code in ("lost_card", "stolen_card"):
        return "lost_or_stolen_card"
    if outcome.decline_code == "expired_card":
        return "expired_or_canceled_card"
    return "declined" if outcome.code == "card_declined" else "unknown"


def update(refund: Refund, command: UpdateRefund) -> Changes[Refund]:
    after = changed(refund, command.given())
    if after == refund:
        return Changes(result=refund)
    return Changes(
        result=after,
        records=(after,),
        events=(
            EventDraft(type="refund.updated", record=after, previous=refund),
            EventDraft(type="charge.refund.updated", record=after, previous=refund),
        ),
    )


def expire(refund: Refund) -> Changes[Refund]:
    """Only a refund that waits for the customer can expire (https://docs.stripe.com/api/refunds/expire)."""
    raise Refused(
        "refund_unexpected_state",
        f"Refund {refund.id} cannot expire because it has a status of {refund.status}. Only refunds that wait for an "
        "action of the customer (requires_action) expire; refunds here never do.",
    )


def cancel(refund: Refund) -> Changes[Refund]:
    """Only a refund that waits for the customer can be cancelled, and a card refund never does (Stripe's rule)."""
    raise Refused(
        "refund_unexpected_state",
        f"Refund {refund.id} cannot be canceled because it has a status of {refund.status}. Only refunds that wait for "
        "an action of the customer (requires_action) can be canceled; refunds to a card never do.",
    )
