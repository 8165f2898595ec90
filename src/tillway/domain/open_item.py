"""Open items: two accounts of the same money that do not agree, for an operator to clear up.

A provider's word that contradicts a settled outcome, or an operation at a provider that nothing here explains, is never
dropped and never guessed: it becomes an open item with both sides, an event and an alarm. So does the payment of a
failed order that cannot be returned while it is disputed.
"""

import hashlib
from typing import Any, Literal

import msgspec

from tillway.domain.account import SCOPE_KEY_LENGTH
from tillway.domain.event import NoticeTask
from tillway.domain.record import Changes, EventDraft, Moment, Record
from tillway.domain.refusal import Refused

Kind = Literal["contradiction", "unexplained", "unreturned"]
"""`unreturned` is a payment that its customer is owed if the merchant wins the dispute over it."""

NOTICES_MAX = 64
"""Most notices that an item keeps: more than the disputes of a payment have, at each stage and with each outcome."""


class OpenItem(Record, frozen=True, kw_only=True):
    """`ours` and `theirs` are the two sides in words, `reference` the reference at the provider `connector`.

    `subject` is the id of the payment, refund or payout concerned, None where nothing here explains the operation;
    `operation` is then its kind at the provider (`authorize`, `capture`, …), and `parent` the reference of its
    authorization. An item whose operation is a `dispute` is about one that could not be booked: its `reference` is the
    bank's.
    Amounts are minor units. An operator closes the item with a `resolution`. `notices` are the provider's later words
    about an unexplained operation, or the reports of a dispute; they are heard when a repeated request explains it.
    """

    kind: Kind
    connector: str
    reference: str
    ours: str
    theirs: str
    subject: str | None = None
    operation: str | None = None
    parent: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    status: Literal["open", "closed"] = "open"
    closed_at: int | None = None
    closed_by: str | None = None
    resolution: str | None = None
    notices: tuple[dict[str, Any], ...] = ()


def item_id(tail: str, theirs: str) -> str:
    """The id of the item of a reference, whose tail is given.

    There is one item for each reference and word of the provider, however often the provider repeats it."""
    return f"oi_{tail}.{theirs}"


def tail_of(id: str) -> str:
    """The tail of the reference that the item with that id is about."""
    return id.removeprefix("oi_").partition(".")[0]


def dispute_item(reports: tuple[dict[str, Any], ...], connector: str, payment: str | None, at: Moment) -> OpenItem:
    """The item of a dispute that cannot be booked. `reports` are its notices, at least one."""
    last = reports[-1]
    return OpenItem(
        id=dispute_item_id(last),
        created=at.created,
        kind="unexplained",
        connector=connector,
        reference=last["id"],
        ours="unknown",
        theirs=last.get("verdict", "opened"),
        subject=payment,
        operation="dispute",
        parent=last["reference"],
        amount_minor=last.get("amount_minor"),
        currency=last["currency"].lower() if last.get("currency") is not None else None,
        notices=reports,
    )


def dispute_item_id(report: dict[str, Any]) -> str:
    """The id of the item of a dispute. The bank's reference of it may have any characters."""
    digest = hashlib.blake2b(report["id"].encode(), digest_size=8).hexdigest()
    return item_id(report["reference"][SCOPE_KEY_LENGTH:], f"dispute-{digest}")


def open_item(item: OpenItem) -> Changes[OpenItem]:
    return Changes(result=item, records=(item,), events=(EventDraft(type="open_item.created", record=item),))


def keep_notice(item: OpenItem, notice: dict[str, Any]) -> Changes[OpenItem]:
    """Keep a provider's word about an unexplained operation until its request is repeated. The same word again, or one
    beyond NOTICES_MAX, changes nothing."""
    if notice in item.notices or len(item.notices) >= NOTICES_MAX:
        return Changes(result=item)
    kept = msgspec.structs.replace(item, notices=(*item.notices, notice))
    return Changes(result=kept, records=(kept,))


def explain(item: OpenItem, subject: str, ours: str, at: Moment) -> Changes[OpenItem]:
    """The request of an unexplained operation was repeated, and `subject` has it now, with the outcome `ours`.

    Close the item, and hear its notices. An item stays open, as a contradiction, if the provider had performed the
    operation and has now declined it. A dispute goes on waiting where its operation did not succeed.
    """
    if item.operation == "dispute" and ours != "succeeded":
        return Changes(result=item)
    if (item.theirs, ours) == ("succeeded", "declined"):
        contradicted = msgspec.structs.replace(item, kind="contradiction", ours=ours, subject=subject)
        return Changes(result=contradicted, records=(contradicted,))
    return _end(item, subject, "The request was repeated under its Idempotency-Key.", at)


def end_booked(item: OpenItem, payment: str, at: Moment) -> Changes[OpenItem]:
    """The dispute of the item is booked now, by a notice that came again. Close the item, and hear what it keeps."""
    return _end(item, payment, "The dispute is booked.", at)


def _end(item: OpenItem, subject: str, resolution: str, at: Moment) -> Changes[OpenItem]:
    ended = msgspec.structs.replace(
        item, status="closed", closed_at=at.now, closed_by="system", resolution=resolution, subject=subject
    )
    closing = EventDraft(type="open_item.closed", record=ended, previous=item)
    return Changes(result=ended, records=(ended,), events=(closing,), tasks=_hear(item, at))


def close(item: OpenItem, *, by: str, reason: str, at: Moment) -> Changes[OpenItem]:
    """Close an item by hand. A dispute that an unexplained operation has kept goes on as an item of its own; the
    reports in the item of a dispute are heard again, in case that its payment is booked by now.

    Refused `open_item_closed` where it is closed already.
    """
    if item.status == "closed":
        raise Refused("open_item_closed", f"The open item {item.id} was closed already.")
    closed = msgspec.structs.replace(item, status="closed", closed_at=at.now, closed_by=by, resolution=reason)
    changes = Changes(
        result=closed,
        records=(closed,),
        events=(EventDraft(type="open_item.closed", record=closed, previous=item),),
        tasks=_hear(item, at) if item.operation == "dispute" else (),
    )
    for reports in _disputes_in(item).values() if item.operation != "dispute" else ():
        changes = open_item(dispute_item(reports, item.connector, item.subject, at)).then(changes)
    return changes


def successors(item: OpenItem) -> tuple[str, ...]:
    """The ids of the items that the closing of this one by hand has opened."""
    return tuple(_disputes_in(item)) if item.operation != "dispute" and item.status == "closed" else ()


def _disputes_in(item: OpenItem) -> dict[str, tuple[dict[str, Any], ...]]:
    """The reports of the disputes that the item keeps, by the ids of their own items."""
    found: dict[str, tuple[dict[str, Any], ...]] = {}
    for notice in item.notices:
        if notice["kind"] == "dispute":
            id = dispute_item_id(notice)
            found[id] = (*found.get(id, ()), notice)
    return found


def _hear(item: OpenItem, at: Moment) -> tuple[NoticeTask, ...]:
    return tuple(
        NoticeTask(id=at.new_id("ntc"), created=at.created, connector=item.connector, due_at_ms=at.now_ms, told=notice)
        for notice in item.notices
    )
