"""Open items: two accounts of the same money that do not agree, for an operator to clear up.

A provider's word that contradicts a settled outcome, or an operation at a provider that nothing here explains, is never
dropped and never guessed: it becomes an open item with both sides, an event and an alarm.
"""

from typing import Literal

import msgspec

from tillway.domain.record import Changes, EventDraft, Moment, Record
from tillway.domain.refusal import Refused

Kind = Literal["contradiction", "unexplained"]


class OpenItem(Record, frozen=True, kw_only=True):
    """`ours` and `theirs` are the two sides in words, `reference` the reference at the provider `connector`.

    `subject` is the id of the payment, refund or payout concerned, None where nothing here explains the operation;
    `operation` is then its kind at the provider (`authorize`, `capture`, …).
    Amounts are minor units. An operator closes the item with a `resolution`.
    """

    kind: Kind
    connector: str
    reference: str
    ours: str
    theirs: str
    subject: str | None = None
    operation: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    status: Literal["open", "closed"] = "open"
    closed_at: int | None = None
    closed_by: str | None = None
    resolution: str | None = None


def item_id(tail: str, theirs: str) -> str:
    """The id of the item of a reference, whose tail is given.

    There is one item for each reference and word of the provider, however often the provider repeats it."""
    return f"oi_{tail}.{theirs}"


def open_item(item: OpenItem) -> Changes[OpenItem]:
    return Changes(result=item, records=(item,), events=(EventDraft(type="open_item.created", record=item),))


def explain(item: OpenItem, subject: str, at: Moment) -> Changes[OpenItem]:
    """Close the item of an unexplained operation: its request was repeated, and `subject` has it now."""
    explained = msgspec.structs.replace(
        item,
        status="closed",
        closed_at=at.now,
        closed_by="system",
        resolution="The request was repeated under its Idempotency-Key.",
        subject=subject,
    )
    closing = EventDraft(type="open_item.closed", record=explained, previous=item)
    return Changes(result=explained, records=(explained,), events=(closing,))


def close(item: OpenItem, *, by: str, reason: str, at: Moment) -> Changes[OpenItem]:
    """Refused `open_item_closed` where it is closed already."""
    if item.status == "closed":
        raise Refused("open_item_closed", f"The open item {item.id} was closed already.")
    closed = msgspec.structs.replace(item, status="closed", closed_at=at.now, closed_by=by, resolution=reason)
    return Changes(
        result=closed, records=(closed,), events=(EventDraft(type="open_item.closed", record=closed, previous=item),)
    )
