"""Disputes: a cardholder takes a payment back through the bank, and the merchant may answer."""

from typing import Any, Final, Literal

import msgspec

from tillway.domain.charge import Charge
from tillway.domain.commands import RespondToDispute
from tillway.domain.ledger import Entry, balance_entry, transfer_entry
from tillway.domain.record import NO_CHANGES, Changes, EventDraft, Moment, Record, changed
from tillway.domain.refusal import Refused

EVIDENCE_DUE_SECONDS = 9 * 24 * 60 * 60
FEE_MINOR = 1500
"""The merchant's cost of a dispute, in minor units; returned if the dispute is won."""

TEST_EVIDENCE: Final[dict[str, Literal["won", "lost"]]] = {"winning_evidence": "won", "losing_evidence": "lost"}
"""These words as `uncategorized_text` decide a dispute in test mode (https://docs.stripe.com/testing). In live mode
they are evidence like any other."""


Status = Literal[
    "needs_response",
    "under_review",
    "won",
    "lost",
    "warning_needs_response",
    "warning_under_review",
    "warning_closed",
]
"""Stripe's values, https://docs.stripe.com/api/disputes/object. Those of an inquiry begin with `warning_`."""


class Dispute(Record, frozen=True, kw_only=True):
    """`inquiry` disputes (status warning_…) withhold no money. `entries` are its movements of the balance: none, or the
    withdrawal, and later the return."""

    amount_minor: int
    currency: str
    charge: str
    payment: str
    reason: str
    status: Status = "needs_response"
    inquiry: bool = False
    connector: str = ""
    brand: str | None = "visa"
    """The card's; None where a bank account was debited."""
    evidence: dict[str, Any] = {}
    submissions: int = 0
    due_by: int = 0
    metadata: dict[str, str] = {}
    intended_submission_method: str | None = None
    entries: tuple[Entry, ...] = ()

    @property
    def leaves_charge_refundable(self) -> bool:
        return self.inquiry or self.status == "won"


def open_dispute(
    charge: Charge, *, reason: str, inquiry: bool, amount_minor: int | None, at: Moment
) -> Changes[Dispute | None]:
    """A second notice of the same dispute changes nothing."""
    if charge.dispute is not None or not charge.captured:
        return NO_CHANGES
    amount = charge.refundable_minor if amount_minor is None else min(amount_minor, charge.refundable_minor)
    dispute = Dispute(
        id=at.new_id("du"),
        created=at.created,
        amount_minor=amount,
        currency=charge.currency,
        charge=charge.id,
        payment=charge.payment,
        reason=reason,
        status="warning_needs_response" if inquiry else "needs_response",
        inquiry=inquiry,
        connector=charge.connector,
        brand=charge.card.brand if charge.card is not None else None,
        due_by=at.now + EVIDENCE_DUE_SECONDS,
    )
    disputed = msgspec.structs.replace(charge, disputed=True, charged_back=not inquiry, dispute=dispute.id)
    if inquiry:
        return Changes(
            result=dispute,
            records=(dispute, disputed),
            events=(EventDraft(type="charge.dispute.created", record=dispute),),
        )
    withdrawn = balance_entry(
        type="adjustment",
        source=dispute.id,
        amount_minor=-amount,
        currency=charge.currency,
        against="disputes",
        description=f"Chargeback withdrawal for {charge.id}",
        reporting_category="dispute",
        at=at,
        fee_minor=FEE_MINOR,
        fee_description="Dispute fee",
    )
    dispute = msgspec.structs.replace(dispute, entries=(withdrawn,))
    return Changes(
        result=dispute,
        records=(dispute, disputed, withdrawn),
        events=(
            EventDraft(type="charge.dispute.created", record=dispute),
            EventDraft(type="charge.dispute.funds_withdrawn", record=dispute),
        ),
    )


def respond(
    dispute: Dispute, charge: Charge, command: RespondToDispute, at: Moment, *, livemode: bool
) -> Changes[Dispute]:
    """Stage evidence, or with `submit` send it to the bank. In test mode, `TEST_EVIDENCE` decides at once."""
    given = command.given()
    submit = given.pop("submit", "evidence" in given)
    if submit and not given.get("evidence") and not dispute.evidence:
        raise Refused("parameter_missing", "There is no evidence to submit. Send `evidence`.", param="evidence")
    if dispute.status not in ("needs_response", "warning_needs_response"):
        raise Refused(
            "dispute_unexpected_state", f"This dispute can no longer be changed: its status is {dispute.status}."
        )
    merged = {**dispute.evidence, **(given.pop("evidence", None) or {})}
    evidence = {name: value for name, value in merged.items() if value is not None}
    after = msgspec.structs.replace(changed(dispute, given), evidence=evidence)
    if not submit:
        return _update(dispute, after)
    after = msgspec.structs.replace(after, submissions=dispute.submissions + 1)
    decided = None if livemode else TEST_EVIDENCE.get(evidence.get("uncategorized_text") or "")
    if decided == "won":
        return _win(dispute, after, charge, at)
    if decided == "lost":
        return _lose(dispute, after, charge, at)
    review: Status = "warning_under_review" if dispute.inquiry else "under_review"
    return _update(dispute, msgspec.structs.replace(after, status=review))


def close(dispute: Dispute, charge: Charge, at: Moment) -> Changes[Dispute]:
    """Accept the dispute: the money stays with the cardholder."""
    if dispute.status not in ("needs_response", "warning_needs_response"):
        raise Refused("dispute_unexpected_state", f"This dispute cannot be closed: its status is {dispute.status}.")
    return _lose(dispute, dispute, charge, at)


def _update(before: Dispute, after: Dispute) -> Changes[Dispute]:
    if after == before:
        return Changes(result=before)
    return Changes(
        result=after,
        records=(after,),
        events=(EventDraft(type="charge.dispute.updated", record=after, previous=before),),
    )


def _win(before: Dispute, after: Dispute, charge: Charge, at: Moment) -> Changes[Dispute]:
    if before.inquiry:
        closed = msgspec.structs.replace(after, status="warning_closed")
        return Changes(
            result=closed,
            records=(closed,),
            events=(EventDraft(type="charge.dispute.closed", record=closed, previous=before),),
        )
    returned = balance_entry(
        type="adjustment",
        source=before.id,
        amount_minor=before.amount_minor,
        currency=before.currency,
        against="disputes",
        description=f"Chargeback reversal for {charge.id}",
        reporting_category="dispute_reversal",
        at=at,
        fee_minor=-FEE_MINOR,
        fee_description="Dispute fee refund",
    )
    closed = msgspec.structs.replace(after, status="won", entries=(*before.entries, returned))
    restored = msgspec.structs.replace(charge, charged_back=False)
    return Changes(
        result=closed,
        records=(closed, restored, returned),
        events=(
            EventDraft(type="charge.dispute.funds_reinstated", record=closed),
            EventDraft(type="charge.dispute.closed", record=closed, previous=before),
        ),
    )


def _lose(before: Dispute, after: Dispute, charge: Charge, at: Moment) -> Changes[Dispute]:
    status = "warning_closed" if before.inquiry else "lost"
    closed = msgspec.structs.replace(after, status=status)
    settled = (
        ()
        if before.inquiry
        else (
            transfer_entry(
                source=before.id,
                debit="disputes",
                credit=f"receivable:{before.connector}",
                amount_minor=before.amount_minor,
                currency=before.currency,
                at=at,
            ),
        )
    )
    return Changes(
        result=closed,
        records=(closed, *settled),
        events=(EventDraft(type="charge.dispute.closed", record=closed, previous=before),),
    )
