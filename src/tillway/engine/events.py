"""Events as they are kept: in the audit entry of their commit. The entry's changes have most of their objects.

An event has a row of its own (`evt_`) if a version before made it, or since it was sent again or given up. Then that
row counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from tillway.domain.audit import AuditEntry, holds_secrets
from tillway.domain.comparison import differing_fields
from tillway.domain.event import Delivery, Event, JournalEvent
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import NOTHING, EventDraft, Moment, Record
from tillway.engine.caller import Caller
from tillway.engine.ids import ENTRY_ENDS, PAIRS, SUFFIX_LENGTH
from tillway.store.codec import decode, encode
from tillway.store.port import ABSENT, KEYS_MAX, PAGE_MAX, Row, Store, Write

UNSHOWN = ("attempt", "references")
"""Fields of a payment that the engine works with and no reader sees: where only they differ, an event's object is the
record as written."""

_EMPTY = bytes(NOTHING)

_as_fields = msgspec.json.Decoder(dict[str, Any]).decode


def entry_id_of(id: str) -> str | None:
    """The id of the audit entry of the commit in which that record or event was made; None if its id tells nothing."""
    suffix = id.partition("_")[2]
    return f"aud_{suffix[: -len(ENTRY_ENDS)]}{ENTRY_ENDS}" if len(suffix) == SUFFIX_LENGTH else None


def entry_bound(scope_key: str, event_id: str, order: Literal["newest", "oldest"]) -> str:
    """The key at which entries begin, in `order`, that may hold events beyond this one: its own entry is included."""
    head = f"{scope_key}/aud_{event_id.removeprefix('evt_')[: SUFFIX_LENGTH - len(ENTRY_ENDS)]}"
    return f"{head}~" if order == "newest" else head


def events_of(entry: AuditEntry) -> list[Event]:
    """The events of an entry as they were when it was written, in their order."""
    ids = event_ids(entry.id, len(entry.events))
    return [_event(entry, kept, id) for kept, id in zip(entry.events, ids, strict=True)]


def event_ids(entry_id: str, count: int) -> list[str]:
    """The ids of the events of a commit, in their order: the last ones below the id of its entry."""
    head = entry_id[len("aud_") : -len(ENTRY_ENDS)]
    return [f"evt_{head}{ends}" for ends in _event_ends(count)]


def _event_ends(count: int) -> list[str]:
    return PAIRS[-1 - count : -1]


Written = Mapping[str, tuple[Record, bytes, int | None]]
"""The records of a commit by id, each with its body without a checksum. A new one has its place among the changes of
the entry."""


def keep_event(draft: EventDraft, written: Written) -> JournalEvent:
    """The event as the entry of its commit holds it, without its deliveries."""
    record, previous = draft.record, draft.previous
    after, plain, new_at = written.get(record.id, _NOT_WRITTEN)
    place, differs, whole = 0, _SAME, NOTHING
    if new_at is not None and after is not None and not holds_secrets(after):
        place = new_at
        if after is not record:
            differs = _differing(record, after)
    elif after is record:
        whole = msgspec.Raw(plain)
    else:
        whole = msgspec.Raw(encode(record))
    return JournalEvent(
        type=draft.type,
        change=place,
        differs=differs,
        object=whole,
        previous=NOTHING if previous is None else msgspec.Raw(encode(previous)),
    )


_SAME: dict[str, Any] = {}
_NOT_WRITTEN = (None, b"", None)


class Begun(msgspec.Struct, frozen=True):
    """A delivery that is born claimed: its row as a claim would return it, the task and its event as a commit knows
    them, and the event's object, so that the worker need not read or decode them."""

    row: Row
    seen: dict[str, tuple[int, Record | None]]
    shown: Record


class Born(msgspec.Struct, frozen=True):
    """The deliveries of a commit that are born claimed, each with its write: this process begins them when the commit
    is durable, and others find them when the lease has run out."""

    entry: AuditEntry
    drafts: Sequence[EventDraft]
    deliveries: list[tuple[Delivery, Write]]

    def begun(self) -> list[Begun]:
        begun: list[Begun] = []
        entry = self.entry
        ends = _event_ends(len(entry.events))
        for delivery, write in self.deliveries:
            id = delivery.event
            place = ends.index(id[-len(ENTRY_ENDS) :])
            event = _event(entry, entry.events[place], id)
            seen: dict[str, tuple[int, Record | None]] = {delivery.id: (1, delivery), id: (ABSENT, event)}
            begun.append(Begun(Row(write.key, 1, write.body or b""), seen, self.drafts[place].record))
        return begun


class Places(Protocol):
    """The places in which this process works on deliveries. A commit reserves them before it claims its own."""

    def reserve(self, scope_key: str, count: int) -> bool:
        """Whether so many places were free for that merchant, and now are not."""

    def release(self, scope_key: str, count: int) -> None:
        """Give reserved places back, after the commit or its failure."""

    def begin(self, born: Born) -> None:
        """Begin the deliveries of a commit that is durable."""


def event_of(draft: EventDraft, at: Moment, deliveries: int, caller: Caller) -> Event:
    """The event as a row of its own."""
    return Event(
        id=at.new_id("evt"),
        created=at.created,
        type=draft.type,
        object=msgspec.Raw(encode(draft.record)),
        previous=msgspec.Raw(encode(draft.previous)) if draft.previous is not None else NOTHING,
        request=caller.request_id,
        idempotency_key=caller.idempotency_key,
        deliveries=deliveries,
    )


async def find_event(store: Store, scope_key: str, id: str) -> tuple[int, Event] | None:
    """The event of that id with the version of its own row, 0 where it has none. None if there is no such event."""
    return (await find_events(store, scope_key, [id])).get(id)


async def find_events(store: Store, scope_key: str, ids: Sequence[str]) -> dict[str, tuple[int, Event]]:
    """The events of at most 50 ids by id, each with the version of its own row, 0 where it has none."""
    entries = {id: f"{scope_key}/{entry_id}" for id in ids if (entry_id := entry_id_of(id)) is not None}
    rows = await store.get_many(list(dict.fromkeys([*(f"{scope_key}/{id}" for id in ids), *entries.values()])))
    found: dict[str, tuple[int, Event]] = {}
    for id in ids:
        own, entry = rows.get(f"{scope_key}/{id}"), rows.get(entries.get(id, ""))
        if own is not None:
            kept = decode(id, own.body)
            assert isinstance(kept, Event), f"{id} is not an event"
            found[id] = own.version, kept
        elif entry is not None and (event := _event_in(_entry(entry), id)) is not None:
            found[id] = 0, event
    return found


def _event_in(entry: AuditEntry, id: str) -> Event | None:
    """The event of that id in the entry of its commit."""
    # The id begins as that of the entry does, so its end alone tells the place.
    ends = _event_ends(len(entry.events))
    end = id[-len(ENTRY_ENDS) :]
    return _event(entry, entry.events[ends.index(end)], id) if end in ends else None


async def with_own_rows(store: Store, scope_key: str, events: Sequence[Event]) -> list[Event]:
    """The same events, each as its own row has it if it has one."""
    if not events:
        return []
    keys = [f"{scope_key}/{event.id}" for event in events]
    # Hardly any event has one: a page of the rows in their range costs less than a look for each.
    limit = min(len(keys), PAGE_MAX)
    rows = await store.query(
        None, f"{scope_key}/evt_", after=min(keys)[:-1], until=f"{max(keys)}~", limit=limit, order="oldest"
    )
    found = {row.key: row for row in rows}
    if len(rows) == limit:  # Some of the range may be left, and its rows may be those of other events.
        for start in range(0, len(keys), KEYS_MAX):
            found.update(await store.get_many(keys[start : start + KEYS_MAX]))
    current: list[Event] = []
    for event, key in zip(events, keys, strict=True):
        own = decode(event.id, found[key].body) if key in found else event
        assert isinstance(own, Event), f"{key} is not an event"
        current.append(own)
    return current


def in_all_rows(records: Iterable[Record]) -> dict[str, Event]:
    """All events among the records of a scope, by id."""
    kept: dict[str, Event] = {}
    own: dict[str, Event] = {}
    for record in records:
        if isinstance(record, Event):
            own[record.id] = record
        elif isinstance(record, AuditEntry):
            kept |= {event.id: event for event in events_of(record)}
    return kept | own


def _entry(row: Row) -> AuditEntry:
    entry = decode(row.key.partition("/")[2], row.body)
    assert isinstance(entry, AuditEntry), f"{row.key} is not an entry of the audit trail"
    return entry


def _event(entry: AuditEntry, kept: JournalEvent, id: str) -> Event:
    whole = kept.object
    if bytes(whole) == _EMPTY:
        whole = entry.changes[kept.change].new
        if kept.differs:
            fields = _as_fields(whole)
            whole = msgspec.Raw(msgspec.json.encode({**fields, **kept.differs}))
    return Event(
        id=id,
        created=entry.created,
        type=kept.type,
        object=whole,
        previous=kept.previous,
        request=entry.request,
        idempotency_key=entry.idempotency_key,
        deliveries=kept.deliveries,
    )


def _differing(shown: Record, written: Record) -> dict[str, Any]:
    """The fields of `shown`, under their stored names, that differ from those of `written`."""
    stored = _STORED_NAMES.get(type(shown)) or _stored_names(type(shown))
    differs: dict[str, Any] = {}
    for field in differing_fields(written, shown):
        if field not in UNSHOWN or type(shown) is not PaymentIntent:
            differs[stored[field]] = getattr(shown, field)
    return differs


def _stored_names(kind: type[Record]) -> dict[str, str]:
    names = dict(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
    return _STORED_NAMES.setdefault(kind, names)


_STORED_NAMES: dict[type[Record], dict[str, str]] = {}
"""The names of fields as the store has them, by type and name."""
