"""Disputes: a cardholder takes a payment back through the bank, and the merchant may answer."""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from tillway.domain.attempt import interval_seconds
from tillway.domain.charge import Charge
from tillway.domain.commands import RespondToDispute
from tillway.domain.ledger import Entry, balance_entry, transfer_entry
from tillway.domain.money import spell
from tillway.domain.open_item import OpenItem, item_id, open_item
from tillway.domain.record import NO_CHANGES, Changes, EventDraft, Moment, Record, Value, changed
from tillway.domain.refusal import Refused

EVIDENCE_DUE_SECONDS = 9 * 24 * 60 * 60
EVIDENCE_DUE_MAX = 99_999_999_999
"""Latest deadline, in epoch seconds (in the year 5138). Larger numbers are milliseconds or mistakes."""

SEND_AGAIN_FIRST_SECONDS = 5.0
"""How long the first repetition of a reply waits."""

FEE_MINOR = 1500
"""The merchant's cost of a dispute, in minor units; returned if the dispute is won."""

FILE_EVIDENCE: Final = (
    "cancellation_policy",
    "customer_communication",
    "customer_signature",
    "duplicate_charge_documentation",
    "receipt",
    "refund_policy",
    "service_documentation",
    "shipping_documentation",
    "uncategorized_file",
)
"""The evidence that is the id of an uploaded file (https://docs.stripe.com/api/disputes/evidence_object)."""

TEST_EVIDENCE: Final[dict[str, Literal["won", "lost"]]] = {"winning_evidence": "won", "losing_evidence": "lost"}
"""These words as `uncategorized_text` decide a dispute in test mode (https://docs.stripe.com/testing). In live mode
they are evidence like any other."""


EVIDENCE_CHARACTERS_MAX: Final = 150_000
"""Stripe's bound of all evidence together (https://docs.stripe.com/api/disputes/update)."""

DISPUTES_MAX = 20
"""Most disputes of one payment."""

DISPUTE_REFERENCE_MAX = 255
"""Longest reference of a dispute at a bank, in characters."""

NETWORK_REASON_CODE_MAX = 16
"""Longest code of a card network, in characters."""

REASONS = frozenset(
    (
        "bank_cannot_process",
        "check_returned",
        "credit_not_processed",
        "customer_initiated",
        "debit_not_authorized",
        "duplicate",
        "fraudulent",
        "general",
        "incorrect_account_details",
        "insufficient_funds",
        "noncompliant",
        "product_not_received",
        "product_unacceptable",
        "subscription_canceled",
        "unrecognized",
    )
)
"""Stripe's values, https://docs.stripe.com/api/disputes/object. Another word of a bank becomes `general`."""

NETWORK_REASON_CODES: Final[dict[str, dict[str, str]]] = {
    "visa": {
        "credit_not_processed": "13.6",
        "duplicate": "12.6.1",
        "fraudulent": "10.4",
        "product_not_received": "13.1",
        "product_unacceptable": "13.3",
        "subscription_canceled": "13.2",
        "unrecognized": "10.4",
    },
    "mastercard": {
        "credit_not_processed": "4853",
        "duplicate": "4834",
        "fraudulent": "4837",
        "product_not_received": "4853",
        "product_unacceptable": "4853",
        "subscription_canceled": "4853",
        "unrecognized": "4837",
    },
}
"""The network's code for a reason, by brand, if the bank tells none."""

Stage = Literal["inquiry", "chargeback"]
Verdict = Literal["opened", "won", "lost", "accepted"]

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
    reference: str = ""
    """The bank's; empty in disputes of earlier versions."""
    network_reason_code: str | None = None
    brand: str | None = "visa"
    """The card's; None where a bank account was debited."""
    evidence: dict[str, Any] = {}
    submissions: int = 0
    due_by: int = 0
    metadata: dict[str, str] = {}
    intended_submission_method: str | None = None
    entries: tuple[Entry, ...] = ()
    lapsed: bool = False
    """Whether a test clock ended it at its deadline, before `due_by`."""

    @property
    def network_code(self) -> str | None:
        """The card network's code of the reason, which the bank told or which fits the reason."""
        return self.network_reason_code or NETWORK_REASON_CODES.get(self.brand or "", {}).get(self.reason)

    @property
    def waits(self) -> bool:
        """Whether it waits for the merchant's answer."""
        return self.status in ("needs_response", "warning_needs_response")

    @property
    def leaves_charge_refundable(self) -> bool:
        return self.inquiry or self.status == "won"


class DisputeTask(Record, frozen=True, kw_only=True):
    """A task: tell the bank the evidence in `text` or the acceptance, or end the dispute at its deadline.

    A reply goes out again, unchanged, until the bank has taken it. `stage` is that of the dispute when it was given;
    empty in tasks of earlier versions.
    """

    kind: Literal["evidence", "accept", "deadline"]
    dispute: str
    due_at_ms: int
    text: str = ""
    stage: Stage | Literal[""] = ""
    sent: int = 0


class Told(Value, frozen=True, kw_only=True):
    """A bank's report of a dispute. `reference` is the bank's and the same in all reports of one dispute.

    `amount_minor` is the disputed amount; None if the bank does not tell it: all that is left of the charge. `verdict`
    is its outcome, or `opened`. `evidence_due` is epoch seconds.
    """

    reference: str
    stage: Stage
    verdict: Verdict = "opened"
    amount_minor: int | None = None
    currency: str | None = None
    reason: str = "general"
    network_reason_code: str | None = None
    evidence_due: int | None = None


def objection(charge: Charge, told: Told) -> str | None:
    """The reason why a report about `charge` cannot be true; None if it can."""
    if told.currency is not None and told.currency.lower() != charge.currency:
        return f"the payment is in {charge.currency}"
    if told.amount_minor is not None and told.amount_minor <= 0:
        return "the amount is not positive"
    if told.amount_minor is not None and told.amount_minor > charge.captured_minor:
        return "the amount is more than was paid"
    if told.reference not in charge.disputes and len(charge.disputes) >= DISPUTES_MAX:
        return f"a payment has at most {DISPUTES_MAX} disputes"
    return None


def waits_for_capture(charge: Charge, told: Told) -> bool:
    """Whether a further capture can make a report true to which there is an `objection`."""
    amount_minor = told.amount_minor or 0
    within = charge.captured_minor < amount_minor <= charge.amount_minor
    of_its_currency = told.currency is None or told.currency.lower() == charge.currency
    room = told.reference in charge.disputes or len(charge.disputes) < DISPUTES_MAX
    return not charge.captured and within and of_its_currency and room


def hear(charge: Charge, known: Sequence[Dispute], told: Told, at: Moment) -> Changes[Record | None]:
    """Book a bank's report. `known` are the charge's disputes. A repeated report changes nothing.

    An inquiry may become a chargeback; a late report of the inquiry after that changes nothing. A later deadline holds;
    an earlier one may be that of an older report. An outcome that contradicts an earlier one becomes an open item, and
    so does a report of another amount at the same stage: neither amount is booked for the other. The caller has checked
    `objection`.
    """
    found = _under(charge, known, told)
    opened: Changes[Any] = NO_CHANGES
    if found is None or (found.inquiry and told.stage == "chargeback"):
        begun = _open(charge, told, at) if found is None else _escalate(found, charge, told, at)
        opened, found = begun, begun.result
        charge = next(record for record in begun.records if isinstance(record, Charge))
    elif not found.inquiry and told.stage == "inquiry":
        return NO_CHANGES
    elif told.amount_minor not in (None, found.amount_minor):
        return _open_contradiction(found, told, at)
    elif told.verdict == "opened" and found.waits and (told.evidence_due or 0) > found.due_by:
        return _put_off(found, told, at)
    if told.verdict == "opened":
        return opened
    won = told.verdict == "won"
    if found.status in ("won", "lost", "warning_closed"):
        if found.inquiry or (found.status == "won") == won:
            return opened
        return opened.then(_open_contradiction(found, told, at))
    others = [one for one in known if one.id != found.id]
    return opened.then(_win(found, found, charge, at, others) if won else _lose(found, found, charge, at))


def _under(charge: Charge, known: Sequence[Dispute], told: Told) -> Dispute | None:
    """The dispute of that reference. A dispute of an earlier version has none: it is the charge's only one."""
    id = charge.disputes.get(told.reference)
    if id is None and not charge.disputes:
        id = charge.dispute
    return next((one for one in known if one.id == id), None)


def _open(charge: Charge, told: Told, at: Moment) -> Changes[Dispute]:
    inquiry = told.stage == "inquiry"
    dispute = Dispute(
        id=at.new_id("du"),
        created=at.created,
        amount_minor=charge.refundable_minor if told.amount_minor is None else told.amount_minor,
        currency=charge.currency,
        charge=charge.id,
        payment=charge.payment,
        reason=told.reason if told.reason in REASONS else "general",
        network_reason_code=told.network_reason_code,
        status="warning_needs_response" if inquiry else "needs_response",
        inquiry=inquiry,
        connector=charge.connector,
        reference=told.reference,
        brand=charge.card.brand if charge.card is not None else None,
        due_by=told.evidence_due or at.now + EVIDENCE_DUE_SECONDS,
    )
    disputed = msgspec.structs.replace(
        charge,
        disputed=True,
        charged_back=charge.charged_back or not inquiry,
        dispute=dispute.id,
        disputes={**charge.disputes, told.reference: dispute.id},
    )
    withdrawn = NO_CHANGES if inquiry else _withdraw(dispute, at)
    dispute = withdrawn.result or dispute
    created = Changes(
        result=dispute,
        records=(dispute, disputed),
        events=(EventDraft(type="charge.dispute.created", record=dispute),),
    )
    return created.then(withdrawn).then(_deadline(dispute, at))


def _escalate(inquiry: Dispute, charge: Charge, told: Told, at: Moment) -> Changes[Dispute]:
    """The inquiry has become a chargeback, of the amount that the bank names now."""
    dispute = msgspec.structs.replace(
        inquiry,
        inquiry=False,
        status="needs_response",
        amount_minor=inquiry.amount_minor if told.amount_minor is None else told.amount_minor,
        reason=told.reason if told.reason in REASONS else inquiry.reason,
        network_reason_code=told.network_reason_code or inquiry.network_reason_code,
        due_by=told.evidence_due or at.now + EVIDENCE_DUE_SECONDS,
    )
    changed_charge = msgspec.structs.replace(charge, charged_back=True)
    updated = Changes(
        result=dispute,
        records=(dispute, changed_charge),
        events=(EventDraft(type="charge.dispute.updated", record=dispute, previous=inquiry),),
    )
    return updated.then(_withdraw(dispute, at)).then(_deadline(dispute, at))


def _put_off(dispute: Dispute, told: Told, at: Moment) -> Changes[Dispute]:
    """The bank gives the merchant longer to answer."""
    later = msgspec.structs.replace(dispute, due_by=told.evidence_due)
    return _update(dispute, later).then(_deadline(later, at))


def _withdraw(dispute: Dispute, at: Moment) -> Changes[Dispute]:
    """Take the amount and the fee from the balance, which may become negative."""
    withdrawn = balance_entry(
        type="adjustment",
        source=dispute.id,
        amount_minor=-dispute.amount_minor,
        currency=dispute.currency,
        against="disputes",
        description=f"Chargeback withdrawal for {dispute.charge}",
        reporting_category="dispute",
        at=at,
        fee_minor=FEE_MINOR,
        fee_description="Dispute fee",
    )
    dispute = msgspec.structs.replace(dispute, entries=(*dispute.entries, withdrawn))
    return Changes(
        result=dispute,
        records=(dispute, withdrawn),
        events=(EventDraft(type="charge.dispute.funds_withdrawn", record=dispute),),
    )


def deadline_ids(dispute: Dispute) -> tuple[str, str]:
    """The ids that the task of a dispute's deadline may have: now, and as earlier versions made it."""
    stage: Stage = "inquiry" if dispute.inquiry else "chargeback"
    suffix = dispute.id.removeprefix("du_")
    return f"dut_{suffix}.{stage}.{dispute.due_by}", f"dut_{suffix}.{dispute.due_by}"


def repair(dispute: Dispute, at: Moment) -> Changes[Any]:
    """Give a dispute that waits for an answer the task of its deadline, which it lacks. An earlier version made none
    for a chargeback whose inquiry had closed at the same deadline."""
    return _deadline(dispute, at) if dispute.waits else NO_CHANGES


def _deadline(dispute: Dispute, at: Moment) -> Changes[None]:
    """The task of a deadline. A chargeback has its own, also where its inquiry had the same deadline: that task may
    have closed the inquiry before the bank told of the chargeback."""
    task = DisputeTask(
        id=deadline_ids(dispute)[0],
        created=at.created,
        kind="deadline",
        dispute=dispute.id,
        due_at_ms=dispute.due_by * 1000,
    )
    return Changes(result=None, tasks=(task,))


def expire(dispute: Dispute, charge: Charge, at: Moment, *, early: bool = False) -> Changes[Any]:
    """Lose the dispute if its deadline has passed without an answer; an inquiry is closed. `early`: a test clock says
    that it has passed."""
    if not dispute.waits or (dispute.due_by > at.now and not early):
        return NO_CHANGES
    return _lose(dispute, msgspec.structs.replace(dispute, lapsed=True) if early else dispute, charge, at)


def _reply(dispute: Dispute, kind: Literal["evidence", "accept"], at: Moment, text: str = "") -> Changes[None]:
    """The task that tells the bank. A dispute of an earlier version has no reference, and the bank is not told."""
    if not dispute.reference:
        return NO_CHANGES
    stage: Stage = "inquiry" if dispute.inquiry else "chargeback"
    task = DisputeTask(
        id=f"dut_{dispute.id.removeprefix('du_')}.{stage}.{kind}",
        created=at.created,
        kind=kind,
        dispute=dispute.id,
        due_at_ms=at.now_ms,
        text=text,
        stage=stage,
    )
    return Changes(result=None, tasks=(task,))


def send_again(task: DisputeTask, at: Moment) -> DisputeTask:
    """The reply once more, unchanged, after the bank may not have received it."""
    delay = interval_seconds(task.sent, SEND_AGAIN_FIRST_SECONDS)
    return msgspec.structs.replace(task, sent=task.sent + 1, due_at_ms=at.now_ms + int(delay * 1000))


def _open_contradiction(dispute: Dispute, told: Told, at: Moment) -> Changes[OpenItem]:
    """The open item about a report of another outcome than the dispute has, or of another amount."""
    ours, theirs, word = str(dispute.status), str(told.verdict), str(told.verdict)
    if told.amount_minor not in (None, dispute.amount_minor):
        ours = f"{ours}, {spell(dispute.amount_minor, dispute.currency)}"
        theirs = f"{theirs}, {spell(told.amount_minor, dispute.currency)}"
        word = f"{word}-{told.amount_minor}"
    return open_item(
        OpenItem(
            id=item_id(dispute.id.removeprefix("du_"), word),
            created=at.created,
            kind="contradiction",
            connector=dispute.connector,
            reference=told.reference,
            ours=ours,
            theirs=theirs,
            subject=dispute.id,
            amount_minor=dispute.amount_minor,
            currency=dispute.currency,
        )
    )


def respond(
    dispute: Dispute,
    charge: Charge,
    command: RespondToDispute,
    at: Moment,
    *,
    livemode: bool,
    others: Sequence[Dispute] = (),
    replies: bool = False,
) -> Changes[Dispute]:
    """Stage evidence, or with `submit` send it to the bank if the bank takes `replies`. In test mode, `TEST_EVIDENCE`
    decides at once."""
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
    characters = sum(len(str(value)) for value in evidence.values())
    if characters > EVIDENCE_CHARACTERS_MAX:
        raise Refused(
            "parameter_invalid_string",
            f"The evidence of a dispute has at most {EVIDENCE_CHARACTERS_MAX:,} characters in all fields together, and "
            f"this would make {characters:,}. Shorten it, or clear a field with an empty value.",
            param="evidence",
        )
    after = msgspec.structs.replace(changed(dispute, given), evidence=evidence)
    if not submit:
        return _update(dispute, after)
    after = msgspec.structs.replace(after, submissions=dispute.submissions + 1)
    decided = None if livemode else TEST_EVIDENCE.get(evidence.get("uncategorized_text") or "")
    if decided == "won":
        return _win(dispute, after, charge, at, others)
    if decided == "lost":
        return _lose(dispute, after, charge, at)
    review: Status = "warning_under_review" if dispute.inquiry else "under_review"
    updated = _update(dispute, msgspec.structs.replace(after, status=review))
    if not replies:
        return updated
    text = "\n".join(f"{name}: {value}" for name, value in sorted(evidence.items()))
    return updated.then(_reply(after, "evidence", at, text))


def close(dispute: Dispute, charge: Charge, at: Moment, *, replies: bool = False) -> Changes[Dispute]:
    """Accept the dispute: the money stays with the cardholder. The bank is told if it takes `replies`."""
    if dispute.status not in ("needs_response", "warning_needs_response"):
        raise Refused("dispute_unexpected_state", f"This dispute cannot be closed: its status is {dispute.status}.")
    lost = _lose(dispute, dispute, charge, at)
    return lost.then(_reply(dispute, "accept", at)) if replies else lost


def _update(before: Dispute, after: Dispute) -> Changes[Dispute]:
    if after == before:
        return Changes(result=before)
    return Changes(
        result=after,
        records=(after,),
        events=(EventDraft(type="charge.dispute.updated", record=after, previous=before),),
    )


def _win(before: Dispute, after: Dispute, charge: Charge, at: Moment, others: Sequence[Dispute]) -> Changes[Dispute]:
    if before.inquiry:
        return _lose(before, after, charge, at)  # It withheld no money, so it ends the same way.
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
    restored = msgspec.structs.replace(
        charge, charged_back=any(not one.leaves_charge_refundable for one in others if one.id != before.id)
    )
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
