"""Redaction of a customer or of a payment: an operator's act that cannot be undone.

It blanks records first, and then their traces: events with a row of their own, answers kept for idempotency keys, and
the audit trail, which holds the events. Each step may be repeated, so a redaction that was cut off is finished by
sending it again. The chain of the trail stays as it was linked; `domain/redaction.py` has the proof that stands beside
each entry that is redacted.
"""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from typing import Any

import msgspec

from tillway.domain.alias import Alias, alias_id
from tillway.domain.audit import AuditEntry, leaf_of
from tillway.domain.charge import Charge
from tillway.domain.customer import Customer
from tillway.domain.dispute import FILE_EVIDENCE, Dispute
from tillway.domain.event import Event
from tillway.domain.file import File, FileChunk, chunk_id
from tillway.domain.idempotency import IdempotencyRecord
from tillway.domain.order import Order
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.payout import Payout
from tillway.domain.record import NO_CHANGES, Changes, Moment, Record
from tillway.domain.redaction import (
    Redacted,
    hide_in_answer,
    hide_in_event,
    redacted_id,
    redaction_text,
    without_personal,
    without_personal_text,
)
from tillway.domain.refund import Refund
from tillway.domain.refusal import Refused
from tillway.domain.setup_intent import SetupIntent
from tillway.engine.caller import Caller
from tillway.engine.core import Load
from tillway.engine.ids import time_prefix
from tillway.engine.platform import Platform
from tillway.engine.webhooks.delivery_log import hide_answers
from tillway.operations import customers
from tillway.store.codec import by_customer, by_kind, by_parent, decode, write_of
from tillway.store.port import ABSENT, Conflict, Row
from tillway.store.walk import pages_of, rows_of

RECORDS_PER_COMMIT = 20
ENTRIES_PER_COMMIT = 40
"""Each has two writes, its own and its proof, and the redaction's entry is one more of a commit's 100."""

PAGE_ROWS = 200
TRIES_MAX = 20

BEFORE_SECONDS = 86_400
"""How long before its first record a subject may be named in the trail: clocks differ by minutes."""


class Redaction(msgspec.Struct):
    """The counts of one redaction: records, events, answers of keys, entries of the trail, logged requests, and answers
    of webhook endpoints."""

    subject: str
    records: int = 0
    events: int = 0
    answers: int = 0
    entries: int = 0
    requests: int = 0
    deliveries: int = 0
    ids: frozenset[str] = frozenset()
    """The ids of the subject and of its records, those that the store has forgotten included."""

    def mentions(self, body: bytes) -> bool:
        """Whether one of the records is named in `body`, in quotation marks."""
        return _mentions(body, self.ids)

    def document(self) -> dict[str, Any]:
        shown = {name: getattr(self, name) for name in self.__struct_fields__ if name != "ids"}
        return {"object": "redaction", **shown}


async def redact_customer(platform: Platform, caller: Caller, id: str) -> Redaction:
    """Delete a customer and take all personal data about it out of the store.

    Refused `redaction_waits` while money of the customer is under way, and `customer_has_credit`.
    """
    load = platform.engine.load(caller.scope_key)
    customer = await load.get(Customer, id)
    found = [record async for record in _of_customer(platform, caller, customer)]
    _refuse_open(found)
    if not customer.deleted:
        await customers.delete(platform, _once(caller), id)
    return await _redact(platform, caller, customer, found)


async def redact_payment(platform: Platform, caller: Caller, id: str) -> Redaction:
    """Take all personal data about a payment out of the store, as for a customer. Its customer, if any, stays."""
    load = platform.engine.load(caller.scope_key)
    payment = await load.get(PaymentIntent, id, noun="payment")
    found = [record async for record in _of_payment(platform, load, payment)]
    _refuse_open([payment, *found])
    return await _redact(platform, caller, payment, found)


async def _redact(platform: Platform, caller: Caller, subject: Record, found: Sequence[Record]) -> Redaction:
    done, load = Redaction(subject.id), platform.engine.load(caller.scope_key)
    ids = {subject.id: subject, **{record.id: record for record in found}}
    for prefix in ("tok_", "ctoken_"):
        async for token in rows_of(platform.store, f"{caller.scope_key}/{prefix}"):
            if _mentions(token.body, ids.keys()):
                ids[token.key.partition("/")[2]] = _record(token)
    async for file in _evidence_of(platform, load, found):
        ids[file.id] = file
    begun = min(record.created for record in ids.values())
    done.records = await _blank_records(platform, caller, list(ids))
    done.entries, named, known = await _blank_trail(platform, caller, subject.id, ids, begun)
    done.events = await _blank_events(platform, caller.scope_key, known)
    done.answers = await _blank_answers(platform, caller.scope_key, known)
    done.ids = frozenset(known)
    await platform.webhooks.tries.catch_up(servers=True)
    done.deliveries = await hide_answers(platform.store, caller.scope_key, named)
    return done


# The subject's records.


async def _of_customer(platform: Platform, caller: Caller, customer: Customer) -> AsyncIterator[Record]:
    store, scope_key = platform.store, caller.scope_key
    load = platform.engine.load(scope_key)
    name = customer.metadata.get("customer_id")
    alias = await load.maybe(Alias, alias_id("customer", name)) if name is not None else None
    if alias is not None and alias.target == customer.id:
        yield alias
    seen: set[str] = set()
    for prefix in ("pm", "seti", "pi", "ch", "po", "cs"):
        async for row in rows_of(store, by_customer(scope_key, prefix, customer.id), index="customer"):
            record = _record(row)
            if record.id in seen:
                continue
            async for each in _with_its_own(platform, load, record):
                if each.id not in seen:
                    seen.add(each.id)
                    yield each
    for prefix in ("cbtxn", "ccsbtxn"):
        async for row in rows_of(store, by_parent(scope_key, prefix, customer.id), index="parent"):
            yield _record(row)


async def _with_its_own(platform: Platform, load: Load, record: Record) -> AsyncIterator[Record]:
    """A record of a customer, with those that hang on it."""
    match record:
        case PaymentIntent():
            yield record
            async for each in _of_payment(platform, load, record):
                yield each
        case Charge():
            payment = await load.maybe(PaymentIntent, record.payment)
            if payment is not None:
                yield payment
                async for each in _of_payment(platform, load, payment):
                    yield each
            yield record
            async for each in _of_charge(platform, load, record):
                yield each
        case SetupIntent():
            yield record
            async for row in rows_of(platform.store, by_parent(load.scope_key, "setatt", record.id), index="parent"):
                yield _record(row)
            async for each in _find_all(load, record.method, record.mandate):
                yield each
        case PaymentMethod():
            yield record
            async for each in _find_all(load, record.mandate):
                yield each
        case _:
            yield record


async def _of_payment(platform: Platform, load: Load, payment: PaymentIntent) -> AsyncIterator[Record]:
    """The records that hang on a payment: its charges with theirs, its session, its order, and its method."""
    async for row in rows_of(platform.store, by_parent(load.scope_key, "ch", payment.id), index="parent"):
        charge = _record(row)
        assert isinstance(charge, Charge)
        yield charge
        async for each in _of_charge(platform, load, charge):
            yield each
    latest = await load.maybe(Charge, payment.latest_charge)
    if latest is not None:
        yield latest
        async for each in _of_charge(platform, load, latest):
            yield each
    async for row in rows_of(platform.store, by_kind(load.scope_key, "cs", payment.id), index="kind"):
        yield _record(row)
    async for each in _find_all(load, payment.order):
        yield each
    method = await load.maybe(PaymentMethod, payment.method)
    if method is not None and method.customer in (None, payment.customer):
        yield method


async def _of_charge(platform: Platform, load: Load, charge: Charge) -> AsyncIterator[Record]:
    for prefix in ("re", "du"):
        async for row in rows_of(platform.store, by_parent(load.scope_key, prefix, charge.id), index="parent"):
            yield _record(row)
    method = await load.maybe(PaymentMethod, charge.method)
    if method is not None and method.customer in (None, charge.customer):
        yield method
    async for each in _find_all(load, charge.mandate):
        yield each


async def _evidence_of(platform: Platform, load: Load, found: Sequence[Record]) -> AsyncIterator[Record]:
    """The files that are evidence in the disputes among `found`, with their bytes. A file that another dispute names
    too stays: it is about others as well."""
    disputes = [record for record in found if isinstance(record, Dispute)]
    files = {id for dispute in disputes for name in FILE_EVIDENCE if (id := dispute.evidence.get(name))}
    if not files:
        return
    theirs = {dispute.id for dispute in disputes}
    async for row in rows_of(platform.store, f"{load.scope_key}/du_"):
        if row.key.partition("/")[2] not in theirs and _mentions(row.body, files):
            other = _record(row)
            assert isinstance(other, Dispute)
            files -= set(other.evidence.values())
    for id in sorted(files):
        file = await load.maybe(File, id)
        if file is not None:
            yield file
            for number in range(file.chunks):
                async for chunk in _find_all(load, chunk_id(id, number)):
                    yield chunk


async def _find_all(load: Load, *ids: str | None) -> AsyncIterator[Record]:
    for id in ids:
        record = await load.find(id) if id is not None else None
        if record is not None:
            yield record


def _record(row: Row) -> Record:
    return decode(row.key.partition("/")[2], row.body)


def _refuse_open(found: Sequence[Record]) -> None:
    """Raise Refused `redaction_waits` while a provider may still be asked, or a dispute needs its evidence."""
    for record in found:
        busy = isinstance(record, PaymentIntent | Refund | Payout) and record.attempt is not None
        busy = busy or (isinstance(record, PaymentIntent) and record.status == "requires_capture")
        busy = busy or (isinstance(record, Dispute) and record.status not in ("won", "lost", "warning_closed"))
        busy = busy or (isinstance(record, Order) and not record.ended)
        if busy:
            raise Refused(
                "redaction_waits", f"{record.id} is under way. Send the redaction again when it has ended.", param="id"
            )


# Records.


async def _blank_records(platform: Platform, caller: Caller, ids: Sequence[str]) -> int:
    count = 0
    for begin in range(0, len(ids), RECORDS_PER_COMMIT):
        some = ids[begin : begin + RECORDS_PER_COMMIT]
        blanked: list[str] = []

        async def work(
            load: Load, at: Moment, some: Sequence[str] = some, blanked: list[str] = blanked
        ) -> Changes[None]:
            found = [await load.find(id) for id in some]
            gone = tuple(record.id for record in found if isinstance(record, Alias | FileChunk))
            kept = [record for record in found if record is not None and not isinstance(record, Alias | FileChunk)]
            blank = [_blank(record) for record in kept]
            changed = tuple(after for before, after in zip(kept, blank, strict=True) if after != before)
            blanked[:] = [*(record.id for record in changed), *gone]
            return Changes(result=None, records=changed, deletes=gone)

        await platform.engine.run(_once(caller), work)
        count += len(blanked)
    return count


def _blank(record: Record) -> Record:
    after = without_personal(record)
    match record:
        case File():
            return msgspec.structs.replace(after, chunks=0)
        case Dispute():
            # A redaction that is sent again finds the files by it.
            named = {name: id for name, id in record.evidence.items() if name in FILE_EVIDENCE}
            return msgspec.structs.replace(after, evidence=named)
        case _:
            return after


def _once(caller: Caller) -> Caller:
    """The caller without its Idempotency-Key: a redaction is many commits, and may be sent again."""
    return msgspec.structs.replace(caller, idempotency=None)


# Traces.

_IDS = re.compile(rb'"([a-z]{2,7}_[0-9A-Za-z]{4,40})"')


def _mentions(body: bytes, ids: Collection[str]) -> bool:
    """Whether a row's body names one of the records."""
    return any(found.decode() in ids for found in _IDS.findall(body))


async def _blank_events(platform: Platform, scope_key: str, ids: Collection[str]) -> int:
    """Blank the events that have a row of their own. The trail's comparison leaves these rows out."""

    def blank(record: Record) -> Record:
        assert isinstance(record, Event)
        return hide_in_event(record, ids)

    return await _rewrite(platform, f"{scope_key}/evt_", ids, blank)


async def _blank_answers(platform: Platform, scope_key: str, ids: Collection[str]) -> int:
    """Blank the answers that are kept for idempotency keys. A repeat gets the object without its personal data."""

    def blank(record: Record) -> Record:
        assert isinstance(record, IdempotencyRecord)
        return msgspec.structs.replace(record, body=hide_in_answer(record.body, ids)) if record.status else record

    return await _rewrite(platform, f"{scope_key}/idem_", ids, blank)


async def _rewrite(platform: Platform, head: str, ids: Collection[str], blank: Callable[[Record], Record]) -> int:
    count, scope_key = 0, head.partition("/")[0]
    async for page in pages_of(platform.store, head, page=PAGE_ROWS):
        for row in page:
            if not _mentions(row.body, ids):
                continue
            current: Row | None = row
            for _ in range(TRIES_MAX):
                if current is None:
                    break
                before = _record(current)
                after = blank(before)
                if after == before:
                    break
                try:
                    await platform.store.commit([write_of(scope_key, after, current.version)])
                    count += 1
                    break
                except Conflict:
                    current = await platform.store.get(row.key)
        await asyncio.sleep(0)
    return count


async def _blank_trail(
    platform: Platform, caller: Caller, subject: str, ids: Iterable[str], begun: int
) -> tuple[int, set[str], set[str]]:
    """Redact the entries of the trail, those of this redaction included, oldest first. Returns their number, the ids of
    all entries that name one of the records, and `ids` with those of the confirmation tokens that were found."""
    scope_key, store = caller.scope_key, platform.store
    head = f"{scope_key}/aud_"
    after = f"{head}{time_prefix(max(begun - BEFORE_SECONDS, 0))}"
    count, known, all_named = 0, set(ids), set[str]()
    async for page in pages_of(store, head, after=after, page=PAGE_ROWS):
        named = [row.key[len(scope_key) + 1 :] for row in page if _mentions(row.body, known)]
        all_named.update(named)
        for begin in range(0, len(named), ENTRIES_PER_COMMIT):
            some = named[begin : begin + ENTRIES_PER_COMMIT]
            redacted, known = await _redact_entries(platform, caller, subject, known, some)
            count += redacted
        await asyncio.sleep(0)
    return count, all_named, known


async def _redact_entries(
    platform: Platform, caller: Caller, subject: str, ids: Collection[str], entries: Sequence[str]
) -> tuple[int, set[str]]:
    """Replace entries by their redacted form, each with its proof, in one commit with an entry that tells of them.
    Returns the number of those that changed, and `ids` with those of the confirmation tokens in them that the store has
    forgotten."""
    told: dict[str, str] = {}
    known = set(ids)

    async def work(load: Load, at: Moment) -> Changes[None]:
        told.clear()
        written: list[Record] = []
        for id in entries:
            entry = await load.get(AuditEntry, id)
            tokens = [change for change in entry.changes if change.id.startswith("ctoken_")]
            known.update(token.id for token in tokens if _mentions(bytes(token.new), known))
            hidden = without_personal_text(entry, known)
            if hidden is entry:
                continue
            leaf = leaf_of(id, write_of(load.scope_key, hidden, ABSENT).body or b"")
            told[id] = leaf.hex()
            await load.find(redacted_id(id))
            proof = Redacted(id=redacted_id(id), created=at.created, by=at.entry, leaf=leaf)
            written += [hidden, _sign(platform, load.scope_key, id, proof)]
        if not told:
            return NO_CHANGES
        return Changes(result=None, records=tuple(written), detail={"redacted": dict(told), "subject": subject})

    await platform.engine.run(_once(caller), work)
    return len(told), known


def _sign(platform: Platform, scope_key: str, entry: str, proof: Redacted) -> Redacted:
    if platform.signer is None:
        return proof
    text = redaction_text(scope_key, entry, proof.leaf, proof.by)
    return msgspec.structs.replace(proof, signer=platform.signer.public, signature=platform.signer.sign(text))
