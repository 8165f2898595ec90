"""The answer of a key that follows from its payment: the record of the key is written once, when the request begins.

The commit that settles the attempt with success has the payment among its events, as the answer shows it. Where it
took the money at once, the charge names its balance transaction, and else the payment names the audit entry of that
commit. Every other answer stands in the record of its key, also that of an attempt which another connector's followed:
the key knows only the first.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import msgspec

from tillway.domain.audit import AuditEntry
from tillway.domain.charge import Charge
from tillway.domain.idempotency import IdempotencyRecord
from tillway.domain.payment_intent import PaymentIntent, charge_id_of
from tillway.domain.record import Changes, Moment, Record
from tillway.engine.events import entry_id_of, events_of
from tillway.engine.ids import SUFFIX_LENGTH
from tillway.store.codec import decode

SETTLED_MAX = 100
"""The most commits of a payment through which the one of an attempt is looked for."""


class Records(Protocol):
    """The records of a scope, as `Load` reads them."""

    async def find(self, id: str) -> Record | None: ...


def will_follow(changes: Changes[Any], held: IdempotencyRecord, at: Moment) -> bool:
    """Whether the answer with the result of `changes` will follow from the audit entry of their commit."""
    payment = changes.result
    if not isinstance(payment, PaymentIntent) or changes.refusal is not None or _went_on(payment):
        return False
    if payment.settled_in != at.entry:
        taken = _entry_of_answer(changes.records, held)
        # Is `entry_id_of(taken)` the commit's? The ids of a commit differ in their prefixes and last two characters.
        if taken is None or taken[-SUFFIX_LENGTH:-2] != at.entry[-SUFFIX_LENGTH:-2]:
            return False
    for draft in changes.events:  # noqa: SIM110 - every payment comes here, and a generator costs more.
        if draft.record is payment:
            return True
    return False


def _entry_of_answer(records: Iterable[Record | None], held: IdempotencyRecord) -> str | None:
    """The ledger entry with which a charge among the records took the money of a key's attempt at once."""
    charge_id = charge_id_of(held.begun)
    for record in records:
        if record is not None and record.id == charge_id and isinstance(record, Charge) and record.entry is not None:
            return record.entry
    return None


async def is_settled(records: Records, held: IdempotencyRecord) -> bool:
    """Whether the attempt of a key was settled in an earlier commit."""
    payment = await records.find(held.subject)
    if not isinstance(payment, PaymentIntent) or payment.attempt == held.begun:
        return False
    return payment.attempt is None or not _went_on(payment)


def _went_on(payment: PaymentIntent) -> bool:
    """Whether an attempt of the payment was followed by one at another connector."""
    return payment.route is not None and bool(payment.route.tried)


async def answered_with(records: Records, held: IdempotencyRecord) -> PaymentIntent | None:
    """The payment that the answer of a key shows, as it was then; None if no commit has settled the attempt."""
    if not held.begun or not await is_settled(records, held):
        return None
    payment = await records.find(held.subject)
    assert isinstance(payment, PaymentIntent)
    taken = _entry_of_answer((await records.find(charge_id_of(held.begun)),), held)
    place = entry_id_of(taken) if taken is not None else None
    if place is not None:
        entry = await records.find(place)
        if isinstance(entry, AuditEntry) and _settles(entry, held):
            return _payment_of_event(entry, held.subject)
    place = payment.settled_in
    for _ in range(SETTLED_MAX):
        entry = await records.find(place) if place is not None else None
        if not isinstance(entry, AuditEntry):
            return None
        if _settles(entry, held):
            return _payment_of_event(entry, held.subject)
        place = _fields_changed(entry, held.subject).get("settled_in", (None, None))[0]
    return None


def _settles(entry: AuditEntry, held: IdempotencyRecord) -> bool:
    """Whether the commit of an entry settled the attempt of a key."""
    return bool(_fields_changed(entry, held.subject).get("attempt", (None, None))[0] == held.begun)


def _fields_changed(entry: AuditEntry, id: str) -> Mapping[str, tuple[Any, Any]]:
    return next((change.changed for change in entry.changes if change.id == id), {})


class _Identified(msgspec.Struct):
    id: str


_identify = msgspec.json.Decoder(_Identified).decode


def _payment_of_event(entry: AuditEntry, id: str) -> PaymentIntent | None:
    for event in reversed(events_of(entry)):
        if _identify(event.object).id == id:
            payment = decode(id, bytes(event.object))
            return payment if isinstance(payment, PaymentIntent) else None
    return None
