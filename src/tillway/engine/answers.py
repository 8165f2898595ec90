"""The answer of a key that follows from its payment: the record of the key is written once, when the request begins.

The commit that settles the attempt with success has the payment among its events, as the answer shows it, and the
payment names the audit entry of that commit. Every other answer stands in the record of its key.
"""

from typing import Any, Protocol

import msgspec

from tillway.domain.audit import AuditEntry
from tillway.domain.idempotency import IdempotencyRecord
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import Changes, Moment, Record
from tillway.engine.events import events_of
from tillway.store.codec import decode

SETTLED_MAX = 100
"""The most commits of a payment through which the one of an attempt is looked for."""


class Records(Protocol):
    """The records of a scope, as `Load` reads them."""

    async def find(self, id: str) -> Record | None: ...


def will_follow(changes: Changes[Any], at: Moment) -> bool:
    """Whether the answer with the result of `changes` will follow from the audit entry of their commit."""
    payment = changes.result
    return (
        isinstance(payment, PaymentIntent)
        and changes.refusal is None
        and payment.settled_in == at.entry
        and any(draft.record is payment for draft in changes.events)
    )


async def is_settled(records: Records, held: IdempotencyRecord) -> bool:
    """Whether the attempt of a key was settled in an earlier commit."""
    payment = await records.find(held.subject)
    return isinstance(payment, PaymentIntent) and payment.attempt != held.begun


async def answered_with(records: Records, held: IdempotencyRecord) -> PaymentIntent | None:
    """The payment that the answer of a key shows, as it was then; None if no commit has settled the attempt."""
    if not held.begun or not await is_settled(records, held):
        return None
    payment = await records.find(held.subject)
    assert isinstance(payment, PaymentIntent)
    place = payment.settled_in
    for _ in range(SETTLED_MAX):
        entry = await records.find(place) if place is not None else None
        if not isinstance(entry, AuditEntry):
            return None
        fields = next((change.changed for change in entry.changes if change.id == held.subject), {})
        if fields.get("attempt", (None, None))[0] == held.begun:
            return _shown_in(entry, held.subject)
        place = fields.get("settled_in", (None, None))[0]
    return None


class _Identified(msgspec.Struct):
    id: str


_identify = msgspec.json.Decoder(_Identified).decode


def _shown_in(entry: AuditEntry, id: str) -> PaymentIntent | None:
    for event in reversed(events_of(entry)):
        if _identify(event.object).id == id:
            payment = decode(id, bytes(event.object))
            return payment if isinstance(payment, PaymentIntent) else None
    return None
